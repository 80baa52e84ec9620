"""Another kind of data, whole: five bands of 16 bits, three classes by palette, a network of one
input size, weights as fp16, and an int8 variant.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

pytest.importorskip("torch")
pytest.importorskip("nncf")

from rooftrace.engines.openvino import capabilities
from rooftrace.engines.select import load_engine
from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.flows.train import run_train
from rooftrace.labels.config import SourceConfig
from rooftrace.models.bundle import read_bundle
from rooftrace.predict.predictor import load

pytestmark = pytest.mark.campaign

COLOURS = np.array([(0x84, 0x29, 0xF6), (0x3C, 0x10, 0x98), (0x6E, 0xC1, 0xE4)], np.uint8)
CONFIG = """
crop_px = 64
epochs = 1
samples_per_epoch = 16
batch_size = 4
precision = "fp32"
device = "cpu"
loss = "ce + jaccard"
optimizer.lr = 5e-3

[model]
architecture = "PSPNet"
encoder = "tu-test_resnet"
encoder_weights = "none"

[[data.train]]
path = "data"

[[data.val]]
path = "data"
name = "again"

[data.labels]
classes = ["land", "building", "road"]
palette = { land = "#8429F6", building = "#3C1098", road = "#6EC1E4" }

[export]
half_weights = true
int8 = true
int8_samples = 4
int8_max_drop = DROP
"""


def write(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = data.shape
    with warnings.catch_warnings(), rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=data.dtype,
        crs="EPSG:32633", transform=Affine(0.5, 0, 5e5, 0, -0.5, 5e6), photometric="MINISBLACK",
    ) as out:  # fmt: skip
        out.write(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("multiclass")
    rng = np.random.default_rng(0)
    for number in range(2):
        classes = np.kron(rng.integers(0, 3, (6, 8)), np.ones((16, 16), int))
        bands = 20_000 + 15_000 * (classes - 1) + rng.integers(0, 3000, (5, *classes.shape))
        write(root / f"data/images/i{number}.tif", bands.astype(np.uint16))
        write(root / f"data/masks/i{number}.tif", np.moveaxis(COLOURS[classes], -1, 0))
    for name, drop in (("loose", "1.0"), ("strict", "0.0")):
        (root / f"{name}.toml").write_text(CONFIG.replace("DROP", drop))
    return root


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return run_train(folder / "loose.toml", folder / "run").best["best_iou"][2]


def test_the_contract_says_what_was_trained(bundle: Path) -> None:
    spec = read_bundle(bundle).spec
    assert spec.bands == ("band1", "band2", "band3", "band4", "band5")
    assert spec.dtype == "uint16"
    assert spec.classes == ("land", "building", "road")
    assert spec.colours == ("#8429F6", "#3C1098", "#6EC1E4")
    assert (spec.channels, spec.building_channel, spec.gsd_m) == (3, 1, None)
    assert spec.input_px == 64
    # Measured, as ImageNet has three bands: 20,000 and 15,000 more or less, with their spread.
    np.testing.assert_allclose(spec.mean, 21_500, rtol=0.1)
    np.testing.assert_allclose(spec.std, 12_300, rtol=0.1)
    assert [(v.engine, v.precision) for v in spec.variants] == [("openvino", "int8")]
    floats = ("fp32", "bf16") if "BF16" in capabilities() else ("fp32",)
    assert set(spec.variants[0].parity) == {f"iou_drop/again/{name}" for name in floats}


def test_all_that_is_in_it_runs_and_agrees(bundle: Path, folder: Path) -> None:
    made = read_bundle(bundle)
    with rasterio.open(folder / "data/images/i0.tif") as image:
        batch = image.read()[None, :, :64, :64]
    answers = {
        (engine, precision): load_engine(made, engine=engine, precision=precision).run(batch)
        for engine, precision in (
            ("openvino", "fp32"), ("onnxruntime", "fp32"), ("openvino", "int8"),
        )
    }  # fmt: skip
    for answer in answers.values():
        assert answer.shape == (1, 3, 64, 64)
        np.testing.assert_allclose(answer.sum(axis=1), 1, atol=2e-2)
    fp32 = answers["openvino", "fp32"]
    np.testing.assert_allclose(answers["onnxruntime", "fp32"], fp32, atol=1e-3)
    assert np.abs(answers["openvino", "int8"] - fp32).mean() < 0.1


def test_it_is_evaluated_by_its_palette_and_predicts(bundle: Path, folder: Path) -> None:
    data = SourceConfig(path=str(folder / "data"))
    report = run_evaluate(bundle, data, None, EvalOptions(precision="fp32"))
    plain = report.to_json()
    assert set(plain["classes"]) == {"land", "building", "road"}
    assert plain["protocol"]["valid_pixels"] == 2 * 96 * 128
    prediction = load(bundle, precision="fp32").predict(folder / "data/images/i0.tif")
    assert set(np.unique(prediction.mask.data)) <= {0, 1, 2}
    # The footprints are of the class called building alone.
    share = float((prediction.mask.data == 1).mean())
    assert prediction.summary.built_up_share == pytest.approx(share, abs=1e-6)
