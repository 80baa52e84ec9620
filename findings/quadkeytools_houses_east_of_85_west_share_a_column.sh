#!/usr/bin/env bash
# quadkeytools puts every house east of 85 degrees west into the column of tiles at 85 degrees west.
#
# Guess before the run: the quadkey of a house is that of the tile in which it lies, as in Bing's
# article that the README cites, and the box of the tile holds the house.
# Seen: for Seattle and Winnipeg it is. For New York, Berlin, Cape Town and Tokyo the latitude is
# right and the longitude is 85.05 west: the box of each holds no house of the town, Berlin and a
# house as far north in Warsaw have one key, and locationToPixel has both on one pixel. inside says
# that each lies in its tile, as it takes the same way. The way back from a key is right.
# Versions: quadkeytools 0.0.2 (npm). Source: lib/index.js, locationToPixel clips the longitude to
# MinLongitude and MinLatitude, in place of MaxLongitude. Its README has an example at 160 west.
# Hurt: who counts, groups or fetches buildings by tiles with it: of Europe, Africa, Asia and the
# east of America one column of tiles is left, and towns of one latitude add up.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit quadkeytools@0.0.2 > npm.log
cat > keys.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const { bbox, inside, locationToPixel, locationToQuadkey, tileToQuadkey } =
  require("quadkeytools");

const DETAIL = 12;
const towns = {
  Seattle: { lat: 47.6, lng: -122.3 }, Winnipeg: { lat: 49.9, lng: -97.1 },
  "New York": { lat: 40.7, lng: -74 }, Berlin: { lat: 52.5, lng: 13.4 },
  Warsaw: { lat: 52.5, lng: 21 }, "Cape Town": { lat: -33.9, lng: 18.4 },
  Tokyo: { lat: 35.7, lng: 139.7 },
};
const keys = {}, held = {};
for (const [name, town] of Object.entries(towns)) {
  const key = locationToQuadkey(town, DETAIL), { min, max } = bbox(key);
  keys[name] = key;
  held[name] = min.lng <= town.lng && town.lng <= max.lng;
  console.log(name, key, "box from", min.lng.toFixed(2), "to", max.lng.toFixed(2));
  assert(min.lat <= town.lat && town.lat <= max.lat && inside(town, key));
  if (!held[name]) assert(min.lng < -85 && max.lng > -85.06);
}
assert.deepStrictEqual(Object.keys(held).filter((name) => held[name]), ["Seattle", "Winnipeg"]);
assert.equal(keys.Berlin, keys.Warsaw);
assert.deepStrictEqual(
  locationToPixel(towns.Berlin, DETAIL), locationToPixel(towns.Warsaw, DETAIL));
const column = Math.floor((13.4 + 180) / 360 * 2 ** DETAIL);
const { min, max } = bbox(tileToQuadkey({ x: column, y: 1343 }, DETAIL));
console.log("way back", min, max);
assert(min.lng <= 13.4 && 13.4 <= max.lng);
JAVASCRIPT
node keys.cjs
