#!/usr/bin/env bash
# turf's mean direction of lines to the west points to the east, that of lines due south north.
#
# Guess before the run: directionalMean of one line has the bearing of that line, or of lines that
# differ by 10 degrees the one between them; the mean line runs the same way; bearings are between
# -180 and 180 degrees, or 0 and 360.
# Seen: for lines to the east (10, 100, 170 degrees) it is so. A line with the bearing 190 has 10,
# one of 225 has 45, and one of 280 has -260, which is 100: each line to the west is turned by 180
# degrees, planar or not, and the mean line is drawn from its end to its start. Twenty facades that
# look to 260 to 280 degrees look to the east. A planar line due south has the bearing 0. A turn of
# the town by 20 degrees (from 170 to 190) turns the mean by 160. circularVariance is right.
# Versions: @turf/turf 7.4.0 (npm). Source: packages/turf-directional-mean/index.ts,
# getAngleBySinAndCos: atan2 knows the quadrant already, and 180 degrees are added once more; where
# the cosine is 0, the angle is 90.
# Hurt: who takes the mean direction of facades, shadows or roof slopes in a browser: with shadows
# that fall to the north-west (morning scenes), the sun is put on the wrong side.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit @turf/turf@7.4.0
cat > mean.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import * as turf from "@turf/turf";

const START = [13.4, 52.5];
const line = (bearing) =>
  turf.lineString([START, turf.destination(START, 0.02, bearing).geometry.coordinates]);
const flat = (bearing) => {
  const angle = (bearing * Math.PI) / 180;
  return turf.lineString([[0, 0], [20 * Math.sin(angle), 20 * Math.cos(angle)]]);
};
const mean = (lines, options) => turf.directionalMean(turf.featureCollection(lines), options);
const whole = (number) => Math.round(number) + 0;

const seen = {};
for (const bearing of [10, 100, 170, 190, 225, 280]) {
  const geographic = whole(mean([line(bearing)]).properties.bearingAngle);
  const planar = whole(mean([flat(bearing)], { planar: true }).properties.bearingAngle);
  console.log("bearing", bearing, "mean", geographic, "planar", planar);
  assert.strictEqual(geographic, planar);
  seen[bearing] = geographic;
}
assert.deepStrictEqual(seen, { 10: 10, 100: 100, 170: 170, 190: 10, 225: 45, 280: -260 });

const east = turf.getCoords(mean([flat(45)], { planar: true })).flat().map(whole);
const west = turf.getCoords(mean([flat(225)], { planar: true })).flat().map(whole);
console.log("mean line of 45 degrees", east, "of 225 degrees", west);
assert.deepStrictEqual(east, [0, 0, 14, 14]);
assert.deepStrictEqual(west, [-14, -14, 0, 0]);

const facades = Array.from({ length: 20 }, (_, i) => line(260 + (20 * i) / 19));
const { bearingAngle, circularVariance } = mean(facades).properties;
console.log("facades to 270", whole(bearingAngle), circularVariance.toFixed(3));
assert([90, -270].includes(whole(bearingAngle)) && circularVariance < 0.01);
const south = mean([turf.lineString([[0, 20], [0, 0]])], { planar: true });
console.log("due south", south.properties.bearingAngle);
assert.strictEqual(south.properties.bearingAngle, 0);
JAVASCRIPT
node mean.mjs
