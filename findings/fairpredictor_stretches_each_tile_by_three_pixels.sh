#!/usr/bin/env bash
# fairpredictor stretches the mask of each tile by three pixels to each side.
#
# Guess before the run: the georeferenced mask of a tile of 256 x 256 pixels has the bounds of the
# tile z/x/y, as the tile of imagery that it was predicted from has in the same run.
# Seen: it has 256 pixels over 262: 3 pixels of the tile are added on each side, at the equator and
# zoom 18 1.8 m. A house in a corner of the tile moves by 2.8 pixels in x and y, to the outside,
# each house is 4.7 % larger, and the masks of neighbouring tiles overlap by 6 pixels. Only a tag in
# the file says "overlap_applied".
# Versions: fairpredictor 0.5.1, geomltoolkits 2.1.2, rasterio 1.4.4. Source:
# predictor/prediction.py, run_prediction: georeference_prediction_tiles(..., overlap_pixels=3)
# whatever was downloaded (TMSDownloader has no overlap); hot_fair_utilities.predict calls it.
# Hurt: who maps a town with the predictor of fAIr, or measures areas: a house lies up to 3 pixels
# beside itself in x and y, and where to depends on the grid of tiles: no shift of the map mends it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  geopandas==1.1.1 pandas==2.3.3 pyogrio==0.12.1 rasterio==1.4.4 mercantile==1.2.1 rich==14.2.0 \
  scipy==1.17.1 rio-cogeo==7.0.4 numpy==2.2.6 aiohttp==3.14.5 rtree==1.4.1 pyyaml==6.0.3 \
  typer==0.21.1 tenacity==9.2.1 onnxruntime==1.31.1 onnx==1.23.2 opencv-python-headless==4.12.0.88 \
  pydantic==2.12.5 requests==2.32.5 pillow==12.0.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps geomltoolkits==2.1.2 \
  fairpredictor==0.5.1
venv/bin/python -W ignore - > log <<'PYTHON'
from pathlib import Path

import cv2
import mercantile
import numpy as np
import onnx
import rasterio
from geomltoolkits import georeference_tile
from onnx import TensorProto, helper, numpy_helper
from predictor.prediction import run_prediction
from rasterio.features import shapes
from shapely.geometry import shape

# A YOLO network that finds a house in the north-western corner and one in the middle of each tile.
HOUSES = [(8, 8, 32), (112, 112, 32)]
boxes = np.zeros((1, 37, 1344), np.float32)
masks = np.zeros((1, 32, 64, 64), np.float32)
masks[0, 0] = 10
for number, (column, row, side) in enumerate(HOUSES):
    boxes[0, :6, number] = column + side / 2, row + side / 2, side, side, 0.9, 1
outputs = {"output0": boxes, "output1": masks}
graph = helper.make_graph(
    [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))
     for name, values in outputs.items()],
    "houses",
    [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 256, 256))],
    [helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape)
     for name, values in outputs.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.save(model, "houses.onnx")

tile = mercantile.tile(85.32, 27.7, 18)
name = f"OAM-{tile.x}-{tile.y}-{tile.z}"
Path("tiles").mkdir()
cv2.imwrite("plain.png", np.full((256, 256, 3), 90, np.uint8))
georeference_tile("plain.png", tile.x, tile.y, tile.z, f"tiles/{name}.tif", crs="3857")
folder = run_prediction("houses.onnx", "tiles", "predicted", confidence=0.25, crs="3857")
square = mercantile.xy_bounds(tile)
pixel = (square.right - square.left) / 256
with rasterio.open(f"tiles/{name}.tif") as imagery, rasterio.open(f"{folder}/{name}.tif") as mask:
    assert imagery.shape == mask.shape == (256, 256)
    assert np.allclose(imagery.bounds, square, atol=0.001)
    wider = [round(float(abs(one - other)) / pixel, 3) for one, other in zip(mask.bounds, square)]
    values = mask.read(1)
    houses = [shape(part) for part, value in shapes(values, transform=mask.transform) if value]
print("SEEN bounds wider by pixels of the tile:", wider)
assert wider == [3, 3, 3, 3]
seen = []
for house, (column, row, side) in zip(sorted(houses, key=lambda one: -one.bounds[3]), HOUSES):
    west = (house.bounds[0] - square.left) / pixel - column
    north = (square.top - house.bounds[3]) / pixel - row
    seen.append((round(west, 1), round(north, 1), round(house.area / (side * pixel) ** 2, 3)))
print("SEEN moved by pixels in x and y, area as a multiple:", *seen)
assert seen == [(-2.8, -2.8, 1.047), (-0.4, -0.4, 1.047)]
PYTHON
grep SEEN log
