"""`rooftrace fit`: what is stored is what is predicted, and the best is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bright_squares import SIDE, write_squares
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.flows.evaluate.predictions import of_model
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels
from rooftrace.flows.labelled_predictions import (
    LabelledSets,
    check_threshold_data,
    footprints_at,
    level_of,
    open_labelled,
    predict_set,
    threshold_at,
)
from rooftrace.flows.threshold import choose_threshold, run_threshold
from rooftrace.labels.config import SourceConfig
from rooftrace.models.bundle import read_bundle
from rooftrace.models.spec import Calibration, CalibrationData, LogisticMap, MeasuredMetrics
from rooftrace.predict.predictor import Predictor, load
from rooftrace.tiling.plan import BLEND_ONE, PROB_ONE
from tiny_models import write_tiny_bundle
from town import write_pairs


@given(st.integers(1, PROB_ONE), st.integers(0, BLEND_ONE))
def test_a_stored_level_is_reached_just_where_its_threshold_is(level: int, blended: int) -> None:
    stored = (blended + BLEND_ONE // PROB_ONE // 2) >> 8
    predicted = blended >= np.uint16(np.ceil(threshold_at(level) * BLEND_ONE))
    assert (stored >= level) == predicted
    assert level_of(threshold_at(level)) == level


@pytest.mark.campaign
def test_what_is_stored_gives_the_very_buildings_of_a_prediction(tmp_path: Path) -> None:
    write_pairs(tmp_path / "data", range(2), shape_yx=(200, 170), gsd_m=0.3)
    predictor = load(precision="fp32")
    source = open_labelled(predictor, SourceConfig(path=str(tmp_path / "data")), None)
    scored = predict_set(predictor, source, tmp_path / "scored")
    assert len(scored) == 2
    drawn = 0
    for level in (50, 128, 200):
        for scene, stored in zip(source, scored):
            prediction = predictor.predict(
                scene.image, gsd_m=scene.gsd_m, threshold=threshold_at(level)
            )
            assert np.array_equal(stored.score >= level, prediction.mask.data == 1)
            made = footprints_at(predictor.bundle.spec, scene, stored, level)
            assert len(made) == len(prediction.outlines)
            for one, other in zip(made.geometry, prediction.outlines.geometry):
                assert one.equals(other)
            assert np.array_equal(made.score, prediction.outlines.score)
            assert np.array_equal(stored.truth, scene.label.read().data == 1)  # type: ignore[union-attr]
            drawn += len(made)
    assert drawn > 10


def squares(folder: Path, images: int, limit: int, *, nodata: bool = False) -> Path:
    """Images of squares; those of `limit` and brighter are buildings, and none is near to it."""
    levels = [level for level in range(60, 250) if abs(level - limit) > 8]
    return write_squares(
        folder, images, lambda level, _: level >= limit, levels, transparent=nodata
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A model whose probability is the brightness of a pixel, at a threshold of one half."""
    old = MeasuredMetrics(data="a", split="test", protocol="at one half", values={"iou": 0.9})
    return write_tiny_bundle(tmp_path / "brightness.rooftrace", metrics=(old,))


