"""/v1/trainings and /v1/versions: fine-tune the model, and choose which version is in use."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from rooftrace.core.errors import ExportError
from rooftrace.flows.finetune import Verdict
from rooftrace.rest.description import problem_responses
from rooftrace.rest.job_schemas import JobOut
from rooftrace.rest.jobs import missing_job, server_root
from rooftrace.rest.schemas import ApiModel
from rooftrace.rest.upload import cannot_store
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.versions import MAX_PROJECT, ModelVersions


class TrainingIn(ApiModel):
    """Request for a training."""

    project: Annotated[
        int, Field(ge=1, le=MAX_PROJECT, description="Number of the Label Studio project")
    ]


class VersionOut(ApiModel):
    """A version of the model."""

    version: Annotated[str, Field(description="Name of the model with the start of its hash")]
    in_use: Annotated[bool, Field(description="True if it makes what used_for names")]
    job: Annotated[str | None, Field(description="Training; null for the server's own model")]
    verdict: Annotated[Verdict | None, Field(description="Comparison with its start model")]
    made: Annotated[datetime | None, Field(description="End of the training")]


class VersionPage(ApiModel):
    """Versions of the model, newest first; the last one is the server's own model."""

    used_for: Annotated[
        Literal["labelling", "jobs"],
        Field(
            description="Use of the version in use: tasks of Label Studio, or new jobs of a "
            "server without Label Studio"
        ),
    ]
    versions: list[VersionOut]


def versions_router(versions: ModelVersions, store: JobStore, own_version: str) -> APIRouter:
    """Return the router of trainings and versions.

    Args:
        versions: Versions of the server's model.
        store: Store of the trainings.
        own_version: Version of the server's own model.
    """
    router = APIRouter(prefix="/v1", tags=["versions"])

    def page() -> VersionPage:
        served = versions.served
        own = VersionOut(
            version=own_version, in_use=served is None, job=None, verdict=None, made=None
        )
        made = [
            VersionOut(
                version=job.figures["version"], in_use=served is not None and served.id == job.id,
                job=job.id, verdict=job.figures["verdict"],
                made=datetime.fromtimestamp(job.finished_s or 0.0, UTC),
            )
            for job in versions.trainings() if job.figures
        ]  # fmt: skip
        return VersionPage(
            used_for="jobs" if versions.predicts_jobs else "labelling", versions=[*made, own]
        )

    @router.post(
        "/trainings",
        status_code=202,
        summary="Start a training",
        operation_id="create_training",
        responses={202: {"description": "The training is queued"}}
        | problem_responses("config-error", "busy")
        | {507: {"description": "The server has no room for the training"}},
    )
    def train(request: Request, response: Response, body: TrainingIn) -> JobOut:
        """Fine-tune the version in use on the labels of a Label Studio project, as a job.

        A training on the same project that waits or runs is returned instead of a second one.
        """
        try:
            job = versions.start(body.project)
        except ExportError as error:
            raise cannot_store(error) from error
        out = JobOut.of(job, server_root(request))
        response.headers["Location"] = out.links.self
        return out

    @router.get("/versions", summary="List the versions of the model", operation_id="versions")
    def list_versions() -> VersionPage:
        """List the version of each training that is done, and the server's own model."""
        return page()

    @router.post(
        "/jobs/{job_id}/take",
        summary="Use the version of a training",
        operation_id="take_version",
        responses=problem_responses("not-found", "conflict"),
    )
    def take(job_id: str) -> VersionPage:
        """Let this version make the predictions for Label Studio, or of new jobs, from now on."""
        job = store.get(job_id)
        if job is None:
            raise missing_job(job_id)
        versions.take(job)
        return page()

    @router.post(
        "/versions/back",
        summary="Go back to the version before",
        operation_id="previous_version",
        responses=problem_responses("conflict"),
    )
    def back() -> VersionPage:
        """Use the version that was in use before the current one."""
        versions.go_back()
        return page()

    return router
