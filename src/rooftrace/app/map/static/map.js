// The map of results folders: which scene is shown, and what the controls do to it.

import * as maplibregl from "./vendor/maplibre-gl.mjs";
import { ask, later, NoAnswer } from "./ask.js";
import { describe, fold, formatSize, legend, listImages, noun, say, showCount, showNotes, sizeOf } from "./panel.js";
import { choice, GROUND, paints, passing, shown, style, tiles } from "./style.js";

const $ = (id) => document.getElementById(id);
const FOLDERS = new URL("map/folders", document.baseURI).href;
const LAYERS = { buildings: ["fill", "outline", "cells"], mask: ["mask"], density: ["density"], image: ["image"] };

const view = {
  theme: "light", by: "score", chosen: null, filter: { score: 0, size: 0 },
  visible: { buildings: true, mask: false, density: false, image: true },
  opacity: { buildings: 0.6, mask: 0.6, density: 0.6, image: 1 },
};
let map, popup, folder = null, images = [], scene = null, polling = 0;

function start() {
  setTheme(localStorage.getItem("rooftrace-theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  bindPanel();
  try {
    map = new maplibregl.Map({
      container: "map", style: { version: 8, sources: {}, layers: [] }, center: [0, 0], zoom: 1,
      attributionControl: false, maxZoom: 24, dragRotate: false, pitchWithRotate: false,
      renderWorldCopies: false, touchPitch: false,
    });
  } catch {
    say("This browser cannot draw the map: it has no WebGL 2.");
    return;
  }
  map.touchZoomRotate.disableRotation();
  map.keyboard.disableRotation();
  map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
  popup = new maplibregl.Popup({ maxWidth: "320px", closeOnClick: false });
  popup.on("close", () => choose(null));
  bindMap();
  // For tests and for whoever is curious.
  window.rooftrace = { map, view, get scene() { return scene; } };
  openFolders().catch(tell);
  addEventListener("hashchange", () => follow().catch(tell));
}

function tell(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof NoAnswer)) throw error;
  say(error.message);
}

async function openFolders() {
  const entries = await ask(FOLDERS);
  $("folder").replaceChildren(...entries.map((one) => new Option(one.title, one.id)));
  $("folder-row").hidden = entries.length < 2;
  if (!entries.length) {
    say("There are no results to show yet. Start the server with: rooftrace serve --results FOLDER");
    return;
  }
  await follow();
}

// The address says what is shown: #FOLDER/IMAGE.
async function follow() {
  const [id, name] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const known = [...$("folder").options].map((option) => option.value);
  await openFolder(known.includes(id) ? id : known[0], name);
}

async function openFolder(id, name) {
  clearTimeout(polling);
  $("folder").value = id;
  const of = await ask(`${FOLDERS}/${encodeURIComponent(id)}`);
  folder = { id, ...of };
  images = of.images;
  say(of.message);
  listImages(images, id === folder.id ? $("search").value : "", scene?.name);
  if (of.state === "running") polling = setTimeout(() => openFolder(id, scene?.name ?? name).catch(tell), 5000);
  if (!images.length) return closeScene();
  const wanted = images.find((one) => one.name === name) ?? images[0];
  if (scene?.name === wanted.name && scene.folder === id && of.state === "running") return;
  await openImage(wanted.name);
}

function closeScene() {
  scene = null;
  popup.remove();
  map.setStyle(style({}, view), { diff: false });
  for (const id of ["buildings", "layers"]) $(id).hidden = true;
  $("scale").hidden = true;
  showNotes([], folder);
}

