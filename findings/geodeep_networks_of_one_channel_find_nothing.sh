#!/usr/bin/env bash
# geodeep finds no building with a network of one channel, whatever its score and the threshold.
#
# Guess before the run: the score of a single channel is compared with seg_thresh, as in Deepness,
# whose models and metadata geodeep reads: what is above is building.
# Seen: the mask is 0 everywhere, also where the network says 1 and seg_thresh is 0.1. The same
# network with a second channel for the ground finds the house. The GeoJSON holds one polygon over
# the whole scene with the class that the metadata calls 0, "building" if there is one class, so
# that the scene is one building. There is no message.
# Versions: geodeep 0.9.13, rasterio 1.4.4, onnxruntime 1.23.2, onnx 1.19.1. Source:
# geodeep/segmentation.py, postprocess: argmax over the channels, which of one is 0; Deepness was
# mended for such networks in its pull request 118.
# Hurt: who brings a binary network to geodeep, as segmentation_models.pytorch makes with classes=1:
# towns come back without a house, or as one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6 rasterio==1.4.4 onnx==1.19.1 \
  onnxruntime==1.23.2
venv/bin/pip install --quiet --disable-pip-version-check --no-deps geodeep==0.9.13
cat > channels.py <<'PYTHON'
import json

import geodeep
import numpy as np
import onnx
import rasterio
from onnx import TensorProto, helper, numpy_helper
from rasterio.transform import from_origin

town = np.zeros((3, 256, 256), np.uint8)
town[:, 60:120, 60:140] = 255
with rasterio.open("scene.tif", "w", driver="GTiff", height=256, width=256, count=3, dtype="uint8",
                   crs="EPSG:32618", transform=from_origin(585000, 4512000, 0.5, 0.5), tiled=True,
                   blockxsize=256, blockysize=256) as scene:
    scene.write(town)


def found(threshold, classes):
    """Return pixels of building in the mask, and classes of GeoJSON with their areas in pixels."""
    signs = [1] if len(classes) == 1 else [-1, 1]  # building alone, or ground and building
    weights = np.array(signs, np.float32).reshape(-1, 1, 1, 1).repeat(3, axis=1) / 3
    network = helper.make_graph(
        [helper.make_node("Conv", ["image", "weights", "bias"], ["scores"])],
        "bright",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, len(signs), 64, 64])],
        [numpy_helper.from_array(weights, "weights"),
         numpy_helper.from_array(np.array([sign < 0 for sign in signs], np.float32), "bias")],
    )
    model = helper.make_model(network, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {
        "model_type": json.dumps("Segmentor"), "resolution": "50", "seg_thresh": str(threshold),
        "seg_small_segment": "1", "class_names": json.dumps(dict(enumerate(classes))),
    })
    onnx.save(model, "model.onnx")
    mask = geodeep.segment("scene.tif", "model.onnx")
    table = json.loads(geodeep.segment("scene.tif", "model.onnx", output_type="geojson"))
    return int((mask > 0).sum()), [
        (feature["properties"]["class"], len(feature["geometry"]["coordinates"]) - 1)
        for feature in table["features"]
    ]


for threshold in (0.1, 0.5, 0.9):
    two, one = found(threshold, ["ground", "building"]), found(threshold, ["building"])
    print(f"above {threshold}: two channels (pixels, polygons with their holes) {two}, one {one}")
    assert 4780 < two[0] <= 80 * 60 and two[1] == [("building", 0), ("ground", 1)]
    assert one == (0, [("building", 0)])
PYTHON
venv/bin/python -W ignore channels.py
