"""OGC API – Processes 1.0 (OGC 18-062r2) over the jobs of the server, under `/ogc`.

The process `predict` is offered. Its jobs are those of `/v1/jobs`, with the same limits. Outputs
are transmitted by reference: as links to the files of the job. Documents follow https://schemas.opengis.net/ogcapi/processes/part1/1.0/openapi/schemas/.
"""

# No `from __future__ import annotations`: FastAPI evaluates annotations, and some of them name
# dependencies that are local to `ogc_router`.

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from rooftrace.core.errors import DataError, RooftraceError, TooLargeError
from rooftrace.core.system import version_of
from rooftrace.core.text import in_api_terms
from rooftrace.predict.plan import OUTPUTS, RESULT_FILES, SceneOptions, SceneOutput
from rooftrace.rest.description import DescribedRoute, problem_responses
from rooftrace.rest.jobs import JobIntake, missing_job, server_url
from rooftrace.rest.problems import ProblemError, wrong_value
from rooftrace.rest.schemas import JobListQuery, JobQuery, share_of, time_of
from rooftrace.rest.transfer import cannot_store, media_type_of
from rooftrace.service.job_store import Job, JobState, JobStateError

OGC_BODY_SHARE = 4 / 3
"""Bytes of an execution request for each byte of its image, which is base64."""

PROCESS = "predict"

CONFORMANCE = tuple(
    f"http://www.opengis.net/spec/ogcapi-processes-1/1.0/conf/{name}"
    for name in ("core", "ogc-process-description", "json", "dismiss")
)
"""Conformance classes. `oas30` is not one of them, because the description is OpenAPI 3.1."""

_EXCEPTIONS = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0"
_RELATIONS = "http://www.opengis.net/def/rel/ogc/1.0"
_JSON = "application/json"
_RAW = "ogc-raw"
"""Name of the file in the folder of a job whose client asked for the response `raw`."""

_MAX_VALUE_CHARS = 80
"""Maximum length of a received value in a message."""

_IMAGE_TYPES = ("image/tiff", "image/png", "image/jpeg", "image/webp", "image/jp2")

Status = Literal["accepted", "running", "successful", "failed", "dismissed"]

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


class OgcExecution(BaseModel):
    """An execution request (execute.yaml). Unknown members are ignored, as by the standard."""

    inputs: Annotated[
        dict[str, Any],
        Field(description="Values of the inputs, inline or with the members value and mediaType"),
    ]
    outputs: Annotated[
        dict[SceneOutput, dict[str, Any]] | None, Field(description="Outputs; all by default")
    ] = None
    response: Annotated[
        Literal["raw", "document"],
        Field(description="Results as HTTP links (raw), or as a JSON document"),
    ] = "document"
    subscriber: Annotated[None, Field(description="Callbacks are not supported")] = None


