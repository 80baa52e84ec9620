"""/v1/jobs: prediction of large scenes in the background."""

# No `from __future__ import annotations`: FastAPI evaluates annotations, and some of them name
# dependencies that are local to `jobs_router`.

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.rest.description import (
    REQUEST_BODY,
    DescribedRoute,
    binary_response,
    problem_responses,
)
from rooftrace.rest.pages import not_modified
from rooftrace.rest.problems import ProblemError
from rooftrace.rest.schemas import JobChanges, JobListQuery, JobOut, JobPage, JobQuery, JobResults
from rooftrace.rest.transfer import (
    MEDIA_TYPES,
    RANGE_RESPONSES,
    UploadLimiter,
    content_disposition,
    media_type_of,
    save_upload,
)
from rooftrace.service.decode import Limits, upload_name
from rooftrace.service.job_runner import JobRunner, admit, path_of, zipped
from rooftrace.service.job_store import Job
from rooftrace.service.review_store import REVIEW_SUFFIX, read_review

_UPLOAD_AGAIN = "Upload the image again with POST /v1/jobs."
"""Remedy for a job without files: those of failed and cancelled jobs are removed."""

_MAX_HEADER_READERS = 2
"""Maximum number of processes that read headers of uploads at the same time."""

ReceiveUpload = Callable[[Path], Awaitable[tuple[str, SceneOptions]]]
"""Function that writes the upload of a request to a path, and returns its name and options."""


class JobIntake:
    """Creation of jobs from uploads; all routers that create jobs share one with its limits.

    Args:
        runner: Runner of the jobs; the caller starts and stops it.
        predictor: Predictor with the runner's model, to check uploads against.
        limits: Limits of uploads.
    """

    def __init__(self, runner: JobRunner, predictor: Predictor, limits: Limits) -> None:
        self.runner = runner
        self.limits = limits
        self._predictor = predictor
        self._limiter = UploadLimiter(limits.waiting)
        self._header_readers = asyncio.Semaphore(_MAX_HEADER_READERS)

    async def create(self, request: Request, receive: ReceiveUpload) -> Job:
        """Receive the upload of a request, check it, and queue its job.

        Raises:
            RooftraceError, ProblemError: The upload is refused.
            HTTPException: The upload cannot be stored.
        """
        with self._limiter.place(request):
            return await self._create(receive)

    async def _create(self, receive: ReceiveUpload) -> Job:
        store = self.runner.store
        job_id = await run_in_threadpool(store.reserve)
        try:
            path = store.folder_of(job_id) / "upload"
            name, options = await receive(path)
            name, options = upload_name(name), self.runner.defaults.filled(options)
            async with self._header_readers:
                path, pixels = await run_in_threadpool(
                    admit, path, name, options, self._predictor, self.limits
                )
            return await run_in_threadpool(store.add, job_id, name, path.name, pixels, options)
        except BaseException:
            # Not awaited, because a client that disconnects cancels this coroutine.
            asyncio.get_running_loop().run_in_executor(None, store.discard, job_id)
            raise


