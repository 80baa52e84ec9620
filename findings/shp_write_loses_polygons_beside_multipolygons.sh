#!/usr/bin/env bash
# @mapbox/shp-write drops every house of a layer in which one building has two parts.
#
# Guess before the run: a FeatureCollection of Polygons and MultiPolygons becomes one Shapefile,
# since its type 5 holds both; or two files of two names.
# Seen: of three houses and a building of two parts, the zip has one file, POLYGON.shp, with the
# last alone: both kinds are written under this name, and the second replaces the first. Nothing is
# said; types.multipolygon is not asked for either. Without that building all three are there, but
# rings keep the direction of GeoJSON, which a Shapefile reads the other way round: the yard of a
# house is its outer ring for GDAL, and the house a hole in it; GDAL warns of the winding order.
# Versions: @mapbox/shp-write 0.4.3, pyogrio 0.12.1, shapely 2.1.2. Source: src/zip.js (one name for
# each l.type) and src/geojson.js (multipolygon has the type POLYGON).
# Hurt: who downloads buildings as a Shapefile from a web map: the page shows a town, and the file
# has its few buildings of several parts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyogrio==0.12.1 shapely==2.1.2 numpy==2.2.6
npm install --silent --no-fund --no-audit @mapbox/shp-write@0.4.3
cat > write.cjs <<'JAVASCRIPT'
const fs = require("node:fs");
const shpwrite = require("@mapbox/shp-write");

const square = (x, y, size) =>
  [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]];
const feature = (number, type, coordinates) =>
  ({ type: "Feature", properties: { number }, geometry: { type, coordinates } });
const houses = [
  feature(0, "Polygon", [square(0, 0, 10)]),
  feature(1, "Polygon", [square(20, 0, 10), square(22, 2, 2).reverse()]),
  feature(2, "Polygon", [square(40, 0, 10)]),
];
const pair = feature(3, "MultiPolygon", [[square(60, 0, 10)], [square(80, 0, 10)]]);
for (const [name, features] of [["houses", houses], ["town", [...houses, pair]]])
  shpwrite
    .zip({ type: "FeatureCollection", features }, { outputType: "nodebuffer", compression: "STORE" })
    .then((data) => fs.writeFileSync(`${name}.zip`, data));
JAVASCRIPT
node write.cjs
venv/bin/python -W ignore - <<'PYTHON'
import zipfile
import shapely
from pyogrio.raw import read


def buildings(name):
    (layer,) = (file for file in zipfile.ZipFile(name).namelist() if file.endswith(".shp"))
    _, _, outlines, (numbers,) = read(f"/vsizip/{name}/{layer}")
    print(name, layer, "buildings:", numbers.tolist())
    return numbers.tolist(), shapely.from_wkb(outlines)


numbers, outlines = buildings("houses.zip")
assert numbers == [0, 1, 2]
print("the house with a yard:", outlines[1])
assert outlines[1].exterior.bounds == (22, 2, 24, 4)
assert outlines[1].interiors[0].bounds == (20, 0, 30, 10)
assert buildings("town.zip")[0] == [3]
PYTHON
