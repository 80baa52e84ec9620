"""The Gradio page: drop images, see buildings, move the threshold, download the files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from python_multipart.exceptions import FormParserError
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rooftrace.app.page import strings
from rooftrace.app.page.results import (
    ROOT,
    Results,
    add_result,
    chosen_options,
    new_results,
    outline_colours,
    page_router,
    predict_file,
)
from rooftrace.app.page.uploads import MAX_AGE_S, UploadMiddleware, folder_of_process
from rooftrace.core.errors import RooftraceError
from rooftrace.io.files import demo_scene_path
from rooftrace.rest.face import SCRIPT, STYLESHEET, page_header
from rooftrace.rest.problems import ProblemError
from rooftrace.rest.upload import UploadLimiter
from rooftrace.service.service import Service

_MODES = ("Overlay", "Outlines", "Mask", "Image")
_OPACITY = 45
_EVERY_S = 600
"""Interval in seconds at which Gradio deletes old uploads."""

_MAX_UPLOADS = 64
"""Maximum size of all files that were dropped on the page, in multiples of the largest one."""

_UPDATES = dict[Any, Any]


def static_text(name: str) -> str:
    """Return the text of a file that comes with the page."""
    return (files("rooftrace.app.page") / "static" / name).read_text(encoding="utf-8")


def build_page(service: Service, results: Results) -> gr.Blocks:
    """Return the page of a service; `mount_page` adds it and what it refers to to an application.

    Args:
        service: Model service.
        results: Results, which the routes of `page_router` serve.
    """
    spec = service.bundle.spec
    about = "Buildings in overhead images"
    blocks: gr.Blocks = gr.Blocks(
        title="rooftrace",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_EVERY_S, MAX_AGE_S),
    )
    with blocks:
        gr.HTML(page_header("demo"), padding=False, elem_id="rt-head")
        gr.HTML(
            f'<h1 class="rt-about">{about} <span>model {escape(spec.name)}</span></h1>',
            padding=False,
        )
        _ImagesTab(service, results)
    blocks.queue(max_size=service.limits.waiting, api_open=False)
    return blocks


class _ImagesTab:
    """The components of the page, and the events between them."""

    def __init__(self, service: Service, results: Results) -> None:
        self.service = service
        self.results = results
        self.key = gr.State("")
        # The order is that of a narrow screen; on a wide one the stylesheet puts two beside the
        # result.
        with gr.Row(equal_height=False, elem_id="rt-main"):
            with gr.Column(min_width=280, elem_id="rt-drop"):
                self.files = gr.File(
                    label="Image (GeoTIFF, PNG, JPEG…)", height=132, elem_id="rt-files",
                )  # fmt: skip
                example = gr.Button("Try an example: a town", elem_id="rt-example")
            with gr.Column(min_width=280, elem_id="rt-result"):
                self.status = gr.HTML(padding=False, elem_id="rt-status")
                self.figures = gr.HTML(padding=False, elem_id="rt-figures")
                self.viewer = gr.HTML(
                    None, html_template=static_text("viewer.html"),
                    js_on_load=static_text("viewer.js"), elem_id="rt-viewer", padding=False,
                )  # fmt: skip
                self.foot = gr.HTML(padding=False, elem_id="rt-foot")
            with gr.Column(min_width=280, elem_id="rt-settings"):
                self._settings()
                again = gr.Button("Trace again", elem_id="rt-again")
        self._connect(example, again)

    def _settings(self) -> None:
        spec = self.service.bundle.spec
        info = f"The model's own: {spec.threshold:g}" if spec.is_binary else (
            f"None here: the model has {len(spec.classes)} classes, and each pixel takes the most "
            "probable."
        )  # fmt: skip
        self.threshold = gr.Slider(
            min(0.01, spec.threshold), max(0.99, spec.threshold), spec.threshold, step=0.005,
            precision=3, label="Threshold", info=info, interactive=spec.is_binary,
            elem_id="rt-threshold",
        )  # fmt: skip
        self.opacity = gr.Slider(
            0, 100, _OPACITY, step=1, label="Opacity of the fill, %", elem_id="rt-opacity"
        )
        self.mode = gr.Radio(_MODES, value=_MODES[0], label="View", elem_id="rt-mode")
        # An empty number field would show 0.
        self.gsd = gr.Textbox(
            label="Metres per pixel", max_lines=1, max_length=20, placeholder="as the image says",
            info="Where the image does not say, or is wrong; then trace again.", elem_id="rt-gsd",
        )  # fmt: skip
        self.bands = gr.Textbox(
            label="Bands", max_lines=1, max_length=100, placeholder="as the image says",
            info="For images with other bands than red, green, blue: 3,2,1 or their names.",
            elem_id="rt-bands",
        )  # fmt: skip
        self.stretch = gr.Textbox(
            label="Values", max_lines=1, max_length=50,
            placeholder=self.service.defaults.images.stretch or "auto",
            info="How they are stretched: auto, none, per-band, or two values LOW,HIGH.",
            elem_id="rt-stretch",
        )  # fmt: skip

    def _connect(self, example: gr.Button, again: gr.Button) -> None:
        limits = self.service.limits
        quiet: dict[str, Any] = {"api_visibility": "private"}
        shown = [self.viewer, self.figures, self.foot, self.status]
        # The service has the queue and says when to try again.
        tracing: dict[str, Any] = {
            "fn": self.trace,
            "inputs": [self.files, self.gsd, self.bands, self.stretch, self.threshold],
            "outputs": [self.key, *shown],
            "concurrency_limit": limits.waiting,
            "show_progress_on": self.viewer,
            **quiet,
        }  # fmt: skip
        self.files.upload(**tracing)
        again.click(**tracing)
        for field in (self.gsd, self.bands, self.stretch):
            field.submit(**tracing)
        example.click(lambda: str(demo_scene_path()), None, self.files, **quiet).then(**tracing)
        self.threshold.input(
            None, self.threshold, None, js="(value) => window.rooftrace?.threshold(value)"
        )
        self.threshold.change(
            self.decide, [self.threshold, self.key], shown,
            trigger_mode="always_last", show_progress="hidden",
            concurrency_limit=limits.running, **quiet,
        )  # fmt: skip
        for control, name in ((self.opacity, "opacity"), (self.mode, "mode")):
            control.change(None, control, None, js=f"(value) => window.rooftrace?.{name}(value)")

    def trace(
        self, upload: str | None, gsd_m: str, bands: str, stretch: str, threshold: float | None
    ) -> _UPDATES:
        """Predict the dropped file."""
        try:
            options = chosen_options(self.service, gsd_m, threshold, bands, stretch)
            if upload is None:
                text = "Choose an image first, or drop one here."
                return {self.status: strings.status(text, "note")}
            result = predict_file(self.service, Path(upload), options)
        except RooftraceError as error:
            return {
                self.key: "", self.viewer: None, self.figures: "", self.foot: "",
                self.status: strings.status(strings.sentence(error), "error"),
            }  # fmt: skip
        key = add_result(self.results, result)
        return {self.key: key} | self._shown(key)

    def decide(self, threshold: float, key: str) -> _UPDATES:
        """Apply another threshold without running the network."""
        result = self.results.get(key)
        if result is None or not self.service.bundle.spec.is_binary:
            return {self.status: gr.skip()}
        try:
            result.at(threshold)
        except RooftraceError as error:
            return {self.status: strings.status(strings.sentence(error), "error")}
        return self._shown(key)

    def _shown(self, key: str) -> _UPDATES:
        """Return the updates that show one result at its current threshold."""
        result = self.results.get(key)
        if result is None:
            text = "This result has expired. Drop the image again."
            return {self.status: strings.status(text, "error")}
        scores, prediction = result.scores, result.at()
        summary = prediction.result.summary
        threshold = summary.threshold
        query = "" if threshold is None else f"?threshold={threshold!r}"
        view = {
            "name": result.name,
            "kind": "classes" if threshold is None else "score",
            "picture": f"{ROOT}/{key}/picture.jpg",
            "fill": f"{ROOT}/{key}/fill.png",
            "outlines": f"{ROOT}/{key}/outlines.bin{query}",
            "colours": outline_colours(prediction),
            "threshold": threshold,
            "metres_per_px": None if summary.gsd_m is None else summary.gsd_m * scores.step,
        }
        foot = f"{strings.downloads(key, summary)}{strings.legend(prediction)}"
        return {
            self.viewer: view,
            self.figures: strings.figures(prediction),
            self.foot: f'<div class="rt-foot">{foot}</div>',
            self.status: strings.status(strings.notes(summary), "note"),
        }


# Fonts are given by name, because Gradio's own themes request them from Google.
_FONTS = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")

_COLOURS = {
    "ground": ("body_background_fill",),
    "paper": ("background_fill_primary", "block_background_fill", "panel_background_fill"),
    "field": ("background_fill_secondary", "input_background_fill",
              "button_secondary_background_fill", "checkbox_label_background_fill"),
    "ink": ("body_text_color", "block_label_text_color", "block_title_text_color",
            "button_secondary_text_color", "checkbox_label_text_color"),
    "faint": ("body_text_color_subdued", "block_info_text_color", "input_placeholder_color"),
    "line": ("border_color_primary", "block_border_color"),
    "edge": ("input_border_color", "button_secondary_border_color",
             "checkbox_label_border_color", "checkbox_border_color"),
    "on-strong": ("button_primary_text_color", "button_primary_text_color_hover"),
    "strong": ("button_primary_background_fill", "button_primary_background_fill_hover",
               "button_primary_border_color", "link_text_color", "link_text_color_hover",
               "link_text_color_active", "link_text_color_visited", "border_color_accent",
               "input_border_color_focus", "loader_color", "slider_color"),
}  # fmt: skip
"""Colours of Gradio's theme by the colours of `face.css`."""

