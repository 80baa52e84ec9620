"""Schemas of OGC API – Processes – Part 1: Core 1.0, as JSON schemas.

They restate `core/openapi/schemas/*.yaml` of https://github.com/opengeospatial/ogcapi-processes
(published at https://schemas.opengis.net/ogcapi/processes/part1/1.0/openapi/schemas/), which are
schemas of OpenAPI 3.0. The name of each is that of its file. Left out are members that the answers
of rooftrace do not have, such as `bbox.yaml`; `exclusiveMaximum` and the like are booleans there.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator, FormatChecker


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def _texts(*names: str) -> dict[str, Any]:
    return {name: {"type": "string"} for name in names}


def _list(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


_TIME = {"type": "string", "format": "date-time"}
_COUNT = {"type": "integer", "minimum": 0}
_FLAG = {"type": "boolean"}
_NUMBER = {"type": "number"}
_NESTED = {"oneOf": [_ref("schema"), _ref("reference")]}
_SEVERAL = {"type": "array", "items": _NESTED}

SCHEMAS: dict[str, Any] = {
    "link": {
        "type": "object", "required": ["href"],
        "properties": _texts("href", "rel", "type", "hreflang", "title"),
    },
    "landingPage": {
        "type": "object", "required": ["links"],
        "properties": {**_texts("title", "description"), "links": _list("link")},
    },
    "confClasses": {
        "type": "object", "required": ["conformsTo"],
        "properties": {"conformsTo": {"type": "array", "items": {"type": "string"}}},
    },
    "metadata": {"type": "object", "properties": _texts("title", "role", "href")},
    "descriptionType": {
        "type": "object",
        "properties": {
            **_texts("title", "description"),
            "keywords": {"type": "array", "items": {"type": "string"}},
            "metadata": _list("metadata"),
        },
    },
    "jobControlOptions": {"type": "string", "enum": ["sync-execute", "async-execute", "dismiss"]},
    "transmissionMode": {"type": "string", "enum": ["value", "reference"]},
    "processSummary": {
        "allOf": [
            _ref("descriptionType"),
            {
                "type": "object", "required": ["id", "version"],
                "properties": {
                    **_texts("id", "version"),
                    "jobControlOptions": _list("jobControlOptions"),
                    "outputTransmission": _list("transmissionMode"),
                    "links": _list("link"),
                },
            },
        ]
    },
    "processList": {
        "type": "object", "required": ["processes", "links"],
        "properties": {"processes": _list("processSummary"), "links": _list("link")},
    },
    "process": {
        "allOf": [
            _ref("processSummary"),
            {
                "type": "object",
                "properties": {
                    "inputs": {"additionalProperties": _ref("inputDescription")},
                    "outputs": {"additionalProperties": _ref("outputDescription")},
                },
            },
        ]
    },
    "inputDescription": {
        "allOf": [
            _ref("descriptionType"),
            {
                "type": "object", "required": ["schema"],
                "properties": {
                    "minOccurs": {"type": "integer"},
                    "maxOccurs": {"oneOf": [{"type": "integer"}, {"enum": ["unbounded"]}]},
                    "schema": _ref("schema"),
                },
            },
        ]
    },
    "outputDescription": {
        "allOf": [
            _ref("descriptionType"),
            {"type": "object", "required": ["schema"], "properties": {"schema": _ref("schema")}},
        ]
    },
    "reference": {
        "type": "object", "required": ["$ref"],
        "properties": {"$ref": {"type": "string", "format": "uri-reference"}},
    },
    "schema": {
        "oneOf": [
            _ref("reference"),
            {
                "type": "object",
                "properties": {
                    **_texts("title", "description", "format", "contentMediaType",
                             "contentEncoding", "contentSchema", "pattern"),
                    **dict.fromkeys(("multipleOf", "maximum", "minimum"), _NUMBER),
                    **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems",
                                     "maxProperties", "minProperties"), _COUNT),
                    **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum", "uniqueItems",
                                     "nullable", "readOnly", "writeOnly", "deprecated"), _FLAG),
                    "required": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                    "enum": {"type": "array", "minItems": 1},
                    "type": {"enum": ["array", "boolean", "integer", "number", "object", "string"]},
                    **dict.fromkeys(("allOf", "oneOf", "anyOf"), _SEVERAL),
                    **dict.fromkeys(("not", "items"), _NESTED),
                    "properties": {"type": "object", "additionalProperties": _NESTED},
                    "additionalProperties": {"oneOf": [_NESTED, _FLAG]},
                    "default": {}, "example": {},
                },
                "additionalProperties": False,
            },
        ]
    },
    "statusInfo": {
        "type": "object", "required": ["jobID", "status", "type"],
        "properties": {
            **_texts("processID", "jobID", "message"),
            "type": {"type": "string", "enum": ["process"]},
            "status": {"enum": ["accepted", "running", "successful", "failed", "dismissed"]},
            **dict.fromkeys(("created", "started", "finished", "updated"), _TIME),
            "progress": {"type": "integer", "minimum": 0, "maximum": 100},
            "links": _list("link"),
        },
    },
    "jobList": {
        "type": "object", "required": ["jobs", "links"],
        "properties": {"jobs": _list("statusInfo"), "links": _list("link")},
    },
    "format": {
        "type": "object",
        "properties": {
            **_texts("mediaType", "encoding"),
            "schema": {"oneOf": [{"type": "string"}, {"type": "object"}]},
        },
    },
    "inlineOrRefData": {
        "anyOf": [
            {"type": ["string", "number", "boolean", "array"]},
            {"allOf": [_ref("format"), {"type": "object", "required": ["value"]}]},
            _ref("link"),
        ]
    },
    "execute": {
        "type": "object",
        "properties": {
            "inputs": {"additionalProperties": _ref("inlineOrRefData")},
            "outputs": {
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "format": _ref("format"), "transmissionMode": _ref("transmissionMode"),
                    },
                }
            },
            "response": {"type": "string", "enum": ["raw", "document"]},
        },
    },
    "results": {"type": "object", "additionalProperties": _ref("inlineOrRefData")},
    "exception": {
        "type": "object", "required": ["type"],
        "properties": {
            **_texts("type", "title", "detail", "instance"), "status": {"type": "integer"},
        },
    },
}  # fmt: skip


def check(value: Any, name: str) -> None:
    """Raise an error if a JSON value does not match the schema of the given name."""
    schema = {"$defs": SCHEMAS, **_ref(name)}
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(value)