@pytest.mark.campaign
@pytest.mark.parametrize("metric", ["iou", "dice", "f1"])
def test_the_threshold_between_buildings_and_others_is_found(
    bundle: Path, tmp_path: Path, metric: Any
) -> None:
    data = SourceConfig(path=str(squares(tmp_path / "data", 6, limit=170)))
    out = tmp_path / "better.rooftrace"
    seen: list[tuple[int, int]] = []
    report = run_threshold(
        bundle, [data], out, metric=metric, precision="fp32",
        progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    value = report.to_json()["value"]
    assert report.value == value["after"] == 1.0 > value["before"]
    assert seen[-1] == (12, 12)
    low, high = report.plateau
    assert low <= report.after <= high
    assert 161 / 255 < report.after < 179 / 255
    assert 0.55 < low < high < 0.75
    old, new = read_bundle(bundle), read_bundle(out)
    assert new.spec.threshold == report.after
    changed = {"threshold": 0.5, "metrics": old.spec.metrics, "calibration": None}
    changed |= {"fitted_fingerprint": None, "name": old.spec.name}
    assert new.spec.name == "better"
    assert new.spec.model_copy(update=changed) == old.spec
    assert dict(new.parts) == dict(old.parts)
    (measured,) = new.spec.metrics
    assert measured.values["iou"] == measured.values["f1"] == 1.0
    assert f"was chosen on these images by their {metric}" in measured.protocol
    assert any("were measured at its old threshold" in note for note in report.notes)
    # All buildings are right now: there is nothing to calibrate.
    assert new.spec.calibration is None
    assert any("was fitted to the buildings of whole images" in note for note in report.notes)
    reported = report.to_json()
    assert reported["threshold"] == {"before": 0.5, "after": report.after}
    assert reported["data"][0]["before"]["iou"] < reported["data"][0]["after"]["iou"] == 1.0


def test_the_calibration_is_of_the_new_threshold(bundle: Path, tmp_path: Path) -> None:
    folder = squares(tmp_path / "data", 8, limit=100)
    rng = np.random.default_rng(1)
    for path in (folder / "masks").iterdir():
        mask = np.array(Image.open(path))
        # A third of the squares that are buildings are not labelled as such.
        for row, col in np.ndindex(5, 5):
            if rng.random() < 1 / 3:
                mask[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE] = 0
        Image.fromarray(mask).save(path)
    out = tmp_path / "better.rooftrace"
    report = run_threshold(bundle, [SourceConfig(path=str(folder))], out, precision="fp32")
    calibration = read_bundle(out).spec.calibration
    assert calibration is not None
    (fitted,) = calibration.fitted_on
    # As many as are drawn at the new threshold: at one half there are fewer.
    assert report.after < 0.45
    images = np.stack([np.array(Image.open(p)) for p in sorted((folder / "images").iterdir())])
    squares_above = (images[:, 10::SIDE, 10::SIDE, 0] >= level_of(report.after)).sum()
    assert fitted.objects == squares_above > (images[:, 10::SIDE, 10::SIDE, 0] >= 128).sum()


def test_the_f1_of_a_model_is_that_of_the_buildings_that_it_writes(tmp_path: Path) -> None:
    folder = squares(tmp_path / "data", 8, limit=170)
    bundle = write_tiny_bundle(tmp_path / "brightness.rooftrace", threshold=0.4)
    data, out = SourceConfig(path=str(folder)), tmp_path / "calibrated.rooftrace"
    rng = np.random.default_rng(1)
    for path in (folder / "masks").iterdir():
        mask = np.array(Image.open(path))
        for row, col in np.ndindex(5, 5):
            if rng.random() < 1 / 4:
                mask[row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE] = 0
        Image.fromarray(mask).save(path)
    for metric in ("iou", "f1"):
        report = run_threshold(
            bundle, [data], out, metric=metric, keep=metric == "iou", precision="fp32"
        )
        # The calibration leaves out dark squares, which are never buildings.
        before, after = (one[0]["f1"] for one in (report.figures_before, report.figures_after))
        assert before + 0.1 < after
        for model, f1 in ((bundle, before), (out, after)):
            predictor = load(model, precision="fp32")
            scenes = open_labelled(predictor, data, None)
            (evaluated,) = compare_with_labels([of_model(predictor)], scenes, EvalOptions())
            assert evaluated.objects.f1 == f1


def test_too_little_data_keeps_threshold_and_calibration(bundle: Path, tmp_path: Path) -> None:
    few = SourceConfig(path=str(squares(tmp_path / "data", 1, limit=170)))
    kept = Calibration(
        map=LogisticMap(kind="logistic", slope=2.0, intercept=-1.0),
        fitted_on=(CalibrationData(data="a", split="val", scenes=9, objects=90, right=45),),
        log_loss_before=0.6, log_loss_after=0.5, ece_before=0.2, ece_after=0.1,
    )  # fmt: skip
    start = read_bundle(bundle).spec.model_copy(
        update={"name": "start", "threshold": 0.3, "calibration": kept}
    )
    predictor = load(bundle, precision="fp32")
    scenes = open_labelled(predictor, few, None)
    data = LabelledSets([scenes], "val")
    scored = predict_set(predictor, scenes, tmp_path / "scored", data)
    report = choose_threshold(
        predictor.bundle.spec, [scored], data, bundle, protocol="fp32", start=start, is_small=True
    )
    made = predictor.bundle.spec.model_copy(update=report.update)
    assert made.threshold == report.after == pytest.approx(0.3, abs=1 / 255)
    assert made.calibration == kept
    assert "that of the start model is kept" in report.notes[0]
    assert "the threshold is that of start" in made.metrics[0].protocol


def test_nodata_is_neither_counted_nor_drawn(bundle: Path, tmp_path: Path) -> None:
    predictor = load(bundle, precision="fp32")
    data = SourceConfig(path=str(squares(tmp_path / "data", 1, limit=100, nodata=True)))
    source = open_labelled(predictor, data, None)
    (scored,) = predict_set(predictor, source, tmp_path / "scored")
    assert scored.known[:, : 5 * SIDE // 2].all()
    assert not scored.known[:, 5 * SIDE // 2 :].any()
    assert not scored.evaluated[:, 5 * SIDE // 2 :].any()
    (scene,) = source
    for one in footprints_at(predictor.bundle.spec, scene, scored, 30).geometry:
        assert one.bounds[2] <= 5 * SIDE // 2


def test_what_nothing_can_be_chosen_on_is_refused(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.rooftrace"
    bare = SourceConfig(path=str(squares(tmp_path / "bare", 2, limit=300)))
    with pytest.raises(DataError, match="bare has no predicted pixel that is labelled"):
        run_threshold(bundle, [bare], out)
    with pytest.raises(DataError, match="No data to fit the model to"):
        run_threshold(bundle, [], out)
    with pytest.raises(ConfigError, match=r"ends in \.rooftrace"):
        run_threshold(bundle, [bare], tmp_path / "a.json")
    with pytest.raises(ConfigError, match=r"ends in \.json"):
        run_threshold(tmp_path / "team.ensemble.json", [bare], out)
    assert not out.exists()
    loaded = load(bundle)
    spec = loaded.bundle.spec.model_copy(update={"classes": ("background", "building", "road")})
    several = Predictor(type(loaded.bundle)(spec, {}, "several"), loaded.engine)
    source = open_labelled(loaded, bare, None)
    with pytest.raises(ConfigError, match="has 3 classes"):
        check_threshold_data(several.bundle.spec, source)
    with pytest.raises(DataError, match="bare has no labelled image"):
        check_threshold_data(loaded.bundle.spec, source.subset([]))
