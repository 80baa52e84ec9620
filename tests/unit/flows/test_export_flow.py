"""Exports: the files that are written, and errors after which no file is left."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from processor_marks import needs_bf16
from rooftrace.core.errors import ConfigError, ExportError, GsdMismatch
from rooftrace.engines.base import ConstantEngine, PointwiseEngine
from rooftrace.engines.select import load_engine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.flows.export import run as flow
from rooftrace.flows.export.convert import draw_tiles
from rooftrace.flows.export.run import measure_parity, run_export
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.models.bundle import read_bundle, write_bundle
from rooftrace.models.exported import read_model
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.predictor import load

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if find_spec("nncf") is None:  # its import takes seconds
    pytest.skip("the extra export is not installed", allow_module_level=True)

SPEC = tiny_bundle().spec


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose probability is the brightness of a pixel, at 0.5 m."""
    path = tmp_path_factory.mktemp("model") / "bright.rooftrace"
    update = {"gsd_m": 0.5, "licence": "CC0", "attribution": "the authors", "threshold": 0.4}
    write_bundle(path, SPEC.model_copy(update=update), tiny_bundle().parts)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SourceConfig:
    """Four images of 300 px; the bright half of each is labelled."""
    folder = tmp_path_factory.mktemp("halves")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(4):
        image = rng.integers(0, 60, (300, 300, 3), np.uint8)
        image[:, 150:] += 160
        mask = np.zeros((300, 300), np.uint8)
        mask[:, 150:] = 255
        Image.fromarray(image).save(folder / f"images/{number}.png")
        Image.fromarray(mask).save(folder / f"masks/{number}.png")
    return SourceConfig(path=str(folder), gsd_m=0.5)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_CHECK_TILES", 3)
    monkeypatch.setattr(flow, "_CALIBRATION_TILES", 3)


EXPORTS = [
    ("onnx", "fp32", {"onnxruntime": "fp32", "openvino": "fp32"}),
    ("onnx", "fp16", {"onnxruntime": "fp16"}),
    ("onnx", "int8", {"onnxruntime": "int8", "openvino": "int8"}),
    ("openvino", "fp32", {"openvino": "fp32"}),
    pytest.param("openvino", "bf16", {"openvino": "bf16"}, marks=needs_bf16),
    ("openvino", "fp16", {"openvino": "fp32"}),
    ("openvino", "int8", {"openvino": "int8"}),
]
ENDING = {"onnx": ".onnx", "openvino": ".xml"}


