"""A job: its state, settings and results, as the store keeps them and the API shows them.

A job predicts a scene, or is a training that fine-tunes the model of the server.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.review.store import REVIEW_SUFFIX

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
        name: File name of the image from the client, or name of the project, only for display.
        state: State: queued, running, done, failed or cancelled.
        options: Options of the prediction; for a training, those of its images.
        upload: Name of the file of the image or of the labels in the folder of the job.
        upload_bytes: Size of that file.
        created_s: Time of creation.
        started_s: Time of the last start.
        finished_s: Time of the end.
        pixels_done: Number of predicted pixels.
        pixels: Number of pixels of the image.
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
        portable: Whether the prediction uses AVX2 alone, see `predict.instruction_set`.
    """

    number: int
    id: str
    name: str
    state: JobState
    options: SceneOptions
    upload: str
    upload_bytes: int
    created_s: float
    started_s: float | None
    finished_s: float | None
    pixels_done: int
    pixels: int
    buildings: int
    attempts: int
    crashes: int
    revision: int
    error: dict[str, str] | None
    figures: dict[str, Any] | None
    files: tuple[JobFile, ...]
    training: TrainingOptions | None = None
    progress: TrainingProgress | None = None
    taken_s: float | None = None
    portable: bool = False

    @property
    def ended(self) -> bool:
        """Return whether the job is done, failed or cancelled."""
        return self.state not in ("queued", "running")

    @property
    def reviewed(self) -> bool:
        """Return whether a person has reviewed the buildings; such a job does not expire."""
        return any(file.name.endswith(REVIEW_SUFFIX) for file in self.files)


def options_to_json(options: SceneOptions) -> str:
    """Return options as JSON."""
    return json.dumps(asdict(options))


def options_from_json(text: str) -> SceneOptions:
    """Return the options that `options_to_json` wrote."""
    known = json.loads(text)
    return SceneOptions(**{**known, "outputs": tuple(known["outputs"])})


def crash_error(job: Job, reason: str) -> dict[str, str]:
    """Return the error of a job that ended several times without an answer."""
    if job.training is not None:
        message, remedy = f"The fine-tuning on {job.name} failed: {reason}.", "Start it again, or"
    else:
        message, remedy = f"The prediction of {job.name} failed: {reason}.", "Send parts, or"
    return PredictError(message, remedy=f"{remedy} ask the operator of the server.").to_json()
