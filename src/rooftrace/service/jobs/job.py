"""A job: its state, settings and results, as the store keeps them and the API shows them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.jobs.training import TrainingOptions, TrainingProgress
from rooftrace.service.review.store import REVIEW_SUFFIX

__all__ = [
    "STATES",
    "Job",
    "JobFile",
    "JobReviewedError",
    "JobState",
    "JobStateError",
    "crash_error",
    "options_from_json",
    "options_to_json",
]

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
