"""ONNX graphs of other programs: what is refused, and the wrapping into a bundle's graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from foreign_models import conv_graph  # noqa: E402
from rooftrace.core.errors import BundleError, ConfigError  # noqa: E402
from rooftrace.flows.import_model.graph import activated  # noqa: E402
from rooftrace.models.exported import with_metadata  # noqa: E402
from rooftrace.models.foreign_graph import read_foreign_graph, wrap_graph  # noqa: E402

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 51.0, 52.0)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.float32)


def run(graph: bytes, given: Any) -> Any:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})[0]


def normalised() -> Any:
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return (IMAGES - mean) / std


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(
    ("channels", "activation", "keep"),
    [(1, "sigmoid", None), (2, "softmax", 1), (3, "softmax", None), (3, "sigmoid", 2)],
)
@pytest.mark.parametrize("names", [("input", "out"), ("image", "probabilities"),
                                   ("probabilities", "image")])  # fmt: skip
def test_a_wrapped_graph_takes_pixels_and_returns_probabilities(
    opset: int, channels: int, activation: Any, keep: int | None, names: tuple[str, str]
) -> None:
    data = conv_graph(channels, names=names, opset=opset)
    foreign = read_foreign_graph(data, "x.onnx")
    assert foreign.channels == channels
    wrapped = wrap_graph(
        foreign, mean=MEAN, std=STD, channels=channels, activation=activation, keep=keep
    )
    expected = activated(run(data, normalised()), activation)
    if keep is not None:
        expected = expected[:, keep : keep + 1]
    model = onnx.load_from_string(wrapped)
    assert [v.name for v in (*model.graph.input, *model.graph.output)] == ["image", "probabilities"]
    np.testing.assert_allclose(run(wrapped, IMAGES), expected, atol=1e-6)


def test_values_of_inner_graphs_are_renamed_too() -> None:
    """The branch of an If reads the outer value `image`, which the wrapping needs for itself."""
    branches = {
        key: helper.make_graph(
            [helper.make_node("Mul", ["image", factor], [f"{key}_out"])], key, [],
            [helper.make_tensor_value_info(f"{key}_out", TensorProto.FLOAT, None)],
        )
        for key, factor in (("then_branch", "two"), ("else_branch", "three"))
    }  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("If", ["yes"], ["probabilities"], **branches)], "x",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "y", "x"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3, "y", "x"])],
        [numpy_helper.from_array(np.array(True), "yes"),
         numpy_helper.from_array(np.float32([2]), "two"),
         numpy_helper.from_array(np.float32([3]), "three")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    foreign = read_foreign_graph(data, "x.onnx")
    wrapped = wrap_graph(foreign, mean=MEAN, std=STD, channels=3, activation="none", keep=None)
    np.testing.assert_allclose(run(wrapped, IMAGES), 2 * normalised(), atol=1e-5)


def test_a_fixed_batch_becomes_any(tmp_path: Any) -> None:
    data = conv_graph(1, sizes=(1, 3, 8, 8))
    foreign = read_foreign_graph(data, "x.onnx")
    wrapped = wrap_graph(foreign, mean=MEAN, std=STD, channels=1, activation="sigmoid", keep=None)
    alone = np.concatenate([run(wrapped, image[None]) for image in IMAGES])
    np.testing.assert_allclose(run(wrapped, IMAGES), alone, atol=1e-6)


def model_with(outputs: list[str]) -> bytes:
    model = onnx.load_from_string(conv_graph(1))
    for name in outputs:
        model.graph.node.append(helper.make_node("Identity", ["out"], [name]))
        shape = ["n", 1, "h", "w"]
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return bytes(model.SerializeToString())


REFUSED = {
    "no onnx": (lambda: b"not a graph at all", "not a valid ONNX file"),
    "empty": (lambda: b"", "not a valid ONNX file"),
    "truncated": (lambda: conv_graph(1)[:-20], "ends after the file does|not a valid"),
    "our contract": (lambda: with_metadata(conv_graph(1), "rooftrace", "{}"), "own contract"),
    "vectors": (lambda: conv_graph(1, sizes=(1, 3, 8)), "shape|valid ONNX"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_network_is_refused(make: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_foreign_graph(make(), "x.onnx")


def test_one_of_several_outputs_is_named() -> None:
    data = model_with(["second", "third"])
    with pytest.raises(ConfigError, match=r"has 3 outputs: out, second, third"):
        read_foreign_graph(data, "x.onnx")
    with pytest.raises(ConfigError, match="no output 'fourth'"):
        read_foreign_graph(data, "x.onnx", "fourth")
    assert read_foreign_graph(data, "x.onnx", "second").output == "second"
