#!/usr/bin/env bash
# 3d-tiles-tools merges a town with a bounding sphere of 500 m into a box of the size of the earth.
#
# Guess before the run: merge gives the new root a box round the volumes of its tilesets; a sphere
# of radius r becomes a box of 2 r on each side round the same centre.
# Seen: of a sphere of 500 m in Berlin each half side of the box is 6,365 km, and all three point
# almost the same way; the box of the root, with a second town of 500 m beside it, has a half side
# of 19,095 km in place of 1. A sphere round the origin is right, one of 50 m at 200 m from it gives
# the root a half side of 654 m in place of 150. Boxes and regions are right. There is no message.
# The command merge writes the same numbers (run by hand: it downloads 224 MB, and this script the
# file behind it alone).
# Versions: 3d-tiles-tools 0.5.4 (npm, the latest), @cesium/engine 24.0.0. Source:
# src/tools/tilesetProcessing/BoundingVolumes.ts, computeBoundingVolumeBoxFromSphere: the half axes
# are the centre plus the radius, where only the radius should stand, each on its own axis.
# Hurt: who merges city models of different makers: viewers fly to space to see the town, and load
# all of it from wherever they look, or nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm pack --silent 3d-tiles-tools@0.5.4 > pack.log
tar xzf 3d-tiles-tools-0.5.4.tgz
npm install --silent --no-fund --no-audit @cesium/engine@24.0.0 esbuild@0.25.12
cat > look.js <<'JAVASCRIPT'
import assert from 'node:assert';
import {Cartesian3} from '@cesium/engine';
import {BoundingVolumes} from './package/build/src/tools/tilesetProcessing/BoundingVolumes.js';

/** Return the lengths of a box's half sides. */
const sides = (box) => [3, 6, 9].map((first) => Math.hypot(...box.slice(first, first + 3)));
const boxOf = (volume) => BoundingVolumes.computeBoundingVolumeBoxFromBoundingVolume(volume);
const merged = (...volumes) =>
  Math.max(...sides(BoundingVolumes.computeUnionBoundingVolumeBox(volumes.map(boxOf))));
const round = (values) => values.map((value) => Math.round(value));

const place = (x) => Object.values(Cartesian3.fromDegrees(13.4 + x / 67860, 52.5));
const sphere = {sphere: [...place(0), 500]};
const right = {box: [...place(0), 500, 0, 0, 0, 500, 0, 0, 0, 500]};
const beside = {box: [...place(1000), 500, 0, 0, 0, 500, 0, 0, 0, 500]};
console.log('half sides of a sphere of 500 m in Berlin', round(sides(boxOf(sphere))));
const long = [merged(sphere, beside), merged(right, beside)];
console.log('longest half side of the root, with the sphere and with its true box', round(long));
assert(sides(boxOf(sphere)).every((side) => side > 6.36e6 && side < 6.38e6));
assert(long[0] > 6e6 && long[1] < 1500);

const near = {box: [0, 0, 10, 50, 0, 0, 0, 50, 0, 0, 0, 10]};
const shifted = merged(near, {sphere: [200, 0, 10, 50]});
const box = merged(near, {box: [200, 0, 10, 50, 0, 0, 0, 50, 0, 0, 0, 50]});
console.log('near the origin', round([shifted, box]));
assert(shifted > 600 && shifted < 700);
assert(box < 165);
assert.deepStrictEqual(sides(boxOf({sphere: [0, 0, 0, 50]})), [50, 50, 50]);
JAVASCRIPT
node_modules/.bin/esbuild look.js --bundle --platform=node --format=esm --log-level=error \
  --alias:cesium=@cesium/engine --outfile=bundle.mjs
node bundle.mjs
