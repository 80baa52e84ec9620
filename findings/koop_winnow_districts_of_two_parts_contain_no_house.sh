#!/usr/bin/env bash
# winnow (koop) finds no house in a district of two parts, unless houses are of several parts too.
#
# Guess before the run: the two houses in a district of two parts are found, as in each part alone,
# and whether a house is written as Polygon or as MultiPolygon of one part makes no difference.
# Seen: ST_Contains with a district as Polygon finds its house either way; with the district as
# MultiPolygon it finds both houses if they are MultiPolygons and none if they are Polygons; the
# answer is empty, not an error. ST_Intersects finds the two each time. ST_Within, of which the
# README says that it returns the features within the geometry passed in, finds none at all: since
# version 4.0.2 it returns those that the geometry lies within, as ArcGIS has it.
# Versions: @koopjs/winnow 5.0.4 (npm). Source: src/filter-and-transform/filters/contains.js: its
# table for a MultiPolygon lists every kind of geometry but Polygon, and a pair that is not in the
# table is false. Pull request 1003 of koopjs/koop, on kinds that were missing, added the table.
# Hurt: who asks a service of Koop for the buildings of a municipality with an exclave or an island:
# the count is zero, and the map empty.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit @koopjs/winnow@5.0.4 > npm.log
cat > ask.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const winnow = require("@koopjs/winnow");

const square = (west, south, side) => [[
  [west, south], [west + side, south], [west + side, south + side], [west, south + side],
  [west, south],
]];
const house = (type) => (west, south) => {
  const rings = square(west, south, 1);
  const coordinates = type === "Polygon" ? rings : [rings];
  return { type: "Feature", properties: {}, geometry: { type, coordinates } };
};
const districts = {
  Polygon: { type: "Polygon", coordinates: square(0, 0, 10) },
  MultiPolygon: { type: "MultiPolygon", coordinates: [square(0, 0, 10), square(20, 0, 10)] },
};
const expected = {
  ST_Contains: { "Polygon Polygon": 1, "Polygon MultiPolygon": 1,
    "MultiPolygon Polygon": 0, "MultiPolygon MultiPolygon": 2 },
  ST_Intersects: { "Polygon Polygon": 1, "Polygon MultiPolygon": 1,
    "MultiPolygon Polygon": 2, "MultiPolygon MultiPolygon": 2 },
  ST_Within: { "Polygon Polygon": 0, "Polygon MultiPolygon": 0,
    "MultiPolygon Polygon": 0, "MultiPolygon MultiPolygon": 0 },
};
for (const spatialPredicate of Object.keys(expected)) {
  const found = {};
  for (const [district, geometry] of Object.entries(districts)) {
    for (const type of ["Polygon", "MultiPolygon"]) {
      const features = [house(type)(2, 2), house(type)(22, 2), house(type)(15, 15)];
      const town = { type: "FeatureCollection", features };
      const { length } = winnow.query(town, { geometry, spatialPredicate }).features;
      found[`${district} ${type}`] = length;
    }
  }
  console.log(spatialPredicate, "district, houses, number found:", JSON.stringify(found));
  assert.deepStrictEqual(found, expected[spatialPredicate]);
}
JAVASCRIPT
node ask.cjs