_Preprocess = Callable[..., Coroutine[Any, Any, Any]]
_Move = Callable[[str | Path | None], Coroutine[Any, Any, str | None]]


def mount_page(app: FastAPI, service: Service) -> FastAPI:
    """Add the page at `/demo` and its routes. Call it last, because it takes all other paths.

    Gradio's own files are at the root, and the page is there too where no other page has `/`.

    Only uploads and files made from them are served. Nothing is requested from other machines, and
    neither calls nor uploads are recorded.
    """
    results = new_results()
    app.include_router(page_router(results))
    limits = service.limits
    folder = folder_of_process()

    async def mounted() -> None:
        page = build_page(service, results)
        _refuse_paths(page)
        gr.mount_gradio_app(
            app,
            page,
            path="/",
            theme=_theme(),
            css=static_text("page.css"),
            head=f'<link rel="stylesheet" href="{STYLESHEET}"><script src="{SCRIPT}"></script>',
            allowed_paths=[str(demo_scene_path())],
            max_file_size=limits.upload_bytes,
            show_error=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
        )
        [gradio] = [
            route.app for route in app.routes if isinstance(route, Mount) and not route.path
        ]
        assert isinstance(gradio, FastAPI)
        # Before Gradio's own routes, which take the rest.
        app.router.routes.insert(0, Route("/demo", GZipMiddleware(_AtRoot(gradio))))
        _refuse_malformed_bodies(gradio)
        gradio.add_middleware(
            UploadMiddleware,
            folder=folder,
            limiter=UploadLimiter(limits.waiting),
            upload_bytes=limits.upload_bytes,
            max_bytes=_MAX_UPLOADS * limits.upload_bytes,
        )

    # Without a running event loop, Gradio creates some for its locks and leaves them open.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, mounted()).result()
    return app


