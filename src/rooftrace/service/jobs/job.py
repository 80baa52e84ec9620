"""A job: one big scene that is predicted while nobody waits for the answer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from rooftrace.core.errors import RooftraceError
from rooftrace.predict.options import SceneOptions

__all__ = ["STATES", "Job", "JobFile", "JobState", "JobStateError"]

JobState = Literal["queued", "running", "done", "failed", "cancelled"]

STATES: tuple[JobState, ...] = get_args(JobState)


class JobStateError(RooftraceError):
    """What was asked for cannot be done with a job as it stands."""


@dataclass(frozen=True)
class JobFile:
    """A file of a job's results.

    Args:
        name: in the folder of the results.
        size: in bytes.
    """

    name: str
    size: int


@dataclass(frozen=True)
class Job:
    """A job as it stands; a change makes another one, with a higher revision.

    Times are seconds since 1970, None where there is none yet.

    Args:
        number: in the order in which jobs came.
        id: that nobody can guess; all of the job that is ever part of a path.
        name: of the image, as whoever sent it calls it; only shown.
        state: queued, running, then one of done, failed and cancelled.
        options: what was chosen.
        upload: the name of the image's file in the job's folder.
        upload_bytes: of that file.
        created_s, started_s, finished_s: when it came, was last begun, and ended.
        pixels_done, pixels: of the image.
        buildings: that were found so far.
        attempts: how often it was begun, without those times that the server was stopped.
        crashes: how often its process ended without an answer.
        revision: how often it changed.
        error: as `RooftraceError.to_json`, where it failed.
        figures: of the image, where it is done: what `rooftrace predict --json` says of one.
        files: of the results, where it is done.
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

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state not in ("queued", "running")


def options_to_json(options: SceneOptions) -> str:
    """Options as they are kept."""
    return json.dumps(asdict(options))


def options_from_json(text: str) -> SceneOptions:
    """What `options_to_json` made."""
    known = json.loads(text)
    return SceneOptions(**{**known, "outputs": tuple(known["outputs"])})
