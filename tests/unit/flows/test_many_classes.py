"""Twenty classes, all the way: training, evaluation, prediction."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from PIL import Image

pytest.importorskip("torch")

from raster_files import write_geotiff
from rooftrace.core.errors import ConfigError
from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.flows.train import run_train
from rooftrace.io.legend import Legend
from rooftrace.labels.config import SourceConfig
from rooftrace.models.bundle import read_bundle
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import load

pytestmark = pytest.mark.campaign

_NAMES = ("land", "building", *(f"cover{index:02}" for index in range(2, 20)))
_TABLE = Legend(_NAMES).table[:20, :3]
LEGEND = Legend(_NAMES, tuple("#{:02X}{:02X}{:02X}".format(*rgb) for rgb in _TABLE.tolist()))
CONFIG = """
crop_px = 64
epochs = 1
samples_per_epoch = 16
batch_size = 4
precision = "fp32"
device = "cpu"
loss = "ce + dice"
optimizer.lr = 1e-2

[model]
architecture = "Unet"
encoder = "tu-test_resnet"
encoder_weights = "none"
options.decoder_channels = [16, 16, 16, 8, 8]

[[data.train]]
path = "data"

[[data.val]]
path = "some"
name = "some"

[data.labels]
classes = CLASSES
building = "cover07"
ignore = [255]
colours = { cover07 = "#FF8800" }
"""


def write_landcover(
    folder: Path, seeds: Iterable[int], *, classes: int = 20, side: int = 128, ignored: bool = False
) -> None:
    """Write pairs of a patchwork of classes, each in a colour of its own with a little noise.

    The right quarter of the masks is 255, which is ignored, if `ignored`.
    """
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        cells = side // 16
        # The classes take turns, so that even one small scene has most of them.
        drawn = rng.permutation(np.arange(cells**2) % classes).reshape(cells, cells)
        mask = np.kron(drawn, np.ones((16, 16), int)).astype(np.uint8)
        pixels = _TABLE[mask] + rng.integers(-6, 7, (side, side, 3))
        if ignored:
            mask[:, -(side // 4) :] = 255
        bands = np.moveaxis(pixels.clip(0, 255).astype(np.uint8), -1, 0)
        write_geotiff(folder / f"images/landcover_{seed:05d}.tif", bands)
        Image.fromarray(mask).save(folder / f"masks/landcover_{seed:05d}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained with index masks, a part of them ignored; validation lacks most of the classes."""
    root = tmp_path_factory.mktemp("twenty")
    write_landcover(root / "data", range(3), ignored=True)
    write_landcover(root / "some", [9], classes=12, side=64)
    names = json.dumps(list(LEGEND.names))
    (root / "twenty.toml").write_text(CONFIG.replace("CLASSES", names))
    run_train(root / "twenty.toml", root / "run")
    return root


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return folder / "run" / "best_iou.rooftrace"


