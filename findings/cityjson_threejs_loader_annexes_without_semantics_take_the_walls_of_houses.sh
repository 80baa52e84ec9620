#!/usr/bin/env bash
# cityjson-threejs-loader calls the roof of a house its floor if a part beside it has no semantics.
#
# Guess before the run: in the semantics of a building of several solids, null in place of a solid
# says that nothing is known of its surfaces, as CityJSON allows for a shell and for a whole solid;
# the other solids keep their roofs, walls and floors, and the model in memory is left as it was.
# Seen: of a house of 6 surfaces behind such an annex, the floor is called a roof, and walls and roof
# are of no kind; of the annex, a wall is called a floor and the roof a wall. There is no message.
# With six nulls for the annex, or with the annex behind the house, all is right. The values in the
# model are flat afterwards, as no solid may have them: saved again, it is no valid CityJSON.
# Versions: cityjson-threejs-loader 0.4.0 (npm, the latest), three 0.152.2. Source:
# src/parsers/geometry/TriangleParser.js, flattenGeometry: semantics.values.flat(2) of the shared
# object, so that one null stands for one surface.
# Hurt: who colours roofs, or sums them for panels, in a model of which a part has no semantics.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit cityjson-threejs-loader@0.4.0 three@0.152.2 \
  esbuild@0.25.12
cat > look.mjs <<'JAVASCRIPT'
import assert from 'node:assert';
import {CityJSONLoader} from 'cityjson-threejs-loader/src/base/CityJSONLoader.js';
import {CityJSONParser} from 'cityjson-threejs-loader/src/parsers/CityJSONParser.js';
import {defaultSemanticsColors} from 'cityjson-threejs-loader/src/defaults/colors.js';

const TYPES = Object.keys(defaultSemanticsColors);
const corners = (left) => [0, 6].flatMap((z) =>
  [[0, 0], [10, 0], [10, 10], [0, 10]].map(([x, y]) => [left + x, y, z]));
/** Return the shell of a box: its floor, four walls and its roof. */
const box = (first) => [[
  [3, 2, 1, 0], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7], [4, 5, 6, 7],
].map((ring) => [ring.map((corner) => first + corner)])];

/** Return the kind of each of the twelve surfaces, and the values that the model has afterwards. */
function kinds(values) {
  const semantics = {values, surfaces: ['Ground', 'Wall', 'Roof'].map(
    (kind) => ({type: `${kind}Surface`}))};
  const loader = new CityJSONLoader(new CityJSONParser());
  loader.load({
    type: 'CityJSON', version: '2.0', vertices: [...corners(0), ...corners(10)],
    transform: {scale: [1, 1, 1], translate: [0, 0, 0]},
    CityObjects: {house: {type: 'Building', geometry: [
      {type: 'CompositeSolid', lod: '2.2', boundaries: [box(0), box(8)], semantics}]}},
  });
  const {attributes} = loader.scene.children[0].geometry;
  const found = [];
  for (let i = 0; i < attributes.boundaryid.count; i++) {
    const type = attributes.surfacetype.getX(i);
    found[attributes.boundaryid.getX(i)] = type < 0 ? '-' : TYPES[type][0];
  }
  return [found.join(''), JSON.stringify(semantics.values)];
}

const house = [[0, 1, 1, 1, 1, 2]];
const unknown = [[null, null, null, null, null, null]];
for (const [name, values, expected] of [
  ['annex of null, house', [null, house], '-GWWWWR-----'],
  ['annex of six nulls, house', [unknown, house], '------GWWWWR'],
  ['house, annex of null', [house, null], 'GWWWWR------'],
]) {
  const [found, after] = kinds(values);
  console.log(`${name}: ${found}, the model afterwards ${after}`);
  assert.strictEqual(found, expected);
  assert.deepStrictEqual(JSON.parse(after), values.flat(2));
}
JAVASCRIPT
aliases=()
for name in LineMaterial LineSegments2 LineSegmentsGeometry; do
  aliases+=("--alias:three/examples/jsm/lines/$name=three/examples/jsm/lines/$name.js")
done
node_modules/.bin/esbuild look.mjs --bundle --platform=node --format=esm --log-level=error \
  --outfile=bundle.mjs "${aliases[@]}"
node bundle.mjs
