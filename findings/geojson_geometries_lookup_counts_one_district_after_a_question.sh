#!/usr/bin/env bash
# geojson-geometries-lookup counts one container of a house at most once it was asked for any.
#
# Guess before the run: hasContainers answers yes or no, and later counts with the same options are
# those of before; ignorePolygon, which the comments of each method name, leaves polygons out.
# Seen: a house lies in a plot, a district and a town. countContainers gives 3, then hasContainers
# true, and after it countContainers 1 and getContainers one of the three, for this house and for
# all others that are counted with the same options object, which now holds limit: 1. With a new
# object for each call it is 3. Of 50 houses, each asked first and counted then, the sum is 50
# instead of 150. With ignorePolygon the three polygons are still found; ignorePolygons, which no
# comment names, leaves them out. There is no message.
# Versions: geojson-geometries-lookup 0.5.0 (npm, the latest), node 20. Source: index.js,
# hasContainers: options.limit = 1 is set on the object of the caller; forEachContainer reads
# options.ignorePolygons.
# Hurt: who joins buildings with districts by a lookup with one options object: each building has
# one district, and shares and sums by district are of one layer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit geojson-geometries-lookup@0.5.0 > npm.log
cat > town.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const Lookup = require("geojson-geometries-lookup");

const square = (name, west, south, side) => ({
  type: "Feature",
  properties: { name },
  geometry: {
    type: "Polygon",
    coordinates: [[
      [west, south], [west + side, south], [west + side, south + side], [west, south + side],
      [west, south],
    ]],
  },
});
const areas = [square("plot", 0, 0, 10), square("district", 0, 0, 20), square("town", -5, -5, 40)];
const lookup = new Lookup({ type: "FeatureCollection", features: areas });
const house = square("house", 4, 4, 1).geometry;

const options = { ignorePoints: true };
const before = lookup.countContainers(house, options);
const any = lookup.hasContainers(house, options);
const after = lookup.countContainers(house, options);
const found = lookup.getContainers(house, options).features.length;
console.log("count", before, "any", any, "count", after, "found", found, "options", options);
assert.deepStrictEqual([before, any, after, found, options.limit], [3, true, 1, 1, 1]);
assert.equal(lookup.countContainers(house, { ignorePoints: true }), 3);

const sum = (make) => {
  let total = 0;
  for (let number = 0; number < 50; number += 1) {
    const one = square("house", 1 + number / 10, 2, 0.05).geometry;
    if (lookup.hasContainers(one, make())) total += lookup.countContainers(one, make());
  }
  return total;
};
const shared = { ignorePoints: true };
const sums = [sum(() => shared), sum(() => ({ ignorePoints: true }))];
console.log("containers of 50 houses with one object", sums[0], "with new ones", sums[1]);
assert.deepStrictEqual(sums, [50, 150]);

const ignored = ["ignorePolygon", "ignorePolygons"].map(
  (name) => lookup.countContainers(house, { [name]: true }));
console.log("with ignorePolygon", ignored[0], "with ignorePolygons", ignored[1]);
assert.deepStrictEqual(ignored, [3, 0]);
JAVASCRIPT
node town.cjs
