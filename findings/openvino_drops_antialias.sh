#!/usr/bin/env bash
# OpenVINO runs an ONNX Resize with antialias=1 as if it were 0, and walls vanish.
#
# Guess before the run: OpenVINO gives what onnxruntime and the reference of ONNX give, or refuses,
# since a resize of its own opset 11 has an attribute antialias.
# Seen: lines of one pixel at every fourth column, made four times smaller, are 0.25 by antialias in
# onnxruntime and in ONNX's reference, and 0 in OpenVINO, linear and cubic alike, where the samples
# between the lines are all that counts. There is no message, and the Interpolate that it builds has
# antialias = True, which its CPU device does not heed in the modes linear_onnx and cubic. With
# antialias=0 all three agree.
# Versions: onnx 1.23.2, onnxruntime 1.32.0, openvino 2026.4.1 (f32 on the CPU). Source: the ONNX
# operator Resize (opset 18); the mode and flag of OpenVINO's operator, printed below.
# Hurt: who brings the scaling of images into the model, as torch's export of
# interpolate(antialias=True) does: with OpenVINO it sees another image than in training.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
venv/bin/python - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

image = np.zeros((1, 1, 32, 32), np.float32)
image[..., ::4] = 1
core = openvino.Core()
for mode in ("linear", "cubic"):
    for antialias in (0, 1):
        node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode,
                                antialias=antialias)
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 32, 32])]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 8, 8])]
        scales = numpy_helper.from_array(np.array([1, 1, 0.25, 0.25], np.float32), "scales")
        graph = helper.make_graph([node], "g", inputs, outputs, [scales])
        opset = [helper.make_opsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, "m.onnx")
        reference = ReferenceEvaluator(model).run(None, {"x": image})[0]
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession("m.onnx", providers=providers)
        runtime = session.run(None, {"x": image})[0]
        read = core.read_model("m.onnx")
        (attributes,) = [op.get_attributes() for op in read.get_ops()
                         if op.get_type_name() == "Interpolate"]
        compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        vino = compiled(image)[0]
        middle = [round(float(values[0, 0, 4, 4]), 3) for values in (reference, runtime, vino)]
        print(mode, "antialias", antialias, "reference, onnxruntime, OpenVINO:", middle,
              "in mode", attributes["mode"], attributes["antialias"])
        assert np.allclose(reference, runtime, atol=1e-5)
        assert attributes["antialias"] == bool(antialias)
        if antialias:
            assert middle[0] == 0.25 and middle[2] <= 0
        else:
            assert np.allclose(reference, vino, atol=1e-5)
PYTHON
