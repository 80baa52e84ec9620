#!/usr/bin/env bash
# The editor of deck.gl-community deletes house 11 for house 9, and puts corners in other walls.
#
# Guess before the run: deleteFeatures([9, 10]) of its collection takes away the features 9 and 10,
# in whatever order they are given; a click on a wall adds a corner in that wall, as it does for
# outlines without heights.
# Seen: deleteFeatures([9, 10]) takes 9 and 11, [2, 10] takes 2 and 11, [9, 100] takes 9 and 101,
# and [2, 3] is right. Of 1,000 houses, the 143 with numbers that 7 divides are chosen: 143 are
# gone, 118 of them others, and 118 of the chosen stay. The array of the caller comes back in the
# order of words: 10, 9. ModifyMode, with the viewport that a message asks for where outlines have
# heights, adds the corner of a click 0.5 m above the south wall of a house in the shape of an L to
# the wall at 8 m east, which begins at 10 m north: the outline goes 9.5 m down and back. Without
# heights it lies in the south wall. There is no message.
# Versions: @deck.gl-community/editable-layers 9.3.8 (the latest), which follows nebula.gl, node 20.
# Source: dist/edit-modes/immutable-feature-collection.js, deleteFeatures: featureIndexes.sort()
# without numbers; dist/edit-modes/utils.js, nearestPointOnProjectedLine: the distance is that from
# the endless line through each wall.
# Hurt: who corrects houses by hand on such a map: good ones are deleted, bad ones stay.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit @deck.gl-community/editable-layers@9.3.8 > npm.log
cat > town.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { ImmutableFeatureCollection, ModifyMode } from "@deck.gl-community/editable-layers";

const houses = (count) => ({
  type: "FeatureCollection",
  features: Array.from({ length: count }, (_, number) => ({
    type: "Feature", properties: { number },
    geometry: { type: "Point", coordinates: [number, 0] },
  })),
});
const gone = (count, chosen) => {
  const left = new ImmutableFeatureCollection(houses(count)).deleteFeatures(chosen).getObject();
  const kept = new Set(left.features.map((house) => house.properties.number));
  return houses(count).features.map((_, number) => number).filter((number) => !kept.has(number));
};
for (const [count, chosen, found] of [
  [15, [2, 3], [2, 3]], [15, [9, 10], [9, 11]], [15, [2, 10], [2, 11]], [200, [9, 100], [9, 101]],
]) {
  const given = [...chosen];
  const removed = gone(count, chosen);
  console.log("of", count, "houses", given, "removed", removed, "the array is now", chosen);
  assert.deepEqual(removed, found);
}
const sevens = houses(1000).features.map((_, number) => number).filter((one) => one % 7 === 0);
const removed = gone(1000, [...sevens]);
const others = removed.filter((number) => number % 7).length;
console.log("chosen", sevens.length, "removed", removed.length, "of which others", others);
assert.deepEqual([sevens.length, removed.length, others], [143, 143, 118]);

const SCALE = [111_300 * Math.cos((52 * Math.PI) / 180), 111_300];
const place = ([x, y]) => [13.4 + x / SCALE[0], 52 + y / SCALE[1]];
const metres = ([x, y]) => [(x - 13.4) * SCALE[0], (y - 52) * SCALE[1]].map(
  (value) => Math.round(value * 10) / 10);
const outline = [[0, 0], [20, 0], [20, 10], [8, 10], [8, 20], [0, 20], [0, 0]];
const viewport = { longitude: 13.4, latitude: 52, zoom: 19, width: 800, height: 600 };
const corner = (height, click) => {
  const coordinates = [outline.map((point) => [...place(point), ...height])];
  const house = { type: "Feature", properties: {}, geometry: { type: "Polygon", coordinates } };
  const mapCoords = place(click);
  let edited;
  const props = {
    data: { type: "FeatureCollection", features: [house] }, selectedIndexes: [0],
    modeConfig: { viewport }, onEdit: (action) => { edited = action; },
    lastPointerMoveEvent: { picks: [{ index: 0, object: house, isGuide: false }], mapCoords },
  };
  const mode = new ModifyMode();
  const object = mode.getGuides(props).features.find(
    (guide) => guide.properties.editHandleType === "intermediate");
  mode.handleClick({ picks: [{ isGuide: true, object, index: 0 }], mapCoords }, props);
  const ring = edited.updatedData.features[0].geometry.coordinates[0];
  const number = object.properties.positionIndexes[1];
  const around = [number - 1, number, number + 1].map((index) => metres(ring[index]));
  console.log("height", height, "click at", click, "corner between", JSON.stringify(around));
  return around;
};
const south = (x) => [[0, 0], [x, 0], [20, 0]];
assert.deepEqual(corner([], [4, 0.5]), south(4));
assert.deepEqual(corner([], [8.3, 0.5]), south(8.3));
assert.deepEqual(corner([5], [4, 0.5]), south(4));
assert.deepEqual(corner([5], [8.3, 0.5]), [[8, 10], [8, 0.5], [8, 20]]);
JAVASCRIPT
node town.mjs
