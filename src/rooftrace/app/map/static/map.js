// The map of results folders: which scene is shown, and what the controls do to it.

import { ask, later, NoAnswer } from "./ask.js";
import { describe, fold, formatSize, legend, listImages, say, showCount, showNotes, showPosition, sizeOf } from "./panel.js";
import { createPace } from "./pace.js";
import { createReview } from "./review.js";
import { addressOf, createPlace, readAddress } from "./place.js";
import { choice, GROUND, paints, passing, query, shown, style, suited } from "./style.js";
import { createSwipe } from "./swipe.js";
import { NO_ANSWER } from "../../words.js";

const $ = (id) => document.getElementById(id), { maplibregl } = window;
const FOLDERS = new URL("map/folders", document.baseURI).href;
const POLL_MS = 5000; // between looks at a run that is not finished, and at tiles that did not come
const LAYERS = { buildings: ["fill", "tall", "outline", "far", "review-fill", "review-outline"], mask: ["mask"], density: ["density"], image: ["image"], basemap: ["basemap"] };

const view = {
  theme: "light", by: "score", chosen: null, review: false, filter: { score: 0, size: 0, kinds: null },
  // Of a comparison, the layer that the map shows; null for both.
  side: null, basemaps: [], basemap: null,
  visible: { buildings: true, mask: false, density: false, image: true, basemap: true },
  opacity: { buildings: 0.6, mask: 0.6, density: 0.6, image: 1, basemap: 1 },
};
let map, popup, review, swipe, place, folder = null, entries = [], images = [], scene = null, polling = 0;
let home = null, fitted = null, opened = 0;
let trouble = ""; // what is said until the server answers

function start() {
  setTheme();
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
  review = createReview({ map, view, fitTo, restyle, popup, address: () => { remember(); linkDownload(); } });
  swipe = createSwipe({ maplibregl, map, view, folders: FOLDERS, restyle, failed: say, watch });
  place = createPlace({
    maplibregl, map, popup, current: () => ({ scene, review: view.review }), home: goHome, fit: fitBuildings, notice, failed: showError,
  });
  bindMap();
  const pace = createPace({ map, view, scene: () => scene });
  // For tests and for the developer console.
  window.rooftrace = { map, view, review, swipe, pace, get scene() { return scene; } };
  openFolders().catch(showError);
  addEventListener("hashchange", () => follow().catch(showError));
}

function showError(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof NoAnswer)) throw error;
  say(error.message);
  if (error.status) return;
  trouble = error.message;
  setTimeout(count, POLL_MS);
}

async function openFolders() {
  Object.assign(view, await ask(new URL("map/settings", document.baseURI).href));
  view.basemap = view.basemaps[0] ?? null;
  $("basemap").replaceChildren(...view.basemaps.map((one, at) => new Option(one.name, at)));
  $("basemap").hidden = view.basemaps.length < 2;
  entries = await ask(FOLDERS);
  listFolders();
  await follow();
}

function listFolders() {
  const chosen = $("folder").value;
  $("folder").replaceChildren(...entries.map((one) => new Option(one.title, one.id, false, one.id === chosen)));
  $("folder-row").hidden = entries.length < 2;
}

// Return whether there is a folder. The list lacks old jobs, and those that ended after it was read.
async function find(id) {
  if (!id || entries.some((one) => one.id === id)) return Boolean(id);
  try {
    const { title } = await ask(`${FOLDERS}/${encodeURIComponent(id)}`);
    entries.push({ id, title });
  } catch (error) {
    if (error.status !== 404) throw error;
    return false;
  }
  listFolders();
  return true;
}

// The address says what is shown, and where.
async function follow() {
  const wanted = readAddress(location.hash), there = await find(wanted.folder);
  if (!entries.length) {
    // Nothing of the panel has a use yet.
    $("empty").hidden = false;
    for (const id of ["panel", "loading", "credit"]) $(id).hidden = true;
    map.getContainer().querySelector(".maplibregl-control-container").hidden = true;
    return;
  }
  // The results that are shown in place of others are not those that someone means to review.
  view.review = wanted.review && there;
  await openFolder(there ? wanted.folder : entries[0].id, wanted.name, there ? wanted.place : null);
  if (wanted.folder && !there) say("The results of this link are not there (any more): those of a job are removed after some time. These are others.");
  else if (wanted.name && scene && scene.name !== wanted.name) say(`The image ${wanted.name} of this link is not in this folder (any more).`);
}

