"""The graph answers as the network does: on both engines, at sizes it was not exported at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx

from rooftrace.core.errors import BundleError, PredictError
from rooftrace.engines.onnxruntime import OnnxRuntimeEngine
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.export import (
    ExportableModel,
    export_onnx,
    round_weights_to_fp16,
    store_weights_as_fp16,
    with_weights,
)
from rooftrace.models.spec import BundleSpec
from rooftrace.models.zoo import ModelConfig, build_model, needs_fixed_size
from town import generate_scene

pytestmark = pytest.mark.campaign

CLOSE = 1e-3
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Exported:
    model: ExportableModel
    graph: bytes
    spec: BundleSpec


def settled(net: torch.nn.Module, images: np.ndarray) -> None:
    """Give BatchNorm the statistics of real pixels, or all answers are near one half."""
    batch = torch.from_numpy(images.astype(np.float32))
    whole = ExportableModel(net, MEAN, STD)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(30):
            whole.train()(batch)
    whole.eval()


def generated(count: int, side: int = 64) -> np.ndarray:
    image = generate_scene(3, (side * 2, side * count)).image
    return np.stack([image[:, :side, i * side : (i + 1) * side] for i in range(count)])


CASES = [
    ("Unet", "tu-test_resnet", 1, False),
    ("FPN", "tu-test_resnet", 3, True),
    ("DeepLabV3Plus", "tu-test_resnet", 1, False),
    ("PSPNet", "tu-test_resnet", 1, False),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def exported(request: pytest.FixtureRequest) -> Exported:
    architecture, encoder, channels, halved = request.param
    torch.manual_seed(1)
    config = ModelConfig(architecture=architecture, encoder=encoder, encoder_weights="none")
    net = build_model(config, bands=3, channels=channels)
    settled(net, generated(4))
    if halved:
        round_weights_to_fp16(net)
    model = ExportableModel(net, MEAN, STD).eval()
    fixed = 64 if needs_fixed_size(net, 3, 32) else None
    graph = export_onnx(model, bands=3, multiple_px=32, fixed_px=fixed)
    if halved:
        graph = store_weights_as_fp16(graph)
    spec = BundleSpec(
        name="x", bands=("r", "g", "b"), mean=MEAN, std=STD, input_px=fixed,
        classes=("background", "building", "road")[: max(2, channels)],
    )  # fmt: skip
    return Exported(model, graph, spec)


def engines(exported: Exported) -> list[OpenVinoEngine | OnnxRuntimeEngine]:
    return [
        OpenVinoEngine(ModelBundle(exported.spec, {GRAPH_NAME: exported.graph}, "test"), "fp32"),
        OnnxRuntimeEngine(exported.spec, exported.graph, "fp32", "test"),
    ]


def check(exported: Exported, batches: list[np.ndarray]) -> None:
    for batch in batches:
        expected = exported.model.run(batch)
        # A test of nothing, if the network answered the same everywhere.
        assert expected.std() > 0.01
        for engine in engines(exported):
            answer = engine.run(batch)
            assert answer.shape == expected.shape
            assert answer.dtype == np.float32
            assert float(np.abs(answer - expected).max()) < CLOSE, engine.name


def test_on_demo_tiles(exported: Exported) -> None:
    if exported.spec.input_px is None:
        batches = [generated(1), generated(3), generated(2, 96)[:, :, :64], generated(1, 160)]
    else:
        batches = [generated(1), generated(3)]
    check(exported, batches)


def test_a_fixed_size_is_said_and_held_to(exported: Exported) -> None:
    fixed = exported.spec.input_px
    if fixed is None:
        return
    for engine in engines(exported):
        with pytest.raises((BundleError, PredictError)):
            engine.run(generated(1, 96))


# The weights alone: no export of its own.


def linear_graph(weights: np.ndarray) -> bytes:
    """y = x @ weights as ONNX."""
    tensor = onnx.numpy_helper.from_array(weights, "w")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [value("x", onnx.TensorProto.FLOAT, ["n", weights.shape[0]])],
        [value("y", onnx.TensorProto.FLOAT, ["n", weights.shape[1]])],
        [tensor],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    return bytes(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    )


def answer(graph: bytes, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


def test_halved_weights_are_half_as_large_and_the_same() -> None:
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((64, 32)).astype(np.float16).astype(np.float32)
    x = rng.standard_normal((5, 64)).astype(np.float32)
    whole = linear_graph(exact)
    half = store_weights_as_fp16(whole)
    assert len(half) < 0.55 * len(whole)
    np.testing.assert_array_equal(answer(half, x), answer(whole, x))
    # What fp16 does not hold exactly stays as it is, and so does what is too small to matter.
    other = linear_graph(exact + np.float32(1e-5))
    assert len(store_weights_as_fp16(other)) >= len(other)
    np.testing.assert_array_equal(answer(store_weights_as_fp16(other), x), answer(other, x))
    small = linear_graph(exact[:4, :4])
    assert len(store_weights_as_fp16(small)) >= len(small)


def test_a_graph_takes_the_weights_of_another_model_of_its_network() -> None:
    def model(seed: int, *more: torch.nn.Module) -> ExportableModel:
        torch.manual_seed(seed)
        layers = torch.nn.Conv2d(3, 300, 3, padding=1), torch.nn.BatchNorm2d(300), *more
        net = torch.nn.Sequential(*layers, torch.nn.Conv2d(300, 1, 1))
        torch.nn.init.normal_(net[1].running_mean)
        round_weights_to_fp16(net)
        return ExportableModel(net, MEAN, STD).eval()

    def graph(of: ExportableModel) -> bytes:
        return store_weights_as_fp16(export_onnx(of, bands=3, multiple_px=2))

    swapped = with_weights(graph(model(0)), model(1))
    assert swapped is not None
    assert store_weights_as_fp16(swapped) == graph(model(1))
    assert with_weights(graph(model(0)), model(1, torch.nn.BatchNorm2d(300))) is None
    assert with_weights(graph(model(1, torch.nn.BatchNorm2d(300))), model(0)) is None


def test_the_whole_model_by_hand() -> None:
    net = torch.nn.Conv2d(2, 1, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
        net.bias.zero_()
    whole = ExportableModel(net, (10, 20), (2, 5))
    pixels = np.array([[[[14]], [[25]]]], np.uint8)
    # (14 - 10) / 2 - (25 - 20) / 5 = 1
    assert whole.run(pixels).item() == pytest.approx(1 / (1 + np.exp(-1)))
