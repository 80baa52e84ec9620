"""An evaluation counts what `rooftrace predict` would answer, and shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.errors import ConfigError, DataError, LabelError
from rooftrace.flows.evaluate.evaluation import Evaluation, LeakageReport, LeakedScene
from rooftrace.flows.evaluate.label_doubts import LabelDoubts
from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.io.raster import open_raster
from rooftrace.labels.config import SourceConfig
from rooftrace.metrics.image_counts import ImageCounts
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.metrics.report import EvalReport
from rooftrace.models.bundle import read_bundle, write_bundle
from rooftrace.predict.predictor import load
from town import write_pairs

if TYPE_CHECKING:
    from tests.conftest import TinyRun

PLAIN = EvalOptions(precision="fp32")


def folder_of(path: Path, **options: object) -> SourceConfig:
    return SourceConfig(path=str(path), **options)  # type: ignore[arg-type]


def by_hand(bundle: Path, data: Path, ids: list[str], threshold: float | None = None) -> dict:
    """Pooled counts of the second class, from files and the public names alone."""
    model = load(bundle, precision="fp32")
    tp = fp = fn = tn = 0
    for name in ids:
        truth = open_raster(data / "masks" / f"{name}.tif").read().data[0] > 0
        mask = model.predict(data / "images" / f"{name}.tif", threshold=threshold).mask
        guess = mask.data == 1
        tp += int((truth & guess).sum())
        fp += int((~truth & guess).sum())
        fn += int((truth & ~guess).sum())
        tn += int((~truth & ~guess).sum())
    return {
        "accuracy": (tp + tn) / (tp + tn + fp + fn),
        "precision": tp / (tp + fp) if tp + fp else None,
        "recall": tp / (tp + fn),
        "iou": tp / (tp + fp + fn),
        "dice": 2 * tp / (2 * tp + fp + fn),
        "mean_iou": (tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2,
    }


@pytest.mark.campaign
def test_the_figures_are_those_of_a_count_by_hand(tiny_run: TinyRun, tmp_path: Path) -> None:
    ids = [f"synthetic_{n:05d}" for n in range(6)]
    report = run_evaluate(tiny_run.bundle, folder_of(tiny_run.data), tmp_path, PLAIN)
    plain = report.to_json()
    expected = by_hand(tiny_run.bundle, tiny_run.data, ids)
    assert plain["pixel"] == {k: pytest.approx(v, abs=1e-6) for k, v in expected.items()}
    assert plain["images"] == 6
    assert plain["protocol"]["valid_pixels"] == 6 * 128 * 128
    spec = read_bundle(tiny_run.bundle).spec
    assert plain["threshold"] == spec.threshold
    assert plain["bundle"]["sha256"] == read_bundle(tiny_run.bundle).sha256
    settings = load(tiny_run.bundle, precision="fp32").engine.settings  # type: ignore[attr-defined]
    assert plain["engine"] == {"name": "openvino", "precision": "fp32", "settings": settings}
    written = json.loads((tmp_path / "report.json").read_text())
    assert {k: v for k, v in written.items() if k != "by_image"} == plain
    assert [row["id"] for row in written["by_image"]] == ids
    ious = [row["iou"] for row in written["by_image"]]
    assert plain["per_image"]["iou"] == pytest.approx(np.mean(ious), abs=1e-5)


def test_nodata_takes_no_part(bundle: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 200, (96, 96, 3), np.uint8)
    pixels[:, 40:] = 255
    mask = np.zeros((96, 96), np.uint8)
    mask[10:30, 10:70] = 255
    for part, array in (("images", pixels), ("masks", mask)):
        (tmp_path / part).mkdir()
        Image.fromarray(array).save(tmp_path / part / "a.png")
    folder = folder_of(tmp_path, gsd_m=0.3, nodata=(255, 255, 255))
    report = run_evaluate(bundle, folder, None, PLAIN)
    assert report.first.pooled.pixels == 96 * 40


def test_footprints_of_a_part_and_empty_labels_are_told() -> None:
    town = np.kron(np.indices((8, 8)).sum(axis=0) % 2 == 0, np.ones((10, 10), bool))
    # False positives in the fields around a village that is labelled as a whole.
    fields = np.arange(6400).reshape(80, 80) < 400
    col = np.arange(80)
    for part, rest, note in (
        (col < 80, town, ""), (col < 20, fields, ""), (col < 0, town, "No label has a building"),
        (col < 20, town, "The predictions cover 100% of the labelled building area, but 75%"),
    ):  # fmt: skip
        labelled = town & part
        doubts = LabelDoubts()
        doubts.add(labelled, labelled | rest, np.ones((80, 80), np.bool_))
        assert [one[: len(note)] for one in doubts.notes()] == [note] * bool(note)
    for found, expected in ((0, ()), (9, ("2 of 3 labels have no building",))):
        doubts = LabelDoubts()
        for built in (9, 0, 0):
            doubts.add(*(np.arange(40)[None] < n for n in (built, built or found, 40)))
        assert tuple(one.split(";")[0] for one in doubts.notes()) == expected


def test_what_cannot_be_compared_is_reported(bundle: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "data", range(1), shape_yx=(64, 64))
    data = folder_of(tmp_path / "data")
    split = tmp_path / "s.json"
    split.write_text('{"parts": {"test": ["elsewhere"]}}')
    with pytest.raises(DataError, match="None of the ids"):
        run_evaluate(bundle, data, None, EvalOptions(split=f"{split}:test"))
    with pytest.raises(ConfigError, match="has no part 'val'"):
        run_evaluate(bundle, data, None, EvalOptions(split=f"{split}:val"))
    with pytest.raises(ConfigError, match="engine"):
        run_evaluate(bundle, data, None, EvalOptions(engine="abacus"))


@pytest.mark.campaign
def test_labels_are_read_as_in_training(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The palette of the record decides, so that no one need give it again."""
    made = read_bundle(tiny_run.bundle)
    palette = {"background": "#8429F6", "building": "#3C1098"}
    labels = {"classes": ["background", "building"], "palette": palette}
    bundle = tmp_path / "coloured.rooftrace"
    training = made.spec.training | {"data": {"labels": labels}}
    write_bundle(bundle, made.spec.model_copy(update={"training": training}), made.parts)
    name = "synthetic_00000"
    image = open_raster(tiny_run.data / f"images/{name}.tif").read().data
    mask = open_raster(tiny_run.data / f"masks/{name}.tif").read().data[0] > 0
    colours = np.array([(0x84, 0x29, 0xF6), (0x3C, 0x10, 0x98)], np.uint8)[mask.astype(int)]
    for part, array in (("images", np.moveaxis(image, 0, -1)), ("masks", colours)):
        (tmp_path / part).mkdir()
        Image.fromarray(np.ascontiguousarray(array)).save(tmp_path / part / "a.png")
    coloured = run_evaluate(bundle, folder_of(tmp_path, gsd_m=0.3), None, PLAIN)
    plain = folder_of(tiny_run.data, part="[:1]", gsd_m=0.3)
    np.testing.assert_array_equal(
        coloured.first.pooled.matrix,
        run_evaluate(tiny_run.bundle, plain, None, PLAIN).first.pooled.matrix,
    )
    with pytest.raises(LabelError, match="is coloured"):
        run_evaluate(tiny_run.bundle, folder_of(tmp_path, gsd_m=0.3), None, PLAIN)


