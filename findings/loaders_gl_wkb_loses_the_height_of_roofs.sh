#!/usr/bin/env bash
# loaders.gl writes WKB without heights, also where its option hasZ is set.
#
# Guess before the run: WKBWriter with {wkb: {hasZ: true}}, an option that it declares, writes the
# third coordinate of each corner, as WKBLoader reads it and WKTWriter writes it.
# Seen: a roof with its eaves at 6 m and its ridge at 9 m has corners of two coordinates, 93 bytes in
# place of 133, with the option and without it. WKBLoader reads the heights of the same roof from
# WKB of type 1003, and WKTWriter keeps them in the text. There is no message.
# Versions: @loaders.gl/wkt 4.5.2, @loaders.gl/core 4.5.4 (npm). Source: dist/wkb-writer.js, which
# calls convertGeometryToWKB without the options.
# Hurt: who stores roofs, walls or points with heights from the browser in a database or GeoParquet:
# all of them are flat when they are read again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit @loaders.gl/wkt@4.5.2 @loaders.gl/core@4.5.4
cat > look.mjs <<'JAVASCRIPT'
import assert from 'node:assert';
import {encodeSync, encodeTextSync, parseSync} from '@loaders.gl/core';
import {WKBLoader, WKBWriter, WKTWriter} from '@loaders.gl/wkt';

const corners = [[0, 0, 6], [10, 0, 6], [10, 5, 9], [0, 5, 9], [0, 0, 6]];
const roof = {type: 'Polygon', coordinates: [corners]};
const read = (bytes) => parseSync(bytes, WKBLoader).coordinates[0];

// The same roof as ISO WKB: little endian, type 1003, one ring, its corners.
const right = new DataView(new ArrayBuffer(1 + 3 * 4 + 3 * 8 * corners.length));
right.setUint8(0, 1);
[1003, 1, corners.length].forEach((number, place) => right.setUint32(1 + 4 * place, number, true));
corners.flat().forEach((number, place) => right.setFloat64(13 + 8 * place, number, true));
console.log('right', right.byteLength, 'bytes:', JSON.stringify(read(right.buffer)));
assert.deepStrictEqual(read(right.buffer), corners);
assert.strictEqual(right.byteLength, 133);

assert('hasZ' in WKBWriter.options.wkb);
for (const options of [{}, {wkb: {hasZ: true}}]) {
  const bytes = encodeSync(roof, WKBWriter, options);
  console.log(JSON.stringify(options), bytes.byteLength, 'bytes:', JSON.stringify(read(bytes)));
  assert.deepStrictEqual(read(bytes), corners.map(([x, y]) => [x, y]));
  assert.strictEqual(bytes.byteLength, 93);
}
const text = encodeTextSync(roof, WKTWriter);
console.log(text);
assert(text.includes('10 5 9'));
JAVASCRIPT
node look.mjs
