// Compare: a second map beside the first one, with a divider between them.
// The second map lies below; the first one is cut at the divider, and gets all input.

import { ask } from "./ask.js";
import { style, suited } from "./style.js";

const $ = (id) => document.getElementById(id);
const MOST_LISTED = 300;
const LAYER_NAMES = { image: "Image alone", mask: "Mask", density: "Built-up density" };

export function createSwipe({ maplibregl, map, view, folders, restyle, failed, watch }) {
  let second = null, styled = false, scene = null, beside = null, chosen = null, cut = 50, names = ["", ""];

  // What can be shown beside a scene.
  function offer(given, folder, images, entries) {
    scene = given;
    const before = $("beside").value;
    const options = [new Option("nothing", "")];
    if (scene.comparison) options.push(new Option("old on the left, new on the right", "dates"));
    options.push(...Object.entries(LAYER_NAMES).filter(([name]) => scene[name]).map(([name, text]) => new Option(text, `layer:${name}`)));
    const group = (label, made) => {
      if (!made.length) return;
      const box = Object.assign(document.createElement("optgroup"), { label });
      box.append(...made);
      options.push(box);
    };
    const others = images.filter((one) => one.name !== scene.name).slice(0, MOST_LISTED);
    group("Images of this folder", others.map((one) => new Option(one.name, `image:${one.name}`)));
    const further = entries.filter((one) => one.id !== folder.id).slice(0, MOST_LISTED);
    group("Other results", scene.flat ? [] : further.map((one) => new Option(one.title, `folder:${one.id}`)));
    $("beside").replaceChildren(...options);
    $("compare").hidden = options.length < 2;
    const kept = /^(layer|folder):/.test(before) && [...$("beside").options].some((one) => one.value === before);
    $("beside").value = kept ? before : scene.comparison ? "dates" : "";
    return open(folder);
  }

  async function open(folder) {
    const value = $("beside").value, at = value.indexOf(":"), kind = value.slice(0, Math.max(at, 0)) || value, of = value.slice(at + 1);
    const before = view.side, given = scene;
    // Another choice was made while the server answered.
    const late = () => scene !== given || $("beside").value !== value;
    chosen = null;
    view.side = kind === "dates" ? "old" : null;
    beside = null;
    if (kind === "dates") {
      beside = { scene, changes: () => ({ side: "new" }) };
      names = [scene.comparison.old, scene.comparison.new];
    } else if (kind === "layer") {
      const only = { buildings: false, mask: false, density: false, image: true, [of]: true };
      beside = { scene, changes: () => ({ visible: { ...view.visible, ...only } }) };
      names = [scene.name, LAYER_NAMES[of]];
    } else if (kind) {
      const id = kind === "folder" ? of : folder.id;
      let name = of;
      if (kind === "folder") {
        const { images, message } = await ask(`${folders}/${encodeURIComponent(id)}`);
        if (late()) return;
        name = (images.find((one) => one.name === scene.name) ?? images[0])?.name;
        if (!name) return failed(message);
      }
      const address = `${folders}/${encodeURIComponent(id)}/images/${encodeURIComponent(name)}`;
      const other = { ...(await ask(address)), address, folder: id };
      if (late()) return;
      if (other.flat !== scene.flat) return failed("These two scenes cannot lie beside each other: one of them has no coordinate system.");
      beside = { scene: other, changes: () => ({ filter: { ...view.filter, kinds: null }, side: null }) };
      names = [scene.name, kind === "folder" ? `${$("beside").selectedOptions[0].textContent}: ${name}` : name];
    }
    show();
    if (view.side === before) refresh();
    else restyle();
  }

  function show() {
    document.body.classList.toggle("swiped", Boolean(beside));
    $("divider").hidden = $("map-beside").hidden = !beside;
    if (!beside) {
      second?.remove();
      second = null;
      styled = false;
      return;
    }
    $("beside-left").textContent = names[0];
    $("beside-right").textContent = names[1];
    if (!second) {
      second = new maplibregl.Map({
        container: "map-beside", style: { version: 8, sources: {}, layers: [] }, interactive: false, attributionControl: false,
        maxZoom: 24, renderWorldCopies: false, center: map.getCenter(), zoom: map.getZoom(),
      });
      second.getCanvas().setAttribute("aria-hidden", "true");
      second.getCanvas().tabIndex = -1;
      styled = false;
      second.once("style.load", () => {
        styled = true;
        refresh();
      });
      watch(second);
      // The middle of what the panel leaves free.
      const panel = $("panel").getBoundingClientRect();
      move(innerWidth > 640 ? (50 * (panel.right + innerWidth)) / innerWidth : 50);
    }
  }

  // Draw the second map as the controls are now.
  function refresh() {
    if (!beside || !styled) return;
    second.setStyle(style(beside.scene, { ...view, review: false, chosen, by: suited(view.by, beside.scene), ...beside.changes() }), { diff: true });
  }

  function choose(id) {
    if (chosen === id) return;
    chosen = id;
    refresh();
  }

  // The map and the scene at a point of the screen.
  function at(point) {
    const right = beside && point.x > (map.getContainer().clientWidth * cut) / 100;
    return right ? { map: second, scene: beside.scene, beside: true } : { map, scene, beside: false };
  }

  function move(percent) {
    cut = Math.min(Math.max(percent, 2), 98);
    document.body.style.setProperty("--cut", `${cut}%`);
    $("divider").setAttribute("aria-valuenow", String(Math.round(cut)));
  }

  function dragged(event) {
    const { left, width } = map.getContainer().getBoundingClientRect();
    move((100 * (event.clientX - left)) / width);
  }

  $("divider").addEventListener("pointerdown", (event) => {
    event.preventDefault();
    $("divider").focus();
    $("divider").setPointerCapture(event.pointerId);
    $("divider").addEventListener("pointermove", dragged);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    $("divider").addEventListener(name, () => $("divider").removeEventListener("pointermove", dragged));
  }
  $("divider").addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 2;
    const to = { ArrowLeft: cut - step, ArrowDown: cut - step, ArrowRight: cut + step, ArrowUp: cut + step, Home: 2, End: 98 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    move(to);
  });
  map.on("move", () => second?.jumpTo({ center: map.getCenter(), zoom: map.getZoom() }));

  function close() {
    scene = beside = null;
    view.side = null;
    $("compare").hidden = true;
    show();
  }

  return { offer, open, close, refresh, choose, at, get map() { return second; }, get names() { return names; } };
}
