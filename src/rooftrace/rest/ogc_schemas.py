"""Data of OGC API – Processes 1.0, with the names of its schemas.

https://schemas.opengis.net/ogcapi/processes/part1/1.0/openapi/schemas/
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from rooftrace.predict.plan import SceneOutput
from rooftrace.rest.schemas import ApiModel

__all__ = [
    "OgcConformance",
    "OgcExecution",
    "OgcJobList",
    "OgcJobQuery",
    "OgcLandingPage",
    "OgcLink",
    "OgcProcess",
    "OgcProcessList",
    "OgcProcessSummary",
    "OgcStatus",
    "OgcValueDescription",
    "Status",
]

Status = Literal["accepted", "running", "successful", "failed", "dismissed"]


class OgcModel(ApiModel):
    """Base of the responses, with the standard's names such as `jobID`."""

    model_config = ConfigDict(
        alias_generator=lambda name: to_camel(name).replace("Id", "ID"), validate_by_name=True
    )


class OgcLink(OgcModel):
    """A link (link.yaml)."""

    href: str
    rel: str
    type: str | None = None
    title: str | None = None


class OgcLandingPage(OgcModel):
    """The landing page (landingPage.yaml)."""

    title: str
    description: str
    links: list[OgcLink]


class OgcConformance(OgcModel):
    """The conformance classes (confClasses.yaml)."""

    conforms_to: list[str]


class OgcProcessSummary(OgcModel):
    """A process in the list (processSummary.yaml)."""

    id: str
    version: str
    title: str
    description: str
    keywords: list[str]
    job_control_options: list[str]
    output_transmission: list[str]
    links: list[OgcLink]


class OgcProcessList(OgcModel):
    """The list of processes (processList.yaml)."""

    processes: list[OgcProcessSummary]
    links: list[OgcLink]


class OgcValueDescription(OgcModel):
    """Description of an input or an output (inputDescription.yaml, outputDescription.yaml)."""

    title: str
    description: str
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    min_occurs: int | None = None


class OgcProcess(OgcProcessSummary):
    """A process with its inputs and outputs (process.yaml)."""

    inputs: dict[str, OgcValueDescription]
    outputs: dict[str, OgcValueDescription]


class OgcStatus(OgcModel):
    """Status of a job (statusInfo.yaml)."""

    process_id: str
    type: Literal["process"]
    job_id: str
    status: Status
    message: str | None = None
    created: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    progress: Annotated[int, Field(ge=0, le=100)]
    links: list[OgcLink]


class OgcJobList(OgcModel):
    """The list of jobs (jobList.yaml)."""

    jobs: list[OgcStatus]
    links: list[OgcLink]


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


class OgcJobQuery(BaseModel):
    """Parameters of the list of jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: list[Literal["process"]] = []
    processID: list[str] = []  # noqa: N815  # the standard's name
    status: Annotated[list[Status], Field(description="Status of a job; any by default")] = []
    datetime: Annotated[
        str | None,
        Field(
            max_length=100,
            description="Time of creation, or an interval such as 2026-01-01T00:00:00Z/..",
        ),
    ] = None
    minDuration: Annotated[float | None, Field(ge=0, description="Seconds")] = None  # noqa: N815
    maxDuration: Annotated[float | None, Field(ge=0, description="Seconds")] = None  # noqa: N815
    limit: Annotated[int, Field(ge=1, le=1000, description="Maximum number of jobs")] = 20
    before: Annotated[
        str | None, Field(max_length=64, description="Id of a job; only older jobs are listed")
    ] = None
