"""The Gradio demo at `/demo`: Gradio's controls around the viewer of the page `/`.

Gradio runs nothing on the server: its events act in the browser, and the viewer calls our routes.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from html import escape
from importlib.resources import files
from typing import Any

import gradio as gr
from fastapi import FastAPI, HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rooftrace.app.page.results import new_results, page_router
from rooftrace.rest.face import SCRIPT, STYLESHEET, page_header
from rooftrace.rest.problems import respond
from rooftrace.service.service import Service

_MODES = ("Overlay", "Outlines", "Mask", "Image")
_OPACITY = 45

_USED = re.compile(
    r"/(config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(assets|static|svelte)/.*"
    r"|gradio_api/(info|startup-events|theme\.css|heartbeat/[^/]+))?"
)
"""Paths of Gradio that the page reads. Others write to disk, call URLs, or fail."""

_VIEWER = """
const load = (name) => import(new URL(`home/static/${name}.js`, document.baseURI).href);
load("demo").then(({ createDemo }) => createDemo(element));
"""


def build_page(service: Service, *, live: bool = False) -> gr.Blocks:
    """Return the page of a service; `mount_page` adds it to an application.

    Args:
        service: Model service.
        live: Whether the server has cameras.
    """
    spec = service.bundle.spec
    blocks: gr.Blocks = gr.Blocks(title="rooftrace", analytics_enabled=False, fill_width=True)
    with blocks:
        gr.HTML(page_header("demo", live=live), padding=False, elem_id="rt-head")
        gr.HTML(
            '<h1 class="rt-about">Buildings in overhead images '
            f"<span>model {escape(spec.name)}</span></h1>",
            padding=False,
        )
        # The order is that of a narrow screen; on a wide one the settings stand beside the result.
        with gr.Row(equal_height=False, elem_id="rt-main"):
            with gr.Column(min_width=280, elem_id="rt-result"):
                gr.HTML(
                    "", html_template="<div></div>", js_on_load=_VIEWER, elem_id="rt-viewer",
                    padding=False,
                )  # fmt: skip
            with gr.Column(min_width=280, elem_id="rt-settings"):
                _add_settings(service)
    return blocks


def _add_settings(service: Service) -> None:
    """Add the controls. Their events call the demo in the browser, never the server."""
    spec = service.bundle.spec
    info = f"The model's own: {spec.threshold:g}" if spec.is_binary else (
        f"None here: the model has {len(spec.classes)} classes, and each pixel takes the most "
        "probable."
    )  # fmt: skip
    threshold = gr.Slider(
        min(0.01, spec.threshold), max(0.99, spec.threshold), spec.threshold, step=0.005,
        precision=3, label="Threshold", info=info, interactive=spec.is_binary,
        elem_id="rt-threshold",
    )  # fmt: skip
    opacity = gr.Slider(
        0, 100, _OPACITY, step=1, label="Opacity of the fill, %", elem_id="rt-opacity"
    )
    mode = gr.Radio(_MODES, value=_MODES[0], label="View", elem_id="rt-mode")
    # An empty number field would show 0.
    gsd = gr.Textbox(
        label="Metres per pixel", max_lines=1, max_length=20, placeholder="as the image says",
        info="Where the image does not say, or is wrong; then run again.", elem_id="rt-gsd",
    )  # fmt: skip
    bands = gr.Textbox(
        label="Bands", max_lines=1, max_length=100, placeholder="as the image says",
        info="For images with other bands than red, green, blue: 3,2,1 or their names.",
        elem_id="rt-bands",
    )  # fmt: skip
    stretch = gr.Textbox(
        label="Values", max_lines=1, max_length=50,
        placeholder=service.defaults.images.stretch or "auto",
        info="How they are stretched: auto, none, per-band, or two values LOW,HIGH.",
        elem_id="rt-stretch",
    )  # fmt: skip
    again = gr.Button("Run again", elem_id="rt-again")
    for name, control in (("threshold", threshold), ("opacity", opacity), ("mode", mode)):
        control.change(None, control, None, js=f"(value) => window.rooftrace?.{name}(value)")
    fields: dict[str, Any] = {
        "fn": None, "inputs": [gsd, bands, stretch],
        "js": "(gsd, bands, stretch) => { window.rooftrace?.again({ gsd, bands, stretch }); }",
    }  # fmt: skip
    again.click(**fields)
    for field in (gsd, bands, stretch):
        field.submit(**fields)


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


def mount_page(app: FastAPI, service: Service) -> FastAPI:
    """Add the demo at `/demo`, and the routes of the viewer.

    Call it last, because it takes all other paths: Gradio's own files are at the root. Nothing is
    requested from other machines, and nothing is recorded.
    """
    app.include_router(page_router(new_results(), service))
    live = bool(getattr(app.state, "live", False))

    async def mounted() -> None:
        gr.mount_gradio_app(
            app,
            build_page(service, live=live),
            path="/",
            theme=_theme(),
            css=(files("rooftrace.app.page") / "static" / "page.css").read_text(encoding="utf-8"),
            head=f'<link rel="stylesheet" href="{STYLESHEET}"><script src="{SCRIPT}"></script>'
            '<link rel="stylesheet" href="home/static/viewer.css">',
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
        gradio.add_middleware(_OnlyReading)

    # Without a running event loop, Gradio creates some for its locks and leaves them open.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, mounted()).result()
    return app


class _OnlyReading:
    """ASGI middleware that lets only requests through to Gradio that the page sends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and not (
            scope["method"] in ("GET", "HEAD") and _USED.fullmatch(scope["path"])
        ):
            app = await respond(Request(scope), HTTPException(404))
        await app(scope, receive, send)


class _AtRoot:
    """ASGI application that passes requests on as if they had asked for `/`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "path": "/", "raw_path": b"/"}, receive, send)


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
