#!/usr/bin/env bash
# geo-rasterize draws masks of one house with twos and threes along its walls, a pixel too large.
#
# Guess before the run: a mask of ones is that of rasterio's rasterize, pixels whose centre is
# inside, as the help names 'replace' the default; with "add", for "heatmaps", a pixel is the
# number of shapes on it, so that one house counts 1.
# Seen: the default is "add". It draws the outline of a house over its area, and some corners once
# more: a single house is 1 inside, 2 along its walls and 3 at corners; two houses that share a
# wall and no pixel reach 4 and add up to 122 in place of 72. With algorithm="replace" the mask
# holds ones: a turned house has the pixels of rasterio's all_touched, and one of 6 x 6 whole
# pixels has 49, where rasterio has 36 with all_touched, too.
# Versions: geo-rasterize 0.9.0, rasterio 1.4.4, shapely 2.1.2. Source: the help of rasterize,
# "algorithm: ... 'replace' (the default) or 'add'"; its README says "a drop in replacement for
# rasterio.features.rasterize" and that the last shape overwrites; the module is compiled.
# Hurt: who draws training masks without GDAL: classes 2 and 3 that nobody labelled run round each
# house, houses grow, and those of a row merge.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geo-rasterize==0.9.0 rasterio==1.4.4 \
  shapely==2.1.2 numpy==2.2.6
cat > masks.py <<'PYTHON'
import geo_rasterize
import numpy as np
import shapely
from rasterio.features import rasterize
from shapely import affinity

house = shapely.box(2, 2, 8, 8)
town = {
    "house": [house],
    "turned house": [affinity.rotate(shapely.box(4, 4, 12, 14), 30)],
    "two side by side": [house, shapely.box(8, 2, 14, 8)],
}
seen = {}
for name, shapes in town.items():
    values = [1] * len(shapes)
    masks = [
        geo_rasterize.rasterize(shapes, values, (20, 20), **options)
        for options in ({}, {"algorithm": "add"}, {"algorithm": "replace"})
    ]
    assert np.array_equal(masks[0], masks[1])
    rasterio = [rasterize(shapes, (20, 20), all_touched=touched) for touched in (False, True)]
    sums = [int(mask.sum()) for mask in (*rasterio, masks[2], masks[0])]
    seen[name] = sums, np.unique(masks[0]).tolist()
    print(name, "by rasterio, with all_touched, by geo-rasterize with 'replace', by default:", sums)
    print(name, "values by default:", seen[name][1])
assert seen["house"] == ([36, 36, 49, 61], [0, 1, 2])
assert seen["turned house"] == ([78, 106, 106, 127], [0, 1, 2, 3])
assert seen["two side by side"] == ([72, 72, 91, 122], [0, 1, 2, 3, 4])
PYTHON
venv/bin/python -W ignore masks.py
