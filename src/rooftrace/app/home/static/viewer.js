// A prediction that is shown at once: the image, its fill at any threshold, outlines, figures and downloads.

import { number, percent } from "./ui.js";
import { inPageTerms, NO_ANSWER, sentence } from "../../words.js";

const PAGE = new URL("page/", document.baseURI).href;
const WAIT_MS = 150; // after the last move of the threshold

const STAGE = `
<div class="rt-viewer">
  <p class="rt-status" hidden></p>
  <div class="rt-busy" role="status" hidden><img alt=""><span></span><small aria-hidden="true"></small></div>
  <div class="rt-stage" data-mode="overlay" data-state="empty" hidden>
    <div class="rt-frame">
      <div class="rt-layers">
        <img class="rt-picture" alt="" draggable="false">
        <canvas class="rt-fill" aria-hidden="true"></canvas>
      </div>
      <canvas class="rt-outlines" aria-hidden="true"></canvas>
      <div class="rt-scalebar" hidden><span></span><i></i></div>
      <div class="rt-zoom" role="group" aria-label="Zoom">
        <button type="button" data-zoom="in" aria-label="Zoom in" title="Zoom in (or Ctrl and the wheel)">+</button>
        <button type="button" data-zoom="out" aria-label="Zoom out" title="Zoom out">−</button>
        <button type="button" data-zoom="all" aria-label="Show all" title="Show all">⤢</button>
      </div>
    </div>
    <p class="rt-gone" role="alert">This result has expired. Drop the image again.</p>
  </div>
  <dl class="rt-figures"></dl>
  <div class="rt-foot"></div>
</div>`;

// Build a viewer in an element. `change` is called with the note about bands that a person wants to change.
export function createViewer(element, { change } = {}) {
element.innerHTML = STAGE;
const find = (name) => element.querySelector(`.rt-${name}`);
const YELLOW = 0xff00c4ff, WHITE = 0xffffffff; // ABGR
const state = { view: null, score: null, rings: [], size: [0, 0], threshold: 0, asked: null, mode: "overlay" };
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
  find("fill").style.opacity = state.mode === "mask" ? 1 : 0.45;
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
  const stage = find("stage");
  stage.hidden = !view;
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


function say(text, kind = "note") {
  const line = find("status");
  line.hidden = !text;
  line.className = `rt-status ${kind}`;
  line.setAttribute("role", kind === "error" ? "alert" : "status");
  line.textContent = text;
}

const part = (tag, text, name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });

function figures({ figures: of, built_up, shape, threshold }) {
  const area = of.gsd_m && of.built_up_share * of.valid_pixels * of.gsd_m ** 2;
  const cells = [
    ["buildings", number(of.buildings), threshold === null ? "" : `at a threshold of ${number(threshold, 3).replace(/0+$/, "").replace(/\.$/, "")}`, "buildings"],
    ["built up", built_up, !area ? "of the valid pixels" : area < 1e4 ? `${number(area)} m²` : `${number(area / 1e4, 1)} ha`, "share"],
    ["density", of.density ?? "no pixel is valid", "dense from 20 % built up", `density ${of.density ?? ""}`],
    ["scale", of.gsd_m ? `${+of.gsd_m.toPrecision(3)} m/px` : "not known", `${number(shape[1])} × ${number(shape[0])} px`, "scale"],
  ];
  find("figures").replaceChildren(...cells.map(([title, value, more, kind]) => {
    const cell = part("div", "", `rt-figure ${kind}`);
    cell.append(part("dt", title), part("dd", value), part("dd", more, "more"));
    return cell;
  }));
}

function foot({ downloads, colours, kind, figures: of, ramp }) {
  const files = part("nav", "", "rt-downloads"), legend = part("div", "", "rt-legend");
  files.setAttribute("aria-label", "Downloads");
  files.append(part("b", "Download"), ...Object.entries(downloads).map(([name, [label, url]]) => {
    const link = part("a", label);
    Object.assign(link, { href: url, download: "" });
    link.dataset.kind = name;
    return link;
  }));
  const swatch = (style, name) => {
    const mark = part("i", "", name);
    mark.style.background = style;
    return mark;
  };
  if (kind === "score") legend.append(part("span", "confidence"), part("span", ramp.low), swatch(`linear-gradient(to right, ${ramp.colours.join(", ")})`, "rt-ramp"), part("span", "1"));
  else legend.append(...of.classes.filter((one) => one.class_id && one.pixels).map((one) => {
    const entry = part("span", `${one.name} ${percent(one.share)}`);
    entry.prepend(swatch(colours[one.class_id], "rt-swatch"));
    return entry;
  }));
  find("foot").replaceChildren(files, legend);
}

function notes({ figures: { notes: texts } }) {
  say(inPageTerms(texts.join(" ")));
  if (!texts.length || !change) return;
  const button = part("button", "change", "rt-change");
  button.type = "button";
  button.onclick = change;
  find("status").append(" ", button);
}

async function request(url, options) {
  const answer = await fetch(url, options).catch(() => { throw new Error(NO_ANSWER); });
  const data = await answer.json().catch(() => ({}));
  if (answer.ok) return data;
  const wait = answer.headers.get("Retry-After");
  const error = new Error((data.detail ? sentence(data) : `The server answered ${answer.status}.`) + (wait ? ` Try again in about ${wait} s.` : ""));
  throw Object.assign(error, { type: data.type });
}

function present(view) {
  figures(view);
  foot(view);
  notes(view);
  return show(view);
}

function busy(text, picture) {
  find("busy").hidden = !text;
  const [image, said, waited] = find("busy").children, begun = Date.now();
  said.textContent = text;
  waited.textContent = "";
  clearInterval(waiting);
  if (text) waiting = setInterval(() => { waited.textContent = `${Math.round((Date.now() - begun) / 1000)} s so far`; }, 1000);
  image.hidden = !picture;
  if (picture) image.src = picture;
}

let turn = 0, timer = 0, waiting = 0;
return {
  // Predict a file and show it; an error is shown, and thrown if it is one of `thrown`.
  async run(file, options = {}, { picture = "", thrown = [] } = {}) {
    const now = ++turn;
    say("");
    show(null);
    for (const name of ["figures", "foot"]) find(name).replaceChildren();
    busy(`Looking for buildings in ${file.name}`, picture);
    try {
      const query = new URLSearchParams({ filename: file.name.slice(-255), ...options });
      const view = await request(`${PAGE}results?${query}`, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
      if (now !== turn) return null;
      await present(view);
      return view;
    } catch (error) {
      if (now === turn) say(error.message, "error");
      if (thrown.includes(error.type)) throw error;
      return null;
    } finally {
      if (now === turn) busy("");
    }
  },
  threshold(value) {
    if (!state.view || state.view.kind !== "score") return;
    state.threshold = state.asked = value;
    if (find("stage").dataset.state === "ready") find("stage").dataset.state = "deciding";
    paint();
    clearTimeout(timer);
    const now = turn, { key } = state.view;
    timer = setTimeout(() => request(`${PAGE}${key}?threshold=${value}`).then((view) => now === turn && present(view)).catch((error) => say(error.message, "error")), WAIT_MS);
  },
  mode(value) { state.mode = value.toLowerCase(); paint(); dress(); },
  clear() { turn += 1; show(null); say(""); busy(""); },
};
}