@pytest.mark.campaign
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("to", "precision", "runs"), EXPORTS)
def test_each_export_is_the_bundle_again(
    to: str, precision: str, runs: dict[str, str], bundle: Path, data: SourceConfig, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / f"made{ENDING[to]}"
    given = {"calibration": data} if precision == "int8" else {"check": data}
    report = run_export(bundle, to, out, precision=precision, **given)  # type: ignore[arg-type]
    names = {out.name, report.report.name} | ({"made.bin"} if to == "openvino" else set())
    assert {file.name for file in out.parent.iterdir()} == names
    made, original = read_model(out), read_bundle(bundle)
    changed = {"variants": (), "parts": {}}
    assert made.spec.model_copy(update=changed) == original.spec.model_copy(update=changed)
    assert {v.engine: v.precision for v in made.spec.variants} == runs
    # What is kept of the parity is what was measured.
    for variant, parity in zip(made.spec.variants, report.parity, strict=True):
        assert variant.parity == parity.figures()
        assert parity.mask_change <= report.tolerance["mask_change"]
    # And it runs by itself, as an input of a prediction.
    image = Path(data.path) / "images/0.png"
    expected = load(bundle, precision="fp32").predict(image, gsd_m=0.5)
    answer = load(out).predict(image, gsd_m=0.5)
    assert (answer.mask.data == expected.mask.data).mean() > 0.99
    assert 0.4 < (answer.mask.data == 1).mean() < 0.6


@pytest.mark.usefixtures("few")
def test_over_the_tolerance_nothing_is_left(
    bundle: Path, data: SourceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = run_export(bundle, "onnx", tmp_path / "a.onnx", check=data)
    before = {file: file.read_bytes() for file in (earlier.path, earlier.report)}
    monkeypatch.setattr(flow, "load_engine", _wrong_but_openvino)
    with pytest.raises(ExportError) as caught:
        run_export(bundle, "onnx", tmp_path / "a.onnx", check=data)
    # Of the 256 columns of a tile 150 are dark.
    assert (
        "was not written: on constant in fp32 0.5859 of the mask changes; the tolerance is 0.002"
        in str(caught.value)
    )
    assert "--tolerance" in caught.value.remedy
    assert caught.value.exit_code == 5
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    report = run_export(bundle, "onnx", tmp_path / "a.onnx", check=data, tolerance=0.6)
    assert report.parity[0].mask_iou == pytest.approx(106 / 256)


def _wrong_but_openvino(made, *, engine, precision, output="probabilities"):  # type: ignore[no-untyped-def]
    if engine == "openvino":
        return load_engine(made, engine=engine, precision=precision, output=output)
    return ConstantEngine(1.0)


@pytest.mark.campaign
@pytest.mark.usefixtures("few")
def test_an_engine_that_answers_otherwise_is_left_out_of_int8(
    bundle: Path, data: SourceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(made, *, engine, precision, output="probabilities"):  # type: ignore[no-untyped-def]
        if (engine, precision) == ("openvino", "int8"):
            return ConstantEngine(0.0)
        return load_engine(made, engine=engine, precision=precision, output=output)

    monkeypatch.setattr(flow, "load_engine", wrong)
    out = tmp_path / "a.onnx"
    report = run_export(bundle, "onnx", out, precision="int8", calibration=data)
    assert [v.engine for v in read_model(out).spec.variants] == ["onnxruntime"]
    assert any(note.startswith("not for openvino: 1.0000") for note in report.notes)
    assert load(out).engine.name == "onnxruntime"


WRONG = [
    ("onnx", "a.xml", {}, "expected a name that ends with .onnx"),
    ("openvino", "a.bin", {}, "expected a name that ends with .xml"),
    ("onnx", "a.onnx", {"precision": "bf16"}, "onnx; expected one of fp32, fp16, int8"),
    ("onnx", "a.onnx", {"precision": "fp8"}, "precision=fp8"),
    ("onnx", "a.onnx", {"calibration": SourceConfig(path="x")}, "in fp32 is not calibrated"),
]


@pytest.mark.parametrize(("to", "name", "given", "messages"), WRONG)
def test_what_cannot_be_asked_for(
    to: str, name: str, given: dict, messages: str, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=messages) as caught:
        run_export(bundle, to, tmp_path / name, **given)  # type: ignore[arg-type]
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("few")
def test_onnx_in_fp32_needs_no_package_at_all(
    bundle: Path, data: SourceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxruntime", "nncf", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    report = run_export(bundle, "onnx", tmp_path / "a.onnx", check=data)
    assert [parity.engine for parity in report.parity] == ["openvino"]
    assert any("not checked on onnxruntime" in note for note in report.notes)
    assert [v.engine for v in read_model(report.path).spec.variants] == ["openvino"]


@pytest.mark.parametrize(
    ("to", "name", "there"),
    [("onnx", "a.onnx", "a.onnx"), ("openvino", "a.xml", "a.xml"), ("openvino", "a.xml", "a.bin")],
)
def test_a_file_that_is_no_export_is_not_replaced(
    to: str, name: str, there: str, bundle: Path, data: SourceConfig, tmp_path: Path
) -> None:
    (tmp_path / there).write_bytes(b"weights of another program")
    with pytest.raises(ConfigError, match=f"{there} exists and is not a model that") as no:
        run_export(bundle, to, tmp_path / name, check=data)  # type: ignore[arg-type]
    assert "-o" in no.value.remedy
    assert [file.name for file in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_bytes() == b"weights of another program"


@pytest.mark.usefixtures("few")
def test_an_earlier_export_is_replaced_unless_it_is_the_model(
    bundle: Path, data: SourceConfig, tmp_path: Path
) -> None:
    out = tmp_path / "a.onnx"
    assert not any("replaced" in note for note in run_export(bundle, "onnx", out, check=data).notes)
    again = run_export(bundle, "onnx", out, check=data)
    assert f"{out} of an earlier run was replaced" in again.notes
    before = out.read_bytes()
    with pytest.raises(ConfigError, match="would replace the input"):
        run_export(out, "onnx", out, check=data)
    assert out.read_bytes() == before


# Tiles.


def test_tiles_are_spread_and_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        image = np.full((256 * 2, 256 * 2, 3), 40 * number, np.uint8)
        Image.fromarray(image).save(tmp_path / f"images/{number}.png")
    source = open_source(SourceConfig(path=str(tmp_path / "images")))
    tiles = draw_tiles(source, SPEC, 8)
    assert len(tiles.images) == 8
    assert {tile.shape for tile in tiles.images} == {(3, 256, 256)}
    assert {int(tile.max()) for tile in tiles.images} == {0, 40, 80}
    again = draw_tiles(source, SPEC, 8)
    assert all(np.array_equal(a, b) for a, b in zip(tiles.images, again.images, strict=True))
    assert len(draw_tiles(source, SPEC, 99).images) == 12


def test_tiles_are_brought_to_the_models_metres(data: SourceConfig) -> None:
    spec = SPEC.model_copy(update={"gsd_m": 0.25})
    tiles = draw_tiles(open_source(data), spec, 99)
    # 300 px of 0.5 m are 600 of 0.25 m: two tiles each way.
    assert len(tiles.images) == 16
    with pytest.raises(GsdMismatch):
        draw_tiles(open_source(data), SPEC.model_copy(update={"gsd_m": 0.1}), 9)


# Figures.


def answers(*values: float) -> list[np.ndarray]:
    return [np.array(values, np.float32).reshape(1, 1, -1) * 255]


class Shifted(PointwiseEngine):
    """Answers that lie 0.1 higher."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        return super().run(batch) + np.float32(0.1)


SIMPLE = BundleSpec(name="x", bands=("a",), mean=(0.0,), std=(1.0,), classes=("no", "yes"))


def test_figures_by_hand() -> None:
    tiles = answers(0.1, 0.45, 0.6, 0.9)
    parity = measure_parity(PointwiseEngine(), Shifted(), SIMPLE, tiles)
    # Two pixels are buildings before, three after.
    assert parity.max_difference == pytest.approx(0.1, abs=1e-6)
    assert parity.mean_difference == pytest.approx(0.1, abs=1e-6)
    assert parity.changed_share == 0.25
    assert parity.mask_iou == pytest.approx(2 / 3)
    assert parity.mask_change == pytest.approx(1 / 3)
    same = measure_parity(PointwiseEngine(), PointwiseEngine(), SIMPLE, tiles)
    assert (same.max_difference, same.mask_iou, same.mask_change) == (0.0, 1.0, 0.0)


def test_of_more_classes_the_most_probable_counts() -> None:
    class Given:
        name, precision = "given", "fp32"

        def __init__(self, *best: int) -> None:
            self._best = np.array(best)

        def run(self, batch: np.ndarray) -> np.ndarray:
            classes = np.arange(3)[:, None]
            return (self._best == classes).astype(np.float32)[None, :, None]

    spec = SIMPLE.model_copy(update={"classes": ("no", "house", "road")})
    parity = measure_parity(Given(0, 1, 2, 2), Given(0, 1, 1, 2), spec, [np.zeros((1, 1, 4))])
    assert parity.changed_share == 0.25
    assert parity.mask_change == pytest.approx(1 / 3)
    # Both say that something is there.
    assert parity.mask_iou == 1.0
