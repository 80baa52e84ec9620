#!/usr/bin/env bash
# wkx moves houses in UTM by hundreds of kilometres, if they go through TWKB.
#
# Guess before the run: toTwkb and parseTwkb give back what toWkb and parse do, up to the rounding
# to five decimals that the header of the bytes names; numbers of any size, as TWKB's have 64 bits.
# Seen: a house at (500000.25, 5500000.25) comes back at (6079.01, 2442.11), of the right size: the
# coordinates are left over modulo 21474.83648 m, as 100,000 times their metres is cut to 32 bits.
# A right TWKB of the same house, as a database would write it, is read likewise, at (6079.01,
# 2442.11). Degrees come back as they were. Heights lose their decimals: 12.75 m is 12. There is no
# message.
# Versions: wkx 0.5.0 (npm). Source: lib/binarywriter.js, writeVarInt, and lib/binaryreader.js,
# readVarInt (bitwise operators of JavaScript are 32 bits wide); lib/polygon.js, toTwkb (five
# decimals, none for heights, fixed). The README lists TWKB beside WKB and names no limit.
# Hurt: who sends footprints in a projection of metres to the browser as TWKB to save bytes: every
# town lies in the first 21 km of its zone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit wkx@0.5.0
cat > twkb.mjs <<'JAVASCRIPT'
import assert from "node:assert/strict";
import wkx from "wkx";

const house = (x, y, ...height) => ({
  type: "Polygon",
  coordinates: [
    [[x, y], [x + 10, y], [x + 10, y + 8], [x, y + 8], [x, y]].map((at) => [...at, ...height]),
  ],
});
const corner = (geometry, index) =>
  geometry.toGeoJSON().coordinates[0][index].map((value) => Math.round(value * 100) / 100);
const first = (geometry) => corner(geometry, 0);
const through = (geojson) => {
  const geometry = wkx.Geometry.parseGeoJSON(geojson);
  const wkb = first(wkx.Geometry.parse(geometry.toWkb()));
  const twkb = first(wkx.Geometry.parseTwkb(geometry.toTwkb()));
  console.log("WKB:", wkb, "TWKB:", twkb);
  return { wkb, twkb };
};

/** Return the TWKB of a polygon with five decimals, from whole numbers of any size. */
function encode(geojson) {
  const bytes = [(10 << 4) | 3, 0]; // five decimals in zigzag, polygon; no box, height or size
  const add = (number) => {
    for (; number >= 128n; number >>= 7n) bytes.push(Number(number & 127n) | 128);
    bytes.push(Number(number));
  };
  add(BigInt(geojson.coordinates.length));
  const before = [0n, 0n];
  for (const ring of geojson.coordinates) {
    add(BigInt(ring.length));
    for (const place of ring)
      place.forEach((value, axis) => {
        const whole = BigInt(Math.round(value * 1e5));
        const step = whole - before[axis];
        add(step < 0n ? -2n * step - 1n : 2n * step);
        before[axis] = whole;
      });
  }
  return Buffer.from(bytes);
}

const degrees = house(15, 49.65);
assert.deepEqual(wkx.Geometry.parseGeoJSON(degrees).toTwkb(), encode(degrees));
assert.deepEqual(through(degrees), { wkb: [15, 49.65], twkb: [15, 49.65] });
const metres = house(500000.25, 5500000.25);
const moved = [6079.01, 2442.11];
assert.deepEqual(through(metres), { wkb: [500000.25, 5500000.25], twkb: moved });
assert.deepEqual(first(wkx.Geometry.parseTwkb(encode(metres))), moved);
const opposite = corner(wkx.Geometry.parseTwkb(encode(metres)), 2);
assert.deepEqual(opposite, [6089.01, 2450.11]);
moved.forEach((value, axis) => {
  const periods = (metres.coordinates[0][0][axis] - value) / 21474.83648;
  assert(Math.abs(periods - Math.round(periods)) < 1e-6); // of 2^31 hundred-thousandths of a metre
});
const height = through(house(15, 49.65, 12.75));
assert.deepEqual(height, { wkb: [15, 49.65, 12.75], twkb: [15, 49.65, 12] });
JAVASCRIPT
node twkb.mjs 2>&1
