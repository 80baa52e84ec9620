#!/usr/bin/env bash
# cityjson-threejs-loader puts turned copies of a template thousands of kilometres from their place.
#
# Guess before the run: a GeometryInstance of CityJSON puts its template at the reference point,
# turned, scaled and moved by its transformationMatrix; the loader then moves the whole town, houses
# and copies alike, near the origin.
# Seen: of four sheds beside a house in UTM, the one that is only put somewhere is right. The one
# turned by 90 degrees lies 8,233 km from its place, the one enlarged by 1.5 lies 2,911 km from it,
# and the one that its matrix moves by 5 m is not moved. There is no message.
# Versions: cityjson-threejs-loader 0.4.0 (npm, the latest), three 0.152.2. Source:
# src/objects/CityObjectsInstancedMesh.js moves the vertices of the template by minus the centre of
# the town before the matrix of each copy turns them, and with them that shift;
# src/parsers/CityJSONParser.js, parse: setPosition overwrites the shift in transformationMatrix.
# Hurt: who looks at a city model with copied sheds, trees or lamps: all but upright copies of the
# size of the template are gone, and a view of all objects shows a dot.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit cityjson-threejs-loader@0.4.0 three@0.152.2 \
  esbuild@0.25.12
cat > look.mjs <<'JAVASCRIPT'
import assert from 'node:assert';
import {Box3, Matrix4, Vector3} from 'three';
import {CityJSONLoader} from 'cityjson-threejs-loader/src/base/CityJSONLoader.js';
import {CityJSONParser} from 'cityjson-threejs-loader/src/parsers/CityJSONParser.js';

const EAST = 500000;
const NORTH = 5800000;
const square = [[0, 0], [4, 0], [4, 4], [0, 4]];
const matrices = {
  upright: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
  turned: [0, -1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
  larger: [1.5, 0, 0, 0, 0, 1.5, 0, 0, 0, 0, 1.5, 0, 0, 0, 0, 1],
  moved: [1, 0, 0, 5, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
};
const house = square.map(([x, y]) => [EAST + 25 * x, NORTH + 25 * y, 3]);
const CityObjects = {house: {
  type: 'Building', geometry: [{type: 'MultiSurface', lod: '1', boundaries: [[[0, 1, 2, 3]]]}],
}};
const places = {};
for (const [index, name] of Object.keys(matrices).entries()) {
  house.push(places[name] = [EAST + 10 + 20 * index, NORTH + 10, 0]);
  CityObjects[name] = {type: 'CityFurniture', geometry: [{
    type: 'GeometryInstance', template: 0, boundaries: [4 + index],
    transformationMatrix: matrices[name],
  }]};
}
const loader = new CityJSONLoader(new CityJSONParser());
loader.load({
  type: 'CityJSON', version: '2.0', CityObjects, vertices: house,
  transform: {scale: [1, 1, 1], translate: [0, 0, 0]},
  'geometry-templates': {
    templates: [{type: 'MultiSurface', lod: '1', boundaries: [[[0, 1, 2, 3]]]}],
    'vertices-templates': square.map(([x, y]) => [x, y, 2]),
  },
});
const copies = loader.scene.children.find((mesh) => mesh.isInstancedMesh);
const centre = [EAST + 50, NORTH + 50];
const corners = copies.geometry.getAttribute('position');
const away = {};
for (const [index, name] of Object.keys(matrices).entries()) {
  const matrix = new Matrix4();
  copies.getMatrixAt(index, matrix);
  const seen = new Box3();
  const right = new Box3();
  for (let i = 0; i < corners.count; i++) {
    seen.expandByPoint(new Vector3().fromBufferAttribute(corners, i).applyMatrix4(matrix));
  }
  for (const [x, y] of square) {
    const corner = new Vector3(x, y, 2).applyMatrix4(new Matrix4().set(...matrices[name]));
    const [east, north, up] = places[name];
    right.expandByPoint(corner.add(new Vector3(east - centre[0], north - centre[1], up)));
  }
  away[name] = seen.getCenter(new Vector3()).distanceTo(right.getCenter(new Vector3()));
  console.log(`${name}: ${away[name].toFixed(2)} m from its place`);
}
assert(away.upright < 0.6);
assert(Math.abs(away.moved - 5) < 0.6);
assert.strictEqual(Math.round(away.turned / 1000), 8233);
assert.strictEqual(Math.round(away.larger / 1000), 2911);
JAVASCRIPT
aliases=()
for name in LineMaterial LineSegments2 LineSegmentsGeometry; do
  aliases+=("--alias:three/examples/jsm/lines/$name=three/examples/jsm/lines/$name.js")
done
node_modules/.bin/esbuild look.mjs --bundle --platform=node --format=esm --log-level=error \
  --outfile=bundle.mjs "${aliases[@]}"
node bundle.mjs
