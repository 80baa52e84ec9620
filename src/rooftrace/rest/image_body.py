"""What the OpenAPI description says of a body that is an image, or a form with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["IMAGE", "image_body"]

IMAGE: dict[str, Any] = {
    "type": "string",
    "contentMediaType": "application/octet-stream",
    "description": "GeoTIFF, PNG, JPEG, WebP or JPEG 2000.",
}


def image_body(as_it_is: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The request body of an operation.

    Args:
        as_it_is: the media types that the image itself may have, and their schemas.
    """
    form = {
        "schema": {
            "type": "object",
            "properties": {"file": IMAGE},
            "required": ["file"],
            "additionalProperties": False,
        },
        "encoding": {"file": {"contentType": "image/*, application/octet-stream"}},
    }
    raw = {kind: {"schema": schema} for kind, schema in as_it_is.items()}
    return {
        "required": True,
        "description": "The image: in a form, or as it is.",
        "content": {"multipart/form-data": form, **raw},
    }
