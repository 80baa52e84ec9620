// What MapLibre draws: sources and layers of a scene, and how they follow the controls.

// Viridis and plasma (Smith & van der Walt 2015): lightness rises evenly, for dichromats too.
const VIRIDIS = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];
const PLASMA = ["#0d0887", "#7e03a8", "#cc4778", "#f89540", "#f0f921"];
export const DENSITY = {
  colours: ["#440154", "#443983", "#31688e", "#21918c", "#35b779", "#90d743", "#fde725"],
  breaks: [0.05, 0.1, 0.2, 0.3, 0.4, 0.6],
};
const GROUND = { light: "#e4e7eb", dark: "#14161a" };

// The values of a ramp's five colours, in what people read: 0 to 1, or square metres.
export function stops(by, scene) {
  if (by === "score") return [0, 0.25, 0.5, 0.75, 1];
  let last = -Infinity;
  return scene.buildings.sizes.map((size) => (last = Math.max(size, last + 0.1)));
}

export function ramp(by) {
  return by === "score" ? VIRIDIS : PLASMA;
}

export function colour(by, scene) {
  if (by === "kind") {
    const pairs = Object.keys(scene.buildings.classes).flatMap((index) => [
      Number(index), scene.colours[index] ?? "#bbbbbb",
    ]);
    return pairs.length ? ["match", ["get", "kind"], ...pairs, "#bbbbbb"] : "#bbbbbb";
  }
  // Tiles hold whole numbers: thousandths of a score, tenths of a square metre.
  const unit = by === "score" ? 1000 : 10;
  const colours = ramp(by);
  const pairs = stops(by, scene).flatMap((value, at) => [value * unit, colours[at]]);
  return ["interpolate", ["linear"], ["get", by], ...pairs];
}

export function passing(filter, scene) {
  const rules = [[">=", ["get", "size"], filter.size]];
  if (scene.buildings.scores) rules.push([">=", ["get", "score"], filter.score]);
  return ["all", ...rules];
}

export function tiles(scene, layer, filter) {
  const query = new URLSearchParams({ v: scene.stamp });
  if (layer === "cells") {
    query.set("score", filter.score);
    query.set("size", filter.size);
  }
  return [`${scene.address}/${layer}/{z}/{x}/{y}?${query}`];
}

// A whole style: sources and layers from below to above.
export function style(scene, view) {
  const sources = {}, layers = [background(view)];
  const raster = (name, more) => {
    const of = scene[name];
    if (!of) return;
    sources[name] = {
      type: "raster", tiles: tiles(scene, name), tileSize: 256, bounds: of.bounds ?? scene.bounds,
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
  sources.buildings = {
    type: "vector", tiles: tiles(scene, "buildings"), minzoom: first, maxzoom: deepest,
    bounds: scene.bounds,
  };
  if (first > 0) {
    sources.cells = {
      type: "vector", tiles: tiles(scene, "cells", view.filter), maxzoom: first - 1,
      bounds: scene.bounds,
    };
    layers.push({
      id: "cells", type: "fill", source: "cells", "source-layer": "cells", maxzoom: first, layout,
      paint: { "fill-antialias": false },
    });
  }
  const from = { source: "buildings", "source-layer": "buildings", minzoom: first, layout };
  layers.push(
    { id: "fill", type: "fill", ...from },
    { id: "outline", type: "line", ...from, paint: {
      "line-width": ["interpolate", ["linear"], ["zoom"], 14, 0.4, 17, 1.2, 20, 2],
    } },
    { id: "chosen-halo", type: "line", ...from, paint: { "line-color": "#000000", "line-width": 6 } },
    { id: "chosen", type: "line", ...from, paint: { "line-color": "#ffffff", "line-width": 3 } },
  );
  const paint = paints(scene, view);
  for (const layer of layers) layer.paint = { ...layer.paint, ...paint[layer.id] };
  const filter = passing(view.filter, scene);
  for (const layer of layers.filter((one) => one.id === "fill" || one.id === "outline")) {
    layer.filter = filter;
  }
  for (const layer of layers.filter((one) => one.id.startsWith("chosen"))) {
    layer.filter = choice(view.chosen);
  }
}

export function choice(id) {
  return ["==", ["id"], id ?? -1];
}

// Of the layers that show buildings; classes are not told of merged ones.
export function paints(scene, view) {
  const opacity = view.opacity.buildings;
  const of = colour(view.by, scene);
  const merged = view.by === "kind" ? colour("size", scene) : of;
  return {
    fill: { "fill-color": of, "fill-opacity": opacity },
    outline: { "line-color": of, "line-opacity": Math.min(1, opacity * 1.5) },
    cells: {
      "fill-color": merged,
      "fill-opacity": ["interpolate", ["linear"], ["get", "share"],
        0, Math.min(0.25, opacity), 400, Math.min(1, opacity * 1.5)],
    },
  };
}

export { GROUND };
