"""OGC API – Processes 1.0 (OGC 18-062r2) over the jobs of the server, under `/ogc`.

The process `predict` is offered. Its jobs are those of `/v1/jobs`, with the same limits; trainings
are not shown. Outputs are transmitted by reference: as links to the files of the job.
"""

# No `from __future__ import annotations`: FastAPI evaluates annotations, and some of them name
# dependencies that are local to `ogc_router`.

import base64
import binascii
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from rooftrace.core.errors import DataError, RooftraceError, TooLargeError
from rooftrace.core.machine import version_of
from rooftrace.core.text import in_api_terms
from rooftrace.predict.plan import OUTPUTS, RESULT_FILES, SceneOutput
from rooftrace.rest.description import problem_responses
from rooftrace.rest.job_schemas import (
    JobQuery,
    JobRequest,
    OgcConformance,
    OgcExecution,
    OgcJobList,
    OgcJobQuery,
    OgcLandingPage,
    OgcLink,
    OgcProcess,
    OgcProcessList,
    OgcProcessSummary,
    OgcStatus,
    OgcValueDescription,
    Status,
    share_of,
    time_of,
)
from rooftrace.rest.jobs import JobIntake, media_type_of, missing_job, server_url
from rooftrace.rest.problems import ProblemError, wrong_value
from rooftrace.rest.upload import cannot_store
from rooftrace.service.jobs.job import Job, JobFile, JobState, JobStateError
from rooftrace.service.jobs.store import JobStore

OGC_BODY_SHARE = 4 / 3
"""Bytes of an execution request for each byte of its image, which is base64."""

PROCESS = "predict"

CONFORMANCE = tuple(
    f"http://www.opengis.net/spec/ogcapi-processes-1/1.0/conf/{name}"
    for name in ("core", "ogc-process-description", "json", "job-list", "dismiss")
)
"""Conformance classes. `oas30` is not one of them, because the description is OpenAPI 3.1."""

_EXCEPTIONS = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0"
_RELATIONS = "http://www.opengis.net/def/rel/ogc/1.0"
_JSON = "application/json"
_RAW = "ogc-raw"
"""Name of the file in the folder of a job whose client asked for the response `raw`."""

_OPEN = ("..", "")
"""Edges of an interval that has no first or last second."""

_MAX_VALUE_CHARS = 80
"""Maximum length of a received value in a message."""

_PAGE = 100
"""Number of jobs that are read from the store at once."""

_IMAGE_TYPES = ("image/tiff", "image/png", "image/jpeg", "image/webp", "image/jp2")

_STATUS: Mapping[JobState, Status] = {
    "queued": "accepted",
    "running": "running",
    "done": "successful",
    "failed": "failed",
    "cancelled": "dismissed",
}

_OUTPUTS: Mapping[SceneOutput, tuple[str, str, Mapping[str, str]]] = {
    "mask": (
        "Mask", "Class of each pixel; PNG for an image without a georeference",
        RESULT_FILES["mask"],
    ),
    "polygons": (
        "Polygons", "Building outlines; GeoJSON in pixels for an image without a georeference",
        RESULT_FILES["polygons"],
    ),
    "preview": ("Preview", "Picture of the image with its buildings", RESULT_FILES["preview"]),
    "density": (
        "Density", "Built-up share of each cell, if the metres per pixel are known",
        # An output is one file: the raster, not the cells as polygons or the picture.
        {"_density.tif": RESULT_FILES["density"]["_density.tif"]},
    ),
}  # fmt: skip
"""Title, description, and endings of the file with their media types."""


