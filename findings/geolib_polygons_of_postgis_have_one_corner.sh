#!/usr/bin/env bash
# geolib reads a polygon of PostGIS as one corner, and that of a block without its courtyard.
#
# Guess before the run: wktToPolygon reads well-known text as PostGIS, GDAL and shapely write it,
# with or without a space after a comma; a text that it can't hold, as one with a courtyard, raises,
# as a MULTIPOLYGON does.
# Seen: with spaces, as shapely writes, a house of 68 x 111 m has five corners, 7,629 m2 and its
# middle in it. Without, as ST_AsText and ogr2ogr write, it has one corner, no area, and no point is
# in it, not even the corners; nothing raises. A block with a courtyard has the area of its walls
# alone, and the middle of the yard is in it.
# Versions: geolib 3.3.14 (npm), node 20. Source: lib/index.js, wktToPolygon cuts the text up to the
# first closing bracket at ", " and reads two numbers of each piece; the README names WKT and shows
# a text with spaces. Issue 310 is on a text that lacks a bracket.
# Hurt: who asks with getAreaOfPolygon or isPointInPolygon about footprints from a database: areas
# are zero, addresses are in no building, and those in yards are in one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit geolib@3.3.14 > npm.log
cat > read.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const { getAreaOfPolygon, isPointInPolygon, wktToPolygon } = require("geolib");

const square = (from, to) => [[from, from], [to, from], [to, to], [from, to], [from, from]]
  .map(([x, y]) => [(13 + x / 1000).toFixed(4), (52 + y / 1000).toFixed(4)]);
const ring = (corners, comma) => `(${corners.map((corner) => corner.join(" ")).join(comma)})`;
const walls = square(0, 1), yard = square(0.2, 0.8);
const middle = { latitude: 52.0005, longitude: 13.0005 };
const texts = {
  "with spaces": `POLYGON (${ring(walls, ", ")})`,
  "without": `POLYGON((${ring(walls, ",").slice(1, -1)}))`,
  "with a yard": `POLYGON (${ring(walls, ", ")}, ${ring(yard, ", ")})`,
};
const found = {};
for (const [name, text] of Object.entries(texts)) {
  const polygon = wktToPolygon(text);
  const area = Math.round(getAreaOfPolygon(polygon));
  found[name] = [polygon.length, area, isPointInPolygon(middle, polygon)];
  console.log(text, "corners, m2, middle within:", found[name].join());
}
assert.deepStrictEqual(found, {
  "with spaces": [5, 7629, true],
  "without": [1, 0, false],
  "with a yard": [5, 7629, true],
});
const corner = wktToPolygon(texts.without);
assert.equal(isPointInPolygon(corner[0], corner), false);
assert.throws(() => wktToPolygon("MULTIPOLYGON (((13 52, 14 52, 14 53, 13 52)))"), /Invalid wkt/);
JAVASCRIPT
node read.cjs
