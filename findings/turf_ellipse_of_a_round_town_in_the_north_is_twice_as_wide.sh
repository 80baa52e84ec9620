#!/usr/bin/env bash
# turf's deviational ellipse of a round town at 60 degrees north is twice as wide as high.
#
# Guess before the run: standardDeviationalEllipse of houses on a disc is a circle, in metres, at
# each latitude, or near it; that of a long town has a semiMajorAxis above its semiMinorAxis.
# Seen: of 317 houses within 500 m of the centre the ellipse is a circle of 711 m at the equator. At
# 60 degrees it is 1,421 m wide and 711 m high, with 78 % of the houses in place of 51 %, as
# differences of longitude are taken for degrees of the sphere. And semiMajorAxis is the shorter
# one, also at the equator: of a town of 1,000 by 200 m it is 100 m, and semiMinorAxis 428 m. There
# is no message.
# Versions: @turf/turf 7.4.0 (npm). Source: packages/turf-standard-deviational-ellipse/index.ts:
# getDeviations has no cosine of the latitude, ellipse() draws the axes in units of "degrees"; theta
# is the way of the larger deviation, which is sigmaY, and sigmaX is called semiMajorAxis.
# Hurt: who compares how towns lie: the more to the north, the more they lie to east and west, and
# whoever takes the ratio of the axes has its inverse.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit @turf/turf@7.4.0
cat > ellipse.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import * as turf from "@turf/turf";

const DEGREE = turf.convertLength(turf.degreesToRadians(1), "radians", "meters");
/** Return houses, each 50 m, where inside(x, y) is true, about a place at this latitude. */
function town(latitude, inside) {
  const houses = [];
  for (let x = -500; x <= 500; x += 50)
    for (let y = -500; y <= 500; y += 50)
      if (inside(x, y)) {
        const across = DEGREE * Math.cos(turf.degreesToRadians(latitude));
        houses.push(turf.point([10 + (x + y / 1e4) / across, latitude + y / DEGREE]));
      }
  return turf.featureCollection(houses);
}
const disc = (x, y) => Math.hypot(x, y) <= 500;
const strip = (x, y) => Math.abs(y) <= 100;

const seen = [0, 60].map((latitude) => {
  const ellipse = turf.standardDeviationalEllipse(town(latitude, disc));
  const [west, south, east, north] = turf.bbox(ellipse);
  const metres = (a, b) => Math.round(turf.distance(a, b, { units: "meters" }));
  const middle = (west + east) / 2;
  const wide = metres([west, latitude], [east, latitude]);
  const high = metres([middle, south], [middle, north]);
  const { numberOfFeatures, percentageWithinEllipse } =
    ellipse.properties.standardDeviationalEllipse;
  const within = Math.round(percentageWithinEllipse);
  console.log("latitude", latitude, { wide, high, within, numberOfFeatures });
  return { wide, high, within };
});
const { semiMajorAxis, semiMinorAxis } =
  turf.standardDeviationalEllipse(town(0, strip)).properties.standardDeviationalEllipse;
const axes = [semiMajorAxis, semiMinorAxis].map((axis) => Math.round(axis * DEGREE));
console.log("strip of 1,000 by 200 m: major and minor", axes);
const [equator, north] = seen;
assert.deepStrictEqual(equator, { wide: 711, high: 711, within: 51 });
assert.deepStrictEqual(north, { wide: 1421, high: 711, within: 78 });
assert.deepStrictEqual(axes, [100, 428]);
JAVASCRIPT
node ellipse.mjs
