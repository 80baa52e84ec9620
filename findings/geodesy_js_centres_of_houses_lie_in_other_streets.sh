#!/usr/bin/env bash
# geodesy (npm) puts the centre of a house into another street, up to nine houses away.
#
# Guess before the run: centreOf of a square is its middle, whatever its size, as it is in the
# example of one degree; floating point costs a millimetre.
# Seen: for squares of a degree, of a tenth and of a hundredth of a degree it is the middle. For a
# block of 0.001 degrees (111 m) it is off by 1.6 m; for a house of 0.0001 degrees (11 m) near
# Berlin 12 m to the east and 14 m to the south, outside, in Mongolia (52 north, 100 east) 66 m to
# the west, and near Cape Town 41 m to the east. At 0 degrees north and east it is right. areaOf and
# isEnclosedBy are right for houses, and meanOf gives the middle of the four corners.
# Versions: geodesy 2.4.0 (npm), node 20. Source: latlon-nvector-spherical.js, centreOf adds up the
# normals of the sides, which cancel: of a house little more than rounding is left. Its comment has
# the example of one degree and names no smallest size. No issue is on it.
# Hurt: who labels or joins footprints by their centres: they lie in the street or in a neighbour,
# and no two houses are off in the same way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit geodesy@2.4.0 > npm.log
cat > centres.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import LatLon from "geodesy/latlon-nvector-spherical.js";

/** Return how far the centre and the mean of corners of a square are from its middle, in m. */
function off(lat, lon, side) {
  const corners = [[0, 0], [0, side], [side, side], [side, 0]].map(
    ([north, east]) => new LatLon(lat + north, lon + east));
  const middle = new LatLon(lat + side / 2, lon + side / 2);
  const centre = LatLon.centreOf(corners);
  const found = {
    centre: middle.distanceTo(centre),
    mean: middle.distanceTo(LatLon.meanOf(corners)),
    within: centre.isEnclosedBy(corners),
  };
  console.log(lat, lon, "side", side, "degrees", found);
  return found;
}
for (const side of [0.1, 0.01]) assert(off(52, 13, side).centre < 0.01 * side * 111_000);
const block = off(52, 13, 0.001);
assert(block.centre > 1 && block.centre < 3 && block.within);
for (const [lat, lon, metres] of [[52, 13, 15], [52, 100, 60], [-33, 18, 40]]) {
  const house = off(lat, lon, 0.0001);
  assert(house.centre > metres && !house.within && house.mean < 0.01);
}
assert(off(0, 0, 0.0001).centre < 0.01);
JAVASCRIPT
node centres.mjs
