"""Models are compared with a baseline; notes on training ground name their models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rooftrace.flows.evaluate.evaluation import Evaluation
from rooftrace.flows.evaluate.leakage import LeakageReport, LeakedScene
from rooftrace.metrics.image_counts import ImageCounts
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.metrics.report import EvalReport

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
    (one,) = evaluation.comparisons
    assert (one.first, one.second) == (0, 1)
    assert one.figures["pixel.iou"].difference.value > 0.3


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
