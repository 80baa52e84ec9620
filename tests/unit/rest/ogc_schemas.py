"""Answers of OGC API – Processes – Part 1: Core 1.0, as types.

They restate `core/openapi/schemas/*.yaml` of https://github.com/opengeospatial/ogcapi-processes, as
far as rooftrace answers with them. Keys of `check` are the names of these files. The `schema` of an
input is one of OpenAPI 3.0: it has no other members, and `exclusiveMaximum` is a boolean there.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import AwareDatetime, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

Count = Annotated[int, Field(ge=0)]


class Link(TypedDict, total=False):
    href: Required[str]
    rel: str
    type: str
    hreflang: str
    title: str


class LandingPage(TypedDict):
    links: list[Link]
    title: NotRequired[str]
    description: NotRequired[str]


class Conformance(TypedDict):
    conformsTo: list[str]


Schema = with_config(extra="forbid")(
    TypedDict(
        "Schema",
        {
            **dict.fromkeys(("title", "description", "format", "contentMediaType",
                             "contentEncoding", "contentSchema", "pattern"), str),
            **dict.fromkeys(("multipleOf", "maximum", "minimum"), float),
            **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems"), Count),
            **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum", "nullable"), bool),
            "type": Literal["array", "boolean", "integer", "number", "object", "string"],
            "enum": Annotated[list[Any], Field(min_length=1)],
            "oneOf": list["Schema"], "items": "Schema", "default": Any,
        },
        total=False,
    )
)  # fmt: skip


class Output(TypedDict, total=False):
    title: str
    description: str
    schema: Required[Schema]


class Input(Output, total=False):
    minOccurs: int
    maxOccurs: int | Literal["unbounded"]


class ProcessSummary(TypedDict, total=False):
    id: Required[str]
    version: Required[str]
    title: str
    description: str
    keywords: list[str]
    jobControlOptions: list[Literal["sync-execute", "async-execute", "dismiss"]]
    outputTransmission: list[Literal["value", "reference"]]
    links: list[Link]


class Process(ProcessSummary, total=False):
    inputs: dict[str, Input]
    outputs: dict[str, Output]


class ProcessList(TypedDict):
    processes: list[ProcessSummary]
    links: list[Link]


class StatusInfo(TypedDict, total=False):
    jobID: Required[str]
    status: Required[Literal["accepted", "running", "successful", "failed", "dismissed"]]
    type: Required[Literal["process"]]
    processID: str
    message: str
    created: AwareDatetime
    started: AwareDatetime
    finished: AwareDatetime
    updated: AwareDatetime
    progress: Annotated[int, Field(ge=0, le=100)]
    links: list[Link]


class JobList(TypedDict):
    jobs: list[StatusInfo]
    links: list[Link]


class Problem(TypedDict, total=False):
    type: Required[str]
    title: str
    detail: str
    instance: str
    status: int


TYPES: dict[str, Any] = {
    "landingPage": LandingPage, "confClasses": Conformance, "processList": ProcessList,
    "process": Process, "statusInfo": StatusInfo, "jobList": JobList, "exception": Problem,
    "results": dict[str, Link],
}  # fmt: skip


def check(value: Any, name: str) -> None:
    """Raise an error if a JSON value does not match the schema of the given name."""
    TypeAdapter(TYPES[name]).validate_json(json.dumps(value), strict=True)
