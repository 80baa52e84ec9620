"""The Gradio demo at `/demo`, and the routes of the viewer that it shares with the page `/`.

Gradio runs nothing on the server: its events act in the browser, and the viewer calls the routes
below `ROOT`. Results are held in memory for a while.
"""

import asyncio
import re
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

import gradio as gr
import numpy as np
import shapely
from affine import Affine
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse
from numpy.typing import NDArray
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rooftrace.core.cache import LruCache
from rooftrace.core.errors import RooftraceError
from rooftrace.density.files import DEFAULT_THRESHOLD
from rooftrace.io.files import written_bytes
from rooftrace.io.legend import CONFIDENCE, LOW_SCORE, NODATA
from rooftrace.io.picture import encoded, write_png
from rooftrace.io.vector_write import write_footprints
from rooftrace.predict.outputs import OutputPaths, Prediction
from rooftrace.predict.plan import NOT_CALIBRATED
from rooftrace.predict.scores import KeptPrediction, KeptScores, predict_keeping
from rooftrace.rest.api import figures_of
from rooftrace.rest.pages import SCRIPT, STYLESHEET, page_header
from rooftrace.rest.problems import respond
from rooftrace.rest.schemas import SceneQuery
from rooftrace.rest.transfer import UploadLimiter, content_disposition, read_upload
from rooftrace.service.service import Service

Made = TypeVar("Made")

_MOST_BYTES = 2**30
"""Maximum size of all results in bytes."""

_BYTES_PER_OUTLINE = 1000
"""Approximate size in bytes of a shapely polygon with its figures."""


class Result:
    """Prediction of one image."""

    def __init__(self, name: str, kept: KeptPrediction) -> None:
        self.name = name
        self.scores = kept.scores
        self._prediction = kept.prediction
        self._lock = threading.Lock()
        picture = kept.prediction.result.preview
        mask = kept.prediction.mask
        self.nbytes = (
            kept.scores.nbytes + mask.data.nbytes + mask.valid.nbytes
            + len(kept.prediction.outlines) * _BYTES_PER_OUTLINE
            + (0 if picture is None else picture.width * picture.height * 3)
        )  # fmt: skip

    def at(self, threshold: float | None = None) -> Prediction:
        """Return the prediction at a threshold; the default is the threshold that was used last.

        Raises:
            ConfigError: A threshold was given for a model of more than two classes.
        """
        with self._lock:
            if threshold is not None and threshold != self._prediction.summary.threshold:
                self._prediction = self.scores.redecide(threshold)
            return self._prediction


Results = LruCache[str, Result]
"""Results by key. A key gives access to its result: only the session that predicted it knows it."""


def new_results() -> Results:
    """Return an empty store; the result that was used longest ago expires first."""
    return LruCache(_MOST_BYTES, lambda result: result.nbytes)


def add_result(results: Results, result: Result) -> str:
    """Add a result and return its key, which is drawn at random."""
    key = secrets.token_urlsafe(16)
    results.put(key, result)
    return key


DOWNLOADS = {
    "mask": "Mask", "geojson": "GeoJSON", "gpkg": "GeoPackage", "overlay": "Picture"
}  # fmt: skip
"""Labels of the files to download by their names in URLs."""


def download(prediction: Prediction, kind: str) -> tuple[str, bytes]:
    """Return the name and the content of a file of `DOWNLOADS`; nothing stays on disk."""
    paths = OutputPaths.of(Path(), prediction.name, prediction.mask.grid, prediction.legend)
    if kind == "mask":
        return paths.mask.name, written_bytes(paths.mask.name, prediction.write_mask)
    if kind == "overlay":
        name, picture = f"{prediction.name}_overlay.png", prediction.result.preview
        assert picture is not None
        return name, written_bytes(name, lambda path: write_png(path, picture, photograph=True))
    name = paths.polygons.with_suffix(f".{kind}").name
    return name, written_bytes(name, lambda path: write_footprints(path, prediction.outlines))


ROOT = "/page"

Threshold = Annotated[float | None, Query(ge=0, le=1)]

_CACHED = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
_BINARY = "application/octet-stream"


