"""Jobs as they go over the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rooftrace.predict.options import SceneOptions
from rooftrace.rest.schemas import ClassOut
from rooftrace.service.jobs.job import Job, JobState

__all__ = ["JobOut", "JobPage", "JobResults"]


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Progress(_Out):
    """How far a job is."""

    pixels_done: Annotated[int, Field(ge=0)]
    pixels: Annotated[int, Field(ge=1)]
    share: Annotated[float, Field(ge=0, le=1)]
    buildings: Annotated[int, Field(ge=0, description="That were found so far.")]


class _Error(_Out):
    """Why a job failed."""

    type: str
    message: str
    remedy: str


class _Figures(_Out):
    """Of the image of a job that is done."""

    buildings: Annotated[int | None, Field(description="null where no polygons were asked for.")]
    built_up_share: Annotated[float, Field(ge=0, le=1, description="Of the valid pixels.")]
    seconds: Annotated[float, Field(ge=0, description="From the first pixel to the last file.")]
    mpx_per_s: Annotated[float, Field(ge=0)]
    classes: list[ClassOut]
    notes: Annotated[list[str], Field(description="What was assumed.")]


class _Links(_Out):
    """Where the rest of a job is, on this server."""

    self: str
    events: str
    results: str
    archive: str


class JobOut(_Out):
    """A job as it stands."""

    id: Annotated[str, Field(description="Only who knows it finds the job.")]
    name: Annotated[str, Field(description="Of the image, as it was sent.")]
    state: JobState
    created: datetime
    started: datetime | None
    finished: datetime | None
    progress: _Progress
    attempts: Annotated[int, Field(ge=0, description="How often it was begun.")]
    options: SceneOptions
    error: Annotated[_Error | None, Field(description="Where it failed.")]
    figures: Annotated[_Figures | None, Field(description="Where it is done.")]
    links: _Links

    @classmethod
    def of(cls, job: Job, root: str) -> JobOut:
        """A job.

        Args:
            job: that is shown.
            root: the path under which the server is reached, "" where it is the whole address.
        """
        here = f"{root}/v1/jobs/{job.id}"
        kept = _Figures.model_fields
        figures = job.figures and {name: job.figures[name] for name in kept}
        return cls.model_validate({
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "created": _time(job.created_s),
            "started": _time(job.started_s),
            "finished": _time(job.finished_s),
            "progress": {
                "pixels_done": job.pixels_done,
                "pixels": job.pixels,
                "share": min(job.pixels_done / max(job.pixels, 1), 1.0),
                "buildings": job.buildings,
            },
            "attempts": job.attempts,
            "options": job.options,
            "error": job.error,
            "figures": figures,
            "links": {
                "self": here,
                "events": f"{here}/events",
                "results": f"{here}/results",
                "archive": f"{here}/results.zip",
            },
        })  # fmt: skip


class JobPage(_Out):
    """Some jobs, the newest first."""

    jobs: list[JobOut]
    next: Annotated[str | None, Field(description="Where older ones are; null where none are.")]


class _File(_Out):
    name: str
    bytes: Annotated[int, Field(ge=0)]
    url: Annotated[str, Field(description="On this server.")]


class JobResults(_Out):
    """The files of a job that is done."""

    files: list[_File]
    archive: Annotated[str, Field(description="All of them as one zip.")]

    @classmethod
    def of(cls, job: Job, root: str) -> JobResults:
        """Those of a job; arguments as of `JobOut.of`."""
        here = f"{root}/v1/jobs/{job.id}/results"
        files: list[dict[str, Any]] = [
            {"name": file.name, "bytes": file.size, "url": f"{here}/{file.name}"}
            for file in job.files
        ]
        return cls.model_validate({"files": files, "archive": f"{here}.zip"})


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