async function openImage(name) {
  const address = `${FOLDERS}/${encodeURIComponent(folder.id)}/images/${encodeURIComponent(name)}`;
  const busy = setTimeout(() => notice("Opening…"), 200);
  try {
    scene = { ...(await ask(address)), address, folder: folder.id };
  } finally {
    clearTimeout(busy);
    notice("");
  }
  const hash = `#${encodeURIComponent(folder.id)}/${encodeURIComponent(name)}`;
  if (location.hash !== hash) history.replaceState(null, "", hash);
  popup.remove();
  Object.assign(view, { chosen: null, filter: { score: 0, size: 0 } });
  if (!scene.buildings?.scores && view.by === "score") view.by = "size";
  if (scene.buildings?.scores && !Object.keys(scene.buildings.classes).length && view.by === "kind") view.by = "score";
  map.setStyle(style(scene, view), { diff: false });
  const [west, south, east, north] = scene.bounds;
  map.fitBounds([[west, south], [east, north]], { padding: padding(), animate: false });
  $("scale").hidden = false;
  describe(scene, view, name, images);
  showNotes(scene.notes, folder);
  showMerged();
  showScale();
  count();
}

// Clear of the panel.
function padding() {
  const panel = $("panel").getBoundingClientRect();
  const wide = innerWidth > 640;
  return { top: 30, right: 30, left: wide ? panel.right + 20 : 30, bottom: wide ? 30 : panel.height + 20 };
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

const count = later(async (signal) => {
  if (!scene?.buildings?.count) return showCount(null, scene);
  const { _sw: low, _ne: high } = map.getBounds();
  const limit = (value, most) => Math.min(Math.max(value, -most), most);
  const query = new URLSearchParams({
    west: limit(low.lng, 720), south: limit(low.lat, 90), east: limit(high.lng, 720), north: limit(high.lat, 90),
    ...view.filter,
  });
  showCount(await ask(`${scene.address}/count?${query}`, signal), scene);
}, 60, tell);

const reloadCells = later(async () => {
  map.getSource("cells")?.setTiles(tiles(scene, "cells", view.filter));
}, 150, tell);

function filterBuildings() {
  if (!scene?.buildings?.count) return;
  const rule = passing(view.filter, scene);
  for (const layer of ["fill", "outline"]) map.setFilter(layer, rule);
  reloadCells();
  count();
}

function repaint() {
  if (!scene?.buildings?.count) return;
  for (const [layer, paint] of Object.entries(paints(scene, view))) {
    if (!map.getLayer(layer)) continue;
    for (const [name, value] of Object.entries(paint)) map.setPaintProperty(layer, name, value);
  }
  legend(scene, view);
}

function choose(id) {
  view.chosen = id;
  for (const layer of ["chosen", "chosen-halo"]) {
    if (map.getLayer(layer)) map.setFilter(layer, choice(id));
  }
}

async function lookAt(point) {
  const layers = ["fill", "cells"].filter((id) => map.getLayer(id));
  const [found] = layers.length ? map.queryRenderedFeatures(point, { layers }) : [];
  if (!found) return popup.remove();
  const at = map.unproject(point);
  if (found.layer.id === "cells") {
    const { n, share } = found.properties;
    const told = document.createElement("p");
    told.textContent = `${n} ${noun(scene)}${n === 1 ? "" : "s"} here, ${(share / 10).toFixed(0)} % built over. Zoom in to see them one by one.`;
    popup.setLngLat(at).setDOMContent(told).addTo(map);
    popup.ofCell = true;
    return;
  }
  const table = describe.building(await ask(`${scene.address}/buildings/${found.id}`), scene);
  popup.setLngLat(at).setDOMContent(table).addTo(map);
  popup.ofCell = false;
  choose(found.id);
}

function bindMap() {
  map.on("click", (event) => lookAt(event.point).catch(tell));
  map.getCanvas().addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    const { clientWidth: width, clientHeight: height } = map.getContainer();
    lookAt(new maplibregl.Point(width / 2, height / 2)).catch(tell);
  });
  map.getCanvas().setAttribute("aria-label", "Map. Arrow keys move it, plus and minus zoom, Enter tells of the building in the middle.");
  map.on("mousemove", (event) => {
    const layers = ["fill", "cells"].filter((id) => map.getLayer(id));
    const over = layers.length && map.queryRenderedFeatures(event.point, { layers }).length;
    map.getCanvas().style.cursor = over ? "pointer" : "";
  });
  map.on("moveend", () => scene && count());
  map.on("zoom", showMerged);
  map.on("move", showScale);
  map.on("error", (event) => explain(event.error ?? {}));
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !popup.isOpen()) return;
    popup.remove();
    map.getCanvas().focus();
  });
}