def ogc_router(intake: JobIntake) -> APIRouter:
    """Return the router of OGC API – Processes, over the jobs of `intake`."""
    runner, store = intake.runner, intake.runner.store
    router = APIRouter(route_class=DescribedRoute, prefix="/ogc", tags=["ogc"])

    def find_job(job_id: str) -> Job:
        job = store.get(job_id)
        if job is None:
            raise _no_such_job(job_id)
        return job

    def find_process(process_id: str) -> None:
        if process_id != PROCESS:
            raise _exception(
                "no-such-process", "No such process", f"There is no process {process_id[:80]!r}.",
                remedy=f"The only process is {PROCESS}.",
            )  # fmt: skip

    AnyJob = Annotated[Job, Depends(find_job)]  # noqa: N806  # a type

    @router.get("")
    def ogc_landing(request: Request) -> dict[str, Any]:
        """Show the landing page of OGC API – Processes."""
        root, here = server_url(request), _here(request)
        return {
            "title": "rooftrace",
            "description": "Finds buildings in overhead images.",
            "links": [
                _link(here, "self"),
                _link(f"{root}/openapi.json", "service-desc",
                      "application/vnd.oai.openapi+json;version=3.1"),
                _link(f"{root}/v1/docs", "service-doc", "text/html"),
                _link(f"{here}/conformance", f"{_RELATIONS}/conformance"),
                _link(f"{here}/processes", f"{_RELATIONS}/processes"),
                _link(f"{here}/jobs", f"{_RELATIONS}/job-list"),
            ],
        }  # fmt: skip

    @router.get("/conformance")
    def ogc_conformance() -> dict[str, list[str]]:
        """List the conformance classes."""
        return {"conformsTo": list(CONFORMANCE)}

    @router.get("/processes")
    def ogc_processes(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of processes")] = 10,
    ) -> dict[str, Any]:
        """List the processes."""
        here = _here(request)
        return {"processes": [_summary(here)], "links": [_link(f"{here}/processes", "self")]}

    @router.get(
        "/processes/{process_id}",
        dependencies=[Depends(find_process)],
        responses=problem_responses("not-found"),
    )
    def ogc_process(request: Request, process_id: str) -> dict[str, Any]:
        """Describe a process: its inputs and outputs with their JSON schemas."""
        described = {"inputs": _input_descriptions(), "outputs": _output_descriptions()}
        return _summary(_here(request)) | described

    @router.post(
        "/processes/{process_id}/execution",
        status_code=201,
        dependencies=[Depends(find_process)],
        openapi_extra={"requestBody": _REQUEST_BODY},
        responses=_EXECUTED,
    )
    async def ogc_execute(
        request: Request,
        response: Response,
        process_id: str,
        prefer: Annotated[
            str, Header(description="Execution is asynchronous, with respond-async or without it")
        ] = "",
    ) -> dict[str, Any]:
        """Execute a process.

        Queue a job for the image in the body, which is base64.

        For larger images, and for images as files, start the job by `POST /v1/jobs`.
        """

        async def receive(path: Path) -> tuple[str, SceneOptions]:
            try:
                body = await request.body()
                return await run_in_threadpool(_receive, body, path, intake.limits.upload_bytes)
            except ClientDisconnect as error:
                raise ProblemError("bad-request", "The upload broke off.") from error
            except OSError as error:
                raise cannot_store(error) from error

        out = _status(await intake.create(request, receive), _here(request))
        response.headers["Location"] = out["links"][0]["href"]
        if "respond-async" in prefer.lower():
            response.headers["Preference-Applied"] = "respond-async"
        return out

    @router.get("/jobs", responses=problem_responses("invalid-request", "not-found"))
    def ogc_jobs(request: Request, query: Annotated[JobListQuery, Query()]) -> dict[str, Any]:
        """List the jobs, newest first; follow the link `next` for older ones."""
        limit = query.limit
        number = None if query.before is None else find_job(query.before).number
        jobs = store.newest(limit + 1, number)
        here = _here(request)
        links = [_link(f"{here}/jobs", "self")]
        if len(jobs) > limit:
            links.append(_link(f"{here}/jobs?limit={limit}&before={jobs[limit - 1].id}", "next"))
        return {"jobs": [_status(job, here) for job in jobs[:limit]], "links": links}

    @router.get("/jobs/{job_id}", responses=problem_responses("not-found"))
    def ogc_job(request: Request, job: AnyJob) -> dict[str, Any]:
        """Return status and progress of a job, and the reason if it failed."""
        return _status(job, _here(request))

    @router.delete("/jobs/{job_id}", responses=problem_responses("not-found", "job-reviewed"))
    def ogc_dismiss(request: Request, job: AnyJob) -> dict[str, Any]:
        """Dismiss a job.

        Cancel a job that waits or runs; delete a job that has ended, with its files.

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
        return _status(job, _here(request)) | {"status": "dismissed"}

    @router.get(
        "/jobs/{job_id}/results",
        responses={
            204: _RAW_RESPONSE,
            **problem_responses("not-found", "conflict", "data-error", "predict-error"),
        },
    )
    def ogc_results(request: Request, job: AnyJob) -> Response:
        """Return links to the outputs of a job, in the header Link if it was asked for `raw`."""
        _check_results(job)
        links = _result_links(job, f"{server_url(request)}/v1/jobs/{job.id}/results")
        if (store.folder_of(job.id) / _RAW).exists():
            items = ", ".join(
                f'<{link["href"]}>; rel="item"; type="{link["type"]}"; title="{name}"'
                for name, link in links.items()
            )
            return Response(status_code=204, headers={"Link": items})
        return JSONResponse(links)

    return router


def _link(href: str, rel: str, kind: str = _JSON) -> dict[str, str]:
    """Return a link (link.yaml)."""
    return {"href": href, "rel": rel, "type": kind}


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


def _summary(here: str) -> dict[str, Any]:
    """Return the process in the list (processSummary.yaml)."""
    process = f"{here}/processes/{PROCESS}"
    return {
        "id": PROCESS,
        "version": version_of("rooftrace") or "0",
        "title": "Find buildings",
        "description": "Find the buildings in an overhead image of any size.",
        "keywords": ["buildings", "footprints", "segmentation", "remote sensing"],
        "jobControlOptions": ["async-execute", "dismiss"],
        "outputTransmission": ["reference"],
        "links": [_link(process, "self"), _link(f"{process}/execution", f"{_RELATIONS}/execute")],
    }


def _input_descriptions() -> dict[str, Any]:
    """Return the image, and the parameters of a job as inputs (inputDescription.yaml)."""
    image = {"type": "string", "contentEncoding": "base64"}
    described: dict[str, Any] = {
        "image": {
            "title": "Image",
            "description": "GeoTIFF, PNG, JPEG, WebP or JPEG 2000, as base64",
            "schema": {"oneOf": [{**image, "contentMediaType": kind} for kind in _IMAGE_TYPES]},
            "minOccurs": 1,
        }
    }
    for name, schema in JobQuery.model_json_schema()["properties"].items():
        if name == "outputs":
            continue
        # The standard's schema.yaml is that of OpenAPI 3.0, which has no type null.
        merged = {**schema, **next(iter(schema.get("anyOf", ())), {})}
        dropped = ("anyOf", "title", "description") + (("default",) * (merged["default"] is None))
        described[name] = {
            "title": schema["title"],
            "description": schema["description"],
            "schema": {key: value for key, value in merged.items() if key not in dropped},
            "minOccurs": 0,
        }
    return described


def _output_descriptions() -> dict[str, Any]:
    return {
        name: {
            "title": title,
            "description": description,
            "schema": {
                "oneOf": [
                    {"type": "string", "contentEncoding": "binary", "contentMediaType": kind}
                    for kind in dict.fromkeys(kinds.values())
                ]
            },
        }
        for name, (title, description, kinds) in _OUTPUTS.items()
    }


def _receive(body: bytes, path: Path, max_bytes: int) -> tuple[str, SceneOptions]:
    """Write the image of an execution request to a file, and return its name and options."""
    try:
        execution = OgcExecution.model_validate(json.loads(body))
    except ValidationError as error:
        raise _invalid_values("body", error) from error
    except (ValueError, RecursionError) as error:
        raise _invalid("The body is not valid JSON.") from error
    inputs = {name: _inline(name, value) for name, value in execution.inputs.items()}
    if "outputs" in inputs:
        raise _invalid("The input 'outputs' is not known: outputs is a member beside inputs.")
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
    return query.filename or "", query.job_options()


def _invalid_values(place: str, error: ValidationError) -> ProblemError:
    errors = [wrong_value({**one, "loc": (place, *one["loc"])}) for one in error.errors()]
    return _invalid(" ".join(one["message"] for one in errors), errors=errors)


def _inline(name: str, value: object) -> object:
    """Return the value of an input that is given inline, qualified or not."""
    if isinstance(value, dict):
        if "href" in value:
            raise _invalid(
                f"The input {name!r} is a reference; this server fetches no URLs. Send the "
                "value inline."
            )
        if "value" not in value:
            raise _invalid(f"The input {name!r} has no member value.")
        return value["value"]
    return value


def _decoded(image: object) -> bytes:
    if not isinstance(image, str):
        raise _invalid("The input 'image' is missing, or is not a string in base64.")
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
        requested = output.get("format") or {}
        kind = requested.get("mediaType") if isinstance(requested, dict) else requested
        if kind is not None and not (isinstance(kind, str) and kind in kinds):
            received = repr(kind)[:_MAX_VALUE_CHARS]
            raise _invalid(f"The output {name!r} has no format {received}: {', '.join(kinds)}.")
    return list(execution.outputs or OUTPUTS)


def _status(job: Job, here: str) -> dict[str, Any]:
    """Return the status of a job (statusInfo.yaml)."""
    url = f"{here}/jobs/{job.id}"
    links = [_link(url, "self")]
    if job.state == "done":
        links.append(_link(f"{url}/results", f"{_RELATIONS}/results"))
    error = job.error or {"message": "", "remedy": ""}
    status = {
        "processID": PROCESS, "type": "process", "jobID": job.id, "status": _STATUS[job.state],
        "message": in_api_terms(f"{error['message']} {error['remedy']}".strip()) or None,
        "created": time_of(job.created_s), "started": time_of(job.started_s),
        "finished": time_of(job.finished_s), "progress": int(100 * share_of(job)), "links": links,
    }  # fmt: skip
    return {name: value for name, value in status.items() if value is not None}


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


def _result_links(job: Job, folder: str) -> dict[str, dict[str, str]]:
    """Return the outputs of a job that is done; a scene without metres per pixel has no density."""
    links: dict[str, dict[str, str]] = {}
    for name, (_, _, endings) in _OUTPUTS.items():
        file = next((file for file in job.files if file.name.endswith(tuple(endings))), None)
        if file is not None:
            links[name] = _link(f"{folder}/{quote(file.name)}", "item", media_type_of(file.name))
    return links


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
            "Location": {"description": "URL of the job", "schema": {"type": "string"}},
            "Preference-Applied": {
                "description": "respond-async, if the request prefers it",
                "schema": {"type": "string"},
            },
        },
    },
    **problem_responses(
        "bad-request", "not-found", "too-large", "data-error", "gsd-mismatch", "band-mismatch",
        "config-error", "busy", "not-stored",
    ),
}  # fmt: skip

_RAW_RESPONSE: dict[str, Any] = {
    "description": "The request asked for raw; the header has the links",
    "headers": {
        "Link": {"description": "Links to the outputs (RFC 8288)", "schema": {"type": "string"}}
    },
}
