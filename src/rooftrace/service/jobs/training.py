"""Options, progress and results of a training: a job that fine-tunes the model of a server."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "BUNDLE",
    "CORRECTIONS",
    "HELD_OUT",
    "START",
    "LabelServer",
    "TrainingOptions",
    "TrainingProgress",
    "TrainingStep",
    "progress_of_run",
]

TrainingStep = Literal["labels", "training", "comparison"]
"""Step of a training: fetch the labels, train, compare the new model with the start model."""

START = "start.rooftrace"
"""File of the start model in the folder of a training."""

HELD_OUT = "held_out.json"
"""Split file of an earlier training on the same project, whose images stay in their parts."""

CORRECTIONS = "corrections.json"
"""File of the corrections of a review in the folder of a training."""

BUNDLE = "model.rooftrace"
"""File of the new model in the results of a training."""

_TRAINING_SHARE = 0.8
"""Share of the progress that the training takes; the comparison takes the rest."""


@dataclass(frozen=True)
class LabelServer:
    """Label Studio server whose labels trainings use.

    Args:
        url: Address of the server.
        token: Access token.
        images: Folder of images that were not uploaded to the server; None if all were.
    """

    url: str
    token: str = field(repr=False)
    images: str | None = None


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training.

    Args:
        project: Number of the Label Studio project; None for a training on a review.
        minutes: Limit of the training in minutes, with its validation.
        start: Version of the model that the training starts from.
        base: Hash of the server's own model, whose versions belong together.
        name: Name of the new model; its version has a hash besides.
        results: Id of the results folder whose review is trained on; "" for a project.
    """

    project: int | None
    minutes: float
    start: str
    base: str
    name: str
    results: str = ""

    def has_data_of(self, other: TrainingOptions | None) -> bool:
        """Return whether another training is on the same project, or on the same review."""
        return other is not None and (self.project, self.results) == (
            other.project, other.results
        )  # fmt: skip


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training.

    Args:
        step: Current step.
        epochs_done: Number of finished epochs.
        epochs: Number of planned epochs; 0 before the plan is made. Fewer may fit into the minutes.
        minutes: Duration of the finished epochs in minutes.
        iou: Best intersection over union of the finished epochs; None before the first.
    """

    step: TrainingStep = "labels"
    epochs_done: int = 0
    epochs: int = 0
    minutes: float = 0.0
    iou: float | None = None

    def share(self, limit_minutes: float) -> float:
        """Return the share of the work that is done, 0..1.

        Args:
            limit_minutes: Limit of the training in minutes.
        """
        if self.step == "comparison":
            return _TRAINING_SHARE
        done = max(self.epochs_done / max(self.epochs, 1), self.minutes / limit_minutes)
        return _TRAINING_SHARE * min(done, 1.0)


def progress_of_run(run: Path) -> TrainingProgress:
    """Return the progress of a fine-tuning run from the files that it has written so far.

    Args:
        run: Folder of `rooftrace finetune`; it need not exist yet.
    """
    try:
        epochs = int(json.loads((run / "config.json").read_text(encoding="utf-8"))["epochs"])
    except (OSError, ValueError):
        return TrainingProgress("training")
    rows: list[dict[str, Any]] = []
    try:
        with (run / "metrics.csv").open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table))
    except OSError:
        pass
    return TrainingProgress(
        "comparison" if (run / "best_iou.rooftrace").exists() else "training",
        len(rows),
        epochs,
        round(sum(float(row["seconds"]) for row in rows) / 60, 2),
        max((float(row["val_iou"]) for row in rows), default=None),
    )