// `again` says that the folder was open before, and is read for what has changed since.
async function openFolder(id, name, at = null, again = false) {
  clearTimeout(polling);
  $("folder").value = id;
  const of = await ask(`${FOLDERS}/${encodeURIComponent(id)}`);
  if ($("folder").value !== id) return;
  if (id !== folder?.id) $("search").value = "";
  folder = { id, ...of };
  images = of.images;
  say(of.message);
  listImages(images, $("search").value, scene?.name);
  if (of.state === "running") polling = setTimeout(() => openFolder(id, scene?.name ?? name, null, true).catch(showError), POLL_MS);
  if (!images.length) return closeScene();
  const wanted = images.find((one) => one.name === name) ?? images[0];
  const same = again && scene?.name === wanted.name && scene.folder === id;
  if (same) showPosition(wanted.name, images);
  if (same && of.state === "running") return;
  await openImage(wanted.name, at, same);
}

// The thumbnail stands where the scene will, until its tiles have come.
function wait(picture) {
  const image = $("loading").querySelector("img"), { top, right, bottom, left } = padding();
  $("loading").classList.toggle("done", !picture);
  if (!picture) return;
  image.hidden = true;
  image.onload = () => { image.hidden = false; };
  image.src = picture;
  $("loading").style.inset = `${top}px ${right}px ${bottom}px ${left}px`;
  $("loading").hidden = false;
}

// What passes the filters, as a file.
function linkDownload() {
  const [link, format] = $("download").children;
  if (!scene) return;
  link.href = `${scene.address}/download?format=${format.value}&${query(view.filter)}`;
  $("unreviewed").hidden = !scene.reviewed;
  $("unreviewed").lastElementChild.href = `${review.addressOf(scene)}/export?format=${format.value}`;
}

const note = (of) => showNotes(of, images.find((one) => one.name === of?.name), folder, view.basemap);

function closeScene() {
  opened += 1;
  wait(null);
  scene = null;
  review.open(null);
  swipe.close();
  popup.remove();
  map.setStyle(style({}, view), { diff: false });
  for (const id of ["buildings", "layers", "coordinates", "scale"]) $(id).hidden = true;
  note(null);
}

// With `again`, a scene that has not changed keeps its view and its filters.
async function openImage(name, at = null, again = false) {
  const address = `${FOLDERS}/${encodeURIComponent(folder.id)}/images/${encodeURIComponent(name)}`;
  const turn = ++opened, of = folder.id;
  if (!again) wait(`${address}/thumbnail`);
  let given;
  try {
    given = { ...(await ask(address)), address, folder: of, reviewed: images.find((one) => one.name === name)?.reviewed };
  } catch (error) {
    if (turn === opened) wait(null);
    throw error;
  }
  // Another scene was asked for in the meantime.
  if (turn !== opened) return;
  over();
  if (again && given.stamp === scene?.stamp) {
    // The record of the run names the model only at its end.
    note(given);
    return;
  }
  scene = given;
  review.close();
  popup.remove();
  Object.assign(view, { chosen: null, filter: { score: 0, size: 0, kinds: null } });
  view.by = suited(scene.comparison ? "kind" : scene.buildings?.heights ? "height" : view.by, scene);
  stand(false);
  restyle();
  home = null;
  goHome();
  map.once("idle", () => turn === opened && wait(null));
  home = here();
  // Over another place, the thumbnail would be wrong.
  map.once("movestart", () => { const image = $("loading").querySelector("img"); image.onload = null; image.hidden = true; });
  if (at) map.jumpTo(at);
  $("scale").hidden = false;
  describe(scene, view, name, images);
  linkDownload();
  note(scene);
  await swipe.offer(scene, folder, images, entries).catch(showError);
  if (turn !== opened) return;
  place.show(map.getCenter());
  showMerged();
  showScale();
  count();
  await review.open(scene);
}

function restyle() {
  map.setStyle(style(scene, view), { diff: false });
  swipe.refresh();
  if (!view.review && scene.buildings?.count) legend(scene, view);
}

// Buildings as blocks of their heights, seen from the side; the map is flat again without.
function stand(tall) {
  view.tall = tall;
  $("tall").checked = tall;
  if (map.getLayer("tall")) map.setLayoutProperty("tall", "visibility", tall && view.visible.buildings ? "visible" : "none");
  map.dragRotate[tall ? "enable" : "disable"]();
  map.easeTo({ bearing: tall ? map.getBearing() : 0, pitch: tall ? 55 : 0, duration: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 500 });
}