def test_a_class_that_validation_lacks_spoils_no_figure(folder: Path, bundle: Path) -> None:
    with (folder / "run" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    figures = [float(value) for name, value in row.items() if name.startswith("val_")]
    assert len(figures) >= 4
    assert np.isfinite(figures).all()
    (measured,) = read_bundle(bundle).spec.metrics
    assert 0 <= measured.values["mean_iou"] <= 1


def test_the_bundle_says_names_and_colours(bundle: Path) -> None:
    spec = read_bundle(bundle).spec
    assert spec.classes == LEGEND.names
    assert spec.building_class == 7
    assert spec.colours == (*LEGEND.colours[:7], "#FF8800", *LEGEND.colours[8:])


def test_evaluation_counts_every_class(folder: Path, bundle: Path, tmp_path: Path) -> None:
    data = SourceConfig(path=str(folder / "data"))
    report = run_evaluate(bundle, data, tmp_path, EvalOptions(precision="fp32"))
    plain = json.loads((tmp_path / "report.json").read_text())
    assert plain["threshold"] is None
    assert plain["protocol"]["class"] == "cover07"

    model = load(bundle, precision="fp32")
    matrix = np.zeros((20, 20), int)
    for image in sorted((folder / "data/images").iterdir()):
        with Image.open(folder / "data/masks" / f"{image.stem}.png") as opened:
            truth = np.asarray(opened)
        judged = truth != 255
        np.add.at(matrix, (truth[judged], model.predict(image).mask.data[judged]), 1)
    assert plain["confusion"] == matrix.tolist()
    assert plain["protocol"]["valid_pixels"] == matrix.sum() == 3 * 128 * 96
    both, truth_px, said_px = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    for index, name in enumerate(LEGEND.names):
        found = plain["classes"][name]
        assert found["support"] == truth_px[index]
        union = truth_px[index] + said_px[index] - both[index]
        assert found["iou"] == (pytest.approx(both[index] / union, abs=1e-6) if union else None)
        if truth_px[index]:
            assert found["recall"] == pytest.approx(both[index] / truth_px[index], abs=1e-6)

    assert plain["confusion"] == matrix.tolist()
    name, mean = report.first.headline_figures[0]
    assert (name, round(mean.value, 6)) == ("Mean IoU (pooled)", plain["pixel"]["mean_iou"])
    assert [row[0] for row in report.first.class_rows()] == list(LEGEND.names)


def test_prediction_writes_every_class(folder: Path, bundle: Path, tmp_path: Path) -> None:
    image = folder / "data/images/landcover_00000.tif"
    report = run_predict(find_inputs([image]), read_models(bundle, precision="fp32"), tmp_path)
    (output,) = report.outputs
    with rasterio.open(output.mask) as dataset:
        mask = dataset.read(1)
        assert dataset.colormap(1)[7] == (0xFF, 0x88, 0x00, 255)
    assert (tmp_path / "landcover_00000_mask.tif.aux.xml").read_text().count("<Category>") == 20
    occurring, counts = np.unique(mask, return_counts=True)
    assert len(occurring) > 2

    figures = {one.class_id: one for one in output.classes}
    assert [one.name for one in output.classes] == list(LEGEND.names)
    assert {i: f.pixels for i, f in figures.items() if f.pixels} == dict(zip(occurring, counts))
    assert figures[int(occurring[0])].area_m2 == pytest.approx(counts[0] * 0.25, rel=1e-3)
    assert sum(one.share for one in output.classes) == pytest.approx(1)

    assert Path(output.polygons).name == "landcover_00000_polygons.gpkg"
    table = gpd.read_file(output.polygons)
    assert list(table.columns) == [
        "id", "class", "class_id", "score", "area_m2", "perimeter_m", "orientation_deg",
        "rectangularity", "cut", "source", "model", "geometry",
    ]  # fmt: skip
    assert set(table["class_id"]) <= set(occurring) - {0}
    assert [LEGEND.names[i] for i in table["class_id"]] == list(table["class"])
    counted = table["class_id"].value_counts()
    assert {i: f.polygons for i, f in figures.items() if f.polygons} == counted.to_dict()
    assert output.buildings == figures[7].polygons
    assert output.built_up_share == figures[7].share
    recorded = json.loads((tmp_path / "run.json").read_text())
    assert recorded["outputs"][0]["classes"][7]["name"] == "cover07"
    assert recorded["options"]["threshold"] is None
    with Image.open(output.preview) as preview:
        # The picture, the line of figures, and the key.
        assert preview.height > 128 + 34 + 22


def test_a_threshold_is_refused_where_it_would_do_nothing(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    image = folder / "data/images/landcover_00000.tif"
    data = SourceConfig(path=str(folder / "data"))
    reported = r"threshold of 0\.4 was given, but the model .* has 20 classes"
    with pytest.raises(ConfigError, match=reported):
        run_predict(
            find_inputs([image]), read_models(bundle), tmp_path / "out", SceneOptions(threshold=0.4)
        )
    with pytest.raises(ConfigError, match=reported):
        run_evaluate(bundle, data, None, EvalOptions(threshold=0.4))
    assert not list(tmp_path.iterdir())
