#!/usr/bin/env bash
# simple-features-js (NGA) moves centroids of blocks to their yards if rings run as in GeoJSON.
#
# Guess before the run: the centroid of a block of 10 x 10 m with a yard of 4 x 8 m in its west lies
# east of the middle, at 5.94, whichever way the rings run; that of a house of 100 m2 and a shed of
# 4 m2 is near the house; and the centroid "in degrees" is the same place but for the sphere.
# Seen: 5.94 if the yard runs as the walls do. If it runs against them, as RFC 7946 and OGC's simple
# features have it, 4.52: the yard counts as built a second time. A house and a shed 16 m to the
# east that run against each other have their centroid at 4.33, west of that of the house. An
# L-shaped house is right either way. The centroid in degrees is the mean of the corners of the
# walls alone: yards and sizes count for nothing, and with the shed it is at 13 in place of 5.6.
# Versions: @ngageoint/simple-features-js 1.1.1 (npm). Source: lib/util/centroid/CentroidSurface.js
# adds signed areas of the walls and takes those of yards away, in place of their absolute values;
# DegreesCentroid.js, calculatePolygon. Neither page of the documentation speaks of it.
# Hurt: who labels, sorts or joins blocks by their centroids: they lie on the wrong side, up to in
# the yard, and move if a writer turns the rings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit @ngageoint/simple-features-js@1.1.1 > npm.log
cat > centroids.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const sf = require("@ngageoint/simple-features-js");

const rectangle = (west, south, width, depth) => [
  [west, south], [west + width, south], [west + width, south + depth], [west, south + depth],
];
const building = (...rings) => {
  const made = new sf.Polygon();
  for (const corners of rings) {
    const ring = new sf.LineString();
    for (const [x, y] of [...corners, corners[0]]) ring.addPoint(new sf.Point(x, y));
    made.addRing(ring);
  }
  return made;
};
const group = (...buildings) => {
  const made = new sf.MultiPolygon();
  for (const one of buildings) made.addPolygon(one);
  return made;
};
const round = (value) => Math.round(value * 100) / 100;
const walls = rectangle(0, 0, 10, 10), yard = rectangle(1, 1, 4, 8);
const shed = rectangle(20, 0, 2, 2);
const bend = [[0, 0], [10, 0], [10, 2], [2, 2], [2, 10], [0, 10]];
const found = {};
for (const [name, geometry] of Object.entries({
  "yard runs with the walls": building(walls, yard),
  "yard runs against the walls": building(walls, [...yard].reverse()),
  "house and shed, one way": group(building(walls), building(shed)),
  "house and shed, two ways": group(building(walls), building([...shed].reverse())),
  "L, one way": building(bend),
  "L, the other": building([...bend].reverse()),
})) {
  found[name] = [geometry.getCentroid().x, geometry.getDegreesCentroid().x].map(round);
  console.log(name, "centroid at", found[name][0], "in degrees", found[name][1]);
}
assert.deepStrictEqual(found, {
  "yard runs with the walls": [5.94, 5],
  "yard runs against the walls": [4.52, 5],
  "house and shed, one way": [5.62, 13.04],
  "house and shed, two ways": [4.33, 13.04],
  "L, one way": [3.22, 4.01],
  "L, the other": [3.22, 4.01],
});
JAVASCRIPT
node centroids.cjs
