"""The page in an application: settings of the server that the page stands on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from python_multipart.exceptions import FormParserError
from starlette.responses import Response
from starlette.routing import Mount

from rooftrace.app.page.blocks import build_page, static_text
from rooftrace.app.page.results import ResultStore
from rooftrace.app.page.routes import page_router
from rooftrace.rest.problems import problem_response
from rooftrace.service.service import Service

__all__ = ["mount_page"]

# Fonts by name: Gradio's own themes ask Google for them.
_FONTS = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")

_UNUSED = ("/gradio_api/deep_link", "/gradio_api/process_recording")
"""Of Gradio: they write to disk for whoever asks, and the page has no use for them."""

_Move = Callable[[str | Path | None], Coroutine[Any, Any, str | None]]


def mount_page(app: FastAPI, service: Service, *, video: bool = False) -> FastAPI:
    """Add the page at `/`, and its own routes; called last, since it takes all other addresses.

    No file but uploads and what the page made of them is served; nothing is asked of other
    machines; neither calls nor uploads are recorded.

    Args:
        app: to which it is added.
        service: predicts.
        video: whether there is a tab for videos.
    """
    store = ResultStore()
    app.include_router(page_router(store))
    for path in _UNUSED:
        app.add_api_route(path, _unused, methods=["GET", "POST"], include_in_schema=False)

    async def mounted() -> None:
        page = build_page(service, store, video=video)
        _guard(page)
        gr.mount_gradio_app(
            app,
            page,
            path="/",
            theme=_theme(),
            css=static_text("page.css"),
            allowed_paths=[],
            max_file_size=service.limits.upload_bytes,
            show_error=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
        )
        _tell_problems(app)

    # Where no loop runs, Gradio makes some for its locks, and leaves them open.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, mounted()).result()
    return app


def _tell_problems(app: FastAPI) -> None:
    """Have Gradio refuse bodies that are not what the page sends, where it would fail on them.

    FastAPI's own answer repeats the body, and fails where JSON has no word for it, as for NaN; of
    forms not all that is wrong is expected.
    """

    def refuse(request: Request, error: Exception) -> Response:
        return problem_response(
            request.scope, "bad-request", "The request is not what the page sends."
        )

    [mounted] = [route.app for route in app.routes if isinstance(route, Mount) and not route.path]
    assert isinstance(mounted, FastAPI)
    for kind in (RequestValidationError, FormParserError):
        mounted.add_exception_handler(kind, refuse)


def _unused() -> Response:
    raise HTTPException(404, "There is nothing here.")


def _guard(page: gr.Blocks) -> None:
    """Have Gradio take from a request no path but that of an upload, and no address.

    It looks after paths once a page was launched, which it does not count a mounted one as: any
    file of the server could be copied to where it is served. Addresses it would fetch.
    """
    page.has_launched = True
    for block in page.blocks.values():
        if isinstance(block, gr.components.Component):
            block.async_move_resource_to_block_cache = _without_addresses(  # type: ignore[assignment,method-assign]
                block.async_move_resource_to_block_cache
            )


def _without_addresses(move: _Move) -> _Move:
    async def moved(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("An address was given; drop a file.", print_exception=False)
        return await move(path)

    return moved


def _theme() -> gr.themes.Base:
    return gr.themes.Default(
        primary_hue="amber",
        neutral_hue="slate",
        spacing_size="sm",
        radius_size="md",
        text_size="sm",
        font=_FONTS,
        font_mono=_MONO,
    )
