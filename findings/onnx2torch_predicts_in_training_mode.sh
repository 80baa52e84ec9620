#!/usr/bin/env bash
# onnx2torch returns a network in training mode, which judges each tile by its own mean.
#
# Guess before the run: an ONNX file without training_mode describes inference, so the module that
# convert() returns gives what onnxruntime gives, as its README shows on a network's raw output.
# Seen: training is True. BatchNormalization takes the mean and variance of the tile in place of
# those in the file: a tile that is all roof (0.88 by onnxruntime) has a mean of 0.50 and half of
# its pixels are no roof; half of a tile of ground is built up likewise. Each call moves the stored
# statistics toward its tile, so eval() after it gives 0.87. Dropout, which does nothing in
# inference, sets a part of the values to 0 and doubles the others. With eval() before the first
# call all outputs are equal.
# Versions: onnx2torch 1.5.15, onnx 1.23.2, onnxruntime 1.32.0, torch 2.13.0, torchvision 0.28.0.
# Source: onnx2torch/converter.py (GraphModule without eval), node_converters/batch_norm.py and
# dropout.py; the README's section "Execute" calls the converted network directly.
# Hurt: who takes a network from an ONNX file to PyTorch: no error, no warning, and in every tile
# about the same share of buildings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx2torch==1.5.15 onnx==1.23.2 \
  onnxruntime==1.32.0 torch==2.13.0 torchvision==0.28.0 numpy==2.2.6
venv/bin/python -W error::UserWarning - <<'PYTHON'
import sys
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

# Where pip took torch for CPUs alone, the compiled operators of torchvision do not load. Nothing here
# calls them, but the package asks for the declarations of two.
try:
    import torchvision
except RuntimeError:
    for module in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[module]
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from onnx2torch import convert


def network(*nodes, **weights):
    shape = ["images", 1, "rows", "columns"]
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array([value], np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def by_onnxruntime(model, image):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def by_torch(module, image):
    with torch.inference_mode():
        return module(torch.from_numpy(image)).numpy()


classifier = network(
    helper.make_node("BatchNormalization", ["image", "gain", "bias", "mean", "variance"], ["scaled"]),
    helper.make_node("Sigmoid", ["scaled"], ["score"]),
    gain=1, bias=0, mean=0.5, variance=0.04,
)
noise = np.random.default_rng(0).normal(0, 0.01, (1, 1, 64, 64)).astype(np.float32)
for name, brightness, expected in (("roof", 0.9, 0.88), ("ground", 0.1, 0.12)):
    image = brightness + noise
    module = convert(classifier)
    assert module.training
    scores = {"onnxruntime": by_onnxruntime(classifier, image), "convert": by_torch(module, image),
              "eval afterwards": by_torch(module.eval(), image),
              "eval before": by_torch(convert(classifier).eval(), image)}
    means = {key: round(float(value.mean()), 2) for key, value in scores.items()}
    built = {key: round(float((value > 0.5).mean()), 2) for key, value in scores.items()}
    print(name, "mean:", means, "built up:", built)
    assert means["onnxruntime"] == expected and abs(means["convert"] - 0.5) < 0.02
    assert 0.45 < built["convert"] < 0.55 and built["onnxruntime"] == (name == "roof")
    assert means["eval afterwards"] != expected
    assert np.allclose(scores["eval before"], scores["onnxruntime"], atol=1e-5)

dropout = network(helper.make_node("Dropout", ["image"], ["score"]))
ones = np.ones((1, 1, 64, 64), np.float32)
values = {key: np.unique(value).tolist() for key, value in {
    "onnxruntime": by_onnxruntime(dropout, ones), "convert": by_torch(convert(dropout), ones),
    "eval": by_torch(convert(dropout).eval(), ones)}.items()}
print("dropout:", values)
assert values == {"onnxruntime": [1], "convert": [0, 2], "eval": [1]}
PYTHON
