#!/usr/bin/env bash
# flatten-js says that what lies within a building is as far from it as from its walls.
#
# Guess before the run: the distance of a hall of 10 x 10 m to a door, a cable or a stair tower
# within it is 0, as it is for what crosses its wall, and as shapely, JTS and PostGIS have it.
# Seen: 5 m to a point in the middle, 2 m to a cable and to a tower 2 m from the wall, from either
# side, though contains is true and intersect is true; 0 only where outlines meet. Outside it is
# right. A search within 1 m of the point finds no building, though the point lies in the hall.
# Versions: @flatten-js/core 1.6.15 (npm). Source: dist/main.mjs, Distance.point2polygon,
# shape2polygon and polygon2polygon take the least distance to the edges and never ask contains. The
# README and the comments have it as the distance to the shape. No issue is on it.
# Hurt: who assigns addresses, panels or detections to the nearest footprint: the more surely one
# lies in a building, the farther it is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit @flatten-js/core@1.6.15 > npm.log
cat > distance.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { Box, Point, Polygon, Relations, Segment } from "@flatten-js/core";

const building = (west, south, east, north) => new Polygon(new Box(west, south, east, north));
const hall = building(0, 0, 10, 10);
const things = {
  "point in the middle": new Point(5, 5),
  "cable": new Segment(new Point(2, 2), new Point(3, 3)),
  "tower": building(2, 2, 4, 4),
  "tower through the wall": building(8, 2, 12, 4),
  "tower outside": building(13, 2, 14, 4),
};
const found = {};
for (const [name, thing] of Object.entries(things)) {
  found[name] = [hall.distanceTo(thing)[0], thing.distanceTo(hall)[0], hall.contains(thing)];
  console.log(name, "from hall, from it, contained:", found[name].join());
}
assert.deepStrictEqual(found, {
  "point in the middle": [5, 5, true],
  "cable": [2, 2, true],
  "tower": [2, 2, true],
  "tower through the wall": [0, 0, false],
  "tower outside": [3, 3, false],
});
assert(Relations.intersect(hall, things.tower));
JAVASCRIPT
node distance.mjs
