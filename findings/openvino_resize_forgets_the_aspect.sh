#!/usr/bin/env bash
# OpenVINO stretches an image that an ONNX model asks to resize with its aspect kept.
#
# Guess before the run: Resize with keep_aspect_ratio_policy "not_larger" or "not_smaller", which
# ONNX has since opset 18, gives the sizes of onnxruntime and of ONNX's reference, or the model is
# refused, as other policies of other libraries are.
# Seen: 100 x 200 pixels made to fit 64 x 64 are 32 x 64 by "not_larger" and 64 x 128 by
# "not_smaller" in both; OpenVINO makes 64 x 64 of each, as "stretch" does, with nearest and linear
# alike. A square house of 20 pixels is 12 pixels high and 6 wide. The policy is not in the graph
# that it reads, and there is no message. A square image is right.
# Versions: openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0. Source: the ONNX frontend's Resize
# (src/frontends/onnx/frontend/src/op/resize.cpp), which reads other attributes; the only documented
# limits of Resize are others.
# Hurt: who puts the preparation of scenes into the model, and runs it by OpenVINO: where scenes are
# not square, the network sees squeezed houses, and the mask has another size than by onnxruntime.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.2.6
venv/bin/python -W error::UserWarning - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def results(height, width, policy, mode):
    """Shapes by onnxruntime, ONNX's reference and OpenVINO, and the house in the last."""
    node = helper.make_node(
        "Resize", ["image", "", "", "sizes"], ["small"], mode=mode, axes=[2, 3],
        keep_aspect_ratio_policy=policy,
    )
    graph = helper.make_graph(
        [node], "resize",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "height", "width"])],
        [helper.make_tensor_value_info("small", TensorProto.FLOAT, [1, 1, None, None])],
        [numpy_helper.from_array(np.array([64, 64]), "sizes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    image = np.zeros((1, 1, height, width), np.float32)
    image[..., 40:60, 40:60] = 1
    data = model.SerializeToString()
    runtime = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    found = (
        runtime.run(None, {"image": image})[0],
        ReferenceEvaluator(model).run(None, {"image": image})[0],
        core.compile_model(core.read_model(data), "CPU")([image])[0],
    )
    rows, columns = np.nonzero(found[2][0, 0] > 0.5)
    house = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    shapes = [one.shape[2:] for one in found]
    print(f"{height} x {width} {policy:11} {mode:7}", *shapes, "house", house)
    return shapes, house


sizes = {"not_larger": (32, 64), "not_smaller": (64, 128), "stretch": (64, 64)}
for mode in ("nearest", "linear"):
    for policy, right in sizes.items():
        (runtime, reference, vino), house = results(100, 200, policy, mode)
        assert runtime == reference == right
        assert vino == (64, 64)
        assert house == (12, 6)
    assert results(100, 100, "not_larger", mode)[0] == [(64, 64)] * 3
PYTHON