def ogc_router(intake: JobIntake) -> APIRouter:
    """Return the router of OGC API – Processes, over the jobs of `intake`."""
    runner, store = intake.runner, intake.runner.store
    router = APIRouter(prefix="/ogc", tags=["ogc"])

    def find_job(job_id: str) -> Job:
        job = store.get(job_id)
        if job is None or job.training is not None:
            raise _no_such_job(job_id)
        return job

    def find_process(process_id: str) -> None:
        if process_id != PROCESS:
            raise _exception(
                "no-such-process", "No such process", f"There is no process {process_id[:80]!r}.",
                remedy=f"The only process is {PROCESS}.",
            )  # fmt: skip

    AnyJob = Annotated[Job, Depends(find_job)]  # noqa: N806  # a type
    described = partial(router.get, response_model_exclude_none=True)

    @described(
        "", summary="Show the landing page of OGC API – Processes", operation_id="ogc_landing"
    )
    def landing(request: Request) -> OgcLandingPage:
        """Return links to the description of the API, the processes and the jobs."""
        root, here = server_url(request), _here(request)
        return OgcLandingPage(
            title="rooftrace",
            description="Finds buildings in overhead images.",
            links=[
                OgcLink(href=here, rel="self", type=_JSON, title="This page"),
                OgcLink(href=f"{root}/openapi.json", rel="service-desc",
                        type="application/vnd.oai.openapi+json;version=3.1"),
                OgcLink(href=f"{root}/v1/docs", rel="service-doc", type="text/html"),
                OgcLink(href=f"{here}/conformance", rel=f"{_RELATIONS}/conformance", type=_JSON),
                OgcLink(href=f"{here}/processes", rel=f"{_RELATIONS}/processes", type=_JSON),
                OgcLink(href=f"{here}/jobs", rel=f"{_RELATIONS}/job-list", type=_JSON),
            ],
        )  # fmt: skip

    @described(
        "/conformance", summary="List the conformance classes", operation_id="ogc_conformance"
    )
    def conformance() -> OgcConformance:
        """List the conformance classes of OGC API – Processes that the server implements."""
        return OgcConformance(conforms_to=list(CONFORMANCE))

    @described("/processes", summary="List the processes", operation_id="ogc_processes")
    def processes(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of processes")] = 10,
    ) -> OgcProcessList:
        """List the processes; there is one."""
        here = _here(request)
        own = OgcLink(href=f"{here}/processes", rel="self", type=_JSON)
        return OgcProcessList(processes=[_summary(here)][:limit], links=[own])

    @described(
        "/processes/{process_id}",
        summary="Describe a process",
        operation_id="ogc_process",
        dependencies=[Depends(find_process)],
        responses=problem_responses("not-found"),
    )
    def process(request: Request, process_id: str) -> OgcProcess:
        """Return the inputs and outputs of a process with their JSON schemas."""
        summary = _summary(_here(request)).model_dump()
        return OgcProcess(inputs=_input_descriptions(), outputs=_output_descriptions(), **summary)

    @router.post(
        "/processes/{process_id}/execution",
        status_code=201,
        summary="Execute a process",
        operation_id="ogc_execute",
        response_model_exclude_none=True,
        dependencies=[Depends(find_process)],
        openapi_extra={"requestBody": _REQUEST_BODY},
        responses=_EXECUTED,
    )
    async def execute(
        request: Request,
        response: Response,
        process_id: str,
        prefer: Annotated[
            str, Header(description="Execution is asynchronous, with respond-async or without it")
        ] = "",
    ) -> OgcStatus:
        """Queue a job for the image in the body, which is base64.

        For larger images, and for images as files, start the job by `POST /v1/jobs`.
        """

        async def receive(path: Path) -> JobRequest:
            try:
                body = await request.body()
                return await run_in_threadpool(_receive, body, path, intake.limits.upload_bytes)
            except ClientDisconnect as error:
                raise ProblemError("bad-request", "The upload broke off.") from error
            except OSError as error:
                raise cannot_store(error) from error

        out = _status(await intake.create(request, receive), _here(request))
        response.headers["Location"] = out.links[0].href
        if "respond-async" in prefer.lower():
            response.headers["Preference-Applied"] = "respond-async"
        return out

    @described(
        "/jobs",
        summary="List the jobs of processes, newest first",
        operation_id="ogc_jobs",
        responses=problem_responses("invalid-request", "not-found"),
    )
    def jobs(request: Request, query: Annotated[OgcJobQuery, Query()]) -> OgcJobList:
        """Follow the link `next` for older jobs."""
        number = None if query.before is None else find_job(query.before).number
        between, now_s = _interval(query.datetime), time.time()
        found = []
        for job in _predictions(store, number):
            if _accepts(query, job, between, now_s):
                found.append(job)
                if len(found) > query.limit:
                    break
        here = _here(request)
        links = [OgcLink(href=f"{here}/jobs", rel="self", type=_JSON)]
        if len(found) > query.limit:
            given = query.model_dump(exclude_none=True, exclude_defaults=True)
            older = urlencode({**given, "before": found[query.limit - 1].id}, doseq=True)
            links.append(OgcLink(href=f"{here}/jobs?{older}", rel="next", type=_JSON))
        return OgcJobList(jobs=[_status(job, here) for job in found[: query.limit]], links=links)

    @described(
        "/jobs/{job_id}",
        summary="Return the status of a job",
        operation_id="ogc_job",
        responses=problem_responses("not-found"),
    )
    def job_status(request: Request, job: AnyJob) -> OgcStatus:
        """Return status and progress, and for a job that failed the reason."""
        return _status(job, _here(request))

    @router.delete(
        "/jobs/{job_id}",
        summary="Dismiss a job",
        operation_id="ogc_dismiss",
        response_model_exclude_none=True,
        responses=problem_responses("not-found", "job-reviewed"),
    )
    def dismiss(request: Request, job: AnyJob) -> OgcStatus:
        """Cancel a job that waits or runs; delete a job that has ended, with its files.

        A job whose buildings a person has reviewed is kept.
        """
        try:
            if not job.ended:
                job = runner.cancel(job.id) or job
            elif not runner.remove(job.id):
                raise _no_such_job(job.id)
        except JobStateError:
            # It ended after it was looked up.
            runner.remove(job.id)
        return _status(job, _here(request)).model_copy(update={"status": "dismissed"})

    @router.get(
        "/jobs/{job_id}/results",
        summary="Return links to the outputs of a job",
        operation_id="ogc_results",
        response_model=dict[str, OgcLink],
        responses={
            204: _RAW_RESPONSE,
            **problem_responses("not-found", "conflict", "data-error", "predict-error"),
        },
    )
    def results(request: Request, job: AnyJob) -> Response:
        """Return a document of links, or the header Link if the request asked for `raw`."""
        _check_results(job)
        links = _result_links(job, f"{server_url(request)}/v1/jobs/{job.id}/results")
        if (store.folder_of(job.id) / _RAW).exists():
            listed = ", ".join(
                f'<{link.href}>; rel="{link.rel}"; type="{link.type}"; title="{name}"'
                for name, link in links.items()
            )
            return Response(status_code=204, headers={"Link": listed})
        document = {name: link.model_dump(exclude_none=True) for name, link in links.items()}
        return JSONResponse(document)

    return router


