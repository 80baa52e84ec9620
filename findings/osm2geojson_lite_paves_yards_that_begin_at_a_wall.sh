#!/usr/bin/env bash
# osm2geojson-lite drops a courtyard whose way begins at a north or east wall of the building.
#
# Guess before the run: a multipolygon of OpenStreetMap becomes a polygon with a hole for each inner
# ring, wherever the ring begins; a yard may touch the wall at a node. A yard inside a pavilion in
# the courtyard of a block is a hole of the pavilion.
# Seen: of a block of 40 x 40 with a yard of 200 that touches the outline at one node, 1600 of roof
# are left instead of 1400 if the yard's way begins at that node and the wall is the north or east
# one. Beginning at the next node, or at a south or west wall, it is cut out. The yard of a
# pavilion is cut out of the block, in the middle of the courtyard, and the pavilion is paved, if
# the block's outline comes first. There is no message. osmtogeojson is right in all cases.
# Versions: osm2geojson-lite 1.2.0, osmtogeojson 2.2.12 (npm). Source: constructPolygonGeometry in
# dist/node/relation.js asks for the first node of an inner ring alone, takes the first outer ring
# that holds it, and lets a ring without one go; pointInsidePolygon in utils.js is half open.
# Hurt: who takes footprints of old towns from OpenStreetMap in the browser: areas grow, and labels
# drawn from them have roofs on yards.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit osm2geojson-lite@1.2.0 osmtogeojson@2.2.12
cat > town.js <<'JS'
const assert = require("assert");
const lite = require("osm2geojson-lite");
const other = require("osmtogeojson");

// The document of one building whose rings share the nodes that lie on each other.
function building(rings) {
  const numbers = new Map(), elements = [], members = [];
  rings.forEach(([role, corners], index) => {
    const nodes = corners.map(([lon, lat]) => {
      const key = `${lon},${lat}`;
      if (!numbers.has(key)) {
        numbers.set(key, numbers.size + 1);
        elements.push({type: "node", id: numbers.size, lon, lat});
      }
      return numbers.get(key);
    });
    elements.push({type: "way", id: 100 + index, nodes: [...nodes, nodes[0]]});
    members.push({type: "way", ref: 100 + index, role});
  });
  elements.push({type: "relation", id: 1, tags: {type: "multipolygon", building: "yes"}, members});
  return {version: 0.6, elements};
}

const area = ring => Math.abs(ring.slice(1).reduce(
  (sum, [x, y], i) => sum + ring[i][0] * y - x * ring[i][1], 0)) / 2;
const parts = ({geometry: {type, coordinates}}) =>
  (type === "Polygon" ? [coordinates] : coordinates).map(rings => rings.map(area));
const read = rings => [
  parts(lite(building(rings), {completeFeature: true}).features[0]),
  parts(other(building(rings)).features[0]),
];

const outline = [[0, 0], [20, 0], [40, 0], [40, 20], [40, 40], [20, 40], [0, 40], [0, 20]];
const yards = {
  south: [[20, 0], [30, 20], [10, 20]], west: [[0, 20], [20, 10], [20, 30]],
  north: [[20, 40], [10, 20], [30, 20]], east: [[40, 20], [20, 30], [20, 10]],
};
for (const [wall, yard] of Object.entries(yards)) {
  const [seen, right] = read([["outer", outline], ["inner", yard]]);
  const [turned] = read([["outer", outline], ["inner", [...yard.slice(1), yard[0]]]]);
  console.log(wall, JSON.stringify({seen, turned, right}));
  assert.deepStrictEqual(right, [[1600, 200]]);
  assert.deepStrictEqual(turned, right);
  assert.deepStrictEqual(seen, ["north", "east"].includes(wall) ? [[1600]] : right);
}

const box = (low, high) => [[low, low], [high, low], [high, high], [low, high]];
const block = [["outer", box(0, 40)], ["inner", box(5, 35)]];
const pavilion = [["outer", box(15, 25)], ["inner", box(18, 22)]];
const [first, right] = read([...block, ...pavilion]);
const [last] = read([...pavilion, ...block]);
console.log("pavilion", JSON.stringify({first, last, right}));
assert.deepStrictEqual(first, [[1600, 900, 16], [100]]);
assert.deepStrictEqual(last, [[100, 16], [1600, 900]]);
assert.deepStrictEqual(right.sort((a, b) => a[0] - b[0]), last);
JS
node town.js
