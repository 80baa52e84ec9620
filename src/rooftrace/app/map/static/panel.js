// The panel beside the map: what it says, and which of its controls there are.

import { DENSITY, UNKNOWN, ramp, stops } from "./style.js";
import { sentences } from "../../words.js";

const $ = (id) => document.getElementById(id);
const MOST_LISTED = 300;
const NAMES = {
  id: "Number", class: "Class", score: "Confidence", area_m2: "Area", perimeter_m: "Perimeter",
  orientation_deg: "Orientation", rectangularity: "Rectangularity", cut: "Cut by an edge", status: "Status", side: "Layer",
  source: "Image", model: "Model", partner_id: "Number of the partner", iou: "IoU with it", offset_m: "Offset",
  height: "Height", height_change: "Change of height", height_median: "Median height",
  roof_height: "Height of the roof", roof_shape: "Roof", roof_direction: "Direction of the ridge",
  roof_slope_deg: "Slope of the largest roof plane", roof_azimuth_deg: "Faces (from north)", roof_plane_m2: "Its area",
  num_floors_estimated: "Floors, estimated", ground_m: "Ground", ground_min_m: "Lowest ground",
  samples: "Samples", method: "Measured from", height_reason: "No height:",
};
const UNITS = {
  height: " m", height_change: " m", height_median: " m", roof_height: " m", roof_direction: "°",
  roof_slope_deg: "°", roof_azimuth_deg: "°", roof_plane_m2: " m²", ground_m: " m",
  ground_min_m: " m", area_m2: " m²", offset_m: " m", perimeter_m: " m", orientation_deg: "°",
};
const whole = new Intl.NumberFormat("en");

export function say(text) {
  $("message").textContent = text ?? "";
  $("message").hidden = !text;
}

export function fold() {
  const folded = $("panel").classList.toggle("folded");
  $("fold").textContent = folded ? "Show" : "Hide";
  $("fold").setAttribute("aria-expanded", String(!folded));
}

export function listImages(images, wanted, current) {
  $("image-row").hidden = images.length < 2;
  const found = images.filter((one) => one.name.toLowerCase().includes(wanted.trim().toLowerCase()));
  const options = found.slice(0, MOST_LISTED).map((one) => {
    const label = one.buildings == null ? one.name : `${one.name} (${whole.format(one.buildings)})`;
    return new Option(label, one.name, false, one.name === current);
  });
  if (found.length > MOST_LISTED) {
    const more = new Option(`… and ${whole.format(found.length - MOST_LISTED)} more: find them by name`);
    more.disabled = true;
    options.push(more);
  }
  if (!found.length) {
    const none = new Option("no image has such a name");
    none.disabled = true;
    options.push(none);
  }
  $("images").replaceChildren(...options);
}

export function formatSize(size, scene) {
  const digits = size < 10 && size % 1 ? 1 : 0;
  const unit = scene.buildings.in_metres ? "m²" : "px²";
  return `${whole.format(Number(size.toFixed(digits)))} ${unit}`;
}

// Most buildings are small: the slider's first half is for the smallest eighth of its range.
export function sizeOf(position, scene) {
  const size = scene.buildings.largest * (position / 100) ** 3;
  return position === "100" ? size : Number(size.toPrecision(2));
}

// Of several classes, not all are buildings.
export function noun(scene) {
  return Object.keys(scene.buildings?.classes ?? {}).length && !scene.comparison ? "polygon" : "building";
}

export function showCount(counts, scene) {
  // A folded panel, as on a phone, still says it.
  $("panel").querySelector("h1").dataset.count = counts ? ` · ${whole.format(counts.shown)} ${noun(scene)}${counts.shown === 1 ? "" : "s"}` : "";
  if (!counts) {
    $("count").textContent = scene?.buildings ? `No ${noun(scene)} was found in this scene.` : "";
    return;
  }
  const number = document.createElement("b");
  number.textContent = whole.format(counts.shown_in_view);
  const more = document.createElement("small");
  more.textContent = `${whole.format(counts.shown)} of ${whole.format(counts.total)} pass the filters`;
  $("count").replaceChildren(number, ` ${noun(scene)}${counts.shown_in_view === 1 ? "" : "s"} in view`, more);
}

