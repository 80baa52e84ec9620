"""The kinds of problems that there are, each explained once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PROBLEMS", "Problem"]


@dataclass(frozen=True)
class Problem:
    """A kind of problem.

    Args:
        status: of the HTTP answer.
        title: the same whenever it occurs.
        meaning: in a few sentences, for its page.
        remedy: what helps, where the occurrence does not say it better.
    """

    status: int
    title: str
    meaning: str
    remedy: str


PROBLEMS: Mapping[str, Problem] = {
    "bad-request": Problem(
        400, "The request cannot be read",
        "Its body is not what its headers announce: a form without a boundary, say, or one that "
        "breaks off.",
        "Send the request with a client that builds forms by itself.",
    ),
    "unauthorized": Problem(
        401, "A key is needed",
        "The server was started with an API key, and the request brought none, or another one.",
        "Send it as Authorization: Bearer KEY, as X-API-Key: KEY, or as the password of HTTP "
        "Basic.",
    ),
    "foreign-origin": Problem(
        403, "The request comes from another site's page",
        "A browser sent it on behalf of a page that this server did not give out.",
        "Start the server with that origin allowed, or call it from your own server.",
    ),
    "not-found": Problem(
        404, "There is nothing of that name",
        "The address leads nowhere, or what was there has been removed.",
        "See /v1/docs for the addresses that there are.",
    ),
    "method-not-allowed": Problem(
        405, "Not by this method",
        "The address is right, but does not take this HTTP method.",
        "The header Allow says which it takes.",
    ),
    "not-acceptable": Problem(
        406, "No such format",
        "The answer is wanted in a form in which it is not given.",
        "Ask for application/geo+json, image/png or application/zip.",
    ),
    "request-timeout": Problem(
        408, "The request did not arrive",
        "Its body stopped coming.",
        "Send it again.",
    ),
    "conflict": Problem(
        409, "Not in this state",
        "What is asked for is not possible as things stand now.",
        "Look at its state first.",
    ),
    "too-large": Problem(
        413, "Too large",
        "The upload has more bytes, or the image in it more pixels, than the server takes. "
        "Compressed images are counted by the pixels that they unfold to.",
        "Send a part of it, or start a job for large scenes.",
    ),
    "unsupported-media-type": Problem(
        415, "Not that kind of body",
        "The body is neither a form with a file nor an image.",
        "Send multipart/form-data with the field file, or the bytes of the image as "
        "application/octet-stream.",
    ),
    "misdirected-request": Problem(
        421, "Not this server",
        "The header Host names another server. One that listens on the own machine alone answers "
        "to its own names only, so that no page of a foreign site can reach it under a name that "
        "it has made to point here.",
        "Use localhost or 127.0.0.1, or start the server with the name allowed.",
    ),
    "band-mismatch": Problem(
        422, "The image has other bands than the model",
        "The model was trained on certain bands, and the image has others.",
        "Send the bands that /v1/model names, in that order.",
    ),
    "config-error": Problem(
        422, "The option does not fit",
        "An option is well formed, but not for this image or this model.",
        "Leave the option out.",
    ),
    "data-error": Problem(
        422, "The image cannot be used",
        "The upload is no image, or is damaged, or is of a format that is not read: GeoTIFF, PNG, "
        "JPEG, WebP and JPEG 2000 are.",
        "Open it with another program, and save it anew.",
    ),
    "georeference-error": Problem(
        422, "Where the image lies is not known",
        "Something was asked for that needs a place or a length on the ground.",
        "Send gsd, its metres per pixel, or a GeoTIFF.",
    ),
    "gsd-mismatch": Problem(
        422, "Too fine or too coarse for the model",
        "The image's metres per pixel are too far from those that the model was trained on.",
        "Send gsd if the file is wrong; else resample the image.",
    ),
    "invalid-request": Problem(
        422, "A parameter is not what it should be",
        "A parameter or a field is missing, unknown, or not in its range. The member errors names "
        "each.",
        "Send it as /v1/docs describes it.",
    ),
    "busy": Problem(
        429, "Too many requests wait already",
        "The server keeps a short queue, and refuses what would wait long. Nothing was begun.",
        "Ask again after the seconds that the header Retry-After says.",
    ),
    "predict-error": Problem(
        500, "The prediction failed",
        "The network failed on this image.",
        "Tell who runs the server, with the instance of the problem.",
    ),
    "server-error": Problem(
        500, "The server failed",
        "Something went wrong that should not. What it was is in the server's log.",
        "Tell who runs the server, with the instance of the problem.",
    ),
    "missing-extra": Problem(
        501, "Not installed",
        "The server lacks an optional package that this needs.",
        "Tell who runs the server.",
    ),
    "deadline": Problem(
        503, "It took too long",
        "The request was not done within the time that the server gives to one.",
        "Send a smaller image, or start a job.",
    ),
    "not-ready": Problem(
        503, "Not ready",
        "The server is starting, or is about to stop.",
        "Ask again in a few seconds.",
    ),
}  # fmt: skip