def _here(request: Request) -> str:
    return f"{server_url(request)}/ogc"


def _exception(name: str, title: str, detail: str, *, remedy: str = "") -> ProblemError:
    """Return an exception of the standard; all of these have the HTTP status 404."""
    members = {"type": f"{_EXCEPTIONS}/{name}", "title": title}
    return ProblemError("not-found", detail, remedy=remedy, members=members)


def _no_such_job(job_id: str) -> ProblemError:
    missing = missing_job(job_id)
    return _exception("no-such-job", "No such job", str(missing))


def _invalid(detail: str, *, errors: list[dict[str, str]] | None = None) -> ProblemError:
    """Return the exception of an execution request that does not match the description."""
    return ProblemError(
        "bad-request", detail, errors=errors or [],
        members={"title": "Invalid execution request"},
        remedy=f"See the description of the process, /ogc/processes/{PROCESS}.",
    )  # fmt: skip


def _summary(here: str) -> OgcProcessSummary:
    process = f"{here}/processes/{PROCESS}"
    return OgcProcessSummary(
        id=PROCESS,
        version=version_of("rooftrace") or "0",
        title="Find buildings",
        description="Find the buildings in an overhead image of any size.",
        keywords=["buildings", "footprints", "segmentation", "remote sensing"],
        job_control_options=["async-execute", "dismiss"],
        output_transmission=["reference"],
        links=[
            OgcLink(href=process, rel="self", type=_JSON),
            OgcLink(href=f"{process}/execution", rel=f"{_RELATIONS}/execute", title="Execute"),
        ],
    )


def _input_descriptions() -> dict[str, OgcValueDescription]:
    """Return the image, and the parameters of a job as inputs."""
    image = {"type": "string", "contentEncoding": "base64"}
    described = {
        "image": OgcValueDescription(
            title="Image",
            description="GeoTIFF, PNG, JPEG, WebP or JPEG 2000, as base64",
            schema_={"oneOf": [{**image, "contentMediaType": kind} for kind in _IMAGE_TYPES]},
            min_occurs=1,
        )
    }
    for name, schema in JobQuery.model_json_schema()["properties"].items():
        if name == "outputs":
            continue
        # The standard's schema.yaml is that of OpenAPI 3.0, which has no type null.
        given = {**schema, **next(iter(schema.get("anyOf", ())), {})}
        dropped = ("anyOf", "title", "description") + (("default",) * (given["default"] is None))
        described[name] = OgcValueDescription(
            title=schema["title"],
            description=schema["description"],
            schema_={key: value for key, value in given.items() if key not in dropped},
            min_occurs=0,
        )
    return described


