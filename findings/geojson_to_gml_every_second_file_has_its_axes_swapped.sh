#!/usr/bin/env bash
# geojson-to-gml-3 swaps the axes of each second file, and puts houses at height 0 into no place.
#
# Guess before the run: with coordinateOrder false, for systems whose latitude comes first, each
# conversion of the same GeoJSON gives the same text: latitude, longitude and, if there, height.
# Seen: the first file has 52.5 13.4, the second 13.4 52.5, the third 52.5 13.4: the coordinates
# that it is given are reversed in place, so that the GeoJSON of the caller has latitudes first
# after an odd number of files. GDAL reads a house of Berlin in the first, and one in the Arabian
# Sea in the second. With three coordinates a corner at 9 m is right (52.5 13.4 9), and one at 0 m
# becomes 0 52.5 13.4. No message.
# Versions: geojson-to-gml-3 2.0.2 (npm), pyogrio 0.12.1, shapely 2.1.2. Source: src/index.js,
# orderCoords: coords.reverse(), and "if (coords[2])", which 0 is not.
# Hurt: who sends footprints to a WFS-T or a cadastre in EPSG:4326 or in a Gauss-Kruger system
# that has its northing first: a check and an upload in one run differ.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  pyogrio==0.12.1 shapely==2.1.2 numpy==2.2.6
npm install --silent --no-fund --no-audit geojson-to-gml-3@2.0.2
cat > write.cjs <<'JAVASCRIPT'
const assert = require("assert");
const fs = require("fs");
const gml = require("geojson-to-gml-3");

gml.config.coordinateOrder = false;
const params = { srsName: "urn:ogc:def:crs:EPSG::4326" };
const numbers = (text) => text.match(/<gml:posList>(.*)<\/gml:posList>/)[1];
const house = {
  type: "Polygon", coordinates: [[[13.4, 52.5], [13.5, 52.5], [13.5, 52.6], [13.4, 52.5]]],
};
const texts = [1, 2, 3].map((file) => {
  const text = gml.geomToGml(house, "house", params);
  fs.writeFileSync(`${file}.gml`, `<?xml version="1.0"?>
<gml:FeatureCollection xmlns:gml="http://www.opengis.net/gml/3.2"><gml:featureMember>
<house gml:id="f"><geometry>${text}</geometry></house>
</gml:featureMember></gml:FeatureCollection>`);
  console.log("file", file, numbers(text));
  return numbers(text);
});
assert.strictEqual(texts[0], "52.5 13.4 52.5 13.5 52.6 13.5 52.5 13.4");
assert.strictEqual(texts[1], "13.4 52.5 13.5 52.5 13.5 52.6 13.4 52.5");
assert.strictEqual(texts[2], texts[0]);
assert.deepStrictEqual(house.coordinates[0][0], [52.5, 13.4]);

const at = (height) => numbers(gml.lineString([[13.4, 52.5, height], [13.5, 52.5, 9]]));
console.log("from 9 m:", at(9), "from 0 m:", at(0));
assert.strictEqual(at(9), "52.5 13.4 9 52.5 13.5 9");
assert.strictEqual(at(0), "0 52.5 13.4 52.5 13.5 9");
JAVASCRIPT
node write.cjs
venv/bin/python - <<'PYTHON'
import pyogrio.raw
import shapely

for file, expected in (1, (13.4, 52.5)), (2, (52.5, 13.4)):
    box = shapely.total_bounds(shapely.from_wkb(pyogrio.raw.read(f"{file}.gml")[2]))
    print("file", file, "read by GDAL", box.tolist())
    assert tuple(box[:2].round(6)) == expected, box
PYTHON
