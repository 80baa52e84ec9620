"""The page of jobs: scenes are sent, followed and taken from it; it calls the API as any client."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, HTTPException, Response

__all__ = ["jobs_page"]

_KINDS = {"index.html": "text/html", "jobs.js": "text/javascript", "jobs.css": "text/css"}
_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'self'"


def jobs_page() -> APIRouter:
    """The router of `/jobs`."""
    router = APIRouter(prefix="/jobs", include_in_schema=False)

    @router.get("")
    def page() -> Response:
        return _asset("index.html")

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _KINDS:
            raise HTTPException(404, "There is no such file.")
        return _asset(name)

    return router


def _asset(name: str) -> Response:
    data = (files("rooftrace") / "app" / "jobs" / "static" / name).read_bytes()
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    return Response(data, media_type=f"{_KINDS[name]}; charset=utf-8", headers=headers)
