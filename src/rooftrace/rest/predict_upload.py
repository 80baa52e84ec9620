"""The image that a request for a prediction brings."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile

from rooftrace.core.errors import DataError, TooLargeError
from rooftrace.rest.problems import ProblemError

__all__ = ["Upload", "received"]


@dataclass(frozen=True)
class Upload:
    """The bytes of an image, and what it is called.

    Args:
        data: not empty.
        name: as the stranger says.
    """

    data: bytes
    name: str


async def received(request: Request, filename: str | None, most_bytes: int) -> Upload:
    """The image that a request brings.

    Raises:
        ProblemError: its body is of another kind, or a form without a file.
        DataError: it is empty.
        TooLargeError: it has more bytes than may be.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        upload = await _of_form(request, filename, most_bytes)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            _check_size(size, most_bytes)
            chunks.append(chunk)
        upload = Upload(b"".join(chunks), filename or "image")
    else:
        told = f"has the type {kind!r}" if kind else "has no Content-Type"
        raise ProblemError(
            "unsupported-media-type",
            f"The body {told}; multipart/form-data, image/… or application/octet-stream was "
            "expected.",
        )
    if not upload.data:
        raise DataError("The upload is empty.", remedy="Send the bytes of an image.")
    return upload


async def _of_form(request: Request, filename: str | None, most_bytes: int) -> Upload:
    async with request.form(max_files=1, max_fields=8) as form:
        others = sorted({name for name, _ in form.multi_items()} - {"file"})
        if others:
            raise _wrong_field(
                others[0], f"The form has the field {others[0]!r}; only file was expected.",
                "Send options as parameters of the address, such as ?threshold=0.4.",
            )  # fmt: skip
        file = form.get("file")
        if not isinstance(file, UploadFile):
            told = "The form has no field file" if file is None else "The field file is a text"
            raise _wrong_field(
                "file", f"{told}; a file was expected.",
                "Send it as a file, such as curl -F file=@scene.tif does.",
            )  # fmt: skip
        _check_size(file.size or 0, most_bytes)
        return Upload(await file.read(), filename or file.filename or "image")


def _wrong_field(name: str, message: str, remedy: str) -> ProblemError:
    told = {"parameter": name, "in": "body", "message": message}
    return ProblemError("invalid-request", message, remedy=remedy, errors=[told])


def _check_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise TooLargeError(
            f"The image has more than the {most_bytes:,} bytes that are taken at once.",
            remedy="Send a part of it, or start a job for large scenes.",
        )
