#!/usr/bin/env bash
# cityjson-threejs-loader gives buildings after the 65,536th the attributes of those at the front.
#
# Guess before the run: the mesh of a CityJSON file says for each triangle which city object it
# belongs to, so that a click names the building below it and a map of an attribute colours it by
# its own value; and walls stay where they are, as the loader centres the town near the origin.
# Seen: of a town of 65,540 objects the last one, 30 m high, is named as the fourth, and takes its
# colour of 4 m; all of the first 65,536 are right. Vertices become float32 before they are centred:
# at a northing of 5,800,000 m a roof of 10.2 x 10.2 m is 10.21875 m wide from west to east, and
# 10.5 m from south to north. There is no message.
# Versions: cityjson-threejs-loader 0.4.0 (npm, the latest), three 0.152.2. Source:
# src/objects/CityObjectsMesh.js, constructor: objectIds are a Uint16Array; the vertices are a
# Float32Array when applyMatrix4 gets the matrix of CityJSONLoader.computeMatrix.
# Hurt: who looks at a town in a viewer built on it: heights of one building are read at another.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit cityjson-threejs-loader@0.4.0 three@0.152.2 \
  esbuild@0.25.12
cat > look.mjs <<'JAVASCRIPT'
import assert from 'node:assert';
import {Group} from 'three';
import {AttributeEvaluator} from 'cityjson-threejs-loader/src/helpers/AttributeEvaluator.js';
import {CityJSONLoader} from 'cityjson-threejs-loader/src/base/CityJSONLoader.js';
import {CityJSONParser} from 'cityjson-threejs-loader/src/parsers/CityJSONParser.js';

/** Return the mesh of a town in which only the last building has a geometry, a roof of 10.2 m. */
function town(count) {
  const CityObjects = {};
  for (let i = 0; i < count; i++) {
    const last = i === count - 1;
    CityObjects[`house-${i}`] = {
      type: 'Building',
      attributes: {height: last ? 30 : (i % 97) + 1},
      geometry: last
        ? [{type: 'MultiSurface', lod: '1.0', boundaries: [[[0, 1, 2, 3]]]}] : [],
    };
  }
  const corners = [[0, 0], [10200, 0], [10200, 10200], [0, 10200]];
  const loader = new CityJSONLoader(new CityJSONParser());
  loader.load({
    type: 'CityJSON', version: '2.0', CityObjects,
    transform: {scale: [0.001, 0.001, 0.001], translate: [500000.1, 5800000.1, 0]},
    vertices: corners.map(([x, y]) => [x, y, 3000]),
  });
  assert(loader.scene instanceof Group);
  return loader.scene.children[0];
}

for (const [count, named, height] of [
  [1000, 'house-999', '30'], [65536, 'house-65535', '30'], [65540, 'house-3', '4'],
]) {
  const mesh = town(count);
  const {objectId} = mesh.resolveIntersectionInfo({face: {a: 0}});
  const evaluator = new AttributeEvaluator(mesh.citymodel, 'height');
  mesh.addAttributeByProperty(evaluator);
  const colour = evaluator.getUniqueValues()[mesh.geometry.getAttribute('attributevalue').getX(0)];
  console.log(`${count} objects: house-${count - 1} is ${objectId}, coloured as ${colour} m`);
  assert.strictEqual(objectId, named);
  assert.strictEqual(colour, height);
  mesh.geometry.computeBoundingBox();
  const {min, max} = mesh.geometry.boundingBox;
  const sizes = [max.x - min.x, max.y - min.y];
  console.log('a roof of 10.2 x 10.2 m measures', sizes);
  assert.deepStrictEqual(sizes, [10.21875, 10.5]);
}
JAVASCRIPT
aliases=()
for name in LineMaterial LineSegments2 LineSegmentsGeometry; do
  aliases+=("--alias:three/examples/jsm/lines/$name=three/examples/jsm/lines/$name.js")
done
node_modules/.bin/esbuild look.mjs --bundle --platform=node --format=esm --log-level=error \
  --outfile=bundle.mjs "${aliases[@]}"
node bundle.mjs