function goHome() {
  if (scene) fitTo(scene.bounds);
}

async function fitBuildings() {
  if (!scene?.buildings?.count) return goHome();
  const world = { west: -360, south: -90, east: 360, north: 90 };
  const of = scene;
  const { bounds } = await ask(`${of.address}/count?${new URLSearchParams(world)}&${query(view.filter)}`);
  if (bounds && of === scene) fitTo(bounds);
}

function fitTo([west, south, east, north]) {
  map.fitBounds([[west, south], [east, north]], { padding: padding(), maxZoom: 21, animate: false });
  fitted = { bounds: [west, south, east, north], ...here() };
}

const here = () => ({ zoom: map.getZoom(), center: map.getCenter() });

function isAt(place) {
  const { zoom, center } = here(), near = (one, other) => Math.abs(one - other) < 1e-9;
  return place !== null && near(place.zoom, zoom) && near(place.center.lng, center.lng) && near(place.center.lat, center.lat);
}

// The window or the panel has another size: what was fitted, and not moved since, stays in sight.
function refit() {
  if (!isAt(fitted)) return;
  const atHome = isAt(home);
  if (atHome) home = null;
  fitTo(fitted.bounds);
  if (atHome) home = here();
}

// The place is part of the address once a person has moved the map; a review finds its own.
function remember() {
  const { lng, lat } = map.getCenter(), moved = home && !isAt(home);
  const hash = addressOf(scene, view.review, map.getZoom(), moved && !view.review ? { lng, lat } : null);
  if (location.hash !== hash) history.replaceState(null, "", hash);
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
  linkDownload();
  if (!scene?.buildings?.count) return showCount(null, scene);
  const { _sw: low, _ne: high } = map.getBounds();
  const limit = (value, most) => Math.min(Math.max(value, -most), most);
  const sides = new URLSearchParams({
    west: limit(low.lng, 720), south: limit(low.lat, 90), east: limit(high.lng, 720), north: limit(high.lat, 90),
  });
  const of = scene, found = await ask(`${of.address}/count?${sides}&${query(view.filter)}`, signal);
  // A page that is left gets answers without a body.
  if (of !== scene || found.shown === undefined) return;
  if (trouble === NO_ANSWER) over();
  showCount(found, of);
  // The file of a comparison has the outlines of both layers.
  $("download").firstElementChild.textContent = of.comparison ? "Download" : `Download ${found.shown.toLocaleString("en")}`;
}, 60, showError);

function filterBuildings() {
  if (!scene?.buildings?.count) return;
  const rule = passing(view.filter, scene, view.side);
  for (const layer of ["fill", "tall", "outline"]) if (map.getLayer(layer)) map.setFilter(layer, rule);
  count();
  swipe.refresh();
}

function repaint() {
  if (!scene?.buildings?.count) return;
  for (const [layer, paint] of Object.entries(paints(scene, view))) {
    if (!map.getLayer(layer)) continue;
    for (const [name, value] of Object.entries(paint)) map.setPaintProperty(layer, name, value);
  }
  swipe.refresh();
  if (!view.review) legend(scene, view);
}

function choose(id, beside = false) {
  view.chosen = beside ? null : id;
  swipe.choose(beside ? id : null);
  for (const layer of ["chosen", "chosen-halo"]) {
    if (map.getLayer(layer)) map.setFilter(layer, choice(view.chosen));
  }
}

async function lookAt(point, keys = {}) {
  if (view.review && await review.click(point, keys)) return;
  const side = swipe.at(point), found = foundAt(point);
  if (!found) return popup.remove();
  const at = map.unproject(point);
  const of = scene, table = describe.building(await ask(`${side.scene.address}/buildings/${found.id}`), side.scene);
  if (of !== scene) return;
  popup.setLngLat(at).setDOMContent(table).addTo(map);
  choose(found.id, side.beside);
}

// The building at a point of the screen.
function foundAt(point) {
  const { map: shownMap } = swipe.at(point), layers = ["fill"].filter((id) => shownMap.getLayer(id));
  return layers.length ? shownMap.queryRenderedFeatures(point, { layers })[0] : undefined;
}

