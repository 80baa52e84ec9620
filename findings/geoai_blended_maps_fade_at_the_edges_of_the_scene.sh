#!/usr/bin/env bash
# geoai's tiled maps have no data along the edges of a scene, or fade to 0 in its corners.
#
# Guess before the run: predict_geotiff divides the sum of weighted tiles by the sum of weights, so
# that a model that gives each pixel the same score gives a map of that score, up to the edges.
# Seen: with a score of 1 and tiles of 256 pixels with 64 of overlap, blend_mode="none" gives 1
# everywhere. "linear" and "cosine" give nodata, -9999, to the first and last row and column. The
# default, "spline", gives 0.97 along the edges and 0.00001 in the corners: 208 pixels are below
# 0.5. With tiles of 512 and an overlap of 256 edges have 0.2 and less, and 6,616 pixels of a scene
# of 600 x 600 are below 0.5. There is no message.
# Versions: geoai-py 0.40.1, torch 2.13.0, rasterio 1.4.4. Source: geoai/inference.py: weights of
# pixels at the edge of a tile are 0, or far smaller than 1e-8 in a corner, and sums are divided by
# the sum of weights plus 1e-8, where no other tile covers the pixel.
# Hurt: who maps scenes or tiles of a mosaic: houses at their edges have a score below the
# threshold, or a stripe of nodata through them, and are missing where two maps meet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip torch==2.13.0 rasterio==1.4.4 numpy==2.2.6 tqdm==4.67.1
$pip --no-deps geoai-py==0.40.1
cat > maps.py <<'PYTHON'
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import rasterio
import torch

home = Path(importlib.util.find_spec("geoai").origin).parent
for name in ("geoai", "geoai.utils"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["geoai"].__path__ = [str(home)]
sys.modules["geoai.utils"].get_device = lambda: torch.device("cpu")
predict_geotiff = importlib.import_module("geoai.inference").predict_geotiff


class Sure(torch.nn.Module):
    def forward(self, batch):
        return torch.ones_like(batch[:, :1])


profile = dict(driver="GTiff", height=600, width=600, count=3, dtype="uint8", crs="EPSG:32633",
               transform=rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000))
with rasterio.open("scene.tif", "w", **profile) as file:
    file.write(np.full((3, 600, 600), 200, np.uint8))

seen = {}
for tile, overlap, mode in ((256, 64, "none"), (256, 64, "linear"), (256, 64, "cosine"),
                            (256, 64, "spline"), (512, 256, "spline")):
    predict_geotiff(Sure(), "scene.tif", "map.tif", tile_size=tile, overlap=overlap,
                    blend_mode=mode, verbose=False)
    scores = rasterio.open("map.tif").read(1)
    nodata = int((scores == -9999).sum())
    low = int((scores < 0.5).sum()) - nodata
    seen[tile, mode] = nodata, low, round(float(scores[0, 300]), 2), round(float(scores[0, 0]), 4)
    print(f"tiles of {tile}, {mode}: {nodata} of nodata, {low} below 0.5, "
          f"edge {scores[0, 300]:.2f}, corner {scores[0, 0]:.2g}")
frame = 4 * 599
assert seen[256, "none"] == (0, 0, 1, 1)
assert seen[256, "linear"][:2] == seen[256, "cosine"][:2] == (frame, 0)
assert seen[256, "spline"] == (0, 208, 0.97, 0)
assert seen[512, "spline"] == (0, 6616, 0.2, 0)
PYTHON
venv/bin/python -W ignore maps.py
