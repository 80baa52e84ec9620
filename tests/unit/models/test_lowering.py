"""Graphs in another precision are the same network, and round what is computed and no more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import onnx
from torch import nn

from rooftrace.core.errors import ExportError
from rooftrace.engines.onnxruntime import OnnxRuntimeEngine
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.export import (
    ExportableModel,
    export_onnx,
    round_weights_to_fp16,
    store_weights_as_fp16,
)
from rooftrace.models.quantize import (
    convert_to_fp16,
    normalisation_nodes,
    quantize_onnx,
    simplify_graph,
)
from rooftrace.models.spec import BundleSpec

pytestmark = pytest.mark.campaign

SPEC = BundleSpec(
    name="x", bands=("a", "b"), mean=(100.0, 80.0), std=(50.0, 40.0), classes=("no", "yes")
)
DEEP = SPEC.model_copy(
    update={"dtype": "uint16", "mean": (30_000.0, 20_000.0), "std": (9_000.0, 7_000.0)}
)


@dataclass(frozen=True)
class Lowered:
    spec: BundleSpec
    graph: bytes
    simple: bytes
    samples: list[np.ndarray]

    def answer(self, graph: bytes, precision: str = "fp32") -> np.ndarray:
        engine = OnnxRuntimeEngine(self.spec, graph, precision, "test")
        return engine.run(np.stack(self.samples))


@pytest.fixture(scope="module", params=[SPEC, DEEP], ids=["uint8", "uint16"])
def lowered(request: pytest.FixtureRequest) -> Lowered:
    """A network with all that a bundle's has: BatchNorm, casts behind weights, resizing."""
    spec = request.param
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 24, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
        nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
        nn.Upsample(scale_factor=2), nn.Conv2d(24, 1, 3, padding=1),
    )  # fmt: skip
    with torch.no_grad():
        for _ in range(5):
            net.train()(torch.randn(8, 2, 32, 32))
    round_weights_to_fp16(net)
    graph = store_weights_as_fp16(
        export_onnx(ExportableModel(net, spec.mean, spec.std).eval(), bands=2, multiple_px=2)
    )
    rng = np.random.default_rng(0)
    means, stds = (np.array(v)[:, None, None] for v in (spec.mean, spec.std))
    drawn = [rng.normal(means, stds, (2, 64, 64)).clip(0, 65535) for _ in range(6)]
    samples = [sample.astype(spec.dtype).astype(np.float32) for sample in drawn]
    return Lowered(spec, graph, simplify_graph(graph), samples)


def kinds(graph: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(graph).graph.node]


def test_simplified_is_the_same_with_less(lowered: Lowered) -> None:
    expected = lowered.answer(lowered.graph)
    assert expected.std() > 0.01
    np.testing.assert_allclose(lowered.answer(lowered.simple), expected, atol=1e-5)
    assert "BatchNormalization" in kinds(lowered.graph)
    for gone in ("BatchNormalization", "CastLike", "Expand", "Constant"):
        assert gone not in kinds(lowered.simple)
    # The checker of the standard accepts what ONNX Runtime writes.
    model = onnx.load_from_string(lowered.simple)
    onnx.checker.check_model(model)
    assert {opset.domain for opset in model.opset_import} == {""}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_the_normalisation_is_known(lowered: Lowered) -> None:
    model = onnx.load_from_string(lowered.simple)
    found = [node.op_type for node in model.graph.node if node.name in normalisation_nodes(
        lowered.simple
    )]  # fmt: skip
    assert found == ["Sub", "Div"]


def test_half_precision_is_close_and_half_as_large(lowered: Lowered) -> None:
    half = convert_to_fp16(lowered.simple)
    assert len(half) < 0.65 * len(lowered.simple)
    model = onnx.load_from_string(half)
    types = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.input,
                                                           *model.graph.output)}  # fmt: skip
    assert set(types.values()) == {onnx.TensorProto.FLOAT}
    # What is computed with is fp16, but for the normalisation.
    weights = [t for t in model.graph.initializer if len(t.dims) == 4 and t.dims[-1] == 3]
    assert weights
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    apart = np.abs(lowered.answer(half, "fp16") - lowered.answer(lowered.graph)).max()
    assert 0 < apart < 5e-3
    engine = OpenVinoEngine(ModelBundle(lowered.spec, {GRAPH_NAME: half}, "test"), "fp32")
    assert np.abs(engine.run(np.stack(lowered.samples)) - lowered.answer(half)).max() < 5e-3


def test_int8_is_close_and_does_not_round_pixels(lowered: Lowered) -> None:
    made = quantize_onnx(lowered.simple, lowered.samples)
    expected = lowered.answer(lowered.graph)
    apart = np.abs(lowered.answer(made, "int8") - expected)
    assert 0 < apart.max() < 0.1
    assert apart.mean() < 0.01
    model = onnx.load_from_string(made)
    assert len(made) < 0.6 * len(lowered.simple)
    # Between the picture and its normalisation nothing is rounded to 256 steps.
    (first,) = [node for node in model.graph.node if "image" in node.input]
    assert first.op_type == "Sub"


def test_what_is_no_network_is_an_error() -> None:
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("NoSuchOperator", ["image"], ["y"])
    graph = onnx.helper.make_graph(
        [node], "x",
        [value("image", onnx.TensorProto.FLOAT, [1])], [value("y", onnx.TensorProto.FLOAT, [1])],
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    with pytest.raises(ExportError, match="NoSuchOperator"):
        simplify_graph(model.SerializeToString())