class _AtRoot:
    """ASGI application that passes requests on as if they had asked for `/`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "path": "/", "raw_path": b"/"}, receive, send)


def _refuse_malformed_bodies(gradio: FastAPI) -> None:
    """Make Gradio refuse request bodies that the page does not send, where it would fail on them.

    FastAPI's own answer repeats the body, and fails on values that JSON does not have, such as NaN.
    Gradio does not expect every malformed form.
    """

    def refuse(request: Request, error: Exception) -> Response:
        problem = ProblemError("bad-request", "The request is not what the page sends.")
        return problem.response(request.scope)

    for kind in (RequestValidationError, FormParserError):
        gradio.add_exception_handler(kind, refuse)


def _refuse_paths(page: gr.Blocks) -> None:
    """Make Gradio accept no path in a request but that of an upload, and no address.

    Gradio checks paths only after a page was launched, and a mounted page does not count as
    launched. Any file of the server could be copied to a place from which it is served. Gradio
    would also fetch addresses.
    """
    page.has_launched = True
    page.preprocess_data = _refusing(page.preprocess_data)  # type: ignore[method-assign]
    for block in page.blocks.values():
        if isinstance(block, gr.components.Component):
            block.async_move_resource_to_block_cache = _without_addresses(  # type: ignore[assignment,method-assign]
                block.async_move_resource_to_block_cache
            )


def _refusing(preprocess: _Preprocess) -> _Preprocess:
    """Return Gradio's function that reads the inputs of an event, without its tracebacks."""

    async def preprocessed(*given: Any, **more: Any) -> Any:
        try:
            return await preprocess(*given, **more)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:
            raise gr.Error(
                "The request is not what the page sends.", print_exception=False
            ) from error

    return preprocessed


def _without_addresses(move: _Move) -> _Move:
    async def moved(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("This is a URL. Choose a file, or drop one here.", print_exception=False)
        return await move(path)

    return moved


def _theme() -> gr.themes.Base:
    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        spacing_size="sm",
        radius_size="md",
        text_size="sm",
        font=_FONTS,
        font_mono=_MONO,
    )
    # The colours of face.css differ in light and dark by themselves.
    colours = {
        name + mode: f"var(--{token})"
        for token, names in _COLOURS.items()
        for name in names
        for mode in ("", "_dark")
    }
    return theme.set(**colours, color_accent="var(--strong)")