SCENES = 16


def report_of(share: float, seed: int) -> EvalReport:
    """Report of a model that finds about `share` of the buildings' pixels in each scene."""
    rng = np.random.default_rng(seed)
    truth, valid = np.ones((20, 20), np.uint8), np.ones((20, 20), bool)
    images = tuple(
        ImageCounts(
            f"scene {number}",
            PixelCounts.of(
                truth, (rng.random((20, 20)) < share).astype(np.uint8), valid, classes=2
            ),
        )
        for number in range(SCENES)
    )
    return EvalReport(images, ("background", "building"), 1, {}, name=f"model {seed}")


def test_models_are_compared_with_the_baseline() -> None:
    evaluation = Evaluation((report_of(0.9, 0), report_of(0.5, 1)), baseline=1)
    assert [*evaluation.comparisons] == [0]
    assert evaluation.comparisons[0]["pixel.iou"].difference.value > 0.3


def test_notes_on_training_ground_name_their_models() -> None:
    reports = report_of(0.9, 0), report_of(0.5, 1)
    notes = ("Parts are found from 150 m by 150 m.", "Four fields of training are not known.")
    leaks = tuple(LeakageReport("none", SCENES, (), notes[:count]) for count in (1, 2))
    assert Evaluation(reports, leaks).notes == (
        f"model 0, model 1: {notes[0]}",
        f"model 1: {notes[1]}",
    )
    assert Evaluation(reports, leaks).warnings == ()
    pairs = (LeakedScene("scene 3", "town/3", None, 1.0),)
    found = replace(leaks[1], status="found", pairs=pairs)
    warned = Evaluation(reports, (leaks[0], found))
    text = "1 of 16 scenes show ground that model 1 was trained on: scene 3"
    assert warned.warnings == (text,)
    assert warned.notes[0] == text
    # A single model needs no name, also beside predictions of a tool, which are not checked.
    assert Evaluation(reports, leaks[1:]).notes == notes
