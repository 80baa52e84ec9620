#!/usr/bin/env bash
# rasterio.merge lets buildings of the second mask show through zeros of the first.
#
# Guess before the run: where files overlap, method="first" keeps the pixels of the first file,
# since a file without nodata is valid everywhere, as its mask in rasterio says.
# Seen: with masks of 0 and 1 and no nodata, "first" is the same as "max": a house that was
# demolished between two flights is back, whichever file comes first. "last" is right. merge takes 0
# for empty where nobody names a nodata value; with nodata=255, which no pixel has, "first" is
# right, too, and ground outside of all files is 255.
# Versions: rasterio 1.4.4. Source: rasterio/merge.py, nodataval = 0, and copy_first, which asks
# region == nodataval and not which pixels were written.
# Hurt: who puts masks of several dates or of overlapping tiles together and means the newest or
# best one to win: the map is their union, and false buildings of any of them stay. torchgeo 0.8.1
# reads overlapping labels by it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 numpy==2.2.6
venv/bin/python -W error::UserWarning - <<'PYTHON'
import numpy as np
import rasterio
from rasterio.merge import merge
from rasterio.transform import from_origin

old, new = np.zeros((2, 10, 10), np.uint8)
old[2:5, 2:5] = 1
new[6:8, 6:8] = 1
kind = dict(driver="GTiff", count=1, height=10, width=10, dtype="uint8", crs="EPSG:32633")
for name, mask in (("old.tif", old), ("new.tif", new)):
    with rasterio.open(name, "w", transform=from_origin(500_000, 5_000_000, 1, 1), **kind) as file:
        file.write(mask, 1)
    with rasterio.open(name) as file:
        assert file.nodata is None
        assert file.dataset_mask().all()
for options, expected in (
    ({"method": "first"}, old | new),
    ({"method": "max"}, old | new),
    ({"method": "first", "nodata": 255}, new),
):
    merged = merge(["new.tif", "old.tif"], **options)[0][0]
    print("new before old", options, "demolished house:", int(merged[3, 3]))
    assert (merged == expected).all()
assert (merge(["old.tif", "new.tif"], method="last")[0][0] == new).all()
PYTHON
