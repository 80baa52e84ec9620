#!/usr/bin/env bash
# smoothify gives all houses of a kind the number and the height of the first one of the kind.
#
# Guess before the run: houses that stand apart keep their columns: the result has a row for each
# house, and merge_field="roof" only keeps a flat roof from being joined to a pitched one beside it.
# Seen: of five houses that stand apart, with heights of 3, 12, 40, 5 and 8 m, the result has five
# rows; by default all are number 1 and 3 m high, with merge_field="roof" the flat ones 3 and the
# pitched ones 12 m, and a height that is missing in the first takes that of the next. The rows are
# in another order, too. With merge_collection=False all is right. There is no message. Its README
# says that the default "dissolves all geometries together", and nothing of the other columns.
# Versions: smoothify 0.3.3 (the latest), geopandas 1.1.2. Source: smoothify/geometry_ops.py,
# _smoothify_geodataframe dissolves all rows of a kind to one, which takes the first value of each
# column, and then explodes it to the houses again.
# Hurt: who smooths predicted footprints with scores or heights: the table looks whole, and joining
# it by number gives every house the record of one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check smoothify==0.3.3 geopandas==1.1.2 \
  shapely==2.1.2 numpy==2.2.6 pandas==2.3.3 scipy==1.15.3 joblib==1.5.2
venv/bin/python - <<'PYTHON'
import geopandas
from shapely import box
from smoothify import smoothify

HOUSES = {
    "number": [1, 2, 3, 4, 5],
    "roof": ["flat", "pitched", "flat", "pitched", "flat"],
    "height": [3, 12, 40, 5, 8],
    "floors": [None, 4, 11, 2, 3],
}
places = [box(x, 0, x + 10 + 2 * number, 12) for number, x in enumerate(range(0, 500, 100))]
town = geopandas.GeoDataFrame(HOUSES, geometry=places, crs=25833)


def smoothed(**options):
    """Return the columns of the smoothed houses by the number that their place had."""
    result = smoothify(town, segment_length=1, num_cores=1, **options)
    assert len(result) == 5
    result["place"] = [int(x // 100) + 1 for x in result.centroid.x]
    result = result.set_index("place").sort_index()
    assert (result.area - town.set_index("number").area).abs().max() < 0.1
    print(options, result[list(HOUSES)].to_dict("list"))
    return {name: result[name].tolist() for name in HOUSES}


apart = smoothed(merge_collection=False)
assert apart["number"] == HOUSES["number"] and apart["height"] == HOUSES["height"]
default = smoothed()
assert default["number"] == [1] * 5 and default["height"] == [3] * 5
assert default["roof"] == ["flat"] * 5 and default["floors"] == [4] * 5
kinds = smoothed(merge_field="roof")
assert kinds["roof"] == HOUSES["roof"]
assert kinds["height"] == [3, 12, 3, 12, 3] and kinds["number"] == [1, 2, 1, 2, 1]
assert kinds["floors"] == [11, 4, 11, 4, 11]
PYTHON
