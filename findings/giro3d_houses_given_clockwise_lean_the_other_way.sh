#!/usr/bin/env bash
# giro3d gives corners of houses the heights of other corners, if a ring is clockwise or a courtyard.
#
# Guess before the run: with an array as elevation "each value will be used to determine the height
# of the corresponding vertex in the geometry", in the order of its coordinates.
# Seen: of a house of 10 x 10 m on a slope that rises to the east, 100 to 110 m, all corners are
# right if its outline is counter-clockwise. Clockwise, as in shapefiles, two of four are 10 m off:
# the house leans to the north. Of a block of 20 x 20 m with a courtyard the four corners of the
# courtyard have 100, 120, 120 and 100 m, those of the outer wall, 5 to 15 m off, so that the
# floor breaks. It is so with and without values for the closing vertices.
# There is no message.
# Versions: @giro3d/giro3d 2.0.4 (npm, the latest), with its ol and three. Source:
# renderer/geometries/GeometryConverter.js, createFloorVertices: getCoordinates(true) turns rings
# round, and elevation[i] counts the vertices of each ring from 0.
# Hurt: who drapes footprints over a terrain with a height for each corner.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit @giro3d/giro3d@2.0.4 ol@10.8.0 three@0.180.0 \
  esbuild@0.25.12
cat > slope.mjs <<'JAVASCRIPT'
import assert from 'node:assert';
import GeometryConverter from '@giro3d/giro3d/renderer/geometries/GeometryConverter.js';
import Polygon from 'ol/geom/Polygon.js';
import {Vector3} from 'three';

const square = (start, side) => [[start, start], [start + side, start],
  [start + side, start + side], [start, start + side], [start, start]];
const ground = (x) => 100 + x;

/** Return how far each vertex of the mesh is from the ground, in metres. */
function errors(rings, closing) {
  const elevation = rings.flatMap((ring) => (closing ? ring : ring.slice(0, -1)))
    .map(([x]) => ground(x));
  const mesh = new GeometryConverter().build(new Polygon(rings),
    {fill: {color: 'red'}, elevation, origin: new Vector3(0, 0, 0)});
  const corners = mesh.surface.geometry.getAttribute('position');
  return Array.from({length: corners.count}, (_, index) =>
    Math.abs(corners.getZ(index) - ground(corners.getX(index))));
}

for (const closing of [true, false]) {
  for (const [name, rings, expected] of [
    ['counter-clockwise', [square(0, 10)], [0, 0, 0, 0]],
    ['clockwise', [square(0, 10).reverse()], [0, 10, 0, 10]],
    ['with a courtyard', [square(0, 20), square(5, 10).reverse()], [0, 0, 0, 0, 5, 15, 5, 15]],
  ]) {
    const seen = errors(rings, closing);
    console.log(`${name}, ${closing ? 'with' : 'without'} closing vertices: off by`, seen);
    assert.deepStrictEqual(seen, expected);
  }
}
JAVASCRIPT
node_modules/.bin/esbuild slope.mjs --bundle --platform=node --format=esm --log-level=error \
  --external:laz-perf --outfile=bundle.mjs \
  "--banner:js=globalThis.onmessage = null; globalThis.self = globalThis;"
node bundle.mjs
