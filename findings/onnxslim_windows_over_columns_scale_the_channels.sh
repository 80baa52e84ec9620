#!/usr/bin/env bash
# onnxslim makes a scale of channels of a window over columns where there are as many of both.
#
# Guess before the run: slim() returns a smaller model with the same outputs; a Mul after a Conv is
# taken into its weights only if it scales channels, as it is with the Add after a Conv.
# Seen: a network weights 64 features by a window over the columns and one over the rows, so that
# the middle of a tile counts most, and finds houses from them. For tiles of 96 pixels the model
# after slim() returns the same scores. For tiles of 64 the windows are gone, channel 32 counts most
# instead, and of a map of 800 pixels of houses 0 are left. Any constant of 64 values
# is taken, whichever axis it lies on. There is no message; model_check is False by default.
# Versions: onnxslim 0.1.98, onnx 1.23.2, onnxruntime 1.31.1, numpy 2.2.6. Source:
# onnxslim/core/pattern/fusion/convmul.py, rewrite: mul_constant.squeeze().shape[0] only; convadd.py
# compares the whole shape.
# Hurt: who slims a network of a fixed tile size before deployment, as YOLO exports do by default:
# gates or windows along one axis of as many pixels as there are features give other maps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.31.1 \
  onnxslim==0.1.98 numpy==2.2.6
venv/bin/python -W error - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import onnxslim
from onnx import TensorProto, helper, numpy_helper

FEATURES = 64


def network(side):
    """Return a network that counts the middle of a tile most, for tiles of this side."""
    window = np.hanning(side + 2)[1:-1].astype(np.float32)
    # The first feature is the image, the others are nothing.
    first = np.zeros((FEATURES, 1, 1, 1), np.float32)
    first[0] = 1
    arrays = {"first": first, "columns": window, "rows": window.reshape(-1, 1),
              "last": np.ones((1, FEATURES, 1, 1), np.float32)}
    nodes = [helper.make_node("Conv", ["image", "first"], ["features"]),
             helper.make_node("Mul", ["features", "columns"], ["across"]),
             helper.make_node("Mul", ["across", "rows"], ["weighted"]),
             helper.make_node("Conv", ["weighted", "last"], ["scores"])]
    shape = 1, 1, side, side
    graph = helper.make_graph(
        nodes, "houses",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(values, name) for name, values in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


seen = {}
for side in (96, 64):
    tile = np.zeros((1, 1, side, side), np.float32)
    middle = side // 2
    tile[..., middle - 10 : middle + 10, middle - 20 : middle + 20] = 1
    model = network(side)
    houses = []
    for version in (model, onnxslim.slim(model)):
        session = onnxruntime.InferenceSession(version.SerializeToString(),
                                               providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, {"image": tile})
        houses.append(int((scores > 0.1).sum()))
    seen[side] = houses
    print(f"tiles of {side} pixels: {houses[0]} pixels of houses, after slim() {houses[1]}")
assert seen == {96: [800, 800], 64: [800, 0]}
PYTHON
