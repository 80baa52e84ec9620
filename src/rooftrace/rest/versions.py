"""/v1/versions: the versions that trainings on reviews made, and which of them is in use."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from rooftrace.flows.finetune import Verdict
from rooftrace.rest.description import problem_responses
from rooftrace.rest.jobs import missing_job
from rooftrace.rest.schemas import ApiModel
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.versions import ModelVersions


class VersionOut(ApiModel):
    """A version of the model."""

    version: Annotated[str, Field(description="Name of the model with the start of its hash")]
    in_use: Annotated[bool, Field(description="True if new jobs use it")]
    job: Annotated[str | None, Field(description="Training; null for the server's own model")]
    verdict: Annotated[Verdict | None, Field(description="Comparison with its start model")]
    made: Annotated[datetime | None, Field(description="End of the training")]


class VersionPage(ApiModel):
    """Versions of the model, newest first; the last one is the server's own model."""

    versions: list[VersionOut]


def versions_router(versions: ModelVersions, store: JobStore, own_version: str) -> APIRouter:
    """Return the router of versions.

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
        return VersionPage(versions=[*made, own])

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
        """Let this version make new jobs and predictions for Label Studio from now on."""
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
