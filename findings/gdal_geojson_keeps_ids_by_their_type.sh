#!/usr/bin/env bash
# Of the ids of GeoJSON features, GDAL gives a table the strings and hides the numbers.
#
# Guess before the run: the member "id" of RFC 7946, which may be a string or a number, becomes a
# column or an index in both cases; in a file with both, the numbers become strings.
# Seen: {"id": "b7"} becomes a column "id". {"id": 7} becomes GDAL's feature id: the table has no such
# column and is numbered 0, 1; the ids come back by fid_as_index=True only. One file with 7 and "b9"
# has neither: no column, and the feature ids 7 and 0, of which the second is a row number.
# Versions: pyogrio 0.12.1 with the GDAL 3.11.4 of its wheel, geopandas 1.1.1. Source: GDAL's GeoJSON
# driver (OGRGeoJSONReader), which asks whether all ids fit into 64 bits.
# Hurt: who joins buildings by id: a layer of OpenStreetMap or of a city whose ids are numbers is
# matched by row numbers, and these change with each filter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyogrio==0.12.1 geopandas==1.1.1
venv/bin/python - <<'PYTHON'
import json
import geopandas
import pyogrio

print("GDAL", pyogrio.__gdal_version__)


def read(*ids):
    features = [
        {"type": "Feature", "id": one, "properties": {"floors": 2},
         "geometry": {"type": "Point", "coordinates": [row, 0]}}
        for row, one in enumerate(ids)
    ]
    with open("layer.geojson", "w") as file:
        json.dump({"type": "FeatureCollection", "features": features}, file)
    table = geopandas.read_file("layer.geojson")
    by_fid = pyogrio.read_dataframe("layer.geojson", fid_as_index=True)
    column = list(table["id"]) if "id" in table else None
    print(ids, "-> column:", column, "index:", list(table.index), "fid:", list(by_fid.index))
    return column, list(table.index), list(by_fid.index)


assert read("b7", "b9") == (["b7", "b9"], [0, 1], [0, 1])
assert read("7", "9") == (["7", "9"], [0, 1], [0, 1])
assert read(7, 9) == (None, [0, 1], [7, 9])
assert read(7, "b9") == (None, [0, 1], [7, 0])
PYTHON
