#!/usr/bin/env bash
# turf's median centre with weights is the one without: a tower counts as much as a shed.
#
# Guess before the run: centerMedian with weight: "people" is the point of the least sum of people
# times distance. If one of five houses has 1,000 people and the others have one each, it lies at
# that house, as centerMean with the same option nearly does.
# Seen: iterated to the end (tolerance 1e-9, counter 5000), the median with and without weights is
# the same point to 1e-9 degrees, 1,164 m from the tower; people times distance is 189 times as much
# there as at the tower. The weight multiplies the distance, and is then divided by it. With its
# defaults (10 steps, 0.001 degrees) the function stops 41 m from the tower, since it starts at the
# weighted mean: the result depends on where it stops. No message.
# Versions: @turf/turf 7.4.0 (npm). Source: packages/turf-center-median/index.ts, findMedian: k is
# weight / (weight * distance).
# Hurt: who looks for the centre of a town by people, floors or areas of its buildings: the closer
# the tolerance, the less the weights count, down to nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit @turf/turf@7.4.0
cat > median.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import * as turf from "@turf/turf";

const PLACES = [[0, 0], [10, 0], [0, 10], [20, 15], [13, 20]];
const PEOPLE = [1, 1, 1, 1000, 1];
const houses = turf.featureCollection(
  PLACES.map(([x, y], i) => turf.point([13 + x / 1000, 52 + y / 1000], { people: PEOPLE[i] })),
);
const tower = houses.features[3];
const FINE = { tolerance: 1e-9, counter: 5000 };
const metres = (point) => turf.distance(point, tower, { units: "meters" });
const travel = (point) =>
  turf.featureReduce(
    houses, (sum, house) => sum + house.properties.people * turf.distance(point, house), 0,
  );

const plain = turf.centerMedian(houses, FINE);
const weighted = turf.centerMedian(houses, { weight: "people", ...FINE });
const coarse = turf.centerMedian(houses, { weight: "people" });
const mean = turf.centerMean(houses, { weight: "people" });
for (const [name, point] of Object.entries({ plain, weighted, coarse, mean }))
  console.log(name, point.geometry.coordinates, metres(point).toFixed(0), "m from the tower");
const ratio = Math.round(travel(weighted) / travel(tower));
console.log("people times distance:", ratio, "times as much as at the tower");
const apart = turf.distance(plain, weighted, { units: "meters" });
assert(apart < 0.001 && Math.round(metres(weighted)) === 1164);
assert(Math.round(metres(coarse)) === 41 && metres(mean) < 10);
assert.strictEqual(ratio, 189);
JAVASCRIPT
node median.mjs
