#!/usr/bin/env bash
# ncnn dims the last row and column of average pooling that PyTorch and ONNX take as they are.
#
# Guess before the run: pnnx turns AvgPool2d(2, ceil_mode=True) into a layer that gives PyTorch's map
# of a tile whose height or width is odd: the last window averages the pixels that are in it.
# Seen: the last window is divided by all its four places. On 65 x 65 pixels of value 1 three levels
# give 9 x 9 pixels, of which the last row and column are 0.125 and the corner 0.016, in place of 1;
# PyTorch and onnxruntime have 1. On 64 x 64, or with count_include_pad=False, all is 1. No message.
# The same converter turns circular padding of a convolution into zeros.
# Versions: ncnn 1.0.20261020, pnnx 20261020, torch 2.13.0, onnxruntime 1.32.0 (onnx 1.23.2). Source:
# pnnx writes 5=0 6=1 (ceil, pads count) for the layer Pooling, in which places that only the
# rounding up adds count as pads; PyTorch's documentation of AvgPool2d counts only its own padding.
# Hurt: who runs a network with such pooling on a telephone or drone: roofs fade along the lower and
# right edge of each tile, at every level by half, and tiles of 64 pixels in a test show nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 onnx==1.23.2 \
  onnxruntime==1.32.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps ncnn==1.0.20261020 pnnx==20261020
venv/bin/python -W ignore - <<'PYTHON'
import subprocess
import sysconfig
from pathlib import Path

import ncnn
import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper


def by_ncnn(network, image):
    torch.jit.trace(network, image).save("network.pt")
    rows, columns = image.shape[2:]
    pnnx = Path(sysconfig.get_path("scripts"), "pnnx")
    subprocess.run([pnnx, "network.pt", f"inputshape=[1,1,{rows},{columns}]", "fp16=0"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param("network.ncnn.param")
    net.load_model("network.ncnn.bin")
    run = net.create_extractor()
    run.input("in0", ncnn.Mat(image[0].numpy()).clone())
    return np.array(run.extract("out0")[1]).reshape(network(image).shape[2:])


def by_onnxruntime(image, **options):
    names = ["image", "half", "quarter", "eighth"]
    nodes = [helper.make_node("AveragePool", [a], [b], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1,
                              **options) for a, b in zip(names, names[1:])]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, f"{name} rows", f"{name} columns"])
              for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "pooling", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.numpy()})[0][0, 0]


def network(**options):
    return torch.nn.Sequential(*(torch.nn.AvgPool2d(2, ceil_mode=True, **options) for _ in range(3))).eval()


roof = torch.ones(1, 1, 65, 65)
seen = {}
for name, image, options in (("65 x 65", roof, {}), ("64 x 64", roof[..., 1:, 1:], {}),
                             ("65 x 65 without pads", roof, {"count_include_pad": False})):
    maps = {"torch": network(**options)(image)[0, 0].numpy(), "ncnn": by_ncnn(network(**options), image),
            "onnxruntime": by_onnxruntime(image, count_include_pad=int(not options))}
    seen[name] = {key: [round(float(one), 3) for one in (each[0, 0], each[0, -1], each[-1, -1])]
                  for key, each in maps.items()}
    print(name, "first pixel, last of the row, corner:", seen[name])
assert seen["65 x 65"].pop("ncnn") == [1, 0.125, 0.016]
assert all(found == [1, 1, 1] for engines in seen.values() for found in engines.values())
PYTHON
