#!/usr/bin/env bash
# onnx.version_converter moves bilinear upsampling by half a pixel, and a mask with it.
#
# Guess before the run: a model that is converted from opset 9 or 10 to a later one gives the same
# values; where a later operator works otherwise, the converter sets the attribute that keeps them,
# as it does for the axis of Softmax.
# Seen: the Resize of the converted model has no coordinate_transformation_mode. Its default since
# opset 11 is half_pixel, and before it output pixel i lay at i / scale (asymmetric). An edge moves by
# (scale - 1) / 2 output pixels to the lower right, 1.5 for a scale of 4; a U-Net adds them up. There
# is no message, the checker passes, and nearest neighbours stay the same.
# Versions: onnx 1.23.2, onnxruntime 1.31.1. Source: adapters Resize 10 to 11 and Upsample 9 to 10 in
# onnx/version_converter, which add inputs only.
# Hurt: who lifts an old segmentation model to a newer opset, as quantisation and other tools ask for.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.31.1 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, version_converter

onnxruntime.set_default_logger_severity(4)
SCALE = 4
house = np.zeros((1, 1, 1, 8), np.float32)
house[..., 4:] = 1


def edge(model):
    """Place of the wall in output pixels."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    row = session.run(None, {"x": house})[0][0, 0, 0]
    return float(np.interp(0.5, row[:24], np.arange(24) + 0.5))


moved = {}
for opset, operator in ((9, "Upsample"), (10, "Resize")):
    for mode in ("linear", "nearest"):
        node = helper.make_node(operator, ["x", "scales"], ["y"], mode=mode)
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            [node], "g", [value("x", TensorProto.FLOAT, [1, 1, 1, 8])],
            [value("y", TensorProto.FLOAT, [1, 1, 1, 8 * SCALE])],
            [helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 1, SCALE])],
        )
        old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
        new = version_converter.convert_version(old, 17)
        onnx.checker.check_model(new, full_check=True)
        before, after = edge(old), edge(new)
        print(operator, opset, mode, "wall at", before, "then at", after)
        moved[opset, mode] = after - before
assert moved == {(9, "linear"): 1.5, (9, "nearest"): 0, (10, "linear"): 1.5, (10, "nearest"): 0}
PYTHON
