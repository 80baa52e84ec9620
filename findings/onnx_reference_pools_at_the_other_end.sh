#!/usr/bin/env bash
# ONNX's reference evaluator pads MaxPool's SAME_LOWER at the end, so its maxima move by a pixel.
#
# Guess before the run: the evaluator that the standard brings gives what the standard says: of an
# odd padding SAME_LOWER adds the extra pixel at the beginning, as its AveragePool does and
# onnxruntime, and Softmax of opset 11 and 12 is taken over all that follows the axis.
# Seen: of eight pixels 0 to 7, a window of three and a step of two, MaxPool gives 2, 4, 6, 7 for
# SAME_LOWER as for SAME_UPPER; onnxruntime gives 1, 3, 5, 7. AveragePool, Conv and an even padding
# are right. Softmax, LogSoftmax and Hardmax of opsets 11 and 12 are those of opset 13: at axis 1 of
# a map of two classes each pixel adds up to 1, where the standard wants the whole map to do so.
# There is no message.
# Versions: onnx 1.23.2, onnxruntime 1.32.0, numpy 2.2.6. Source: onnx/reference/ops/op_max_pool.py
# and op_softmax.py, which have one version of each operator.
# Hurt: who takes the reference for the truth when the output of an engine or of a converted model
# is checked: a right one is called wrong, and a model that normalises its classes wrongly passes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 \
  numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def outputs(operator, image, opset=18, **attributes):
    """Return what the reference and onnxruntime give for a model of one operator."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
              for name, shape in (("image", image.shape), ("map", [None] * image.ndim))]
    node = helper.make_node(operator, ["image"], ["map"], **attributes)
    model = helper.make_model(helper.make_graph([node], "town", values[:1], values[1:]),
                              opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    return [runner.run(None, {"image": image})[0] for runner in (ReferenceEvaluator(model), session)]


row = np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8)
for operator in ("MaxPool", "AveragePool"):
    for padding in ("SAME_UPPER", "SAME_LOWER"):
        reference, engine = (each.ravel().tolist() for each in outputs(
            operator, row, kernel_shape=[1, 3], strides=[1, 2], auto_pad=padding))
        print(f"{operator:11} {padding}: reference {reference}, onnxruntime {engine}")
        assert (reference == engine) == ((operator, padding) != ("MaxPool", "SAME_LOWER"))
        if reference != engine:
            assert reference == [2, 4, 6, 7] and engine == [1, 3, 5, 7]
classes = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
for opset in (11, 12, 13):
    sums = [round(float(each.sum()), 3) for each in outputs("Softmax", classes, opset, axis=1)]
    print(f"Softmax of opset {opset}, sum by the reference and onnxruntime: {sums}")
    assert sums == ([16, 16] if opset == 13 else [16, 1])
PYTHON
