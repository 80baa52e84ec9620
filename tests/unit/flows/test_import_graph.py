"""`rooftrace import` of ONNX graphs: options, the run on tiles, and errors that write nothing."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import call, command
from foreign_models import conv_graph
from rooftrace.core.errors import BundleError, ConfigError, ExportError
from rooftrace.engines.select import load_engine
from rooftrace.flows.import_model import graph as module
from rooftrace.flows.import_model.graph import activated, read_foreign_graph, wrap_graph
from rooftrace.flows.import_model.options import ImportOptions
from rooftrace.flows.import_model.run import Channels, resolve_channels, run_import
from rooftrace.models.bundle import read_bundle
from rooftrace.models.exported import with_metadata

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


USUAL = ImportOptions(gsd_m=0.3, normalise="imagenet", activation="sigmoid")
SIGMOID = "--normalise imagenet --activation sigmoid"


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
    made = read_bundle(tmp_path / "m.rooftrace")
    spec = made.spec
    assert (spec.name, spec.gsd_m, spec.threshold, spec.licence) == ("m", 0.3, 0.4, "CC0")
    assert (spec.classes, spec.input_multiple_px) == (("background", "building"), 8)
    assert spec.mean == pytest.approx((123.675, 116.28, 103.53))
    record = spec.training["imported"]
    assert record["file"] == "town.onnx"
    assert record["parity"] == answer["parity"]
    assert 0 <= record["parity"]["max_difference"] < 1e-3
    image = np.random.default_rng(1).integers(0, 256, (1, 3, 16, 24)).astype(np.uint8)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    mean, std = (np.float32(v).reshape(1, 3, 1, 1) for v in (spec.mean, spec.std))
    logits = session.run(None, {"input": (image - mean) / std})[0].astype(np.float64)
    expected = 1 / (1 + np.exp(logits[:, :1] - logits[:, 1:]))
    found = load_engine(made, engine="openvino", precision="fp32").run(image)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("data", "options", "code", "message"),
    [
        (conv_graph(1), "--normalise imagenet", 2, r"activation of .* last operator is Conv"),
        (conv_graph(2), "--normalise imagenet --activation none", 2, "which are not probabilities"),
        (conv_graph(3), "--normalise imagenet --activation softmax", 2, "3 channels, but"),
        (conv_graph(1, sizes=("n", 5, "y", "x")), SIGMOID, 2, "takes 5 bands, but --bands names 3"),
        (conv_graph(1, sizes=("n", 3, 64, 96)), SIGMOID, 2, "64 rows × 96 columns"),
        (conv_graph(1, stride=2), SIGMOID, 4, r"output of \(1, 1, 128, 128\) for an image"),
        (conv_graph(1, sizes=(1, 3, 64, 64), is_fixed=True),
         "--normalise imagenet --activation softmax", 4, "cannot be run on 3 images at once"),
        (conv_graph(1, bias=np.nan), SIGMOID, 4, "values that are not finite"),
        (conv_graph(1), "--activation sigmoid", 2, "normalisation of the network's input"),
        (conv_graph(1), "--mean 120,120,120 --std 50,50,50 --activation sigmoid", 2, "do not suit"),
        (conv_graph(1), "--mean 0.5,x,0.5 --std 1,1,1 --activation sigmoid", 2, "--mean is"),
        (conv_graph(1, has_sigmoid=True), SIGMOID, 2, "applied again. Give --activation none"),
        (conv_graph(1), SIGMOID + " --bands blue,green,red", 2, "red before green before blue"),
        (conv_graph(1), SIGMOID + " --architecture Unet", 2, "--architecture was given"),
        (b"garbage", SIGMOID, 4, "not a valid ONNX file"),
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
    given = write(tmp_path / "m.onnx", conv_graph(1))
    out = tmp_path / "m.rooftrace"
    assert "--gsd" in command("import", given, "-o", out).err
    assert "metres per pixel" in command("import", given, "-o", out, "--gsd", "x").err
    done = command("import", given, "-o", tmp_path / "m.onnx2", "--gsd", 0.3)
    assert (done.code, "ends with .rooftrace" in done.err) == (2, True)
    done = command("import", tmp_path / "none.onnx", "-o", out, "--gsd", 0.3, "--normalise", "none")
    assert (done.code, "cannot be read" in done.err) == (4, True)
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


def test_the_meaning_of_channels() -> None:
    three = ImportOptions(gsd_m=None, classes=("background", "road", "building"))
    found = resolve_channels(3, three, "softmax", "x")
    assert (found.keep, found.building_class, found.classes) == (None, 2, three.classes)
    found = resolve_channels(3, three, "sigmoid", "x")
    assert (found.keep, found.building_class) == (2, 1)
    assert found.classes == ("background", "building")
    one = resolve_channels(1, USUAL, "sigmoid", "x")
    assert (one.keep, one.building_class) == (None, 1)
    roofs = ImportOptions(gsd_m=None, classes=("other", "roof"))
    assert resolve_channels(2, roofs, "softmax", "x").keep == 1
    for classes, building, message in [
        (("building", "other"), None, "is the first of classes"),
        (("other", "roof"), "house", "not one of classes"),
        (("roof", "roof"), None, "twice"),
    ]:
        wrong = ImportOptions(gsd_m=None, classes=classes, building=building)
        with pytest.raises(ConfigError, match=message):
            resolve_channels(2, wrong, "softmax", "x")
    with pytest.raises(ConfigError, match="always 1"):
        resolve_channels(1, USUAL, "softmax", "x")


def test_a_difference_from_the_original_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_wrapped = module._run_wrapped
    monkeypatch.setattr(module, "_run_wrapped", lambda *given: run_wrapped(*given) + 0.01)
    file = write(tmp_path / "m.onnx", conv_graph(1))
    with pytest.raises(ExportError, match="differs from that of"):
        run_import(file, tmp_path / "m.rooftrace", USUAL)
    assert not (tmp_path / "m.rooftrace").exists()


# Graphs of other programs, and the wrapping into a bundle's graph.

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 51.0, 52.0)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.float32)


def run(graph: bytes, given: Any) -> Any:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})[0]


def meaning(count: int, activation: Any, keep: int | None = None) -> Channels:
    return Channels(count, activation, keep, ("background", "building"), 1)


def normalised() -> Any:
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return (IMAGES - mean) / std


@pytest.mark.parametrize(
    ("channels", "activation", "keep", "opset", "names"),
    [
        (1, "sigmoid", None, 17, ("input", "out")),
        (2, "softmax", 1, 11, ("image", "probabilities")),
        (3, "softmax", None, 17, ("probabilities", "image")),
        (3, "sigmoid", 2, 11, ("input", "out")),
    ],
)
def test_a_wrapped_graph_takes_pixels_and_returns_probabilities(
    channels: int, activation: Any, keep: int | None, opset: int, names: tuple[str, str]
) -> None:
    data = conv_graph(channels, names=names, opset=opset)
    foreign = read_foreign_graph(data, "x.onnx")
    assert foreign.channels == channels
    wrapped = wrap_graph(foreign, MEAN, STD, meaning(channels, activation, keep))
    expected = activated(run(data, normalised()), activation)
    if keep is not None:
        expected = expected[:, keep : keep + 1]
    model = onnx.load_from_string(wrapped)
    assert [v.name for v in (*model.graph.input, *model.graph.output)] == ["image", "probabilities"]
    np.testing.assert_allclose(run(wrapped, IMAGES), expected, atol=1e-6)


REFUSED = {
    "no onnx": (lambda: b"not a graph at all", "not a valid ONNX file"),
    "empty": (lambda: b"", "not a valid ONNX file"),
    "truncated": (lambda: conv_graph(1)[:-20], "ends after the file does|not a valid"),
    "our contract": (lambda: with_metadata(conv_graph(1), "rooftrace", "{}"), "own contract"),
    "four images": (lambda: conv_graph(1, sizes=(4, 3, "y", "x")), "exactly 4 images;"),
    "rows": (lambda: conv_graph(1, sizes=(1, 3, 8)), "shape|valid ONNX"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_network_is_refused(make: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_foreign_graph(make(), "x.onnx")