def page_router(results: Results, service: Service) -> APIRouter:
    """Return the routes under `ROOT`: prediction, and the layers and downloads of a result."""
    router = APIRouter(prefix=ROOT, include_in_schema=False)
    limiter = UploadLimiter(service.limits.waiting)

    @router.post("/results")
    async def predict(request: Request, query: Annotated[SceneQuery, Query()]) -> dict[str, Any]:
        with limiter.place(request):
            data, name = await read_upload(request, query.filename, service.limits.upload_bytes)
            options = query.scene_options(("mask", "polygons", "preview"))
            queued = service.submit(data, name, options, predict_keeping)
            result = Result(name, await asyncio.wrap_future(queued.answer))
        return await run_in_threadpool(view, add_result(results, result), result, result.at())

    def view(key: str, result: Result, prediction: Prediction) -> dict[str, Any]:
        figures = figures_of(prediction, service.bundle, counted=True)
        # It would come and go, and move the picture, while the threshold is dragged.
        notes = [note for note in figures.notes if note != NOT_CALIBRATED]
        root = f"{ROOT[1:]}/{key}"
        query = "" if figures.threshold is None else f"?threshold={figures.threshold!r}"
        return {
            "key": key, "name": result.name,
            "kind": "classes" if figures.threshold is None else "score",
            "picture": f"{root}/picture.jpg", "fill": f"{root}/fill.png",
            "outlines": f"{root}/outlines.bin{query}", "colours": outline_colours(prediction),
            "ramp": {"low": LOW_SCORE, "colours": CONFIDENCE}, "threshold": figures.threshold,
            "metres_per_px": None if figures.gsd_m is None else figures.gsd_m * result.scores.step,
            "shape": prediction.mask.grid.shape, "figures": figures.model_dump() | {"notes": notes},
            "built_up": DEFAULT_THRESHOLD.percent(figures.built_up_share, 1).replace("%", " %"),
            "downloads": {
                kind: (label, f"{root}/{kind}{query}") for kind, label in DOWNLOADS.items()
            },
        }  # fmt: skip

    def made(key: str, make: Callable[[Result], Made]) -> Made:
        result = results.get(key)
        if result is None:
            raise HTTPException(404, "This result has expired. Drop the image again.")
        try:
            return make(result)
        except RooftraceError as error:
            raise HTTPException(409, error.in_full) from error

    @router.get("/{key}")
    def decide(key: str, threshold: Threshold = None) -> dict[str, Any]:
        return made(key, lambda it: view(key, it, it.at(threshold)))

    @router.get("/{key}/picture.jpg")
    def picture(key: str) -> Response:
        data = made(key, lambda result: picture_jpeg(result.scores))
        return Response(data, media_type="image/jpeg", headers=_CACHED)

    @router.get("/{key}/fill.png")
    def fill(key: str) -> Response:
        data = made(key, lambda result: fill_png(result.scores, result.at()))
        return Response(data, media_type="image/png", headers=_CACHED)

    @router.get("/{key}/outlines.bin")
    def rings(key: str, threshold: Threshold = None) -> Response:
        data = made(key, lambda result: outlines(result.scores, result.at(threshold)))
        return Response(data, media_type=_BINARY, headers=_CACHED)

    @router.get("/{key}/{kind}")
    def file(key: str, kind: str, threshold: Threshold = None) -> Response:
        if kind not in DOWNLOADS:
            raise HTTPException(404, f"The file {kind!r} does not exist; expected {[*DOWNLOADS]}.")
        name, data = made(key, lambda result: download(result.at(threshold), kind))
        headers = _CACHED | {
            "Cache-Control": "no-store", "Content-Disposition": content_disposition(name)
        }  # fmt: skip
        return Response(data, media_type=_BINARY, headers=headers)

    return router


_BINS = 32
_PER_PX = 16
_JPEG_QUALITY = 92


def picture_jpeg(scores: KeptScores) -> bytes:
    """Return the image as JPEG, at the size of `KeptScores.picture`."""
    return encoded(Image.fromarray(scores.picture), "JPEG", quality=_JPEG_QUALITY)


