#!/usr/bin/env bash
# arcgis-pbf-parser takes the heights of roofs from a feature service for eastings and northings.
#
# Guess before the run: a roof that a service sends as PBF with hasZ comes back as GeoJSON with
# three coordinates a corner (the parser reads zScale and zTranslate), or without heights.
# Seen: without heights the five corners of a roof of 20 x 10 m, eaves at 6 m and ridge at 9 m, are
# right. With them only the first is: its height is the step to the east of the second, and so on;
# the outline is open and covers 21 square metres in place of 200. A corner has three numbers then,
# and the parser takes two. If the origin is the south-west corner (lowerLeft), the house lies 400 m
# to the south, mirrored: steps to the north are always subtracted. No message.
# Versions: arcgis-pbf-parser 0.0.4, pbf 3.3.0 (npm). Source: dist/arcgis-pbf.mjs, createPolygon and
# createLinearRing, which step by 2, and transformTuple, which never reads the origin; Esri's
# FeatureCollection.proto has hasZ, hasM and QuantizeOriginPostion.
# Hurt: who draws roofs, walls or footprints of a 3D layer from a feature service with returnZ, or
# with the origin below; mapbox-gl-arcgis-featureserver reads its tiles with it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit arcgis-pbf-parser@0.0.4 pbf@3.3.0
cat > roof.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import Pbf from "pbf";
import decode from "arcgis-pbf-parser";

const POLYGON = 3;
const SOUTH_WEST = [500000, 5800000, 0], NORTH = 5801000;
/** Return the answer of a service, in centimetres, whose origin is its north-west or south-west. */
function answer(corners, { hasZ, lowerLeft }) {
  const sign = lowerLeft ? 1 : -1;
  const origin = [SOUTH_WEST[0], lowerLeft ? SOUTH_WEST[1] : NORTH, 0];
  const whole = corners.map((corner) =>
    corner.map((value, i) => Math.round((value - origin[i]) * 100) * (i === 1 ? sign : 1)),
  );
  const steps = whole.map((corner, k) =>
    corner.map((value, i) => value - (k ? whole[k - 1][i] : 0)));
  const numbers = steps.flatMap((step) => (hasZ ? step : step.slice(0, 2)));
  const pbf = new Pbf();
  pbf.writeMessage(2, (_, query) => query.writeMessage(1, (_, result) => {
    result.writeStringField(1, "id");
    result.writeVarintField(7, POLYGON);
    if (hasZ) result.writeBooleanField(10, true);
    result.writeMessage(12, (_, transform) => {
      if (lowerLeft) transform.writeVarintField(1, 1);
      transform.writeMessage(2, (_, scale) =>
        [1, 2, 4].forEach((tag) => scale.writeDoubleField(tag, 0.01)));
      transform.writeMessage(3, (_, translate) =>
        [1, 2, 4].forEach((tag, i) => translate.writeDoubleField(tag, origin[i])));
    });
    result.writeMessage(15, (_, feature) => feature.writeMessage(2, (_, geometry) => {
      geometry.writePackedVarint(2, [corners.length]);
      geometry.writePackedSVarint(3, numbers);
    }));
  }));
  return pbf.finish();
}
const corners = [[100, 200, 6], [100, 210, 9], [120, 210, 9], [120, 200, 6], [100, 200, 6]]
  .map(([x, y, z]) => [SOUTH_WEST[0] + x, SOUTH_WEST[1] + y, z]);
const read = (options) => {
  const { features } = decode(answer(corners, options)).featureCollection;
  return features[0].geometry.coordinates[0].map((corner) =>
    corner.map((value, i) => Math.round((value - SOUTH_WEST[i]) * 100) / 100));
};
const flat = read({}), high = read({ hasZ: true }), below = read({ lowerLeft: true });
const print = (ring) => ring.map((corner) => corner.join()).join(" ");
console.log("without heights", print(flat));
console.log("with heights", print(high));
console.log("origin in the south-west", print(below));
assert.deepStrictEqual(flat, [[100, 200], [100, 210], [120, 210], [120, 200], [100, 200]]);
assert.deepStrictEqual(high, [[100, 200], [106, 200], [96, 197], [116, 197], [116, 197]]);
assert.deepStrictEqual(below, [[100, -200], [100, -210], [120, -210], [120, -200], [100, -200]]);
JAVASCRIPT
node roof.mjs
