#!/usr/bin/env bash
# get-epsg-code takes ETRS89 / UTM zone 33N, the system of Berlin, for a grid of Alaska.
#
# Guess before the run: the code of a PROJ string or of Esri's WKT is that of its system, or
# undefined, as it is for most that it cannot tell (EPSG:2154 as a PROJ string).
# Seen: "+proj=utm +zone=33 +ellps=GRS80", the PROJ string of EPSG:25833, gives 26933: NAD83 /
# Alaska zone 3, whose numbers put a house of Berlin into the Barents Sea. Any other ellipsoid gives
# WGS 84: ED50 / UTM zone 33N is 32633, 200 m off. Zones below 10 lose their zero: WGS 84 / UTM zone
# 4N is 3264, and a house of Honolulu is in Antarctica; Esri's NAD_1983_UTM_Zone_4N is 2694, a grid
# of Russia. Of 1,130 UTM systems of EPSG, 1,016 get another code from their PROJ string, 102 theirs
# and 12 none. From the OGC's WKT1, which holds the code, all are right. There is no message.
# Versions: get-epsg-code 1.2.0 (npm), pyproj 3.7.2. Source: its utm-utils, getCodeFromProjString.js
# ("269" + zone where the ellipsoid is GRS80) and getCodeFromEsriWKT.js.
# Hurt: who names the system of a raster or Shapefile by it before reprojecting; geotiff-epsg-code,
# geotiff-read-bbox and geotiff-tile ask it for GeoTIFFs with a string of Esri.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyproj==3.7.2
npm install --silent --no-fund --no-audit get-epsg-code@1.2.0
venv/bin/python - <<'PYTHON'
import json
import warnings

import pyproj
from pyproj.database import query_crs_info
from pyproj.enums import PJType

warnings.simplefilter("ignore")  # that a PROJ string has no name
systems = {}
for info in query_crs_info("EPSG", PJType.PROJECTED_CRS):
    if "UTM zone" in info.name:
        crs = pyproj.CRS.from_epsg(info.code)
        systems[info.code] = [crs.to_proj4(), crs.to_wkt("WKT1_ESRI"), crs.to_wkt("WKT1_GDAL")]
json.dump(systems, open("systems.json", "w"))
PYTHON
cat > codes.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import getCode from "get-epsg-code";

const found = {};
for (const [code, texts] of Object.entries(JSON.parse(fs.readFileSync("systems.json"))))
  found[code] = await Promise.all(texts.map(async (text) => (await getCode(text)) ?? null));
fs.writeFileSync("found.json", JSON.stringify(found));
JAVASCRIPT
node codes.mjs
venv/bin/python - <<'PYTHON'
import json
from collections import Counter

import pyproj

found = json.load(open("found.json"))
for place, code in enumerate(["PROJ string", "WKT of Esri", "WKT of the OGC"]):
    kinds = Counter(
        "none" if row[place] is None else "right" if row[place] == int(own) else "other"
        for own, row in found.items()
    )
    print(code, dict(kinds))
    if place == 0:
        assert kinds == {"right": 102, "other": 1016, "none": 12}
    elif place == 2:
        assert kinds == {"right": 1130}
places = {}
for own, place in [("25833", 0), ("23033", 0), ("32604", 0), ("26904", 1)]:
    x, y = (390000, 5820000) if own[-2:] == "33" else (620000, 2360000)
    code = found[own][place]
    crs = pyproj.CRS.from_epsg(code)
    there = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
    here = pyproj.Transformer.from_crs(int(own), 4326, always_xy=True).transform(x, y)
    print(own, "->", code, crs.name, [round(v, 2) for v in here], [round(v, 2) for v in there])
    places[own] = code, [round(v, 2) for v in there]
assert places["25833"] == (26933, [37.54, 73.81])
assert places["32604"] == (3264, [-56.95, -68.36])
assert places["23033"][0] == 32633 and places["26904"][0] == 2694
PYTHON
