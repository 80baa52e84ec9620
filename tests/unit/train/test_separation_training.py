"""Training with a second head, from footprints to the polygons of a bundle."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

torch = pytest.importorskip("torch")

from rooftrace.core.config import parse_config
from rooftrace.core.types import Sample, Scene
from rooftrace.engines.select import load_engine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.flows.train import run_train
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels.shapes import ShapesLabel
from rooftrace.labels.source import SceneEntry, SceneSet
from rooftrace.metrics.objects import ObjectCounts
from rooftrace.models.bundle import read_bundle
from rooftrace.models.losses import (
    parse_loss,
    separation_loss,
)
from rooftrace.samples.dataset import EvalTiles
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import (
    BorderTarget,
    collate,
)
from rooftrace.train.export_bundle import choose_separation
from rooftrace.train.task import SegmentationTask
from town import generate_scene

pytestmark = pytest.mark.campaign

CONFIG = """
gsd_m = 0.4
crop_px = 64
epochs = 1
samples_per_epoch = 8
batch_size = 4
precision = "fp32"
device = "cpu"
separation.kind = "border"

[model]
encoder = "tu-test_resnet"
encoder_weights = "none"
options.decoder_channels = [16, 8, 8, 8, 8]

[[data.train]]
path = "rows"

[[data.val]]
path = "rows"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("separation")
    scene = generate_scene(3, (128, 128), 0.4, districts=["rows"])
    _, truth = scene.write(folder / "rows", "row")
    gpd.read_file(truth).to_file(folder / "rows/buildings.gpkg", engine="pyogrio")
    truth.unlink()
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    run_train(folder / "config.toml", folder / "run")
    return folder / "run"


def test_the_bundle_answers_both_heads(run: Path) -> None:
    bundle = read_bundle(run / "best_iou.rooftrace")
    spec = bundle.spec
    assert (spec.separation, spec.channels, spec.outputs) == ("border", 1, 2)
    assert any("f1_without" in measured.values for measured in spec.metrics)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 96), np.uint8)
    answers = [
        load_engine(bundle, engine=engine, precision="fp32").run(image)
        for engine in ("openvino", "onnxruntime")
    ]
    assert answers[0].shape == (1, 2, 64, 96)
    assert 0 <= answers[0].min() < answers[0].max() <= 1
    np.testing.assert_allclose(*answers, atol=1e-4)


def task_of(weight: float) -> SegmentationTask:
    raw = {
        "data": {"train": [{"path": "a"}], "val": [{"path": "b"}]},
        "loss": "ce",
        "separation": {"weight": weight},
    }
    config = parse_config(raw, TrainConfig, source="c")
    assert config.outputs == 2
    torch.manual_seed(0)
    net = torch.nn.Conv2d(1, config.outputs, 1)
    return SegmentationTask(
        net, config, mean=(0,), std=(1,), val_names=("b",), total_steps=10
    )  # fmt: skip


def batch_of_rows() -> tuple[object, np.ndarray]:
    ids = np.tile(np.repeat(np.arange(4, dtype=np.int32), 4), (8, 1))
    valid = np.ones(ids.shape, bool)
    valid[:, :2] = False
    sample = Sample(ids[None].astype(np.float32), (ids > 0).astype(np.uint8), valid, ids)
    return collate([sample, sample], BorderTarget(1)), BorderTarget(1)(ids)


def test_a_batch_has_the_target_of_the_second_head() -> None:
    batch, expected = batch_of_rows()
    assert batch.separation.dtype == torch.float32
    np.testing.assert_array_equal(batch.separation.numpy(), np.stack([expected] * 2))


def test_the_loss_is_the_sum_of_both_heads() -> None:
    batch, _ = batch_of_rows()
    task = task_of(0.25)
    outputs = task.net(task.normalise(batch.images))
    assert task.predict_logits(batch.images).equal(outputs[:, :1])
    expected = parse_loss("ce")(outputs[:, :1], batch.targets, batch.valid)
    expected = expected + 0.25 * separation_loss(outputs[:, 1], batch.separation, batch.valid)
    assert task.training_step(batch, 0).item() == pytest.approx(expected.item())


def test_the_loss_of_the_head_by_hand() -> None:
    logit = torch.tensor([[[0.0, 0.0, 99.0]]])
    target = torch.tensor([[[1.0, 0.0, 0.0]]])
    valid = torch.tensor([[[True, True, False]]])
    # Entropy ln 2; overlap 1/2, squares 1/4 + 1/4 + 1.
    expected = np.log(2) + 1 - (2 * 0.5 + 1) / (1.5 + 1)
    assert separation_loss(logit, target, valid).item() == pytest.approx(expected)


def rows_with_walls(inside: int, wall: int) -> EvalTiles:
    """Bright houses that touch; the second band is brighter along their walls than inside."""
    pixels = np.zeros((3, 64, 128), np.uint8)
    pixels[0, 10:40, 10:100] = 255
    pixels[1] = inside
    pixels[1, 10:40, 38:42] = pixels[1, 10:40, 68:72] = wall
    boxes = np.array([shapely.box(c, 10, c + 30, 40) for c in (10, 40, 70)], dtype=object)
    source = ArraySource(pixels)
    scene = Scene("a", source, ShapesLabel(boxes, (1, 1, 1), source.grid))
    entries = (SceneEntry("a", None),)
    made = SceneSet("walls", "made", ("ground", "house"), 1, entries, lambda _: scene)
    return EvalTiles(made, crop_px=128, scales=None, cache_bytes=2**20, instances=True)


def first_two_bands(batch: np.ndarray) -> np.ndarray:
    return batch[:, :2].astype(np.float32) / 255


def counted(buildings: ObjectCounts) -> tuple[int, ...]:
    return buildings.labelled, buildings.predicted, buildings.matched, buildings.merged


@pytest.mark.parametrize(("inside", "wall", "expected"), [(60, 150, 0.25), (128, 255, 0.55)])
def test_the_threshold_of_the_head_separates_most(inside, wall, expected) -> None:
    spec = tiny_bundle().spec.model_copy(update={"separation": "border"})
    tiles = rows_with_walls(inside, wall)
    threshold, (figures,) = choose_separation(first_two_bands, [tiles], spec)
    assert threshold == expected
    assert counted(figures.without_head) == (3, 1, 0, 1)
    assert counted(figures.with_head) == (3, 3, 3, 0)
    assert figures.measured(spec).values["f1"] == 1
