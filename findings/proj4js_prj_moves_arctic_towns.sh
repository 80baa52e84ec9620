#!/usr/bin/env bash
# proj4js reads the .prj of a Shapefile in the grid of the Arctic wrongly: towns move by 2,100 km.
#
# Guess before the run: a system means the same as a PROJ string, as the OGC's WKT1 and as the WKT1
# of Esri, which stands in every .prj; or proj4 throws, as it does for the OGC's Mercator_2SP.
# Seen: a house of Ilulissat (EPSG:3413) is 2,100 km to the south, and one of Aktau in the Mercator
# of the Caspian Sea (EPSG:3388) 1,070 km; in that of Brazil (EPSG:5641), whose standard parallel is
# at 2 S, a house of Fortaleza moves by 390 m. Standard_Parallel_1 of Esri's Mercator and
# Stereographic_North_Pole becomes a latitude of origin and no latitude of true scale. PROJ strings
# and the OGC's Polar_Stereographic are right, and Stereographic_South_Pole (EPSG:3031) is, too.
# shpjs, which reads Shapefiles into web maps, does the same, and neither says anything.
# Versions: proj4 2.22.0 with wkt-parser 1.5.6, shpjs 6.2.0 (npm), pyogrio 0.12.1, pyproj 3.7.2.
# Source: wkt-parser's util.js, which knows the south pole's name and not the north pole's, and
# proj4's merc.js, which asks for lat_ts; proj4js issue 433 is about the OGC's form.
# Hurt: who shows footprints of Greenland or the Arctic, or in a national Mercator, on a web map.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  geopandas==1.1.1 pyogrio==0.12.1 pyproj==3.7.2 shapely==2.1.2 numpy==2.2.6 pandas==2.3.3
npm install --silent --no-fund --no-audit proj4@2.22.0 wkt-parser@1.5.6 shpjs@6.2.0
cat > make.py <<'PYTHON'
import json
import zipfile

import geopandas
import pyproj
from shapely.geometry import Point

places = {3413: (-51.1, 69.22), 3388: (51.15, 43.65), 5641: (-38.54, -3.73), 3031: (166.67, -77.85)}
rows = []
for code, place in places.items():
    system = pyproj.CRS.from_epsg(code)
    to_grid = pyproj.Transformer.from_crs(system.geodetic_crs, system, always_xy=True)
    grid = to_grid.transform(*place)
    house = Point(grid).buffer(10, cap_style="square")
    geopandas.GeoDataFrame({"id": [1]}, geometry=[house], crs=system).to_file(f"{code}.shp")
    with zipfile.ZipFile(f"{code}.zip", "w") as archive:
        for suffix in ("shp", "shx", "dbf", "prj"):
            archive.write(f"{code}.{suffix}")
    forms = {"string": system.to_proj4(), "prj": open(f"{code}.prj").read()}
    if "Polar" in system.name:
        forms["ogc"] = system.to_wkt("WKT1_GDAL")
    rows.append({"code": code, "place": place, "grid": grid, "forms": forms})
json.dump(rows, open("rows.json", "w"))
PYTHON
venv/bin/python -W ignore make.py
cat > read.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import proj4 from "proj4";
import shp from "shpjs";

const rows = JSON.parse(fs.readFileSync("rows.json"));
for (const row of rows) {
  row.found = {};
  for (const [name, definition] of Object.entries(row.forms)) {
    // longitude and latitude of the same datum, so that no shift of datum takes part
    const grid = new proj4.Proj(definition);
    const degrees = Object.assign(new proj4.Proj("+proj=longlat +datum=WGS84"), {
      datum: grid.datum, a: grid.a, b: grid.b, es: grid.es,
    });
    row.found[name] = proj4(grid, degrees, row.grid);
  }
  const town = await shp(fs.readFileSync(`${row.code}.zip`));
  row.found.shpjs = town.features[0].geometry.coordinates[0][0];
}
fs.writeFileSync("found.json", JSON.stringify(rows));
JAVASCRIPT
node read.mjs
venv/bin/python - <<'PYTHON'
import json
import pyproj

earth = pyproj.Geod(ellps="WGS84")
moved = {}
for row in json.load(open("found.json")):
    for name, place in row["found"].items():
        metres = earth.inv(*row["place"], *place)[2]
        moved[row["code"], name] = metres
        print(f"EPSG:{row['code']} {name:7} {metres:12,.1f} m from its place")
assert all(moved[code, "string"] < 1 for code in (3413, 3388, 5641, 3031))
assert moved[3413, "ogc"] < 1 and moved[3031, "ogc"] < 1
for name in ("prj", "shpjs"):
    assert 2.1e6 < moved[3413, name] < 2.2e6
    assert 1.0e6 < moved[3388, name] < 1.2e6
    assert 380 < moved[5641, name] < 400
    assert moved[3031, name] < 50
PYTHON
