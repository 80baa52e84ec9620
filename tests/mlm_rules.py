"""Rules of the STAC extension MLM 1.3.0 for items, in the form of a JSON schema.

Restated from https://stac-extensions.github.io/mlm/v1.3.0/schema.json, which pystac does not bring
along: required fields, names of fields, and forms of inputs, outputs, bands and assets.
"""

from __future__ import annotations

from typing import Any

__all__ = ["MLM_RULES"]

_FIELDS = (
    "name", "architecture", "tasks", "framework", "framework_version", "memory_size",
    "total_parameters", "pretrained", "pretrained_source", "batch_size_suggestion", "accelerator",
    "accelerator_constrained", "accelerator_summary", "accelerator_count", "input", "output",
    "hyperparameters",
)  # fmt: skip
_TEXT = {"type": "string", "minLength": 1}
_TASKS = {
    "type": "array", "uniqueItems": True,
    "items": {
        "enum": [
            "regression", "classification", "scene-classification", "detection", "object-detection",
            "segmentation", "semantic-segmentation", "instance-segmentation",
            "panoptic-segmentation", "similarity-search", "generative", "image-captioning",
            "super-resolution",
        ]
    },
}  # fmt: skip
_STRUCTURE = {
    "required": ["shape", "dim_order", "data_type"],
    "properties": {
        "shape": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": -1}},
        "dim_order": {
            "type": "array", "minItems": 1, "uniqueItems": True,
            "items": {"type": "string", "pattern": "^[a-z-_]+$"},
        },
        "data_type": {"enum": ["uint8", "uint16", "float16", "float32", "float64", "other"]},
    },
}  # fmt: skip
_INPUT = {
    "required": ["name", "bands", "input"],
    "properties": {
        "name": _TEXT, "description": _TEXT, "input": _STRUCTURE,
        "bands": {"type": "array", "items": _TEXT},
        "value_scaling": {"type": ["array", "null"]},
        "resize_type": {"type": ["string", "null"]},
        "pre_processing_function": {"type": ["object", "null"]},
    },
}  # fmt: skip
_CLASS = {
    "required": ["value"],
    "properties": {
        "value": {"type": "integer"},
        "name": {"type": "string", "pattern": "^[0-9A-Za-z-_]+$"},
        "description": {"type": "string"},
        "color_hint": {"type": "string", "pattern": "^[0-9A-Fa-f]{6}$"},
    },
}
_OUTPUT = {
    "required": ["name", "tasks", "result"],
    "properties": {
        "name": _TEXT, "tasks": _TASKS, "result": _STRUCTURE,
        "classification:classes": {"type": "array", "items": _CLASS},
    },
}  # fmt: skip
_PROPERTIES: dict[str, Any] = {
    "properties": {
        **{f"mlm:{name}": {} for name in _FIELDS},
        "mlm:name": {"type": "string", "pattern": r"^[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]$"},
        "mlm:architecture": {"type": "string"},
        "mlm:framework": {"type": "string", "pattern": r"^(?=[^\s._\-]).*[^\s._\-]$"},
        "mlm:framework_version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+(-.+)?(\+.+)?$"},
        "mlm:tasks": _TASKS,
        "mlm:input": {"type": "array", "items": _INPUT},
        "mlm:output": {"type": "array", "items": _OUTPUT},
        "mlm:hyperparameters": {
            "type": "object", "minProperties": 1,
            "patternProperties": {"^[0-9a-zA-Z_.-]+$": {}}, "additionalProperties": False,
        },
    },
    "patternProperties": {"^(?!mlm:)": {}},
    "additionalProperties": False,
}  # fmt: skip

MLM_RULES: dict[str, Any] = {
    "required": ["properties", "assets", "stac_extensions"],
    "properties": {
        "type": {"const": "Feature"},
        # Bands of an input are described by those of STAC 1.1.
        "stac_version": {"pattern": r"^1\.[1-9]"},
        "stac_extensions": {
            "contains": {"const": "https://stac-extensions.github.io/mlm/v1.3.0/schema.json"}
        },
        "properties": {
            "allOf": [
                {
                    "required": [
                        "mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output",
                        "bands",
                    ]
                },
                {"properties": {"bands": {"type": "array", "minItems": 1}}},
                _PROPERTIES,
            ]
        },
        "assets": {
            "additionalProperties": {
                "allOf": [
                    _PROPERTIES,
                    {"properties": {"roles": {"items": {"const": "mlm:model"}, "minItems": 1}}},
                ]
            }
        },
    },
}  # fmt: skip
