// What MapLibre draws: sources and layers of a scene, and how they follow the controls.

// Each quantity has one ramp, on all pages: confidence from red to blue, density viridis, size plasma
// (Smith & van der Walt 2015). Dichromats can distinguish them.
const CONFIDENCE = ["#f03b20", "#feb24c", "#ffdf3a", "#41b6e4", "#2166ff"], LOW_SCORE = 0.3;
const PLASMA = ["#0d0887", "#7e03a8", "#cc4778", "#f89540", "#f0f921"];
export const DENSITY = {
  colours: ["#440154", "#443983", "#31688e", "#21918c", "#35b779", "#90d743", "#fde725"],
  breaks: [0.05, 0.1, 0.2, 0.3, 0.4, 0.6],
};
// Colours of Okabe and Ito (2008), which are distinct for colour-blind readers, too.
export const STATUSES = {
  open: "#f0e442", accepted: "#009e73", rejected: "#d55e00", changed: "#56b4e9", added: "#cc79a7",
};
const NOTHING = { type: "FeatureCollection", features: [] };
export const UNKNOWN = "#9aa0a6";
const GROUND = { light: "#e4e7eb", dark: "#14161a" };

// The values of a ramp's five colours, in what people read: up to 1, square metres, or metres.
export function stops(by, scene) {
  if (by === "score") return CONFIDENCE.map((_, at) => LOW_SCORE + ((1 - LOW_SCORE) * at) / 4);
  let last = -Infinity;
  return scene.buildings[by === "height" ? "heights" : "sizes"].map((size) => (last = Math.max(size, last + 0.1)));
}

export function ramp(by) {
  return by === "score" ? CONFIDENCE : PLASMA;
}

export function colour(by, scene) {
  if (by === "kind") {
    const pairs = Object.keys(scene.buildings.classes).flatMap((index) => [
      Number(index), scene.colours[index] ?? "#bbbbbb",
    ]);
    return pairs.length ? ["match", ["get", "kind"], ...pairs, "#bbbbbb"] : "#bbbbbb";
  }
  // Tiles hold whole numbers: thousandths of a score, tenths of a square metre or of a metre.
  const unit = by === "score" ? 1000 : 10;
  const colours = ramp(by);
  const pairs = stops(by, scene).flatMap((value, at) => [value * unit, colours[at]]);
  const scale = ["interpolate", ["linear"], ["get", by], ...pairs];
  // A building that was not measured has the height 0 in the tiles.
  return by === "height" ? ["case", [">", ["get", by], 0], scale, UNKNOWN] : scale;
}

// How to colour a scene: as wished, if it has what that needs.
export function suited(by, scene) {
  const { scores, classes, heights } = scene.buildings ?? {}, several = Object.keys(classes ?? {}).length > 0;
  if (by === "size" || { score: scores, height: heights, kind: several }[by]) return by;
  return scores ? "score" : several ? "kind" : "size";
}

// Filter of the layers that show buildings; `side` is a layer of a comparison.
export function passing(filter, scene, side) {
  const rules = [[">=", ["get", "size"], filter.size]];
  if (filter.kinds) rules.push(["in", ["get", "kind"], ["literal", filter.kinds]]);
  if (side && scene.comparison) rules.push(["==", ["get", "old"], side === "old" ? 1 : 0]);
  if (scene.buildings.scores) rules.push([">=", ["get", "score"], filter.score]);
  return ["all", ...rules];
}

// The filters as the server understands them.
export function query(filter) {
  const { kinds, ...least } = filter;
  return new URLSearchParams({ ...least, ...(kinds && { kinds: kinds.join(",") }) });
}

const tiles = (scene, layer) => [`${scene.address}/${layer}/{z}/{x}/{y}?v=${scene.stamp}`];

// A whole style: sources and layers from below to above.
export function style(scene, view) {
  const sources = {}, layers = [background(view)];
  if (view.basemap && scene.address && !scene.flat) {
    sources.basemap = { type: "raster", tiles: [view.basemap.url], tileSize: 256, maxzoom: 19 };
    layers.push({
      id: "basemap", type: "raster", source: "basemap", layout: { visibility: shown(view, "basemap") },
      paint: { "raster-opacity": view.opacity.basemap, "raster-fade-duration": 0 },
    });
  }
  const raster = (name, more) => {
    // The older side of a comparison has an image of its own, if it is known.
    const from = name === "image" && view.side === "old" && scene.old ? "old" : name, of = scene[from];
    if (!of) return;
    sources[name] = {
      type: "raster", tiles: tiles(scene, from), tileSize: 256, bounds: of.bounds ?? scene.bounds,
      maxzoom: of.maxzoom,
    };
    layers.push({
      id: name, type: "raster", source: name, layout: { visibility: shown(view, name) },
      paint: { "raster-opacity": view.opacity[name], "raster-fade-duration": 0, ...more },
    });
  };
  raster("image", {});
  raster("density", { "raster-resampling": "nearest" });
  raster("mask", { "raster-resampling": "nearest" });
  if (scene.buildings?.count) addBuildings(scene, view, sources, layers);
  // What a slider does is seen at once.
  return { version: 8, sources, layers, transition: { duration: 0, delay: 0 } };
}

