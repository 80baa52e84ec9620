#!/usr/bin/env bash
# flatgeobuf for JavaScript writes heights of roofs and says that there are none: GDAL drops them.
#
# Guess before the run: serialize of GeoJSON with three coordinates a corner makes a file of
# Polygon Z, since its own deserialize returns the heights; or it drops them, and both are flat.
# Seen: a roof with its eaves at 6 m and its ridge at 9 m has its heights when the package reads its
# own file. pyogrio has a layer of type Polygon with two coordinates a corner, and so have all that
# read by GDAL: the numbers are in each feature, but hasZ of the header is never set. The same roof
# written by GDAL has heights in both. No message.
# Versions: flatgeobuf 4.5.0 (npm), pyogrio 0.12.1 with the GDAL 3.11.4 of its wheel, shapely 2.1.2.
# Source: lib/mjs/generic/featurecollection.js, buildHeader never calls Header.addHasZ, while
# lib/mjs/generic/geometry.js writes the vector z.
# Hurt: who writes roofs or walls from a browser and looks at the file in a browser: there it is
# right, and for those who get it, in QGIS, GeoPandas or a database, the town is flat.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  pyogrio==0.12.1 shapely==2.1.2 numpy==2.2.6
npm install --silent --no-fund --no-audit flatgeobuf@4.5.0
cat > roofs.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import { deserialize, serialize } from "flatgeobuf/lib/mjs/geojson.js";

const corners = [[0, 0, 6], [10, 0, 6], [10, 5, 9], [0, 5, 9], [0, 0, 6]];
const roof = {
  type: "Feature", properties: { name: "roof" },
  geometry: { type: "Polygon", coordinates: [corners] },
};
fs.writeFileSync("js.fgb", serialize({ type: "FeatureCollection", features: [roof] }, 25833));
for (const file of process.argv.slice(2))
  for await (const { geometry } of deserialize(new Uint8Array(fs.readFileSync(file))))
    console.log(file, "for flatgeobuf", geometry.coordinates[0].map((corner) => corner[2]).join());
JAVASCRIPT
cat > read.py <<'PYTHON'
import sys

import pyogrio.raw
import shapely

meta, _, geometry, _ = pyogrio.raw.read(sys.argv[1])
heights = shapely.get_coordinates(shapely.from_wkb(geometry), include_z=True)[:, 2]
print(sys.argv[1], "for GDAL", meta["geometry_type"], [*heights])
PYTHON
node roofs.mjs
venv/bin/python - <<'PYTHON'
import numpy
import pyogrio.raw
import shapely

roof = shapely.Polygon([(0, 0, 6), (10, 0, 6), (10, 5, 9), (0, 5, 9)])
pyogrio.raw.write(
    "gdal.fgb", numpy.array([shapely.to_wkb(roof)], dtype=object), [numpy.array(["roof"])],
    ["name"], geometry_type="Polygon Z", crs="EPSG:25833", driver="FlatGeobuf",
)
PYTHON
for file in js.fgb gdal.fgb; do venv/bin/python read.py "$file"; done | tee gdal.txt
node roofs.mjs js.fgb gdal.fgb | tee js.txt
grep -qx "js.fgb for flatgeobuf 6,6,9,9,6" js.txt
grep -qx "gdal.fgb for flatgeobuf 6,6,9,9,6" js.txt
grep -q "^js.fgb for GDAL Polygon \[.*nan.*nan.*nan" gdal.txt
grep -q "^gdal.fgb for GDAL Polygon Z \[.*6.*6.*9.*9" gdal.txt
