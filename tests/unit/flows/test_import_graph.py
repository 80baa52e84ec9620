"""`rooftrace import` of ONNX graphs: options, the run on tiles, and errors that write nothing."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from command_line import call, command
from foreign_models import conv_graph
from rooftrace.core.errors import ExportError
from rooftrace.flows.import_model import graph as module
from rooftrace.flows.import_model.options import ImportOptions
from rooftrace.flows.import_model.run import run_import
from rooftrace.models.bundle import read_bundle
from rooftrace.models.exported import with_metadata

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


USUAL = ImportOptions(gsd_m=0.3, normalise="imagenet", activation="sigmoid")
SIGMOID = "--normalise imagenet --activation sigmoid"


def then(data: bytes, operator: str, *constants: str, **attributes: Any) -> bytes:
    model = onnx.load_from_string(data)
    graph = model.graph
    graph.node.append(onnx.helper.make_node(operator, ["out", *constants], ["more"], **attributes))
    for name in constants:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), name))
    graph.output[0].CopyFrom(onnx.ValueInfoProto(name="more"))
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


def channels_last(data: bytes) -> bytes:
    model = onnx.load_from_string(then(data, "Transpose", perm=[0, 2, 3, 1]))
    graph = model.graph
    graph.node.insert(0, onnx.helper.make_node("Transpose", ["last"], ["input"], perm=[0, 3, 1, 2]))
    graph.input[0].name = "last"
    sizes = graph.input[0].type.tensor_type.shape.dim
    sizes.append(sizes.pop(1))
    return bytes(model.SerializeToString())


def beside_a_list(data: bytes) -> bytes:
    """Return a graph with a further output without rows, as those of YOLO have."""
    model = onnx.load_from_string(then(data, "ReduceMean", axes=[2], keepdims=0))
    model.graph.output.append(onnx.load_from_string(data).graph.output[0])
    return bytes(model.SerializeToString())


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_the_bundle_answers_like_the_graph(tmp_path: Path) -> None:
    data = conv_graph(2, sizes=(1, 3, "y", "x"))
    given = write(tmp_path / "town.onnx", data)
    code, answer = call("import", given, "-o", tmp_path / "m.rooftrace", "--gsd", 0.3,
                        "--normalise", "imagenet", "--activation", "softmax", "--multiple", 8,
                        "--licence", "CC0", "--threshold", 0.4)  # fmt: skip
    assert code == 0, answer
    spec = read_bundle(tmp_path / "m.rooftrace").spec
    assert (spec.name, spec.gsd_m, spec.threshold, spec.licence) == ("m", 0.3, 0.4, "CC0")
    assert (spec.classes, spec.input_multiple_px) == (("background", "building"), 8)
    assert spec.mean == pytest.approx((123.675, 116.28, 103.53))
    record = spec.training["imported"]
    assert (record["file"], record["parity"]) == ("town.onnx", answer["parity"])
    assert 0 <= record["parity"]["max_difference"] < 1e-3


@pytest.mark.parametrize(
    ("data", "options", "code", "message"),
    [
        (conv_graph(1), "--normalise imagenet", 2, r"activation of .* last operator is Conv"),
        (conv_graph(2), "--normalise imagenet --activation none", 2, "which are not probabilities"),
        (conv_graph(3), "--normalise imagenet --activation softmax", 2, "3 channels, but"),
        (conv_graph(1), "--normalise imagenet --activation softmax", 2, "is always 1"),
        (conv_graph(1, sizes=("n", 5, "y", "x")), SIGMOID, 2, "takes 5 bands, but --bands names 3"),
        (channels_last(conv_graph(1, sizes=("n", 4, 64, 64))), SIGMOID, 2, "takes 4 bands, but"),
        (beside_a_list(conv_graph(32)), SIGMOID + " --output out", 4, "parts of masks.*predict"),
        (conv_graph(2), "--normalise none --activation softmax --classes building,other", 2,
         "is the first of --classes"),
        (conv_graph(2), SIGMOID + " --classes a,roof --building house", 2, "not one of --classes"),
        (conv_graph(2), SIGMOID + " --classes roof,roof", 2, "twice"),
        (conv_graph(1)[:-20], SIGMOID, 4, "ends after the file does|not a valid"),
        (with_metadata(conv_graph(1), "rooftrace", "{}"), SIGMOID, 4, "own contract"),
        (conv_graph(1, sizes=(4, 3, "y", "x")), SIGMOID, 4, "exactly 4 images;"),
        (conv_graph(1, sizes=(1, 3, 8)), SIGMOID, 4, "shape|valid ONNX"),
        (conv_graph(1, sizes=("n", 3, 64, 96)), SIGMOID, 2, "64 rows × 96 columns"),
        (conv_graph(1, stride=3), SIGMOID, 4, r"output of \(1, 1, 86, 86\) for an image"),
        (then(conv_graph(3), "ArgMax", axis=1), SIGMOID, 2, "activation was given.* class indices"),
        (conv_graph(1, sizes=(1, 3, 64, 64), is_fixed=True),
         "--normalise imagenet --activation softmax", 4, "cannot be run on 3 images at once"),
        (conv_graph(1, bias=np.nan), SIGMOID, 4, "values that are not finite"),
        (conv_graph(1), "--activation sigmoid", 2, "normalisation of the network's input"),
        (conv_graph(1), "--mean 120,120,120 --std 50,50,50 --activation sigmoid", 2, "do not suit"),
        (conv_graph(1), "--mean 0.5,x,0.5 --std 1,1,1 --activation sigmoid", 2, "--mean is"),
        (then(conv_graph(1), "Sigmoid"), SIGMOID, 2, "applied again. Give --activation none"),
        (conv_graph(1), SIGMOID + " --bands blue,green,red", 2, "red before green before blue"),
        (conv_graph(1), SIGMOID + " --architecture Unet", 2, "--architecture was given"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_and_writes_nothing(
    data: bytes, options: str, code: int, message: str, tmp_path: Path
) -> None:
    given = write(tmp_path / "m.onnx", data)
    got, answer = call("import", given, "-o", tmp_path / "m.rooftrace", "--gsd", 0.3,
                       *options.split())  # fmt: skip
    assert got == code, answer
    error = answer["error"]
    assert re.search(message, f"{error['message']} {error['remedy']}"), error
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_missing_options_are_named(tmp_path: Path) -> None:
    given, out = write(tmp_path / "m.onnx", conv_graph(1)), tmp_path / "m.rooftrace"
    for path, options, message in (
        (given, ("-o", out), "--gsd"), (given, ("-o", out, "--gsd", "x"), "metres per pixel"),
        (given, ("-o", tmp_path / "m.onnx2", "--gsd", 0.3), "ends with .rooftrace"),
        (tmp_path / "no.onnx", ("-o", out, "--gsd", 0.3, "--normalise", "none"), "cannot be read"),
    ):  # fmt: skip
        assert message in command("import", path, *options).err
    assert not out.exists()


def test_the_units_of_the_normalisation() -> None:
    shares = ImportOptions(gsd_m=None, mean=(0.5,) * 3, std=(0.25,) * 3)
    pixels = ImportOptions(gsd_m=None, mean=(127.5,) * 3, std=(63.75,) * 3, input_range=255)
    twelve = ImportOptions(gsd_m=None, mean=(0.5,) * 3, std=(0.25,) * 3, dtype="uint16",
                           full_scale=4095)  # fmt: skip
    plain = ImportOptions(gsd_m=None, normalise="none", input_range=255)
    assert shares.pixel_statistics == pixels.pixel_statistics == ((127.5,) * 3, (63.75,) * 3)
    assert twelve.pixel_statistics == ((2047.5,) * 3, (1023.75,) * 3)
    assert plain.pixel_statistics == ((0.0,) * 3, (1.0,) * 3)


def test_a_difference_from_the_original_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrap = module.wrap_graph
    monkeypatch.setattr(module, "wrap_graph", lambda one, mean, *rest: wrap(one, (60,) * 3, *rest))
    with pytest.raises(ExportError, match="differs from that of"):
        run_import(write(tmp_path / "m.onnx", conv_graph(1)), tmp_path / "m.rooftrace", USUAL)
    assert not (tmp_path / "m.rooftrace").exists()


# Graphs of other programs, and the wrapping into a bundle's graph.

MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.25, 0.3)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96)).astype(np.float32)


def run(graph: bytes, given: Any) -> Any:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})[0]


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


def softmax(logits: Any) -> Any:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def enlarged(logits: Any) -> Any:
    return np.stack([[cv2.resize(one, None, fx=4, fy=4) for one in image] for image in logits])


THREE = ("background", "road", "building")


@pytest.mark.parametrize(
    ("plain", "change", "activation", "classes", "expected"),
    [
        (conv_graph(1), bytes, "sigmoid", None, sigmoid),
        (conv_graph(2, names=("image", "probabilities"), opset=11), bytes, "softmax", None,
         lambda out: softmax(out)[:, 1:]),
        (conv_graph(3, names=("probabilities", "image")), bytes, "softmax", THREE, softmax),
        (conv_graph(3, opset=11), bytes, "sigmoid", THREE, lambda out: sigmoid(out)[:, 2:]),
        (conv_graph(3), bytes, "softmax", ("building", "background", "road"),
         lambda out: softmax(out)[:, [1, 0, 2]]),
        (conv_graph(2, stride=4), bytes, "softmax", None,
         lambda out: softmax(enlarged(out))[:, 1:]),
        (conv_graph(3), lambda data: then(data, "ArgMax", axis=1, keepdims=0), None, THREE,
         lambda out: out.argmax(1)[:, None] == 2),
        (conv_graph(1), lambda data: then(data, "Squeeze", "axes"), "sigmoid", None, sigmoid),
        (conv_graph(1), channels_last, "sigmoid", None, sigmoid),
    ],
)  # fmt: skip
def test_a_wrapped_graph_takes_pixels_and_returns_probabilities(
    plain: bytes, change: Any, activation: Any, classes: Any, expected: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file = write(tmp_path / "m.onnx", change(plain))
    given = ImportOptions(gsd_m=0.3, mean=MEAN, std=STD, activation=activation,
                          classes=classes or ("background", "building"))  # fmt: skip
    monkeypatch.setattr(module, "_run_wrapped", lambda graph, *_: graph)
    tiles: Any = SimpleNamespace(images=list(IMAGES))
    imported = module.import_graph(file, given, lambda spec: tiles)
    model = onnx.load_from_string(wrapped := imported.parts["model.onnx"])
    assert [v.name for v in (*model.graph.input, *model.graph.output)] == ["image", "probabilities"]
    mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in (MEAN, STD))
    logits = run(plain, ((IMAGES / 255 - mean) / std).astype(np.float32))
    found = [run(wrapped, IMAGES), imported.expected]
    np.testing.assert_allclose(found, [expected(logits)] * 2, atol=1e-5)
