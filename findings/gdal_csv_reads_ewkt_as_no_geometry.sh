#!/usr/bin/env bash
# GDAL's CSV driver reads outlines in EWKT as rows without a geometry, and drops the SRID of EWKB.
#
# Guess before the run: a column that is named in GEOM_POSSIBLE_NAMES is read as PostGIS exports it:
# text of ST_AsEWKT ("SRID=32633;POLYGON ...") and the hexadecimal of COPY, with their coordinate
# system; or what cannot be read raises, or warns.
# Seen: WKT and hexadecimal WKB are polygons. The same polygons with "SRID=32633;" in front are rows
# whose geometry is null, all of them, without a message. Of hexadecimal EWKB the polygons are read,
# and the layer has no coordinate system, although each row names it.
# Versions: pyogrio 0.13.0 with the GDAL 3.12.4 of its wheel, shapely 2.1.2. Source: GDAL's CSV
# driver, ogrcsvlayer.cpp.
# Hurt: who exports footprints from PostGIS to CSV: a town of rows and no houses, or metres that the
# next tool takes for degrees. rooftrace reads both (docs/formats.md).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyogrio==0.13.0 shapely==2.1.2 numpy==2.2.6
venv/bin/python -W error - <<'PYTHON'
from pathlib import Path
import shapely
from pyogrio.raw import read

house = shapely.box(500_000, 5_000_000, 500_010, 5_000_010)
numbered = shapely.set_srid(house, 32633)
columns = {
    "wkt": house.wkt, "wkb": shapely.to_wkb(house, hex=True),
    "ewkt": f"SRID=32633;{house.wkt}",
    "ewkb": shapely.to_wkb(numbered, hex=True, include_srid=True),
}
seen = {}
for name, text in columns.items():
    Path(f"{name}.csv").write_text(f'number,outline\n1,"{text}"\n2,"{text}"\n')
    information, _, outlines, _ = read(f"{name}.csv", GEOM_POSSIBLE_NAMES="outline")
    read_back = shapely.from_wkb(outlines)
    seen[name] = [None if one is None else one.area for one in read_back]
    print(name, "areas:", seen[name], "coordinate system:", information["crs"])
    assert information["crs"] is None
assert seen == {"wkt": [100, 100], "wkb": [100, 100], "ewkt": [None, None], "ewkb": [100, 100]}
PYTHON
