"""/v1/jobs: big scenes, predicted while nobody waits for the answer."""

# Annotations are not put off here: FastAPI reads them, and some name what is local to a function.

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from rooftrace.predict.predictor import Predictor
from rooftrace.rest.image_body import IMAGE, image_body
from rooftrace.rest.job_events import JobEvents
from rooftrace.rest.job_query import JobQuery
from rooftrace.rest.job_schemas import JobOut, JobPage, JobResults
from rooftrace.rest.job_upload import receive
from rooftrace.rest.problems import ProblemError, problem_responses
from rooftrace.service.decode import shown_name
from rooftrace.service.jobs.admit import admit
from rooftrace.service.jobs.job import STATES, Job, JobStateError
from rooftrace.service.jobs.results import path_of, zipped
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.limits import Limits

__all__ = ["jobs_router"]

_LOOKS = 2
"""Headers of uploads that are read at the same time, each in a process."""


_ANY = "application/octet-stream"

_MEDIA_TYPES = {
    ".tif": "image/tiff",
    ".png": "image/png",
    ".gpkg": "application/geopackage+sqlite3",
    ".geojson": "application/geo+json",
    ".json": "application/json",
}
"""Of results by their endings; what this machine knows of endings does not count."""


def jobs_router(runner: JobRunner, predictor: Predictor, limits: Limits) -> APIRouter:
    """The router of some jobs.

    Args:
        runner: that does them, started and stopped by others.
        predictor: whose model images are checked against, the one that the runner uses.
        limits: on uploads.
    """
    store = runner.store
    router = APIRouter(prefix="/v1", tags=["jobs"])
    events = JobEvents(store)
    looks = asyncio.Semaphore(_LOOKS)

    def found(job_id: str) -> Job:
        job = store.get(job_id)
        if job is None:
            raise _missing(job_id)
        return job

    def done(job: Annotated[Job, Depends(found)]) -> Job:
        if job.state != "done":
            raise ProblemError(
                "conflict", f"The job {job.id} is {job.state}; only one that is done has results.",
                remedy="Wait for its event done." if not job.ended else "Send the scene again.",
            )  # fmt: skip
        return job

    Found = Annotated[Job, Depends(found)]  # noqa: N806  # a type
    Done = Annotated[Job, Depends(done)]  # noqa: N806

    @router.post(
        "/jobs",
        status_code=202,
        summary="Begin a job",
        operation_id="create_job",
        openapi_extra={"requestBody": _REQUEST_BODY},
        responses={202: {"description": "It waits its turn.", "headers": _LOCATION}, **_REFUSALS},
    )
    async def create(
        request: Request, response: Response, asked: Annotated[JobQuery, Query()]
    ) -> JobOut:
        """The scene is the field `file` of a form, or the body itself, and may be very large.

        What cannot become anything is refused at once: no image, other bands than the model's.
        """
        job_id = await run_in_threadpool(store.reserve)
        try:
            path = store.folder_of(job_id) / "upload"
            called = await receive(request, path, limits.job_upload_bytes)
            name = shown_name(asked.filename or called)
            async with looks:
                path, pixels = await run_in_threadpool(
                    admit, path, name, asked.options, predictor, limits
                )
            job = await run_in_threadpool(store.add, job_id, name, path.name, pixels, asked.options)
        except BaseException:
            # Not waited for: a client that went away has ended all waiting.
            asyncio.get_running_loop().run_in_executor(None, store.discard, job_id)
            raise
        out = JobOut.of(job, _root(request))
        response.headers["Location"] = out.links.self
        return out

    @router.get(
        "/jobs",
        summary="The jobs, the newest first",
        operation_id="list_jobs",
        responses=problem_responses("invalid-request", "not-found"),
    )
    def listed(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
        before: Annotated[
            str | None, Query(max_length=64, description="Only those older than this one.")
        ] = None,
    ) -> JobPage:
        """Follow `next` for older ones."""
        number = None if before is None else found(before).number
        jobs = store.newest(limit + 1, number)
        root = _root(request)
        older = None
        if len(jobs) > limit:
            older = f"{root}/v1/jobs?limit={limit}&before={jobs[limit - 1].id}"
        return JobPage(jobs=[JobOut.of(job, root) for job in jobs[:limit]], next=older)

    @router.get(
        "/jobs/{job_id}",
        summary="A job as it stands",
        operation_id="job",
        responses=problem_responses("not-found"),
    )
    def one(request: Request, job: Found) -> JobOut:
        """State, progress, and in the end figures or the error."""
        return JobOut.of(job, _root(request))

    @router.get(
        "/jobs/{job_id}/events",
        summary="A job as it goes on",
        operation_id="job_events",
        response_class=StreamingResponse,
        responses=_EVENTS | problem_responses("not-found"),
    )
    async def happenings(
        request: Request,
        job: Found,
        last_event_id: Annotated[
            str, Header(max_length=64, description="Of the last event that was received.")
        ] = "",
    ) -> Response:
        """Server-sent events: `progress`, and one for each state that the job comes to.

        The data of each is the job. The first comes at once; the stream ends with done, failed,
        cancelled or removed.
        """
        seen = int(last_event_id) if last_event_id.isdecimal() else 0
        if job.ended and seen == job.revision:
            # What makes a browser not come again.
            return Response(status_code=204)
        root = _root(request)
        return StreamingResponse(
            events.of(job, seen, lambda now: JobOut.of(now, root).model_dump_json()),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @router.post(
        "/jobs/{job_id}/cancel",
        summary="Let a job not go on",
        operation_id="cancel_job",
        responses=problem_responses("not-found", "conflict"),
    )
    def cancel(request: Request, job_id: str) -> JobOut:
        """It stays in the list without files."""
        try:
            job = runner.cancel(job_id)
        except JobStateError as error:
            raise ProblemError("conflict", error.message, remedy=error.remedy) from error
        if job is None:
            raise _missing(job_id)
        return JobOut.of(job, _root(request))

    @router.delete(
        "/jobs/{job_id}",
        status_code=204,
        summary="Forget a job",
        operation_id="delete_job",
        response_class=Response,
        responses={**_REMOVED, **problem_responses("not-found")},
    )
    def delete(job_id: str) -> None:
        """In whatever state; one that runs is ended."""
        if not runner.remove(job_id):
            raise _missing(job_id)

    @router.get(
        "/jobs/{job_id}/results",
        summary="The files of a job",
        operation_id="job_results",
        responses=problem_responses("not-found", "conflict"),
    )
    def results(request: Request, job: Done) -> JobResults:
        """Mask, polygons, density and preview, as was asked for, and the record of the run."""
        return JobResults.of(job, _root(request))

    @router.get(
        "/jobs/{job_id}/results.zip",
        summary="All files of a job",
        operation_id="job_archive",
        response_class=StreamingResponse,
        responses=_binary("A zip of all files.", "application/zip")
        | problem_responses("not-found", "conflict"),
    )
    def archive(job: Done) -> StreamingResponse:
        """Made while it is sent."""
        return StreamingResponse(
            zipped(store.folder_of(job.id), job.files),
            media_type="application/zip",
            headers={"Content-Disposition": f'attachment; filename="{job.id}.zip"'},
        )

    @router.get(
        "/jobs/{job_id}/results/{name}",
        summary="A file of a job",
        operation_id="job_file",
        response_class=FileResponse,
        responses=_binary("The file.", *_MEDIA_TYPES.values(), _ANY)
        | _PART
        | problem_responses("not-found", "conflict"),
    )
    def file(name: str, job: Done) -> FileResponse:
        """Parts of it, too: GDAL reads a mask from here without fetching all of it."""
        # The path is made of a name that the run has made, not of the one in the request.
        known = next((one.name for one in job.files if one.name == name), None)
        path = None if known is None else path_of(store.folder_of(job.id), known)
        if path is None or not path.is_file():
            raise ProblemError(
                "not-found", f"The job {job.id} has no file of that name.",
                remedy=f"See /v1/jobs/{job.id}/results.",
            )  # fmt: skip
        kind = _MEDIA_TYPES.get(path.suffix, _ANY)
        return FileResponse(path, media_type=kind, filename=known)

    return router


def _missing(job_id: str) -> ProblemError:
    return ProblemError(
        "not-found", f"There is no job {job_id[:64]!r}.",
        remedy="It may have been removed: a server keeps jobs for some days.",
    )  # fmt: skip


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


def _binary(description: str, *kinds: str) -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "contentMediaType": kind}} for kind in kinds}
    return {200: {"description": description, "content": content}}


_PART: dict[int | str, dict[str, Any]] = {
    206: {"description": "The part that the header Range asks for."},
    416: {"description": "The file has no such part."},
}

_REMOVED: dict[int | str, dict[str, Any]] = {204: {"description": "It is gone, with all files."}}

_LOCATION: dict[str, Any] = {
    "Location": {"description": "Of the job.", "schema": {"type": "string"}}
}

_REFUSALS = problem_responses(
    "bad-request", "too-large", "unsupported-media-type", "data-error", "gsd-mismatch",
    "band-mismatch", "config-error", "invalid-request", "busy",
) | {507: {"description": "The server has no room for the image."}}  # fmt: skip

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events until the job has ended.",
        "content": {
            "text/event-stream": {
                # Of one event, as OpenAPI 3.2 (4.14.4) has it.
                "schema": {
                    "type": "object",
                    "properties": {
                        "event": {"enum": ["progress", "removed", *STATES]},
                        "id": {"type": "string"},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                    },
                }
            }
        },
    },
    204: {"description": "The job has ended, and the client has heard of it."},
}

_REQUEST_BODY = image_body({"application/octet-stream": IMAGE, "image/*": IMAGE})
