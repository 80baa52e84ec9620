// The viewer: an image, what fills it at any threshold, and outlines. Run by the page's HTML
// component, which gives `element`, `props` and `watch`.
const find = (name) => element.querySelector(`.rt-${name}`);
const YELLOW = 0xff00c4ff, WHITE = 0xffffffff; // ABGR
const state = { view: null, score: null, rings: [], size: [0, 0], threshold: 0, asked: null, mode: "overlay", opacity: 0.45 };
const PER_PX = 16; // points of outlines for each pixel of the picture
const place = { zoom: 1, x: 0, y: 0 };

function paint() {
  const canvas = find("fill"), stage = find("stage");
  if (!canvas || !state.score) return;
  const [width, height] = state.size;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = state.size;
  const context = canvas.getContext("2d");
  let filled = 0;
  if (state.view.kind === "score") {
    const made = context.createImageData(width, height);
    const pixels = new Uint32Array(made.data.buffer);
    const colour = state.mode === "mask" ? WHITE : YELLOW;
    const least = Math.max(state.threshold * 255, 1e-6);
    for (let i = 0; i < pixels.length; i++) {
      if (state.score[i] >= least) { pixels[i] = colour; filled++; }
    }
    context.putImageData(made, 0, 0);
  } else {
    context.clearRect(0, 0, width, height);
    context.drawImage(state.score, 0, 0);
  }
  stage.dataset.filled = filled;
  stage.dataset.threshold = state.threshold;
}

function trace() {
  const canvas = find("outlines"), layers = find("layers"), frame = layers?.parentElement;
  if (!canvas || !frame.clientWidth) return;
  const dense = window.devicePixelRatio || 1;
  const [width, height] = [frame.clientWidth * dense, frame.clientHeight * dense].map(Math.round);
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  if (!state.view) return;
  // What a pixel of the picture is on the screen.
  const shown = layers.clientWidth * place.zoom / state.size[0] * dense;
  const [x, y] = [(layers.offsetLeft + place.x) * dense, (layers.offsetTop + place.y) * dense];
  context.setTransform(shown / PER_PX, 0, 0, shown / PER_PX, x, y);
  context.lineJoin = "round";
  context.lineWidth = Math.min(2.2, Math.max(1.1, 1.6 * shown / dense)) * dense / shown * PER_PX;
  for (const [colour, path] of state.rings) {
    context.strokeStyle = colour;
    context.stroke(path);
  }
}

async function rings(url, colours) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(url);
  const data = await answer.arrayBuffer();
  const count = new DataView(data).getUint32(0, true);
  const lengths = new Uint32Array(data, 4, count);
  const points = lengths.reduce((sum, length) => sum + length, 0);
  const xy = new Int16Array(data, 4 + 4 * count, 2 * points);
  const which = new Uint8Array(data, 4 + 4 * count + 4 * points, count);
  const paths = new Map();
  let at = 0;
  for (let ring = 0; ring < count; ring++) {
    if (!paths.has(which[ring])) paths.set(which[ring], new Path2D());
    const path = paths.get(which[ring]);
    for (let point = 0; point < lengths[ring]; point++, at += 2) {
      if (point) path.lineTo(xy[at], xy[at + 1]);
      else path.moveTo(xy[at], xy[at + 1]);
    }
    path.closePath();
  }
  return [...paths].sort(([a], [b]) => a - b).map(([colour, path]) => [colours[colour], path]);
}

function dress() {
  const stage = find("stage");
  if (!stage) return;
  stage.dataset.mode = state.mode;
  find("fill").style.opacity = state.mode === "mask" ? 1 : state.opacity;
}

function measure() {
  const bar = find("scalebar"), layers = find("layers");
  if (!bar || !state.view) return;
  const metres = state.view.metres_per_px;
  bar.hidden = !metres;
  if (!metres) return;
  const shown = layers.clientWidth * place.zoom / state.size[0]; // screen pixels of one of the picture
  const most = find("stage").clientWidth / 5 / shown * metres;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].find((step) => step * power <= most * 1.0001) * power;
  bar.querySelector("i").style.width = `${length / metres * shown}px`;
  bar.querySelector("span").textContent = length >= 1000 ? `${length / 1000} km` : `${+length.toPrecision(3)} m`;
}

function move() {
  const layers = find("layers");
  if (!layers) return;
  const spare = (side) => side * (place.zoom - 1);
  place.x = Math.min(0, Math.max(-spare(layers.clientWidth), place.x));
  place.y = Math.min(0, Math.max(-spare(layers.clientHeight), place.y));
  layers.style.transform = `translate(${place.x}px, ${place.y}px) scale(${place.zoom})`;
  layers.classList.toggle("rt-near", layers.clientWidth * place.zoom > 2.5 * state.size[0]);
  find("stage").classList.toggle("rt-zoomed", place.zoom > 1);
  measure();
  trace();
}