def _output_descriptions() -> dict[str, OgcValueDescription]:
    return {
        name: OgcValueDescription(
            title=title,
            description=description,
            schema_={
                "oneOf": [
                    {"type": "string", "contentEncoding": "binary", "contentMediaType": kind}
                    for kind in dict.fromkeys(kinds.values())
                ]
            },
        )
        for name, (title, description, kinds) in _OUTPUTS.items()
    }


def _receive(body: bytes, path: Path, max_bytes: int) -> JobRequest:
    """Write the image of an execution request to a file, and return the rest of the request.

    Raises:
        ProblemError: The request does not match the description of the process.
        TooLargeError: The image has more than `max_bytes` bytes.
        DataError: The image is empty.
        OSError: The file cannot be written.
    """
    try:
        execution = OgcExecution.model_validate(json.loads(body))
    except ValidationError as error:
        raise _invalid_values("body", error) from error
    except (ValueError, RecursionError) as error:
        raise _invalid("The body is not valid JSON.") from error
    inputs = {name: _inline(name, value) for name, value in execution.inputs.items()}
    data = _decoded(inputs.pop("image", None))
    try:
        query = JobQuery.model_validate({**inputs, "outputs": _requested(execution)})
    except ValidationError as error:
        raise _invalid_values("inputs", error) from error
    if len(data) > max_bytes:
        raise TooLargeError(
            f"The image has more than the {max_bytes:,} bytes that an execution request may have.",
            remedy="Start the job by POST /v1/jobs, which accepts larger images.",
        )
    if not data:
        raise DataError("The input image is empty.", remedy="Send the bytes of an image as base64.")
    path.write_bytes(data)
    if execution.response == "raw":
        path.with_name(_RAW).touch()
    return query.job("")


def _invalid_values(place: str, error: ValidationError) -> ProblemError:
    wrong = [wrong_value({**one, "loc": (place, *one["loc"])}) for one in error.errors()]
    return _invalid(" ".join(one["message"] for one in wrong), errors=wrong)


def _inline(name: str, value: object) -> object:
    """Return the value of an input that is given inline, qualified or not."""
    if isinstance(value, dict):
        if "href" in value:
            raise _invalid(
                f"The input {name!r} is a reference; this server reads no addresses. Send the "
                "value inline."
            )
        if "value" not in value:
            raise _invalid(f"The input {name!r} has no member value.")
        return value["value"]
    return value