// The server's own words, where a tile came with some.
async function explain({ name, body }) {
  if (name === "AbortError") return;
  const told = await body?.text().then(JSON.parse).catch(() => null);
  say(told?.detail ?? "A part of the map could not be loaded.");
}

// From afar there are squares, and what was told of one is of no use any more.
function showMerged() {
  const merged = Boolean(scene?.buildings?.count) && map.getZoom() < scene.buildings.first_zoom;
  $("merged").hidden = !merged;
  if (!merged && popup.ofCell) popup.remove();
}

function showScale() {
  if (!scene) return;
  const metres = scene.flat ? 1 : Math.cos(map.getCenter().lat * Math.PI / 180);
  const perPixel = 40075016.686 * metres / 512 / 2 ** map.getZoom();
  const power = 10 ** Math.floor(Math.log10(perPixel * 120));
  const length = [5, 2, 1].find((step) => step * power <= perPixel * 120) * power;
  const bar = $("scale").firstElementChild;
  bar.style.width = `${length / perPixel}px`;
  bar.textContent = scene.flat ? `${length} px` : length >= 1000 ? `${length / 1000} km` : length >= 1 ? `${length} m` : `${length * 100} cm`;
}

function bindPanel() {
  $("folder").addEventListener("change", () => openFolder($("folder").value).catch(tell));
  $("images").addEventListener("change", () => openImage($("images").value).catch(tell));
  $("search").addEventListener("input", () => listImages(images, $("search").value, scene?.name));
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    $(id).addEventListener("click", () => {
      const at = images.findIndex((one) => one.name === scene?.name) + step;
      if (images[at]) openImage(images[at].name).catch(tell);
    });
  }
  $("by").addEventListener("change", (event) => { view.by = event.target.value; repaint(); });
  $("score").addEventListener("input", () => {
    view.filter.score = Math.round($("score").value * 1000);
    $("score-out").value = Number($("score").value).toFixed(2);
    filterBuildings();
  });
  $("size").addEventListener("input", () => {
    const size = sizeOf($("size").value, scene);
    view.filter.size = Math.round(size * 10);
    $("size-out").value = formatSize(size, scene);
    $("size").setAttribute("aria-valuetext", formatSize(size, scene));
    filterBuildings();
  });
  for (const row of document.querySelectorAll(".layer")) {
    const name = row.dataset.layer, [box, opacity] = row.querySelectorAll("input");
    box.addEventListener("change", () => {
      view.visible[name] = box.checked;
      for (const id of LAYERS[name]) if (map.getLayer(id)) map.setLayoutProperty(id, "visibility", shown(view, name));
      if (name === "buildings") popup.remove();
      $("density-key").hidden = !(view.visible.density && scene?.density);
    });
    opacity.addEventListener("input", () => {
      view.opacity[name] = Number(opacity.value);
      if (name === "buildings") repaint();
      else if (map.getLayer(name)) map.setPaintProperty(name, "raster-opacity", view.opacity[name]);
    });
  }
  $("theme").addEventListener("click", () => {
    setTheme(view.theme === "dark" ? "light" : "dark");
    localStorage.setItem("rooftrace-theme", view.theme);
  });
  $("fold").addEventListener("click", () => fold());
  if (innerWidth <= 640) fold();
}

function setTheme(theme) {
  view.theme = theme;
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  if (map?.getLayer("ground")) map.setPaintProperty("ground", "background-color", GROUND[theme]);
}

start();