function background(view) {
  return { id: "ground", type: "background", paint: { "background-color": GROUND[view.theme] } };
}

export function shown(view, name) {
  return view.visible[name] ? "visible" : "none";
}

function addBuildings(scene, view, sources, layers) {
  const { first_zoom: first, deepest_zoom: deepest } = scene.buildings;
  const layout = { visibility: shown(view, "buildings") };
  // Buildings of a comparison also lie outside of what was compared.
  const bounds = scene.comparison ? {} : { bounds: scene.bounds };
  sources.buildings = {
    type: "vector", tiles: tiles(scene, "buildings"), minzoom: first, maxzoom: deepest,
    ...bounds,
  };
  // From afar, the mask stands for too many buildings.
  if (first > 0 && sources.mask) {
    layers.push({
      id: "far", type: "raster", source: "mask", maxzoom: first, layout,
      paint: { "raster-resampling": "nearest", "raster-fade-duration": 0 },
    });
  }
  const from = { source: "buildings", "source-layer": "buildings", minzoom: first, layout };
  layers.push(
    { id: "fill", type: "fill", ...from },
    { id: "outline", type: "line", ...from, paint: {
      "line-width": ["interpolate", ["linear"], ["zoom"], 14, 0.4, 17, 1.2, 20, 2],
    } },
    ...(scene.buildings.heights ? [{ id: "tall", type: "fill-extrusion", ...from, layout: { visibility: view.tall ? layout.visibility : "none" } }] : []),
    { id: "chosen-halo", type: "line", ...from, paint: { "line-color": "#000000", "line-width": 6 } },
    { id: "chosen", type: "line", ...from, paint: { "line-color": "#ffffff", "line-width": 3 } },
  );
  addReview(sources, layers);
  const paint = paints(scene, view);
  for (const layer of layers) layer.paint = { ...layer.paint, ...paint[layer.id] };
  const filter = passing(view.filter, scene, view.side);
  for (const layer of layers.filter((one) => ["fill", "tall", "outline"].includes(one.id))) {
    layer.filter = filter;
  }
  for (const layer of layers.filter((one) => one.id.startsWith("chosen"))) {
    layer.filter = choice(view.chosen);
  }
}

// What a review draws itself: changed and added outlines, and the building in hand.
function addReview(sources, layers) {
  for (const name of ["review", "hand"]) sources[name] = { type: "geojson", data: NOTHING, maxzoom: 22, tolerance: 0 };
  const lines = ["!=", ["geometry-type"], "Point"], corners = ["==", ["geometry-type"], "Point"];
  layers.push(
    { id: "review-fill", type: "fill", source: "review" },
    { id: "review-outline", type: "line", source: "review", paint: { "line-width": 2 } },
    { id: "hand-halo", type: "line", source: "hand", filter: lines, paint: { "line-color": "#000000", "line-width": 6 } },
    { id: "hand-line", type: "line", source: "hand", filter: lines, paint: { "line-color": "#ffffff", "line-width": 3 } },
    { id: "hand-corner", type: "circle", source: "hand", filter: corners, paint: {
      "circle-radius": ["case", ["get", "chosen"], 8, 5], "circle-stroke-width": 2,
      // A click that takes away is black with a white rim, all others the reverse.
      "circle-stroke-color": ["case", ["boolean", ["get", "outside"], false], "#ffffff", "#000000"],
      "circle-color": ["case", ["get", "chosen"], "#e69f00", ["boolean", ["get", "outside"], false], "#000000", "#ffffff"],
    } },
  );
}

function statusColour(status) {
  return ["match", status, ...Object.entries(STATUSES).flat(), STATUSES.open];
}

export function choice(id) {
  return ["==", ["id"], id ?? -1];
}

export function paints(scene, view) {
  const opacity = view.opacity.buildings;
  const drawn = statusColour(["get", "status"]);
  const rejectedLess = (status) => ["case", ["==", status, "rejected"], opacity / 6, opacity / 2];
  const review = {
    "review-fill": { "fill-color": drawn, "fill-opacity": rejectedLess(["get", "status"]) },
    "review-outline": { "line-color": drawn },
    far: { "raster-opacity": opacity },
  };
  const of = colour(view.by, scene);
  if (view.review) {
    const status = ["coalesce", ["feature-state", "status"], "open"];
    // A building with an outline of its own is drawn by the layers of the review.
    const hidden = ["boolean", ["feature-state", "hidden"], false];
    return {
      ...review,
      fill: { "fill-color": statusColour(status), "fill-opacity": ["case", hidden, 0, rejectedLess(status)] },
      outline: { "line-color": statusColour(status), "line-opacity": ["case", hidden, 0, 1] },
    };
  }
  return {
    ...review,
    fill: { "fill-color": of, "fill-opacity": opacity },
    tall: { "fill-extrusion-color": of, "fill-extrusion-opacity": 0.95, "fill-extrusion-height": ["/", ["coalesce", ["get", "height"], 0], 10] },
    outline: { "line-color": of, "line-opacity": Math.min(1, opacity * 1.5) },
  };
}

export { GROUND };
