"""Training scenes are found in evaluation data; a check without data reports nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from raster_files import write_geotiff
from rooftrace.flows.evaluate.evaluation import (
    Evaluation,
    LeakageReport,
    check_leakage,
    evaluation_page,
    training_ground_notes,
)
from rooftrace.flows.evaluate.predictions import Predictions, ScenePrediction
from rooftrace.flows.labelled_predictions import LabelledSets
from rooftrace.io.legend import Legend
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneSet
from rooftrace.metrics.image_counts import ImageCounts
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.metrics.report import EvalReport
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.fingerprint import fingerprint_of
from rooftrace.models.spec import BundleSpec
from town import write_pairs

GSD_M = 0.3


def at(folder: Path, **given: Any) -> SourceConfig:
    return SourceConfig(path=str(folder), **given)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a` with four scenes of 384 px; `cut` a piece of the second, `b` other ground."""
    folder = tmp_path_factory.mktemp("places")
    write_pairs(folder / "a", range(40, 44), shape_yx=(384, 384), gsd_m=GSD_M)
    write_pairs(folder / "b", range(50, 52), shape_yx=(384, 384), gsd_m=GSD_M)
    name = open_source(at(folder / "a")).ids[1]
    for kind in ("images", "masks"):
        source = next((folder / "a" / kind).glob(f"{name}.*"))
        (folder / "cut" / kind).mkdir(parents=True)
        with rasterio.open(source) as file:
            window = Window(101, 77, 256, 256)
            corner = file.transform @ Affine.translation(101, 77)
            profile = file.profile | {"width": 256, "height": 256, "transform": corner}
            write_geotiff(folder / "cut" / kind / "piece.tif", file.read(window=window), **profile)
    return folder


def bundle_of(
    train: Sequence[SceneSet] = (), data: dict[str, Any] | None = None, source: str = "memory",
    **more: Any,
) -> ModelBundle:  # fmt: skip
    spec = BundleSpec(
        name="m",
        bands=("red", "green", "blue"),
        gsd_m=GSD_M,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        classes=("background", "building"),
        training={} if data is None else {"data": data},
        fingerprint=fingerprint_of([(one.name, tuple(one)) for one in train], GSD_M)
        if train
        else None,
        **more,
    )
    return ModelBundle(spec, {}, source)


def check(bundle: ModelBundle, source: SceneSet) -> LeakageReport:
    (report,) = check_leakage([bundle], source)
    return report


@pytest.mark.campaign
def test_a_piece_of_a_training_scene_is_found(places: Path) -> None:
    train = open_source(at(places / "a"))
    bundle = bundle_of([train])
    report = check(bundle, open_source(at(places / "cut")))
    (pair,) = report.pairs
    start = {"start_fingerprints": (bundle.spec.fingerprint,)}
    tuned = bundle_of([open_source(at(places / "b"))], **start)
    assert check(tuned, open_source(at(places / "cut"))).scenes == report.scenes
    assert (report.status, report.checked, report.scenes) == ("found", 1, ("piece",))
    assert (pair.scene_id, pair.train_id) == ("piece", "a, scene 2 of 4")
    assert pair.bits <= 9
    assert pair.likeness > 0.4
    assert json.loads(json.dumps(report.to_json()))["scenes"] == 1
    assert "share about 43 m by 43 m" in " ".join(report.notes)
    data = LabelledSets([open_source(at(places / "b")), open_source(at(places / "cut"))])
    note, _ = training_ground_notes([bundle], data)
    assert note == "1 of 1 scenes show ground that m was trained on: piece"


def test_without_a_fingerprint_nothing_is_known(places: Path) -> None:
    report = check(bundle_of(), open_source(at(places / "a")))
    assert (report.status, report.checked, report.pairs) == ("unknown", 0, ())
    assert "has no fingerprint" in " ".join(report.notes)


def test_scenes_too_small_to_tell_are_not_all_clear(places: Path) -> None:
    bundle = bundle_of([open_source(at(places / "a", part="[:1]"))])
    assert check(bundle, open_source(at(places / "b", part="[:1]"))).status == "none"
    # Of 72 px, at 0.6 m, 96 px have keypoints, but overlaps are only found from 144.
    small = open_source(at(places / "b", chip_px=96, part="[:1]"))
    report = check(bundle, small)
    assert (report.status, report.too_small, report.checked) == ("unknown", 16, 16)
    assert "Cannot tell for 16 of the 16 scenes" in " ".join(report.notes)
    counts = PixelCounts.of(*np.ones((2, 9, 9), np.uint8), classes=2)
    images = tuple(ImageCounts(name, counts) for name in small.ids)
    of_m = EvalReport(images, small.classes, 1, {}, notes=("Doubtful labels.",), name="m")
    evaluation = Evaluation((of_m,), (report,))
    context = {"threshold": None, "threshold_from": "none"}
    right = Predictions("m", small.classes, 1, Legend(small.classes), context,
        lambda scene: ScenePrediction(scene.label.read(), np.zeros(0, np.object_)))  # fmt: skip
    page = evaluation_page(evaluation, [right], small)
    assert "Cannot tell for 16 of 16 scenes if they show ground that m was trained on" in page
    assert page.index("Doubtful labels.") < page.index("<h2>Figures")
    assert "No scene here shows ground" not in page
