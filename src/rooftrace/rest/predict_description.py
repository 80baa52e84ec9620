"""What the OpenAPI description says of the body and the answers of a prediction."""

from __future__ import annotations

from typing import Any

from rooftrace.rest.image_body import image_body
from rooftrace.rest.problems import problem_responses

__all__ = ["REQUEST_BODY", "RESPONSES"]

_RAW = ("application/octet-stream", "image/png", "image/jpeg", "image/tiff", "image/webp",
        "image/jp2")  # fmt: skip

REQUEST_BODY = image_body({kind: {"type": "string", "contentMediaType": kind} for kind in _RAW})

_FIGURES_HEADERS: dict[str, Any] = {
    "Rooftrace-Buildings": ("How many, where they were counted.", {"type": "integer"}),
    "Rooftrace-Built-Up-Share": ("Of the valid pixels.", {"type": "number"}),
    "Rooftrace-Density": ("Where a pixel is valid.", {"enum": ["sparse", "dense"]}),
    "Rooftrace-Gsd-M": ("Metres per pixel, where known.", {"type": "number"}),
    "Rooftrace-Threshold": ("On the building's probability.", {"type": "number"}),
    "Rooftrace-Valid-Pixels": ("Those that are not nodata.", {"type": "integer"}),
    "Rooftrace-Notes": ("What was assumed: a JSON array of sentences.", {"type": "string"}),
    "Content-Disposition": ("What the file may be called.", {"type": "string"}),
    "Server-Timing": ("Milliseconds within the server.", {"type": "string"}),
}

_EXAMPLE: dict[str, Any] = {
    "type": "FeatureCollection",
    "name": "scene",
    "coordinates": "longitude-latitude",
    "figures": {
        "buildings": 1,
        "built_up_share": 0.0061,
        "density": "sparse",
        "gsd_m": 0.3,
        "threshold": 0.305,
        "pixels": 131072,
        "valid_pixels": 131072,
        "classes": [
            {"name": "background", "class_id": 0, "polygons": 0, "pixels": 130272,
             "share": 0.9939, "area_m2": 11724.5},
            {"name": "building", "class_id": 1, "polygons": 1, "pixels": 800, "share": 0.0061,
             "area_m2": 72.0},
        ],
        "notes": [],
        "model": "default",
        "model_sha256": "0" * 64,
    },
    "features": [
        {
            "type": "Feature",
            "properties": {"id": 1, "score": 0.94, "area_m2": 72.27, "perimeter_m": 38.04,
                           "orientation_deg": 57.96, "rectangularity": 0.79},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[33.2171281, -6.1700147], [33.2171078, -6.1699823],
                                 [33.2170218, -6.1700362], [33.2171281, -6.1700147]]],
            },
        }
    ],
}  # fmt: skip

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The buildings of the image.",
        "headers": {
            name: {"description": told, "schema": schema}
            for name, (told, schema) in _FIGURES_HEADERS.items()
        },
        "content": {
            "application/geo+json": {
                "schema": {"$ref": "#/components/schemas/FeatureCollection"},
                "example": _EXAMPLE,
            },
            "image/png": {"schema": {"type": "string", "contentMediaType": "image/png"}},
            "application/zip": {
                "schema": {"type": "string", "contentMediaType": "application/zip"}
            },
        },
    },
    **problem_responses(
        "bad-request", "not-acceptable", "too-large", "unsupported-media-type", "data-error",
        "georeference-error", "gsd-mismatch", "band-mismatch", "config-error", "invalid-request",
        "busy", "predict-error", "deadline",
    ),
}  # fmt: skip
