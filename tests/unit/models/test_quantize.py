"""The graph after quantisation."""

import re

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("nncf")

import torch
from torch import nn

from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.export import ExportableModel, export_onnx
from rooftrace.models.quantize import quantize_openvino
from rooftrace.models.spec import BundleSpec

pytestmark = pytest.mark.campaign

SPEC = BundleSpec(name="x", bands=("a",), mean=(100.0,), std=(50.0,), classes=("no", "yes"))


def test_rounds_between_blocks_and_stores_each_weight_once() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(),
        nn.Conv2d(32, 1, 3, padding=1),
    )  # fmt: skip
    graph = export_onnx(ExportableModel(net, SPEC.mean, SPEC.std), bands=1, multiple_px=32)
    rng = np.random.default_rng(0)
    samples = [rng.uniform(0, 255, (1, 64, 64)).astype(np.float32) for _ in range(4)]
    xml, weights = quantize_openvino(graph, samples)
    kinds = re.findall(r'<layer[^>]* type="(\w+)"', xml.decode())
    # Before each of the three convolutions, and nowhere between one and its activation.
    assert kinds.count("FakeQuantize") == 3
    assert "BatchNormInference" not in kinds
    numbers = sum(p.numel() for p in net.parameters() if p.ndim == 4)
    assert numbers < len(weights) < 2 * numbers
    batch = np.stack(samples)
    exact = OpenVinoEngine(ModelBundle(SPEC, {GRAPH_NAME: graph}, "x"), "fp32").run(batch)
    bundle = ModelBundle(SPEC, {"a.xml": xml, "a.bin": weights}, "x")
    rounded = OpenVinoEngine(bundle, "int8", files=("a.xml", "a.bin")).run(batch)
    assert 0 < np.abs(exact - rounded).max() < 0.05