function bindMap() {
  map.on("click", (event) => lookAt(event.point, event.originalEvent).catch(showError));
  map.getCanvas().addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    const { clientWidth: width, clientHeight: height } = map.getContainer();
    lookAt(new maplibregl.Point(width / 2, height / 2)).catch(showError);
  });
  map.getCanvas().setAttribute("aria-label", "Map. Arrow keys move it, plus and minus zoom, Enter describes the building in the middle.");
  map.on("mousemove", (event) => {
    map.getCanvasContainer().style.cursor = foundAt(event.point) ? "pointer" : "";
  });
  // As the attribution of MapLibre: it gives way to who moves the map.
  map.on("dragstart", () => { $("credit").open = false; });
  map.on("moveend", () => {
    if (!scene) return;
    count();
    remember();
  });
  map.on("resize", refit);
  map.on("zoom", showMerged);
  map.on("move", showScale);
  watch(map);
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !popup.isOpen()) return;
    popup.remove();
    map.getCanvas().focus();
  });
}

// Ask again for the tiles of a map that did not come, and say so until they come: in the server's
// own words, where a tile came with some.
function watch(of) {
  const missing = new Map(); // the source of each
  let failed = false, timer = 0, pause = POLL_MS;
  function again() {
    for (const [tile, source] of missing) if (of.style?.getSource(source)) of.refreshTiles(source, [tile.tileID.canonical]);
    timer = 0;
    pause = Math.min(2 * pause, 60000);
    missing.clear();
    of.triggerRepaint();
  }
  of.on("error", async ({ error = {}, sourceId, tile }) => {
    if (error.name === "AbortError") return;
    const passing = tile && !(error.status >= 400 && error.status < 500);
    if (passing) {
      failed = true;
      missing.set(tile, sourceId);
      timer ||= setTimeout(again, pause);
    }
    const problem = await error.body?.text().then(JSON.parse).catch(() => null);
    const text = [problem?.detail ?? "A part of the map could not be loaded.", problem?.remedy].filter(Boolean).join(" ");
    if (passing) trouble = text;
    say(text);
  });
  of.on("idle", () => {
    if (!failed || missing.size) return;
    failed = false;
    pause = POLL_MS;
    over();
    count();
  });
}

function over() {
  if (trouble && $("message").textContent === trouble) say("");
  trouble = "";
}

// From afar there are no single buildings.
function showMerged() {
  $("merged").hidden = !scene?.buildings?.count || map.getZoom() >= scene.buildings.first_zoom;
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
  $("folder").addEventListener("change", () => openFolder($("folder").value).catch(showError));
  $("images").addEventListener("change", () => openImage($("images").value).catch(showError));
  $("search").addEventListener("input", () => listImages(images, $("search").value, scene?.name));
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    $(id).addEventListener("click", () => {
      const at = images.findIndex((one) => one.name === scene?.name) + step;
      if (images[at]) openImage(images[at].name).catch(showError);
    });
  }
  $("beside").addEventListener("change", () => swipe.open(folder).catch(showError));
  $("kinds").addEventListener("change", () => {
    const boxes = [...$("kinds").querySelectorAll("input")];
    view.filter.kinds = boxes.every((box) => box.checked) ? null : boxes.filter((box) => box.checked).map((box) => Number(box.value));
    filterBuildings();
  });
  $("download").addEventListener("change", linkDownload);
  $("basemap").addEventListener("change", () => {
    view.basemap = view.basemaps[$("basemap").value];
    restyle();
    note(scene);
  });
  $("tall").addEventListener("change", () => stand($("tall").checked));
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
      for (const id of LAYERS[name]) if (map.getLayer(id)) map.setLayoutProperty(id, "visibility", id === "tall" && !view.tall ? "none" : shown(view, name));
      if (name === "buildings") popup.remove();
      swipe.refresh();
      $("density-key").hidden = !(view.visible.density && scene?.density);
    });
    opacity.addEventListener("input", () => {
      view.opacity[name] = Number(opacity.value);
      if (name === "buildings") repaint();
      else if (map.getLayer(name)) map.setPaintProperty(name, "raster-opacity", view.opacity[name]);
      swipe.refresh();
    });
  }
  addEventListener("rooftrace-theme", setTheme);
  $("fold").addEventListener("click", () => {
    fold();
    refit();
  });
  if (matchMedia("(max-width: 640px), (max-height: 480px)").matches) fold();
}

function setTheme() {
  view.theme = document.documentElement.dataset.theme;
  if (map?.getLayer("ground")) map.setPaintProperty("ground", "background-color", GROUND[view.theme]);
  swipe?.refresh();
}

start();
