"""Learning curves: chosen images against random ones, and how many more would help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.flows.learning_curve import (
    CurvePoint,
    CurveReport,
    compare_choices,
    images_needed,
)
from rooftrace.labels.config import SourceConfig
from rooftrace.predict.plan import SceneOptions
from rooftrace.testing import write_pairs

if TYPE_CHECKING:
    from tests.conftest import TinyRun


def test_chosen_images_are_worth_as_many_random_ones() -> None:
    points = [
        CurvePoint("random", 20, 0, 0.60), CurvePoint("random", 20, 1, 0.62),
        CurvePoint("random", 80, 0, 0.71), CurvePoint("chosen", 10, 0, 0.50),
        CurvePoint("chosen", 20, 0, 0.66), CurvePoint("chosen", 40, 0, 0.80),
    ]  # fmt: skip
    report = CurveReport(tuple(points), 100, 50, 960)
    assert report.mean("random") == {20: pytest.approx(0.61), 80: 0.71}
    # Half way between 0.61 and 0.71 lies the geometric mean of 20 and 80.
    assert report.random_equal == {10: None, 20: pytest.approx(40, abs=0.1), 40: None}


@given(images=st.integers(1, 500), half=st.floats(0, 0.9), step=st.floats(0.001, 0.1),
       doublings=st.integers(0, 6))  # fmt: skip
def test_each_doubling_adds_the_last_step(
    images: int, half: float, step: float, doublings: int
) -> None:
    iou = half + step
    needed = images_needed(images, half, iou, iou + doublings * (iou - half))
    assert needed is not None
    assert images * 2**doublings <= needed + 1
    assert needed <= images * 2**doublings * 1.001 + 1


def test_a_flat_curve_promises_nothing() -> None:
    assert images_needed(40, 0.7, 0.7, 0.75) is None
    assert images_needed(40, 0.7, 0.69, 0.75) is None
    assert images_needed(40, 0.7, 0.701, 0.9) is None
    assert images_needed(40, 0.6, 0.7, 0.65) == 40


@pytest.mark.campaign
def test_trainings_on_chosen_and_on_random_images(tiny_run: TinyRun, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    write_pairs(tmp_path / "data", range(40, 56), shape_yx=(128, 128), gsd_m=0.3)
    data, out, said = SourceConfig(path=str(tmp_path / "data")), tmp_path / "curve", []
    model = str(tiny_run.bundle)

    def compare(*sizes: int, seeds: int = 1, minutes: float = 0.02) -> CurveReport:
        return compare_choices(
            data, out, sizes, model=model, minutes=minutes, seeds=seeds, notify=said.append
        )

    with pytest.raises(DataError, match="expected at least 40"):
        compare(40)
    report = compare(8, 4)
    assert [(one.rule, one.images) for one in report.points] == [
        ("chosen", 4), ("chosen", 8), ("random", 4), ("random", 8)
    ]  # fmt: skip
    assert (report.pool, report.test) == (10, 6)
    assert all(0 <= one.iou <= 1 for one in report.points)
    assert len(said) == 4
    assert json.loads((out / "curve.json").read_text())["samples"] == report.samples > 0
    rows = (out / "curve.csv").read_text().splitlines()
    assert rows[0] == "rule,images,seed,iou"
    assert len(rows) == 5
    assert (out / "curve.svg").read_text().startswith("<svg")
    # A second seed continues; the finished trainings are not done again.
    kept = {path: path.stat().st_mtime_ns for path in (out / "trainings").iterdir()}
    again = compare(8, 4, seeds=2)
    assert again.points[:4] == report.points
    assert len(again.points) == 8
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    with pytest.raises(ConfigError, match="with other minutes"):
        compare(4, minutes=1)
    with pytest.raises(ConfigError, match="read otherwise"):
        compare_choices(
            data, out, [4], model=model, minutes=0.02, images=SceneOptions(stretch="none")
        )
    # More images than at first: more are chosen, and nothing is done again.
    more = compare(8, 9)
    assert [(one.rule, one.images) for one in more.points] == [
        ("chosen", 8), ("chosen", 9), ("random", 8), ("random", 9)
    ]  # fmt: skip
    assert not any("could be chosen" in note for note in more.notes)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    (out / "plan.json").write_text('{"given"')
    with pytest.raises(DataError, match=r"plan\.json is damaged"):
        compare(4)