// What is known of a scene, and first what its prediction assumed.
export function showNotes(scene, image, folder, basemap) {
  const texts = sentences(image?.notes ?? []).map((text) => text.replace(/the field “[^”]+”/g, "$& of the page Home"));
  const model = folder?.model ?? {}, [first = "", ...more] = texts, [assumed, further] = $("caveats").children;
  $("caveats").hidden = !first;
  assumed.textContent = first;
  further.hidden = !more.length;
  further.lastElementChild.textContent = more.join(" ");
  const day = folder?.created && `${model.name ? "Predicted" : "Made"} ${folder.created.slice(0, 10)}`;
  const about = [scene?.credit && `Imagery: ${scene.credit}`, ...(scene?.notes ?? []), day].filter(Boolean);
  $("notes").replaceChildren(...about.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
  const licences = [
    basemap?.credit && `Basemap ${basemap.credit}`,
    model.name && `Model ${model.name}${model.licence ? `, ${model.licence}` : ""}`,
    model.attribution && `The model was trained on: ${model.attribution}`,
    "Drawn by MapLibre",
  ];
  $("credit").lastElementChild.textContent = licences.filter(Boolean).join("\n");
  // The source of a basemap asks to be named.
  if (basemap?.credit) $("credit").open = true;
}

export function showPosition(name, images) {
  const at = images.findIndex((one) => one.name === name);
  $("position").textContent = `${whole.format(at + 1)} of ${whole.format(images.length)}`;
  $("previous").disabled = at <= 0;
  $("next").disabled = at >= images.length - 1;
}

// The controls that a scene has a use for, at their beginnings.
export function describe(scene, view, name, images) {
  showPosition(name, images);
  if ([...$("images").options].some((option) => option.value === name)) $("images").value = name;
  document.title = `${name} · rooftrace map`;
  const buildings = scene.buildings;
  $("buildings").hidden = !buildings;
  for (const title of document.querySelectorAll(".noun")) title.textContent = noun(scene) === "polygon" ? "Polygons" : "Buildings";
  $("layers").hidden = false;
  for (const row of document.querySelectorAll(".layer")) {
    const name = row.dataset.layer;
    row.hidden = name === "buildings" ? !buildings?.count : name === "basemap" ? !view.basemap || scene.flat : !scene[name];
  }
  $("density-key").hidden = !(view.visible.density && scene.density);
  densityKey();
  if (!buildings) return;
  for (const part of $("buildings").children) part.hidden = !buildings.count && !["H2", "P"].includes(part.tagName);
  $("score-row").hidden = $("by-score").hidden = !buildings.scores;
  const scores = buildings.scores ?? [], most = Math.max(...scores);
  for (const bars of document.querySelectorAll(".bars")) {
    bars.replaceChildren(...scores.map((count) => {
      const bar = document.createElement("i");
      bar.style.height = `${(100 * count) / most}%`;
      return bar;
    }));
  }
  // The others hold longitude and latitude.
  for (const select of document.querySelectorAll("#download select, #review-format")) {
    for (const option of select) option.disabled = scene.flat && !["gpkg", "geojson", "shp.zip"].includes(option.value);
    if (select.selectedOptions[0].disabled) select.value = "gpkg";
  }
  $("all-files").hidden = !images.find((one) => one.name === name)?.city_model;
  $("all-files").href = `${scene.address.slice(0, scene.address.lastIndexOf("/images/"))}/results.zip`;
  $("tall-row").hidden = $("by-height").hidden = !buildings.heights;
  $("by-kind").hidden = !Object.keys(buildings.classes).length;
  $("by-kind").lastElementChild.textContent = scene.comparison ? "status" : "class";
  kindBoxes(scene);
  document.querySelector(`input[name="by"][value="${view.by}"]`).checked = true;
  $("score").value = 0;
  $("score-out").value = "0.00";
  $("size").value = 0;
  $("size-out").value = formatSize(0, scene);
  if (buildings.count) legend(scene, view);
}

// A table of what is known of one.
describe.building = (attributes, scene) => {
  const table = document.createElement("table");
  table.createCaption().textContent = noun(scene) === "polygon" ? "Polygon" : "Building";
  const { height_low: low, height_high: high, ...figures } = attributes;
  // What rooftrace measured comes before the columns of a map with thirty of them.
  const known = ([name]) => Number(name in NAMES);
  for (const [name, value] of Object.entries(figures).sort((one, other) => known(other) - known(one))) {
    if (value == null || name === "class_id") continue;
    const row = table.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = NAMES[name] ?? name;
    const digits = name === "score" || name === "rectangularity" ? 2 : 1;
    const words = { true: "yes", false: "no" };
    const text = typeof value === "number" && !Number.isInteger(value) ? value.toFixed(digits) : (words[value] ?? String(value));
    row.append(head);
    const cell = row.insertCell();
    cell.textContent = text + (UNITS[name] ?? "");
    if (name === "height" && low != null && high != null) {
      const interval = document.createElement("small");
      interval.textContent = `90 %: ${low.toFixed(1)} to ${high.toFixed(1)} m`;
      cell.append(interval);
    }
  }
  return table;
};

export function legend(scene, view) {
  $("kinds").classList.toggle("coloured", view.by === "kind");
  if (view.by === "kind") return $("ramp").replaceChildren();
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.style.background = `linear-gradient(to right, ${ramp(view.by).join(", ")})`;
  const ticks = document.createElement("div");
  ticks.className = "ticks";
  const values = stops(view.by, scene);
  // Heights of a village differ by a few metres.
  const metres = (value) => value.toFixed(values.at(-1) - values[0] < 8 ? 1 : 0);
  values.forEach((value, at) => {
    const tick = document.createElement("span");
    tick.style.left = `${at * 25}%`;
    const last = at === values.length - 1;
    tick.textContent = view.by === "score" ? String(Math.round(value * 100) / 100) : view.by === "height" ? `${metres(value)}${last ? " m" : ""}` : last ? `${formatSize(value, scene)}` : whole.format(Math.round(value));
    ticks.append(tick);
  });
  const none = document.createElement("div"), text = document.createElement("span");
  none.className = "key";
  none.hidden = view.by !== "height";
  text.style.setProperty("--swatch", UNKNOWN);
  text.textContent = "no height";
  none.append(text);
  $("ramp").replaceChildren(bar, ticks, none);
}

// A box for each class, with its number of buildings: it is the legend, too.
function kindBoxes(scene) {
  const { classes, class_counts: counts } = scene.buildings;
  const legendOf = document.createElement("legend");
  legendOf.textContent = "Show";
  const boxes = Object.entries(classes).map(([index, name]) => {
    const label = document.createElement("label"), box = document.createElement("input"), text = document.createElement("span");
    Object.assign(box, { type: "checkbox", checked: true, value: index });
    text.textContent = `${name} `;
    text.style.setProperty("--swatch", scene.colours[index] ?? "#bbbbbb");
    const number = document.createElement("small");
    number.textContent = whole.format(counts[index]);
    label.append(box, text, number);
    return label;
  });
  $("kinds").hidden = !boxes.length;
  $("kinds").replaceChildren(legendOf, ...boxes);
}

function densityKey() {
  const share = (value) => `${Math.round(value * 100)} %`;
  const steps = DENSITY.colours.map((colour, at) => [
    colour, at === 0 ? `under ${share(DENSITY.breaks[0])}` : `from ${share(DENSITY.breaks[at - 1])}`,
  ]);
  $("density-key").replaceChildren(colourKey(steps));
}

export function colourKey(entries) {
  const made = document.createElement("div");
  made.className = "key";
  made.append(...entries.map(([colour, text]) => {
    const entry = document.createElement("span");
    entry.style.setProperty("--swatch", colour);
    entry.textContent = text;
    return entry;
  }));
  return made;
}
