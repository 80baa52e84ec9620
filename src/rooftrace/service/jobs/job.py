"""A job: its state, settings and results, as its folder keeps them and the API shows them.

A job predicts a scene, or is a training that fine-tunes the model of the server on a review.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.review.store import REVIEW_SUFFIX

TrainingStep = Literal["labels", "training", "comparison"]
"""Step of a training: draw the labels, train, compare the new model with the start model."""

START = "start.rooftrace"
"""File of the start model in the folder of a training."""

HELD_OUT = "held_out.json"
"""Split file of an earlier training on the same review, whose chips stay in their parts."""

LABELS = "labels"
"""Folder of the labels in the folder of a training."""

CORRECTIONS = "corrections.json"
"""File of the corrections of a review in the folder of a training."""

BUNDLE = "model.rooftrace"
"""File of the new model in the results of a training."""

_TRAINING_SHARE = 0.8
"""Share of the progress that the training takes; the comparison takes the rest."""


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training on the review of a results folder.

    Args:
        results: Id of the results folder.
        minutes: Limit of the training in minutes, with its validation.
        start: Version of the model that the training starts from.
        base: Hash of the server's own model, whose versions belong together.
        name: Name of the new model; its version has a hash besides.
    """

    results: str
    minutes: float
    start: str
    base: str
    name: str


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


JobState = Literal["queued", "running", "done", "failed", "cancelled"]

STATES: tuple[JobState, ...] = get_args(JobState)


class JobStateError(RooftraceError):
    """The state of a job does not allow the operation."""


class JobReviewedError(JobStateError):
    """The job has a review, which would be deleted with it."""


@dataclass(frozen=True)
class JobFile:
    """A result file of a job."""

    name: str
    size: int


@dataclass(frozen=True)
class Job:
    """A job in its current state; each change makes a new object with a higher revision.

    Times are seconds since 1970, or None if they have not happened yet.

    Args:
        number: Position in the order of creation.
        id: Random id that cannot be guessed; the only value of a job that is used in paths.
        name: File name of the image from the client, or name of the review, only for display.
        state: State: queued, running, done, failed or cancelled.
        options: Options of the prediction; for a training, those of its images.
        upload: Name of the file of the image in the folder of the job; "" for a training.
        created_s: Time of creation.
        pixels: Number of pixels of the image.
        version: Id of the training whose model predicts; "" for the server's own model.
        started_s: Time of the last start.
        finished_s: Time of the end.
        pixels_done: Number of predicted pixels.
        buildings: Number of buildings found so far.
        attempts: Number of starts, without those that ended because the server was stopped.
        crashes: Number of times that the process ended without an answer.
        revision: Number of changes.
        error: Result of `RooftraceError.to_json`, if the job failed.
        figures: Figures of the image from `rooftrace predict --json`, or of the training, if the
            job is done.
        files: Result files, if the job is done; the review of a person is the last of them.
        training: Options of a training; None for a prediction.
        progress: Progress of a training.
        taken_s: Time since which the version of this training is in use; None if it is not.
    """

    number: int
    id: str
    name: str
    state: JobState
    options: SceneOptions
    upload: str
    created_s: float
    pixels: int = 1
    version: str = ""
    started_s: float | None = None
    finished_s: float | None = None
    pixels_done: int = 0
    buildings: int = 0
    attempts: int = 0
    crashes: int = 0
    revision: int = 1
    error: dict[str, str] | None = None
    figures: dict[str, Any] | None = None
    files: tuple[JobFile, ...] = ()
    training: TrainingOptions | None = None
    progress: TrainingProgress | None = None
    taken_s: float | None = None

    @property
    def ended(self) -> bool:
        """Return whether the job is done, failed or cancelled."""
        return self.state not in ("queued", "running")

    @property
    def reviewed(self) -> bool:
        """Return whether a person has reviewed the buildings; such a job does not expire."""
        return any(file.name.endswith(REVIEW_SUFFIX) for file in self.files)


JOB_JSON = TypeAdapter(Job)
"""Reader and writer of the file of a job."""

OPTIONS_JSON = TypeAdapter(SceneOptions)
"""Reader of the options in the order of a job's process."""


def crash_error(job: Job, reason: str) -> dict[str, str]:
    """Return the error of a job that ended several times without an answer."""
    if job.training is not None:
        message, remedy = f"The fine-tuning on {job.name} failed: {reason}.", "Start it again, or"
    else:
        message, remedy = f"The prediction of {job.name} failed: {reason}.", "Send parts, or"
    return PredictError(message, remedy=f"{remedy} ask the operator of the server.").to_json()
