#!/usr/bin/env bash
# geodeep takes feet and the metres of Web Mercator for metres when it sets the scale of a model.
#
# Guess before the run: a model says for which resolution it was trained, in cm per pixel, and
# geodeep reads the scene at that scale whatever the unit of its CRS is; for degrees it has a
# function that knows how long they are.
# Seen: a model for 50 cm reads a scene of 12.5 cm in UTM four pixels at a time. The same pixels in
# feet (EPSG:2263, 0.41 ft) are taken for 41 cm and read one by one: a house is shown to the model
# four times as large as it knows houses. In Web Mercator at 60 degrees north, where a pixel of
# 12.5 cm is 25 cm wide on the map, it is two by two. Only the size of the mask tells; there is no
# message. The documentation says that masks differ in size, as models differ in resolution.
# Versions: geodeep 0.9.13, rasterio 1.4.4, onnxruntime 1.23.2, onnx 1.19.1. Source:
# geodeep/geodeep.py, run: input_res is the transform's step times 100, the CRS is not asked.
# Hurt: who maps buildings on the aerial imagery of American states, which comes in feet, or on map
# tiles: most houses are missed, or come in pieces, on scenes for which the model is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6 rasterio==1.4.4 onnx==1.19.1 \
  onnxruntime==1.23.2
venv/bin/pip install --quiet --disable-pip-version-check --no-deps geodeep==0.9.13
cat > scenes.py <<'PYTHON'
import json
import math

import geodeep
import numpy as np
import onnx
import rasterio
from onnx import TensorProto, helper, numpy_helper
from rasterio.transform import from_origin

SIDE, PIXEL_M = 512, 0.125
weights = np.zeros((2, 3, 1, 1), np.float32)
weights[:, :, 0, 0] = [[-1 / 3] * 3, [1 / 3] * 3]  # scores of ground and building: dark and bright
network = helper.make_graph(
    [helper.make_node("Conv", ["image", "weights", "bias"], ["scores"])],
    "bright",
    [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])],
    [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2, 64, 64])],
    [numpy_helper.from_array(weights, "weights"),
     numpy_helper.from_array(np.array([1, 0], np.float32), "bias")],
)
model = helper.make_model(network, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
helper.set_model_props(model, {
    "model_type": json.dumps("Segmentor"), "resolution": "50", "seg_small_segment": "1",
    "class_names": json.dumps({"0": "ground", "1": "building"}),
})
onnx.save(model, "model.onnx")

town = np.full((3, SIDE, SIDE), 20, np.uint8)
town[:, 100:220, 100:260] = 240  # a house of 20 x 15 m


def building(epsg, pixel, x, y):
    """Return the side of the mask and how wide and high the house is in it."""
    with rasterio.open("scene.tif", "w", driver="GTiff", height=SIDE, width=SIDE, count=3,
                       dtype="uint8", crs=f"EPSG:{epsg}", transform=from_origin(x, y, pixel, pixel),
                       tiled=True, blockxsize=256, blockysize=256) as scene:
        scene.write(town)
    mask = geodeep.segment("scene.tif", "model.onnx") == 1
    return len(mask), int(mask.any(axis=0).sum()), int(mask.any(axis=1).sum())


seen = {
    "UTM": building(32618, PIXEL_M, 585000, 4512000),
    "feet": building(2263, PIXEL_M * 3937 / 1200, 985000, 211000),
    "Web Mercator": building(3857, PIXEL_M / math.cos(math.radians(60)), 0, 8399738),
}
for name, (side, width, height) in seen.items():
    print(f"{name}: a mask of {side} pixels, the house {width} x {height}")
assert seen["UTM"] == (128, 40, 30)  # 20 x 15 m at 50 cm
assert seen["feet"] == (512, 160, 120)
assert seen["Web Mercator"] == (256, 80, 60)
PYTHON
venv/bin/python -W ignore scenes.py
