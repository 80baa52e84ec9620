"""Forgetting of a tuned model, on data of its start model or on generated scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rooftrace.engines.base import ConstantEngine, PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.flows.replay import measure_forgetting
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.split import Split, write_split
from rooftrace.predict.predictor import Predictor
from rooftrace.testing import write_pairs

ELSEWHERE = SourceConfig(path="/no/such/place")


def start_model(training: dict[str, Any] | None = None, **changes: Any) -> Predictor:
    bundle = tiny_bundle()
    spec = bundle.spec.model_copy(update={"training": training or {}, "gsd_m": 0.5, **changes})
    return Predictor(replace(bundle, spec=spec), PointwiseEngine())


def forgetful(start: Predictor) -> Predictor:
    """Return a model that sees no building any more."""
    return Predictor(start.bundle, ConstantEngine(0.0))


def test_generated_scenes_where_the_data_is_not_at_hand() -> None:
    start = start_model({"data": {"train": [{"path": "$NOT_SET/town"}], "val": [{"path": "/no"}]}})
    report = measure_forgetting(start, start, ELSEWHERE)
    assert report is not None
    assert report.is_generated
    assert report.data == "generated scenes"
    assert report.test.difference.value == 0
    assert report.test.first > 0
    worse = measure_forgetting(forgetful(start), start, ELSEWHERE)
    assert worse is not None
    assert worse.test.difference.high < 0
    assert worse.to_json()["iou"]["first"] == 0


def test_the_recorded_validation_is_used(tmp_path: Path) -> None:
    for name, seeds in (("east", range(3)), ("west", range(3, 20))):
        write_pairs(tmp_path / name, seeds, shape_yx=(64, 64), gsd_m=0.5)
    data = {
        "train": [{"path": "/no"}],
        "val": [{"path": str(tmp_path / name)} for name in ("east", "west", "gone")],
    }
    start = start_model({"data": data})
    report = measure_forgetting(start, start, ELSEWHERE)
    assert report is not None
    assert not report.is_generated
    assert report.data == "validation of the start model: east, west"
    assert report.to_json()["images"] == 12
    # Data that the tuned model was trained on shows nothing.
    only = measure_forgetting(start, start, SourceConfig(path=str(tmp_path / "west")))
    assert only is not None
    assert only.data == "validation of the start model: east"


def test_recorded_paths_start_from_the_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "work/town", range(5), shape_yx=(64, 64), gsd_m=0.5)
    scenes = [
        entry.id for entry in open_source(SourceConfig(path=str(tmp_path / "work/town"))).entries
    ]
    write_split(
        tmp_path / "work/split.json",
        Split(parts={"train": tuple(scenes[:3]), "val": tuple(scenes[3:])}),
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps({"base": str(tmp_path / "work")}))
    start = start_model({"data": {"train": [{"path": "town"}], "split": "split.json"}})
    bundle = replace(start.bundle, source=str(tmp_path / "run/best_iou.rooftrace"))
    start = Predictor(bundle, start.engine)
    monkeypatch.chdir(tmp_path)
    report = measure_forgetting(start, start, ELSEWHERE)
    assert report is not None
    assert (report.is_generated, report.to_json()["images"]) == (False, 2)
    # Data that the tuned model was trained on is recognised by another name of its path.
    own = measure_forgetting(start, start, SourceConfig(path="work/../work/town"))
    assert own is not None
    assert own.is_generated


def test_a_folder_of_the_recorded_name_in_the_current_directory_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = start_model({"data": {"train": [{"path": "/no"}], "val": [{"path": "town"}]}})
    for folder, seeds in ((tmp_path / "here", range(3)), (tmp_path / "trained", range(4))):
        write_pairs(folder / "town", seeds, shape_yx=(64, 64), gsd_m=0.5)
    monkeypatch.chdir(tmp_path / "here")
    report = measure_forgetting(start, start, ELSEWHERE)
    assert report is not None
    assert report.is_generated
    # The record beside the bundle says where its paths begin.
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"base": str(tmp_path / "trained")}))
    beside = Predictor(replace(start.bundle, source=str(run / "a.rooftrace")), PointwiseEngine())
    report = measure_forgetting(beside, beside, ELSEWHERE)
    assert report is not None
    assert report.data == "validation of the start model: town"
    assert report.to_json()["images"] == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"bands": ("near infrared", "red", "green")},
        {"classes": ("background", "road", "building"), "building_class": 2},
    ],
)
def test_models_that_generated_scenes_do_not_suit(changes: dict[str, Any]) -> None:
    start = start_model(**changes)
    assert measure_forgetting(start, start, ELSEWHERE) is None


def test_generated_scenes_are_the_same_each_time() -> None:
    start = start_model()
    first, second = (measure_forgetting(forgetful(start), start, ELSEWHERE) for _ in range(2))
    assert first is not None
    assert second is not None
    np.testing.assert_equal(first.to_json(), second.to_json())
