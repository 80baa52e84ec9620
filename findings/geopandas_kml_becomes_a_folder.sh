#!/usr/bin/env bash
# geopandas writes "town.kml" as a folder of that name with a Shapefile in it.
#
# Guess before the run: to_file takes the format from the suffix, as it does for .gpkg, .geojson, .tab
# and .dxf, and raises for suffixes that it does not know; its GDAL can write KML.
# Seen: for .kml, .kmz and .parquet there is neither KML nor an error nor a warning, but a folder
# town.kml with town.shp, town.dbf and so on. read_file reads that folder back, so a round trip shows
# nothing. driver="KML" writes the file.
# Versions: geopandas 1.1.1, pyogrio 0.12.1. Source: geopandas/io/file.py, _detect_driver, which takes
# every unknown suffix for a folder of Shapefiles.
# Hurt: who sends buildings to Google Earth: what is attached is a folder that it cannot open.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyogrio==0.12.1 geopandas==1.1.1
venv/bin/python - <<'PYTHON'
import warnings
from pathlib import Path
import geopandas
import pyogrio
from shapely import box

town = geopandas.GeoDataFrame({"height": [6.5]}, geometry=[box(0, 0, 1, 1)], crs=4326)
assert "w" in pyogrio.list_drivers()["KML"] or "a" in pyogrio.list_drivers()["KML"]
for suffix in ("kml", "kmz", "parquet"):
    path = Path(f"town.{suffix}")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        town.to_file(path)
    print(path, sorted(one.name for one in path.iterdir()), [str(one.message) for one in seen])
    assert (path / "town.shp").is_file()
    assert not seen
    assert list(geopandas.read_file(path).columns) == ["height", "geometry"]
for suffix in ("gpkg", "geojson", "tab", "dxf"):
    path = Path(f"town.{suffix}")
    (town[["geometry"]] if suffix == "dxf" else town).to_file(path)
    assert path.is_file()
town.to_file("right.kml", driver="KML")
assert Path("right.kml").read_text().startswith("<?xml")
PYTHON
