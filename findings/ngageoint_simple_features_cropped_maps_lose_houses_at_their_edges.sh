#!/usr/bin/env bash
# simple-features-js (NGA) crops a map to its extent and loses whatever crosses the edge.
#
# Guess before the run: crop, which "removes points outside the envelope and creates new points on
# the line intersections", leaves 50 of 100 m2 of a house that lies half over the edge, 9 of 36 m2
# of one over the corner, of a hall around the whole map the map, and null of a house outside.
# Seen: a house within is whole. Those over the edge, over the corner and out by a metre are null. A
# street across the map and the hall are geometries without a point, and so is the house outside. A
# town of all these as one MultiPolygon has lost the house within too: what lies wholly within is
# handed back as it is, and all else is cut. No message.
# Versions: @ngageoint/simple-features-js 1.1.1 (npm). Source: lib/util/GeometryUtils.js, cropPoints
# gives null if it kept a point, and goes on if it kept none, which is the wrong way round; the new
# points are tested by containsGeometryEnvelope, which takes envelopes, and are thrown away.
# Hurt: who cuts footprints or streets to a tile or an extent with it: the built area is short by
# the buildings along every seam, and layers of one MultiPolygon are empty.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit @ngageoint/simple-features-js@1.1.1 > npm.log
cat > crop.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const sf = require("@ngageoint/simple-features-js");

const EAST = 1_500_000, NORTH = 6_900_000;  // web mercator metres near Berlin
const line = (corners) => {
  const made = new sf.LineString();
  for (const [x, y] of corners) made.addPoint(new sf.Point(EAST + x, NORTH + y));
  return made;
};
const house = (west, south, width, depth) => {
  const made = new sf.Polygon();
  made.addRing(line([
    [west, south], [west + width, south], [west + width, south + depth], [west, south + depth],
    [west, south],
  ]));
  return made;
};
const map = new sf.GeometryEnvelope(EAST, NORTH, EAST + 100, NORTH + 100);
const crop = (geometry) => sf.GeometryUtils.crop(geometry, map);
const corners = (geometry) => geometry && geometry.rings.map((ring) =>
  ring.points.map(({ x, y }) => [x - EAST, y - NORTH].join(" ")).join(", "));
const houses = {
  "within": house(40, 40, 10, 10),
  "outside": house(140, 40, 10, 10),
  "over the edge": house(95, 40, 10, 10),
  "over the corner": house(-3, -3, 6, 6),
  "out by a metre": house(91, 40, 10, 10),
  "around the map": house(-10, -10, 120, 120),
};
const found = Object.fromEntries(
  Object.entries(houses).map(([name, one]) => [name, corners(crop(one))]));
const town = new sf.MultiPolygon();
for (const one of Object.values(houses)) town.addPolygon(one);
found.town = crop(town).polygons.map((one) => corners(one).join()).join("");
found.street = crop(line([[-50, 50], [150, 50]])).points.length;
for (const [name, left] of Object.entries(found)) console.log(name, JSON.stringify(left));
assert.deepStrictEqual(found, {
  "within": ["40 40, 50 40, 50 50, 40 50, 40 40"],
  "outside": [""],
  "over the edge": null,
  "over the corner": null,
  "out by a metre": null,
  "around the map": [""],
  "town": "",
  "street": 0,
});
JAVASCRIPT
node crop.cjs
