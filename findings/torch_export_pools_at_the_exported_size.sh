#!/usr/bin/env bash
# torch's ONNX export keeps an adaptive pooling at the size of the example, also with dynamic axes.
#
# Guess before the run: with dynamic height and width, AdaptiveAvgPool2d(6) of the exported model is
# right at every size, or the export or the runtime refuses.
# Seen: inputs of the file are dynamic, nothing warns, and at the example's 16 x 16 it is right. At
# 32 and 64 each mean is far too low: a window still adds up as many pixels as at the example's size
# but is divided by its real area. A ramp from 0 to 1 has the mean 0.5, and the exported pooling says
# 0.21 and 0.06. Smaller inputs, and some numbers of cells, raise an error; this one does not.
# Versions: torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.31.1. Source: adaptive_avg_pool2d
# in torch/_decomp/decompositions.py, whose number of pixels per window becomes a constant.
# Hurt: who exports a network with pyramid pooling (PSPNet, UPerNet) with a dynamic size and predicts
# with larger tiles than in training: masks are worse, and no check at the example's size shows why.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1
venv/bin/python -W ignore - <<'PYTHON'
import onnxruntime
import torch

dynamic = torch.export.Dim.DYNAMIC
pool = torch.nn.AdaptiveAvgPool2d(6).eval()
torch.onnx.export(
    pool, (torch.rand(1, 1, 16, 16),), "pool.onnx", dynamo=True, verbose=False,
    input_names=["x"], dynamic_shapes=({2: dynamic, 3: dynamic},),
)
session = onnxruntime.InferenceSession("pool.onnx")
shape = session.get_inputs()[0].shape
print("input of the file:", shape)
assert all(isinstance(side, str) for side in shape[2:])
means = {}
for side in (16, 32, 64):
    ramp = torch.linspace(0, 1, side)[:, None].expand(1, 1, side, side).contiguous()
    right = float(pool(ramp).mean())
    exported = float(session.run(None, {"x": ramp.numpy()})[0].mean())
    print(side, "torch:", round(right, 2), "exported:", round(exported, 2))
    means[side] = round(right, 2), round(exported, 2)
assert means == {16: (0.5, 0.5), 32: (0.5, 0.21), 64: (0.5, 0.06)}
PYTHON
