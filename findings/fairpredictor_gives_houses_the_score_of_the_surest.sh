#!/usr/bin/env bash
# fairpredictor gives each house of a tile the score of the surest house of that tile.
#
# Guess before the run: the column confidence of predict() is the score that the network gave to the
# house, or the mean of it over the pixels of the polygon.
# Seen: a YOLO network finds three houses in a tile of zoom 18, with 0.95, 0.6 and 0.3. All three
# polygons have a confidence of 0.95. Without the first, the house of 0.3 has 0.6, and where it is
# the only one in the tile, 0.3. There is no message.
# Versions: fairpredictor 0.5.1, geomltoolkits 2.1.2, onnxruntime 1.31.1. Source:
# predictor/prediction.py, predict_onnx: the masks of all houses times np.max(scores); predict_yolo,
# for .pt, keeps masks of 0 and 1 and so a confidence of 1; app.py, _compute_polygon_confidence.
# Hurt: who maps a town with the predictor of fAIr and drops or reviews what is unsure: doubtful
# houses hide beside sure ones, and how doubtful one is depends on the grid of tiles.
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
import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import geopandas
import mercantile
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from predictor import predict


def save_network(houses):
    """Write a YOLO network that finds these houses, pixels and score, in each tile."""
    boxes = np.zeros((1, 37, 1344), np.float32)
    masks = np.zeros((1, 32, 64, 64), np.float32)
    masks[0, 0] = 10
    for number, (column, row, side, score) in enumerate(houses):
        middle = column + side / 2, row + side / 2
        boxes[0, :6, number] = *middle, side, side, score, 1
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


class Tiles(BaseHTTPRequestHandler):
    picture = cv2.imencode(".png", np.full((256, 256, 3), 90, np.uint8))[1].tobytes()

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.picture)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Tiles)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/{{z}}/{{x}}/{{y}}.png"
tile = mercantile.bounds(mercantile.tile(85.32, 27.7, 18))
inner = 0.1 * (tile.east - tile.west)


def scores(*houses):
    """Return the confidence of the houses from north to south."""
    save_network(houses)
    found = asyncio.run(predict(
        model_path="houses.onnx", zoom_level=18, tms_url=url, confidence=0.25, tolerance=0,
        area_threshold=0, orthogonalize=False, get_predictions_as_points=False,
        bbox=[tile.west + inner, tile.south + inner, tile.east - inner, tile.north - inner],
    ))
    table = geopandas.GeoDataFrame.from_features(found, crs=4326)
    order = table.geometry.bounds.maxy.sort_values(ascending=False).index
    return [round(float(value), 2) for value in table.loc[order, "confidence"]]


sure, likely, doubtful = (8, 8, 32, 0.95), (112, 112, 32, 0.6), (206, 206, 40, 0.3)
together, without_sure = scores(sure, likely, doubtful), scores(likely, doubtful)
alone = scores(doubtful)
print("SEEN 0.95, 0.6, 0.3:", together, "0.6, 0.3:", without_sure, "0.3:", alone)
assert together == [0.95, 0.95, 0.95] and without_sure == [0.6, 0.6] and alone == [0.3]
PYTHON
grep SEEN log
