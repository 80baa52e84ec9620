#!/usr/bin/env bash
# naturf gives houses the surroundings of other houses, unless the file is sorted by their ids.
#
# Guess before the run: the urban parameters of each building are those of its own surroundings, in
# whatever order the buildings stand in the file.
# Seen: of a lone hut of 3 m, 1 km from two towers of 30 m, the mean height around it is 3 m and its
# lot area 220 square metres, if the file is sorted by OBJECTID. With the hut first and its id last
# they are 30 m and 2,800, and one of the towers has 3 m and 220; the plan area fraction, street
# width, ratio of height to width and sky view factor are swapped with them. There is no message.
# Versions: naturf 1.0.4, sf-hamilton 1.90.0, geopandas 0.14.4, pandas 2.3.3. Source:
# naturf/nodes.py: mean_building_height, lot_area, building_plan_area, frontal_length and others
# return their values in the order of the ids, as groupby sorts them, numbered anew; building_height
# and total_plan_area are in the order of the file, and rows are joined by number.
# Hurt: who makes the urban fields of a weather model (WRF) from footprints with heights: files that
# were clipped, merged or sorted by place give a town whose parameters are shuffled.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check naturf==1.0.4 sf-hamilton==1.90.0 \
  geopandas==0.14.4 shapely==2.1.2 fiona==1.10.1 numpy==1.26.4 pandas==2.3.3
venv/bin/python -W ignore - 2> progress <<'PYTHON'
import geopandas
from naturf.driver import Model
from shapely import box

TOWN = {  # OBJECTID: outline, height
    1: (box(0, 0, 20, 20), 30.0),
    2: (box(40, 0, 60, 20), 30.0),
    3: (box(1000, 0, 1010, 10), 3.0),
}
COLUMNS = [
    "building_height", "mean_building_height", "lot_area", "average_distance_between_buildings",
]
seen = {}
for order in ((1, 2, 3), (3, 1, 2)):
    geopandas.GeoDataFrame(
        {"OBJECTID": order, "Max_HOUSE_": [TOWN[number][1] for number in order]},
        geometry=[TOWN[number][0] for number in order], crs=32633,
    ).to_file("town.shp")
    rows = Model({"input_shapefile": "town.shp"}, ["building_id", *COLUMNS]).execute()
    seen[order] = rows.set_index("building_id")[COLUMNS].T.to_dict("list")
    print(order, "height, mean height around it, lot area, street width:", seen[order])
right = {1: [30, 30, 2800, 20], 2: [30, 30, 2800, 20], 3: [3, 3, 220, 15]}
assert seen[1, 2, 3] == right
assert seen[3, 1, 2] == {1: right[1], 2: [30, 3, 220, 15], 3: [3, 30, 2800, 20]}
PYTHON