function zoom(factor, x, y) {
  const layers = find("layers");
  const to = Math.min(16, Math.max(1, place.zoom * factor));
  x ??= layers.clientWidth / 2;
  y ??= layers.clientHeight / 2;
  place.x = x - (x - place.x) * to / place.zoom;
  place.y = y - (y - place.y) * to / place.zoom;
  place.zoom = to;
  move();
}

function load(url) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => failed(new Error(url));
    image.src = url;
  });
}

function scores(image) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const grey = new Uint8Array(rgba.length / 4);
  for (let i = 0; i < grey.length; i++) grey[i] = rgba[4 * i];
  return grey;
}

async function show(view) {
  const before = state.view;
  state.view = view;
  const stage = find("stage"), empty = find("empty");
  stage.hidden = !view;
  empty.hidden = Boolean(view);
  if (!view) { state.score = null; return; }
  try {
    const another = !before || before.picture !== view.picture;
    if (another) {
      stage.dataset.state = "loading";
      const [picture, fill] = await Promise.all([load(view.picture), load(view.fill)]);
      if (state.view !== view) return;
      state.size = [picture.naturalWidth, picture.naturalHeight];
      state.score = view.kind === "score" ? scores(fill) : fill;
      const layers = find("layers");
      layers.style.setProperty("--ratio", state.size[0] / state.size[1]);
      find("picture").src = view.picture;
      find("picture").alt = `${view.name}, seen from above`;
      Object.assign(place, { zoom: 1, x: 0, y: 0 });
      state.asked = null;
      state.rings = [];
    }
    // An answer to where the slider was before is not what is looked at now.
    const late = state.asked !== null && Math.abs(state.asked - view.threshold) > 1e-9;
    if (!late && view.threshold !== null) [state.threshold, state.asked] = [view.threshold, null];
    paint();
    dress();
    move();
    const made = await rings(view.outlines, view.colours);
    if (state.view !== view) return;
    state.rings = made;
    trace();
    stage.dataset.outlines = view.outlines;
    stage.dataset.state = state.asked === null ? "ready" : "deciding";
  } catch (error) {
    stage.dataset.state = "gone";
  }
}

element.addEventListener("click", (event) => {
  const asked = event.target.closest("[data-zoom]")?.dataset.zoom;
  if (asked === "in") zoom(1.6);
  if (asked === "out") zoom(1 / 1.6);
  if (asked === "all") { Object.assign(place, { zoom: 1, x: 0, y: 0 }); move(); }
});
element.addEventListener("wheel", (event) => {
  if (!state.view || !(event.ctrlKey || event.metaKey) || !event.target.closest(".rt-layers")) return;
  event.preventDefault();
  const box = find("layers").parentElement.getBoundingClientRect();
  zoom(2 ** (-event.deltaY / 200), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });
element.addEventListener("dblclick", (event) => {
  if (!event.target.closest(".rt-layers")) return;
  const box = find("layers").parentElement.getBoundingClientRect();
  zoom(2, event.clientX - box.left, event.clientY - box.top);
});
let held = null;
element.addEventListener("pointerdown", (event) => {
  if (place.zoom === 1 || !event.target.closest(".rt-layers")) return;
  held = [event.clientX - place.x, event.clientY - place.y];
  event.preventDefault();
});
window.addEventListener("pointermove", (event) => {
  if (!held) return;
  [place.x, place.y] = [event.clientX - held[0], event.clientY - held[1]];
  move();
});
window.addEventListener("pointerup", () => { held = null; });
new ResizeObserver(move).observe(element);

// Files that are dropped on the stage go to the field for files.
function give(files) {
  const input = document.querySelector('#rt-files input[type="file"]');
  if (!input || !files.length) return;
  const transfer = new DataTransfer();
  for (const file of files) transfer.items.add(file);
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}
for (const name of ["dragover", "dragleave", "drop"]) {
  element.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    element.classList.toggle("rt-over", name === "dragover");
    if (name === "drop") give([...event.dataTransfer.files]);
  });
}

window.rooftrace = {
  threshold(value) {
    if (!state.view || state.view.kind !== "score") return;
    state.threshold = state.asked = value;
    if (find("stage").dataset.state === "ready") find("stage").dataset.state = "deciding";
    paint();
  },
  opacity(value) { state.opacity = value / 100; dress(); },
  mode(value) { state.mode = value.toLowerCase(); paint(); dress(); },
};
watch("value", () => show(props.value));
show(props.value);
