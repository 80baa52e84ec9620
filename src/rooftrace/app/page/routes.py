"""What the page's viewer and links ask for: layers of pictures, files, tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Response

from rooftrace.app.page.downloads import DOWNLOADS, table_csv
from rooftrace.app.page.pictures import fill_png, outlines, picture_jpeg
from rooftrace.app.page.results import Result, ResultStore
from rooftrace.core.errors import ConfigError, RooftraceError

__all__ = ["ROOT", "page_router"]

ROOT = "/page"

Made = TypeVar("Made")

_KEPT = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
_FRESH = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def page_router(store: ResultStore) -> APIRouter:
    """Routes under `ROOT`; an address names a run and the number of an image, and nothing else.

    Args:
        store: of the results.
    """
    router = APIRouter(prefix=ROOT, include_in_schema=False)

    def found(run: str, index: int) -> Result:
        result = store.get(run, index)
        if result is None:
            raise HTTPException(404, "There is no such result any more; drop the image once more.")
        return result

    @router.get("/{run}/table.csv")
    def table(run: str) -> Response:
        results = store.run(run)
        if not results:
            raise HTTPException(404, "There are no such results any more; drop the images anew.")
        return _attached("rooftrace.csv", table_csv(results).encode(), "text/csv; charset=utf-8")

    @router.get("/{run}/{index}/picture.jpg")
    def picture(run: str, index: int) -> Response:
        scores = _asked(lambda: found(run, index).scores)
        return Response(picture_jpeg(scores), media_type="image/jpeg", headers=_KEPT)

    @router.get("/{run}/{index}/fill.png")
    def fill(run: str, index: int) -> Response:
        result = found(run, index)
        data = _asked(lambda: fill_png(result.scores, result.at()))
        return Response(data, media_type="image/png", headers=_KEPT)

    @router.get("/{run}/{index}/outlines.bin")
    def rings(run: str, index: int, threshold: float | None = None) -> Response:
        result = found(run, index)
        data = _asked(lambda: outlines(result.scores, result.at(_checked(threshold))))
        return Response(data, media_type="application/octet-stream", headers=_KEPT)

    @router.get("/{run}/{index}/{kind}")
    def download(run: str, index: int, kind: str, threshold: float | None = None) -> Response:
        if kind not in DOWNLOADS:
            raise HTTPException(404, f"There is no file {kind!r}; expected {[*DOWNLOADS]}.")
        result = found(run, index)
        name, data = _asked(lambda: DOWNLOADS[kind].of(result.at(_checked(threshold))))
        return _attached(name, data, "application/octet-stream")

    return router


def _checked(threshold: float | None) -> float | None:
    if threshold is None or 0 <= threshold <= 1:
        return threshold
    raise ConfigError(f"The threshold is {threshold}; a number from 0 to 1 was expected.")


def _asked(make: Callable[[], Made]) -> Made:
    """What is made, or what went wrong as an answer of HTTP."""
    try:
        return make()
    except RooftraceError as error:
        raise HTTPException(409, str(error)) from error


def _attached(name: str, data: bytes, media_type: str) -> Response:
    named = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return Response(data, media_type=media_type, headers=_FRESH | {"Content-Disposition": named})
