// The Gradio demo: a place to drop an image, and the viewer. Gradio's controls call `window.rooftrace`.

import { createViewer } from "./viewer.js";

export function createDemo(element) {
  element.innerHTML = `
    <div class="rt-drop">
      <label class="rt-pick">Drop an image here, or choose a file<input type="file" id="rt-file"></label>
      <button type="button" id="rt-example">Try an example: a town</button>
    </div><div class="rt-host"></div>`;
  const viewer = createViewer(element.querySelector(".rt-host"));
  let file = null, options = {};

  async function run(chosen = file) {
    if (!chosen) return viewer.say("Choose an image first, or drop one here.");
    file = chosen;
    const given = Object.entries(options).map(([name, value]) => [name, value.trim()]).filter(([, value]) => value);
    await viewer.run(file, Object.fromEntries(given));
  }

  element.querySelector("#rt-file").addEventListener("change", (event) => run(event.target.files[0]));
  element.querySelector("#rt-example").addEventListener("click", async () => {
    const answer = await fetch(new URL("home/examples/town.tif", document.baseURI));
    run(new File([await answer.blob()], "town.tif"));
  });
  for (const name of ["dragover", "dragleave", "drop"]) {
    element.addEventListener(name, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      element.classList.toggle("rt-over", name === "dragover");
      if (name === "drop") run(event.dataTransfer.files[0]);
    });
  }
  window.rooftrace = {
    ...viewer,
    again({ gsd, bands, stretch }) {
      options = { gsd: gsd.replace(",", "."), bands, stretch };
      run();
    },
  };
}