def _decoded(image: object) -> bytes:
    if not isinstance(image, str):
        raise _invalid("The input 'image' is missing, or is not a text in base64.")
    try:
        return base64.b64decode(image.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _invalid("The input 'image' is not valid base64.") from error


def _requested(execution: OgcExecution) -> list[SceneOutput]:
    """Return the requested outputs; all if none is named."""
    for name, output in (execution.outputs or {}).items():
        if output.get("transmissionMode", "reference") != "reference":
            raise _invalid(f"The output {name!r} can be transmitted only by reference.")
        kinds = dict.fromkeys(_OUTPUTS[name][2].values())
        wanted = output.get("format") or {}
        kind = wanted.get("mediaType") if isinstance(wanted, dict) else wanted
        if kind is not None and not (isinstance(kind, str) and kind in kinds):
            shown = repr(kind)[:_MAX_VALUE_CHARS]
            raise _invalid(f"The output {name!r} has no format {shown}: {', '.join(kinds)}.")
    return list(execution.outputs or OUTPUTS)


def _predictions(store: JobStore, before: int | None) -> Iterator[Job]:
    """Yield the predictions among the jobs, newest first."""
    while jobs := store.newest(_PAGE, before):
        yield from (job for job in jobs if job.training is None)
        before = jobs[-1].number


def _accepts(query: OgcJobQuery, job: Job, between: tuple[float, float], now_s: float) -> bool:
    """Return whether a job is one of those that are asked for."""
    if (
        (query.processID and PROCESS not in query.processID)
        or (query.status and _STATUS[job.state] not in query.status)
        or not between[0] <= job.created_s <= between[1]
    ):
        return False
    if query.minDuration is None and query.maxDuration is None:
        return True
    if job.started_s is None or job.state == "queued":
        return False
    seconds = (job.finished_s or now_s) - job.started_s
    return (query.minDuration or 0) <= seconds <= (query.maxDuration or float("inf"))


def _interval(text: str | None) -> tuple[float, float]:
    """Return the first and last second of a time or an interval of RFC 3339.

    An interval is open where it says `..` or nothing.
    """
    if text is None:
        return float("-inf"), float("inf")
    first, slash, last = text.partition("/")
    try:
        if not slash:
            return _seconds(first), _seconds(first)
        edges = (
            float("-inf") if first in _OPEN else _seconds(first),
            float("inf") if last in _OPEN else _seconds(last),
        )
    except (ValueError, OverflowError) as error:
        message = (
            f"The parameter 'datetime' is {text[:_MAX_VALUE_CHARS]!r}: expected a time such as "
            "2026-01-01T00:00:00Z, or an interval of two, or of a time and .. ."
        )
        wrong = {"parameter": "datetime", "in": "query", "message": message}
        raise ProblemError("invalid-request", message, errors=[wrong]) from error
    return edges


def _seconds(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _status(job: Job, here: str) -> OgcStatus:
    own = f"{here}/jobs/{job.id}"
    links = [OgcLink(href=own, rel="self", type=_JSON)]
    if job.state == "done":
        links.append(OgcLink(href=f"{own}/results", rel=f"{_RELATIONS}/results", type=_JSON))
    error = job.error or {"message": "", "remedy": ""}
    return OgcStatus(
        process_id=PROCESS, type="process", job_id=job.id, status=_STATUS[job.state],
        message=in_api_terms(f"{error['message']} {error['remedy']}".strip()) or None,
        created=time_of(job.created_s), started=time_of(job.started_s),
        finished=time_of(job.finished_s), progress=int(100 * share_of(job)), links=links,
    )  # fmt: skip


def _check_results(job: Job) -> None:
    """Raise the exception of a job that has no results."""
    if job.error is not None:
        raise RooftraceError.from_json(job.error)
    if job.state == "cancelled":
        raise ProblemError(
            "conflict", f"The job {job.id} was dismissed; it has no results.",
            remedy="Execute the process again.",
        )  # fmt: skip
    if job.state != "done":
        raise _exception(
            "result-not-ready", "Results are not ready", f"The job {job.id} is {job.state}.",
            remedy="Wait until its status is successful.",
        )  # fmt: skip


def _result_links(job: Job, folder: str) -> dict[str, OgcLink]:
    """Return the outputs of a job that is done; a scene without metres per pixel has no density."""

    def find(endings: Mapping[str, str]) -> JobFile | None:
        return next((file for file in job.files if file.name.endswith(tuple(endings))), None)

    found = {name: find(endings) for name, (_, _, endings) in _OUTPUTS.items()}
    return {
        name: OgcLink(href=f"{folder}/{file.name}", rel="item", type=media_type_of(file.name))
        for name, file in found.items()
        if file is not None
    }


_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "Inputs and outputs as the description of the process lists them.",
    "content": {
        _JSON: {
            "schema": OgcExecution.model_json_schema(),
            "example": {
                "inputs": {"image": {"value": "SUkqAAgAAAA…", "mediaType": "image/tiff"},
                           "threshold": 0.4},
                "outputs": {"polygons": {"transmissionMode": "reference"}},
                "response": "document",
            },
        }
    },
}  # fmt: skip

_EXECUTED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "The job is queued",
        "headers": {
            "Location": {"description": "Address of the job", "schema": {"type": "string"}},
            "Preference-Applied": {
                "description": "respond-async, if the request prefers it",
                "schema": {"type": "string"},
            },
        },
    },
    **problem_responses(
        "bad-request", "not-found", "too-large", "data-error", "gsd-mismatch", "band-mismatch",
        "config-error", "busy",
    ),
    507: {"description": "The server has no room for the image, or cannot store it"},
}  # fmt: skip

_RAW_RESPONSE: dict[str, Any] = {
    "description": "The request asked for raw; the header has the links",
    "headers": {
        "Link": {"description": "Links to the outputs (RFC 8288)", "schema": {"type": "string"}}
    },
}
