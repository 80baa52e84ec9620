#!/usr/bin/env bash
# geojson2shp writes -5.5 so that it is read as 0, and a height that is missing too; -13 is right.
#
# Guess before the run: numbers of a property come back from the table as they were, to its three
# decimals; a house without a height has none.
# Seen: of grounds at 5.5, -5.5, -12.75, -13 and -20.5 m and one that is null, GDAL reads 5.5, 0, 0,
# -13, -20.5 and 0. Between 0 and -13 there are blanks between the sign and the digits
# ("-            5.5"); below, there are none, since the digits are compared with the room for them
# as a number. Null is a point among blanks. GDAL warns of both, pyshp has None for -5.5 and for
# null, and shapefile (npm) null for all six, since zero bytes fill the columns. The conversion
# says nothing.
# Versions: geojson2shp 0.5.0 and shapefile 0.6.6 (npm), pyogrio 0.12.1 with the GDAL 3.11.4 of its
# wheel, pyshp 3.1.6.
# Source: lib/shp-write-stream/dbf.js, formatNum: lpad after the sign is taken off, and
# "left > llen" with a string on the left.
# Hurt: who exports houses with the height of their ground from a web page, in polders or with
# basements as negative levels: they stand at sea level, and so do those of unknown height.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  pyogrio==0.12.1 numpy==2.2.6 pyshp==3.1.6
npm install --silent --no-fund --no-audit geojson2shp@0.5.0 shapefile@0.6.6
cat > write.mjs <<'JAVASCRIPT'
import { convert } from "geojson2shp";

const house = (ground, i) => ({
  type: "Feature", properties: { ground },
  geometry: {
    type: "Polygon", coordinates: [[[i, 0], [i, 1], [i + 0.5, 1], [i + 0.5, 0], [i, 0]]],
  },
});
await convert([5.5, -5.5, -12.75, -13, -20.5, null].map(house), "town.zip", { layer: "town" });
JAVASCRIPT
node write.mjs
venv/bin/python - <<'PYTHON'
import warnings
import zipfile

import pyogrio.raw
import shapefile

zipfile.ZipFile("town.zip").extractall()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    gdal = pyogrio.raw.read("town.shp")[3][0].tolist()
print("GDAL ", gdal, "warnings:", len(caught))
with shapefile.Reader("town.shp") as reader:
    pyshp = [record["ground"] for record in reader.records()]
print("pyshp", pyshp)
assert gdal == [5.5, 0, 0, -13, -20.5, 0] and len(caught) == 3
assert pyshp == [5.5, None, None, -13, -20.5, None]
PYTHON
cat > read.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { read } from "shapefile";

const grounds = (await read("town.shp")).features.map(({ properties }) => properties.ground);
console.log("shapefile", grounds);
assert.deepStrictEqual(grounds, Array(6).fill(null));
JAVASCRIPT
node read.mjs
