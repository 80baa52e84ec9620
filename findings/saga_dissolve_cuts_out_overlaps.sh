#!/usr/bin/env bash
# SAGA's Polygon Dissolve cuts out what houses have in common, and loses houses that come twice.
#
# Guess before the run: the dissolved polygon is the union: of two halls of 10 m that overlap by
# half 150 m2, of a hall and an annex within it the hall.
# Seen: ground that two polygons cover is left out: 100 m2 of the halls, 190 of 200 m2 where they
# overlap by a strip of 1 m, a hole of 25 m2 in place of the annex, and of one house from two maps
# a record with no geometry. What three cover is in again. Houses that only touch are joined
# rightly, and the log says nothing. With "Keep Boundaries" the overlap is in twice.
# Versions: SAGA 8.5.0 (Debian 12, saga 8.5.0+dfsg-2), geopandas 1.2.0, shapely 2.2.0. Source:
# Polygon_Union.cpp of shapes_polygons puts the rings of all into one shape, which is then dissolved
# by Clipper as if each ring within another were a hole. The help names adjacent polygons only.
# Hurt: who joins detections of overlapping tiles or footprints of two sources: the built area
# becomes smaller the more the maps agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME="$folder" LC_ALL=C
mkdir -p packages/partial root
apt-get -qq -o Debug::NoLocking=true -o APT::Sandbox::User=root \
  -o Dir::Cache::archives="$folder/packages" install --reinstall --download-only --yes \
  --no-install-recommends saga=8.5.0+dfsg-2 libsaga-api8=8.5.0+dfsg-2 > apt.log
for package in packages/*.deb; do dpkg-deb --extract "$package" root; done
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 shapely==2.2.0 \
  numpy==2.3.5 pandas==2.3.3
cat > dissolve.py <<'PYTHON'
import os
import subprocess
from pathlib import Path

import geopandas
from shapely import box

LIBRARIES = Path("root/usr/lib").resolve() / f"{os.uname().machine}-linux-gnu"
EAST, NORTH = 500_000, 5_500_000


def house(west, south, east, north):
    """Return a house by its sides, in metres from the corner of the map."""
    return box(EAST + west, NORTH + south, EAST + east, NORTH + north)


def saga(*words):
    """Run a tool of SAGA and return its log."""
    settings = os.environ | {"LD_LIBRARY_PATH": str(LIBRARIES), "SAGA_TLB": str(LIBRARIES / "saga")}
    done = subprocess.run(
        ["root/usr/bin/saga_cmd", *words], env=settings, capture_output=True, text=True, check=True
    )
    return done.stdout


assert "SAGA Version: 8.5.0" in saga("--version")
HALL = house(0, 0, 10, 10)
towns = {
    "neighbours": ([HALL, house(10, 0, 20, 10)], 200, 200),
    "half in common": ([HALL, house(5, 0, 15, 10)], 150, 100),
    "a strip in common": ([HALL, house(9, 0, 20, 10)], 200, 190),
    "an annex within": ([HALL, house(2, 2, 7, 7)], 100, 75),
    "three of them": ([HALL, house(5, 0, 15, 10), house(5, 5, 15, 15)], 200, 150),
    "one house twice": ([HALL, HALL], 100, None),
}
for name, (houses, union, expected) in towns.items():
    town = geopandas.GeoDataFrame({"id": range(len(houses))}, geometry=houses, crs=32633)
    town.to_file("town.shp")
    log = saga("shapes_polygons", "5", "-POLYGONS", "town.shp", "-DISSOLVED", "one.shp")
    (found,) = geopandas.read_file("one.shp").geometry
    print(f"{name}: union {town.union_all().area} m2,",
          "dissolved: no geometry" if found is None else f"dissolved {found.area} m2")
    assert town.union_all().area == union
    assert expected == (None if found is None else found.area)
    assert not any(word in log.lower() for word in ("warning", "error"))
PYTHON
venv/bin/python -W ignore dissolve.py
