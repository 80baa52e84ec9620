#!/usr/bin/env bash
# geojson-polyline keeps six or seven decimals for a bare polygon, and five for one in a Feature.
#
# Guess before the run: encode and decode with precision 7, whose documentation says that they take
# all nine types of GeoJSON, keep a house to the centimetre in a Feature as in a bare Polygon, and a
# polyline is the same text in both.
# Seen: the bare Polygon comes back with all digits. In a Feature, a FeatureCollection or a
# GeometryCollection it is encoded with five decimals, whatever is asked for: a house of 103.1 m2
# comes back with 120.4. The geometry of such a Feature, decoded alone with the precision that was
# asked for, lies at a hundredth of its degrees. There is no message.
# Versions: geojson-polyline 1.0.3, @mapbox/polyline 1.2.1 (npm). Source: geo2poly and poly2geo in
# index.js give the number, in place of the options, to what a Feature or a collection holds.
# Hurt: who packs footprints into polylines for a page or a table with more than five decimals.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit geojson-polyline@1.0.3 @mapbox/polyline@1.2.1
cat > digits.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const { decode, encode } = require("geojson-polyline");

const geometry = { type: "Polygon", coordinates: [[
  [13.4000046, 52.5000046], [13.4001554, 52.5000046], [13.4001554, 52.5000954],
  [13.4000046, 52.5000954], [13.4000046, 52.5000046],
]] };
const feature = { type: "Feature", properties: {}, geometry };
const forms = {
  Polygon: [geometry, (data) => data],
  Feature: [feature, (data) => data.geometry],
  FeatureCollection: [
    { type: "FeatureCollection", features: [feature] }, (data) => data.features[0].geometry],
  GeometryCollection: [
    { type: "GeometryCollection", geometries: [geometry] }, (data) => data.geometries[0]],
};

function area({ coordinates: [ring] }) {
  const degree = 111_195;
  const width = (ring[1][0] - ring[0][0]) * degree * Math.cos((52.5 * Math.PI) / 180);
  return width * (ring[2][1] - ring[1][1]) * degree;
}

const precision = 7;
const texts = {};
for (const [name, [data, polygon]] of Object.entries(forms)) {
  const encoded = encode(data, { precision });
  const back = polygon(decode(encoded, { precision }));
  texts[name] = polygon(encoded).coordinates[0];
  console.log(name, texts[name], back.coordinates[0][0], area(back).toFixed(1), "m2");
  if (name === "Polygon") {
    assert.deepStrictEqual(back, geometry);
    assert(Math.abs(area(back) - 103.1) < 0.1);
  } else {
    assert.deepStrictEqual(back.coordinates[0][0], [13.4, 52.5]);
    assert(Math.abs(area(back) - 120.4) < 0.1);
    assert.strictEqual(texts[name], encode(geometry).coordinates[0]);
  }
}
const moved = decode(encode(feature, { precision }).geometry, { precision }).coordinates[0][0];
console.log("geometry of the feature, decoded alone:", moved);
assert.deepStrictEqual(moved, [0.134, 0.525]);
JAVASCRIPT
node digits.cjs
