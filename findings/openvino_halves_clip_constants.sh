#!/usr/bin/env bash
# OpenVINO saves large numbers of a constant as 65,504, so a model's coordinates become one place.
#
# Guess before the run: save_model keeps the values of a model up to the rounding of half precision;
# constants with numbers that this cannot hold stay in single precision, or it raises.
# Seen: a model that multiplies (column, row, 1) by the affine matrix of its image places the corner
# at (65,504, 65,504) in place of (500,000, 5,000,000). compress_to_fp16 is True by default, and
# numbers beyond the range are clipped; only a constant most of whose numbers are too large stays as
# it is, so that the same origin as a constant of its own is right. There is no message. The ONNX
# file itself, read by OpenVINO, and compress_to_fp16=False are right.
# Versions: onnx 1.23.2, openvino 2026.4.1 (f32 on the CPU). Source: openvino.save_model, whose
# documentation says that weights are compressed, and not what happens to large ones.
# Hurt: who puts georeference or radiometric scales into the graph, so that a model can be used
# alone: predictions lie thousands of kilometres away.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 openvino==2026.4.1
venv/bin/python - <<'PYTHON'
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper

affine = np.array([[0.3, 0], [0, -0.3], [500_000, 5_000_000]], np.float32)
models = {"matrix": ("MatMul", affine, 3), "origin": ("Add", affine[2], 2)}
core = openvino.Core()
seen = {}
for name, (operator, constant, width) in models.items():
    graph = helper.make_graph(
        [helper.make_node(operator, ["pixels", "constant"], ["place"])], "g",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("place", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(constant, "constant")])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), "m.onnx")
    openvino.save_model(openvino.convert_model("m.onnx"), "halves.xml")
    openvino.save_model(openvino.convert_model("m.onnx"), "singles.xml", compress_to_fp16=False)
    corner = np.array([[0, 0, 1]], np.float32)[:, :width]
    for file in ("m.onnx", "singles.xml", "halves.xml"):
        compiled = core.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        seen[name, file] = compiled(corner)[0][0].tolist()
        print(name, file, "corner of the image:", seen[name, file])
right = [500_000, 5_000_000]
assert seen.pop(("matrix", "halves.xml")) == [65_504, 65_504]
assert all(place == right for place in seen.values())
PYTHON