def jobs_router(
    intake: JobIntake, reviewed: Callable[[Path], Mapping[str, bytes]] = lambda _: {}
) -> APIRouter:
    """Return the router of jobs.

    Args:
        intake: Creation of jobs.
        reviewed: Function that returns the reviewed buildings of a results folder as files by their
            names, for the zip of a job.
    """
    runner, store = intake.runner, intake.runner.store
    router = APIRouter(route_class=DescribedRoute, prefix="/v1", tags=["jobs"])

    def find_job(job_id: str) -> Job:
        job = store.get(job_id)
        if job is None:
            raise missing_job(job_id)
        return job

    def find_done_job(job: Annotated[Job, Depends(find_job)]) -> Job:
        if job.state != "done":
            remedy = _UPLOAD_AGAIN if job.ended else "Wait until its state is done."
            raise ProblemError(
                "conflict", f"The job {job.id} is {job.state}; only a finished job has results.",
                remedy=remedy,
            )  # fmt: skip
        return job

    def started(job: Job, request: Request, response: Response) -> JobOut:
        out = JobOut.of(job, server_root(request))
        response.headers["Location"] = out.links.self
        return out

    AnyJob = Annotated[Job, Depends(find_job)]  # noqa: N806  # a type
    DoneJob = Annotated[Job, Depends(find_done_job)]  # noqa: N806

    @router.post(
        "/jobs",
        status_code=202,
        openapi_extra={"requestBody": REQUEST_BODY},
        responses={202: {"description": "The job is queued", "headers": _LOCATION}, **_REFUSALS},
    )
    async def create_job(
        request: Request, response: Response, query: Annotated[JobQuery, Query()]
    ) -> JobOut:
        """Start a job.

        Send the scene as the field `file` of a form, or as the body itself; it may be large.

        An upload that is not an image, or whose bands differ from the model's, is refused at once.
        """

        async def receive(path: Path) -> tuple[str, SceneOptions]:
            name = await save_upload(request, path, intake.limits.job_upload_bytes)
            return query.filename or name, query.job_options()

        return started(await intake.create(request, receive), request, response)

    @router.post(
        "/jobs/{job_id}/again",
        status_code=202,
        responses={202: {"description": "The job is queued", "headers": _LOCATION}, **_REFUSALS}
        | problem_responses("not-found", "conflict"),
    )
    async def run_again(
        request: Request, response: Response, job: DoneJob, options: JobChanges
    ) -> JobOut:
        """Start a job with the image of a finished one.

        Send the options that differ; all others are those of the finished job, which is kept.
        """

        async def receive(path: Path) -> tuple[str, SceneOptions]:
            await run_in_threadpool(_link, store.folder_of(job.id) / job.upload, path)
            changed = options.model_dump(include=options.model_fields_set)
            return job.name, SceneOptions(**(job.options.model_dump() | changed))

        return started(await intake.create(request, receive), request, response)

    @router.get("/jobs", responses=problem_responses("invalid-request", "not-found"))
    def list_jobs(request: Request, query: Annotated[JobListQuery, Query()]) -> JobPage:
        """List jobs, newest first; follow `next` for older ones."""
        limit = query.limit
        number = None if query.before is None else find_job(query.before).number
        jobs = store.newest(limit + 1, number)
        root = server_root(request)
        older = None
        if len(jobs) > limit:
            older = f"{root}/v1/jobs?limit={limit}&before={jobs[limit - 1].id}"
        return JobPage(jobs=[JobOut.of(job, root) for job in jobs[:limit]], next=older)

    @router.get("/jobs/{job_id}", responses=problem_responses("not-found"))
    def job(request: Request, job: AnyJob) -> JobOut:
        """Return state and progress of a job, and at the end figures or the error."""
        return JobOut.of(job, server_root(request))

    @router.post("/jobs/{job_id}/cancel", responses=problem_responses("not-found", "conflict"))
    def cancel_job(request: Request, job_id: str) -> JobOut:
        """Cancel a job that waits or runs; it stays in the list without files."""
        job = runner.cancel(job_id)
        if job is None:
            raise missing_job(job_id)
        return JobOut.of(job, server_root(request))

    @router.delete(
        "/jobs/{job_id}",
        status_code=204,
        response_class=Response,
        responses={
            204: {"description": "The job and its files are deleted"},
            **problem_responses("not-found", "conflict", "job-reviewed"),
        },
    )
    def delete_job(
        job_id: str,
        discard_review: Annotated[
            bool, Query(description="Delete the job although it has a review, which is lost")
        ] = False,
    ) -> None:
        """Delete a job.

        Delete a job in any state, with all its files; a running job is ended.

        A job with a review is kept, unless you say that the review may be lost.
        """
        removed = runner.remove(job_id, discard_review=discard_review)
        if not removed:
            raise missing_job(job_id)

    @router.get("/jobs/{job_id}/results", responses=problem_responses("not-found", "conflict"))
    def job_results(request: Request, job: DoneJob) -> JobResults:
        """List the result files of a job.

        List the requested outputs (mask, polygons, density, preview) and the run record.

        The last file is the review, if there is one; it may change until the download.
        """
        return JobResults.of(job, server_root(request))

    @router.get(
        "/jobs/{job_id}/results.zip",
        response_class=StreamingResponse,
        responses=binary_response("Zip of all files", "application/zip")
        | problem_responses(
            "not-found", "conflict", "review-error", "file-locked", "data-error", "not-stored"
        ),
    )
    def job_archive(job: DoneJob) -> StreamingResponse:
        """Download a zip of all files of a job; after a review, with NAME_reviewed.gpkg."""
        paths = [path_of(store.folder_of(job.id), file.name) for file in job.files]
        if not all(path.is_file() for path in paths):
            raise ProblemError(
                "not-found", f"The files of the job {job.id} have expired.", remedy=_UPLOAD_AGAIN
            )
        # Named after the scene.
        name = f"{PurePosixPath(job.name).stem}_results.zip"
        return StreamingResponse(
            zipped(paths, reviewed(store.results(job.id)) if job.reviewed else {}),
            media_type="application/zip",
            headers={"Content-Disposition": content_disposition(name, plain=f"{job.id}.zip")},
        )  # fmt: skip

    @router.get(
        "/jobs/{job_id}/results/{name}",
        response_class=FileResponse,
        responses=binary_response("The file", *MEDIA_TYPES.values())
        | RANGE_RESPONSES
        | problem_responses(
            "bad-request",
            "not-found",
            "conflict",
            "unsatisfiable-range",
            "review-error",
            "file-locked",
        ),
    )
    def job_file(name: str, job: DoneJob, request: Request) -> Response:
        """Download a result file of a job.

        Return a file or a range of it. GDAL can open a mask here without a full download.
        """
        # The path is built from the name in the store, not from the name in the request.
        stored_name = next((one.name for one in job.files if one.name == name), None)
        path = None if stored_name is None else path_of(store.folder_of(job.id), stored_name)
        if path is None or not path.is_file():
            raise ProblemError(
                "not-found", f"The job {job.id} has no file of that name.",
                remedy=f"See /v1/jobs/{job.id}/results.",
            )  # fmt: skip
        if path.name.endswith(REVIEW_SUFFIX):
            return Response(
                read_review(path), media_type=media_type_of(path.name),
                headers={"Content-Disposition": content_disposition(path.name)},
            )  # fmt: skip
        file = _ResultFile(
            path, media_type=media_type_of(path.name), filename=stored_name,
            stat_result=path.stat(), headers={"Cache-Control": "private, no-cache"},
        )  # fmt: skip
        return not_modified(request, file.headers) or file

    return router


