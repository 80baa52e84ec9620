#!/usr/bin/env bash
# tobler moves people to other zones if it works in parallel and the zones have a third column.
#
# Guess before the run: area_interpolate gives the people of districts to zones by the areas that
# they share; n_jobs says how many processes do it, and other columns of the zones say nothing.
# Seen: of three districts with 100, 200 and 400 people, three zones get 200, 60 and 440 by one
# process. By two processes they get the same while the zones have a name, and 100, 200 and 400 once
# they have a name and a school: districts and zones change places in the table of shared areas.
# Sums stay right, and there is no message. It happens if there are at most as many districts as the
# zones have columns, and no more zones than districts. masked_area_interpolate works in parallel
# unless it is told otherwise.
# Versions: tobler 0.13.0, geopandas 1.2.0, shapely 2.2.0, joblib 1.6.0. Source:
# tobler/area_weighted/area_interpolate.py, _area_tables_binning_parallel: df1.shape[0] >
# df2.shape[1] compares rows with columns, and ids_src, ids_tgt are read in the order of the other
# case.
# Hurt: who spreads people or dwellings over school districts, a dozen to a dozen: each gets the
# people of another place, and the total, which one checks, is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check tobler==0.13.0 geopandas==1.2.0 \
  shapely==2.2.0 joblib==1.6.0 scipy==1.17.1 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
from shapely import box
from tobler.area_weighted import area_interpolate

districts = geopandas.GeoDataFrame(
    {"people": [100, 200, 400]},
    geometry=[box(0, 0, 10, 10), box(10, 0, 20, 10), box(20, 0, 30, 10)], crs=32633)
zones = geopandas.GeoDataFrame(
    {"name": list("abc"), "school": list("xyz")},
    geometry=[box(0, 0, 15, 10), box(15, 0, 18, 10), box(18, 0, 30, 10)], crs=32633)
seen = {}
for columns in (["name", "geometry"], ["name", "school", "geometry"]):
    for jobs in (1, 2):
        found = area_interpolate(
            districts, zones[columns], extensive_variables=["people"], n_jobs=jobs)
        seen[len(columns), jobs] = found["people"].round(2).tolist()
        print("zones of", columns, "by", jobs, "processes:", seen[len(columns), jobs])
assert seen[2, 1] == seen[2, 2] == seen[3, 1] == [200, 60, 440]
assert seen[3, 2] == [100, 200, 400]
PYTHON