def fill_png(scores: KeptScores, prediction: Prediction) -> bytes:
    """Return the fill of the picture as PNG, at the same size.

    For two classes it is the probability as grey, 0 for nodata; the browser applies the threshold.
    For more classes it has their colours; background and nodata are transparent.
    """
    mask = prediction.mask.data[:: scores.step, :: scores.step]
    if prediction.summary.threshold is not None:
        valid = prediction.mask.valid[:: scores.step, :: scores.step]
        grey = Image.fromarray(np.where(valid, scores.score, 0))
        return encoded(grey, "PNG", compress_level=1)
    table = prediction.legend.table.copy()
    table[0, 3] = table[NODATA, 3] = 0
    return encoded(Image.fromarray(table[mask]), "PNG", compress_level=1)


def outlines(scores: KeptScores, prediction: Prediction) -> bytes:
    """Return the rings of all outlines, with holes, which the browser draws at any size.

    Returns:
        Little-endian: uint32 n; (n,) uint32 number of points of each ring; (points, 2) int16 x and
        y in 16ths of the picture's pixels; (n,) uint8 index of each ring in `outline_colours`.
    """
    footprints = prediction.outlines
    if not len(footprints):
        return np.zeros(1, "<u4").tobytes()
    _, xy, (ring_ends, polygon_ends) = shapely.to_ragged_array(np.asarray(footprints.geometry))
    lengths = np.diff(ring_ends)
    colour = np.repeat(_colours_of(prediction), np.diff(polygon_ends)).astype(np.uint8)
    grid = prediction.mask.grid
    to_pixel = ~grid.transform if grid.crs is not None else Affine.identity()
    t = Affine.scale(1 / scores.step) @ to_pixel
    x = t.a * xy[:, 0] + t.b * xy[:, 1] + t.c
    y = t.d * xy[:, 0] + t.e * xy[:, 1] + t.f
    points = np.rint(np.stack([x, y], axis=1) * _PER_PX).astype("<i2")
    count = np.array([len(lengths)], "<u4")
    return b"".join(one.tobytes() for one in (count, lengths.astype("<u4"), points, colour))


def outline_colours(prediction: Prediction) -> list[str]:
    """Return the `#RRGGBB` colours of `outlines`: by confidence, or of several classes."""
    if prediction.summary.threshold is None:
        table = np.array([prediction.legend.rgb(n) for n in range(len(prediction.legend.names))])
    else:
        stops = np.array([list(bytes.fromhex(text[1:])) for text in CONFIDENCE], dtype=np.float64)
        place, at = np.linspace(0, 1, len(stops)), np.linspace(0, 1, _BINS)
        table = np.rint(np.stack([np.interp(at, place, band) for band in stops.T], axis=1))
    return [f"#{row.astype(np.uint8).tobytes().hex()}" for row in table]


def _colours_of(prediction: Prediction) -> NDArray[np.int64]:
    """Return (n,) index of each outline in `outline_colours`; an unknown score is the lowest."""
    footprints = prediction.outlines
    if prediction.summary.threshold is None:
        assert footprints.class_id is not None
        return footprints.class_id.astype(np.int64)
    along = (np.nan_to_num(footprints.score).astype(np.float64) - LOW_SCORE) / (1 - LOW_SCORE)
    return np.asarray(np.rint(along.clip(0, 1) * (_BINS - 1)), dtype=np.int64)


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
    """Return the page of a service; `mount_page` adds it to an application."""
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
            css=(files("rooftrace") / "app/home/static/gradio.css").read_text(encoding="utf-8"),
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

        async def at_root(scope: Scope, receive: Receive, send: Send) -> None:
            """Pass a request on as if it had asked for `/`.

            Gradio writes the URL of its root into the page, and knows the folder of a proxy only
            as a part of the host.
            """
            headers = MutableHeaders(raw=[*scope["headers"]])
            if folder := scope.get("root_path"):
                host = headers.get("x-forwarded-host", headers.get("host", ""))
                headers["x-forwarded-host"] = host + folder
            asked = {**scope, "path": "/", "raw_path": b"/", "headers": headers.raw}
            await gradio(asked, receive, send)

        # Before Gradio's own routes, which take the rest.
        app.router.routes.insert(0, Route("/demo", GZipMiddleware(at_root)))
        app.router.routes.insert(0, Route("/demo/", lambda _: RedirectResponse("../demo")))
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
