#!/usr/bin/env bash
# LabelMe's own masks of outlines are a pixel wider and higher: a house of 100 pixels has 121.
#
# Guess before the run: the mask of a polygon holds the pixels whose centre is inside, up to
# rounding, since LabelMe's window draws an outline over the pixels from corner to corner.
# Seen: decimals are cut and the line through the corners is filled in, too. A polygon of 10 x 10
# pixels has 121 in its mask, wherever between the pixels it lies; rectangles as well. 200 houses of
# 10 x 10 at random angles have 13 % too much. Two houses that share a wall share 11 pixels, which
# go to the one that was drawn later. Pixels whose centre is inside: 100, and none shared.
# Versions: labelme 6.3.1, shapely 2.1.2. Source: shape_to_mask and shapes_to_label in
# labelme/utils/shape.py (ImageDraw.polygon with outline=1), which LabelMe's examples labelme2voc.py
# and labelme2coco.py call.
# Hurt: who trains on masks that were made with LabelMe's functions and measures areas: small roofs
# are taught a fifth too large and rows of houses grow together. rooftrace fills pixel centres.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check labelme==6.3.1 shapely==2.1.2 numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import shapely
from labelme.utils.shape import shape_to_mask, shapes_to_label
from shapely.affinity import rotate

SIZE = (60, 60)
CENTRES = shapely.points(np.indices(SIZE)[::-1].reshape(2, -1).T + 0.5)


def corners(outline):
    return [list(corner) for corner in outline.exterior.coords[:-1]]


def pixels(outline):
    """Pixels of the outline: by LabelMe, and those whose centre is inside."""
    by_labelme = shape_to_mask(SIZE, corners(outline), "polygon").sum()
    return int(by_labelme), int(shapely.contains(outline, CENTRES).sum())


for start in (10, 10.25, 10.75, 10.9):
    seen = pixels(shapely.box(start, start, start + 10, start + 10))
    print("10 x 10 from", start, "by LabelMe, by centres:", seen)
    assert seen == (121, 100)
assert shape_to_mask(SIZE, [[10, 10], [20, 20]], "rectangle").sum() == 121

random = np.random.default_rng(0)
places = random.uniform(20, 30, (200, 2))
houses = [
    rotate(shapely.box(x, y, x + 10, y + 10), angle)
    for (x, y), angle in zip(places, random.uniform(0, 90, 200), strict=True)
]
means = np.mean([pixels(house) for house in houses], 0)
print("turned houses, mean by LabelMe, by centres:", means.round(1))
assert 110 < means[0] < 116 and 99 < means[1] < 101

pair = [
    {"label": name, "points": corners(outline), "shape_type": "polygon", "group_id": None}
    for name, outline in (("one", shapely.box(10, 10, 20, 20)), ("two", shapely.box(20, 10, 30, 20)))
]
classes, _ = shapes_to_label(SIZE, pair, {"one": 1, "two": 2})
counts = np.bincount(classes.ravel())[1:].tolist()
print("neighbours:", counts)
assert counts == [110, 121]
PYTHON