class _ResultFile(FileResponse):
    """File whose wrong ranges are answered by a problem, as all other errors are."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or a range of it."""

        async def checked(message: Message) -> None:
            status = message.get("status", HTTPStatus.OK)
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                size = Headers(raw=message["headers"])["content-range"]
                raise ProblemError(
                    "unsatisfiable-range",
                    f"The range is not in the file: {size}.",
                    headers={"Content-Range": size},
                )
            if status == HTTPStatus.BAD_REQUEST:
                raise ProblemError(
                    "bad-request",
                    "The header Range cannot be read.",
                    remedy="Send it in the form Range: bytes=0-1023, or leave it out.",
                )
            await send(message)

        await super().__call__(scope, receive, checked)


def _link(source: Path, path: Path) -> None:
    """Make a second name of a file; a copy where the file system has no hard links."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def missing_job(job_id: str) -> ProblemError:
    """Return the problem of a job that does not exist."""
    return ProblemError(
        "not-found", f"There is no job {job_id[:64]!r}.",
        remedy="The job may have been removed: a server keeps jobs for a limited number of days.",
    )  # fmt: skip


def server_root(request: Request) -> str:
    """Return the path prefix of the server's URLs, "" without a prefix."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def server_url(request: Request) -> str:
    """Return the server's own URL with the path prefix, for absolute links."""
    # A proxy may change Host; one that keeps it may leave the port out of the other, as nginx does.
    host = request.headers.get("x-forwarded-host", "").partition(",")[0].strip()
    is_other = host and host != request.base_url.hostname
    url = request.base_url.replace(netloc=host) if is_other else request.base_url
    return str(url).rstrip("/")


_LOCATION: dict[str, Any] = {
    "Location": {"description": "URL of the job", "schema": {"type": "string"}}
}

_REFUSALS = problem_responses(
    "bad-request", "too-large", "unsupported-media-type", "data-error", "gsd-mismatch",
    "band-mismatch", "config-error", "invalid-request", "busy", "not-stored",
)  # fmt: skip
