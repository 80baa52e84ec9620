#!/usr/bin/env bash
# A column "id" of numbers does not survive KML: GDAL returns layer and row in its place.
#
# Guess before the run: a table with the columns "id" (integers) and "score" that is written to KML has
# both when it is read again, as after GeoPackage, FlatGeobuf or Shapefile.
# Seen: "score" comes back; "id" is "town.1", "town.2" for the ids 7 and 9. The file has the numbers
# (SimpleData name="id"), but its Schema leaves the field out, and the reader means the id of the
# placemark by this name. With LIBKML_ID_FIELD set to another name while writing and reading, the
# column comes back as text.
# Versions: pyogrio 0.13.0 with the GDAL 3.12.4 of its wheel, geopandas 1.1.1; with
# GDAL 3.11.4 (pyogrio 0.12.1) the ids come back as texts. Source: GDAL's LIBKML
# driver, configuration option LIBKML_ID_FIELD.
# Hurt: who sends buildings to Google Earth and joins them back by id.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyogrio==0.13.0 geopandas==1.1.1
venv/bin/python - <<'PYTHON'
import geopandas
import pyogrio
from shapely import box

print("GDAL", pyogrio.__gdal_version__)
town = geopandas.GeoDataFrame(
    {"id": [7, 9], "score": [0.5, 0.75]}, geometry=[box(1, 1, 2, 2), box(3, 1, 4, 2)], crs=4326
)


def back(name):
    town.to_file(name, driver="LIBKML")
    found = geopandas.read_file(name)
    print(name, list(found["id"]), list(found["score"]))
    return list(found["id"]), list(found["score"])


assert back("town.kml") == (["town.1", "town.2"], [0.5, 0.75])
pyogrio.set_gdal_config_options({"LIBKML_ID_FIELD": "placemark"})
assert back("other.kml") == (["7", "9"], [0.5, 0.75])
PYTHON
