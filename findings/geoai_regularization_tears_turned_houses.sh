#!/usr/bin/env bash
# geoai's regularization of buildings tears houses that are not aligned with the axes.
#
# Guess before the run: a rectangle, at whatever angle, is regular already and stays as it is; and
# courtyards stay.
# Seen: a house of 20 x 30 m that is turned by 30 degrees comes back as a pinwheel of 383 in place
# of 600 square metres, with an IoU of 0.27; by 15 degrees the IoU is 0.54, and by 45 the polygon is
# invalid. A courtyard is filled. Nothing is said. The main direction can only be 0 or 90 degrees,
# since those of the walls are rounded to multiples of 90 before the most frequent is taken; so each
# slanting wall is replaced by two that follow the axes, by turns outside and inside of the house.
# Versions: geoai-py 0.40.1, shapely 2.1.2. Source: geoai/utils/geometry.py, regularization, whose
# binned_angles are those multiples.
# Hurt: who cleans predicted footprints by it: the map shows pinwheels in all streets that are not
# north to south. adaptive_regularization of the same module leaves these houses as they are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip rasterio==1.4.4 rioxarray==0.19.0 geopandas==1.1.1 shapely==2.1.2 numpy==2.2.6 tqdm==4.67.1
# Without torch and maps, which this module does not need.
$pip --no-deps geoai-py==0.40.1
venv/bin/python -W ignore - <<'PYTHON'
import importlib
import sys
import types
from pathlib import Path
import geopandas
import shapely

home = Path(importlib.util.find_spec("geoai").origin).parent
for name, place in (("geoai", home), ("geoai.utils", home / "utils")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(place)]
geometry = importlib.import_module("geoai.utils.geometry")


def after(house, regularize):
    """Square metres, validity and IoU with the house of what is made of it."""
    made = regularize(geopandas.GeoDataFrame(geometry=[house], crs=32633)).geometry[0]
    valid = shapely.make_valid(made)
    iou = valid.intersection(house).area / valid.union(house).area
    return round(made.area), made.is_valid, round(iou, 2)


house = shapely.box(500_000, 5_000_000, 500_020, 5_000_030)
seen = {}
for angle in (0, 5, 15, 30, 45):
    turned = shapely.affinity.rotate(house, angle)
    seen[angle] = after(turned, geometry.regularization)
    print(angle, round(turned.area), "->", seen[angle])
    assert after(turned, geometry.adaptive_regularization) == (600, True, 1)
assert seen == {0: (600, True, 1), 5: (600, True, 1), 15: (475, True, 0.54), 30: (383, True, 0.27),
                45: (350, False, 0.31)}
yard = house.difference(shapely.box(500_005, 5_000_005, 500_015, 5_000_025))
print("courtyard", round(yard.area), "->", after(yard, geometry.regularization))
assert after(yard, geometry.regularization) == (600, True, 0.67)
PYTHON
