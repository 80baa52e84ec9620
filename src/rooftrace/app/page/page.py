"""The Gradio page: drop images, see buildings, move the threshold, download the files.

`mount_page` adds it to an application, with the settings of its server. The example images are
parts of the generated scene that comes with rooftrace.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import weakref
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from python_multipart.exceptions import FormParserError
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rooftrace.app.page import strings
from rooftrace.app.page.files import ROOT, outline_colours, page_router, thumbnail
from rooftrace.app.page.results import (
    MOST_IMAGES,
    Result,
    ResultStore,
    chosen_options,
    predict_files,
)
from rooftrace.app.page.strings import model_card
from rooftrace.app.page.uploads import UploadFolder, UploadMiddleware, folder_of_process
from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import Window
from rooftrace.io.image_write import as_rgb, write_raster
from rooftrace.io.raster import open_raster
from rooftrace.io.sources import ArraySource
from rooftrace.rest.face import SCRIPT, STYLESHEET, page_header
from rooftrace.rest.jobs import JobIntake
from rooftrace.rest.problems import ProblemError
from rooftrace.rest.upload import UploadLimiter
from rooftrace.service.service import Service
from rooftrace.testing.scene import demo_scene_path


@dataclass(frozen=True)
class Example:
    """An example image.

    Args:
        title: Name that is shown.
        window: Part of the demo scene; None for all of it.
        placed: Whether the file is georeferenced, so that its pixel size is known.
    """

    title: str
    window: Window | None = None
    placed: bool = True


EXAMPLES = (
    Example("Town"),
    Example("Dense", Window(900, 720, 512, 512)),
    Example("Sparse", Window(40, 60, 512, 512)),
    Example("No scale", Window(480, 1290, 512, 512), placed=False),
)

_THUMB_PX = 160


class Examples:
    """The examples as files, in a folder that is removed with this object."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rooftrace-examples-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self.paths = [self._write(example) for example in EXAMPLES]

    def _write(self, example: Example) -> Path:
        scene = demo_scene_path()
        name = example.title.lower().replace(" ", "-")
        if example.window is None:
            return Path(shutil.copy(scene, self._folder / f"{name}.tif"))
        raster = open_raster(scene).read(example.window)
        source = ArraySource(raster.data, raster.grid if example.placed else None, name=name)
        return write_raster(self._folder, name, source)

    def html(self) -> str:
        """Return a button with a picture for each example."""
        made = []
        for number, (example, path) in enumerate(zip(EXAMPLES, self.paths)):
            rgb = as_rgb(open_raster(path).read().data)
            small = cv2.resize(rgb, (_THUMB_PX, _THUMB_PX), interpolation=cv2.INTER_AREA)
            done, data = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]))
            assert done
            picture = b64encode(bytes(data)).decode()
            made.append(
                f'<button type="button" data-pick="{number}">'
                f'<img src="data:image/jpeg;base64,{picture}" alt="">{example.title}</button>'
            )
        return f'<div class="rt-examples" role="group" aria-label="Examples">{"".join(made)}</div>'


_MODES = ("Overlay", "Outlines", "Mask", "Image")
_OPACITY = 45
_EVERY_S, _AGE_S = 600, 3600
"""Interval in seconds at which uploads are checked, and the age at which they are deleted."""

MAX_FILES = 16
"""Maximum number of files in one upload of the page; each may have the size of an upload."""

_MAX_UPLOADS = 64
"""Maximum size of all files that were dropped on the page, in multiples of the largest one."""

_UPDATES = dict[Any, Any]


def static_text(name: str) -> str:
    """Return the text of a file that comes with the page."""
    return (files("rooftrace.app.page") / "static" / name).read_text(encoding="utf-8")


def build_page(
    service: Service, store: ResultStore | None = None, *, jobs: bool = False
) -> gr.Blocks:
    """Return the page of a service; `mount_page` adds it and what it refers to to an application.

    Args:
        service: Model service.
        store: Store of the results, which the routes of `page_router` serve.
        jobs: Whether the server has jobs, so that images that are too large become jobs.
    """
    page = _Page(service, store or ResultStore(), jobs)
    blocks: gr.Blocks = gr.Blocks(
        title="rooftrace",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_EVERY_S, _AGE_S),
    )
    with blocks:
        gr.HTML(page_header("demo"), padding=False, elem_id="rt-head")
        gr.HTML(_ABOUT.format(model=escape(service.bundle.spec.name)), padding=False)
        with gr.Tabs():
            with gr.Tab("Images"):
                page.images()
            with gr.Tab("Model"):
                gr.HTML(model_card(service.bundle.spec, service.predictor.engine))
    blocks.queue(max_size=service.limits.waiting, api_open=False)
    return blocks


_ABOUT = '<h1 class="rt-about">Buildings in overhead images <span>model {model}</span></h1>'


_JOBS = (
    '<div data-limit="{limit}" data-threshold="{threshold}"><p role="status" hidden></p>'
    '<ul aria-label="Jobs"></ul></div>'
)
"""Place for the images that become jobs, with what `drop.js` needs to know."""


class _Page:
    """The components of the tab for images, and the events between them."""

    def __init__(self, service: Service, store: ResultStore, jobs: bool) -> None:
        self.service = service
        self.store = store
        self.jobs = jobs
        self.examples = Examples()

    def images(self) -> None:
        """Lay out the tab."""
        spec = self.service.bundle.spec
        self.run = gr.State("", delete_callback=self.store.forget)
        self.index = gr.State(0)
        # The order is that of a narrow screen; on a wide one the stylesheet puts two beside the
        # result.
        with gr.Row(equal_height=False, elem_id="rt-main"):
            with gr.Column(min_width=280, elem_id="rt-drop"):
                self.files = gr.File(
                    label="Images (GeoTIFF, PNG, JPEG…)",
                    file_count="multiple",
                    height=132,
                    elem_id="rt-files",
                )
                samples = gr.HTML(self.examples.html(), js_on_load=_PICK, elem_id="rt-samples")
            with gr.Column(min_width=280, elem_id="rt-result"):
                gr.HTML(
                    _JOBS.format(
                        # Without jobs, Gradio refuses a file that is too large.
                        limit=self.service.limits.upload_bytes if self.jobs else "Infinity",
                        threshold=spec.threshold if spec.is_binary else "",
                    ),
                    js_on_load=static_text("drop.js"), elem_id="rt-jobs",
                    padding=False,
                )  # fmt: skip
                self.status = gr.HTML(padding=False, elem_id="rt-status")
                self.figures = gr.HTML(padding=False, elem_id="rt-figures")
                self.viewer = gr.HTML(
                    None, html_template=static_text("viewer.html"),
                    js_on_load=static_text("viewer.js"), elem_id="rt-viewer",
                    padding=False,
                )  # fmt: skip
                self.foot = gr.HTML(padding=False, elem_id="rt-foot")
            with gr.Column(min_width=280, elem_id="rt-settings"):
                self.threshold = gr.Slider(
                    min(0.01, spec.threshold), max(0.99, spec.threshold), spec.threshold,
                    step=0.005, precision=3,
                    label="Threshold",
                    info=_threshold_info(self.service),
                    interactive=spec.is_binary,
                    elem_id="rt-threshold",
                )  # fmt: skip
                opacity = gr.Slider(
                    0, 100, _OPACITY, step=1, label="Opacity of the fill, %", elem_id="rt-opacity"
                )
                mode = gr.Radio(_MODES, value=_MODES[0], label="View", elem_id="rt-mode")
                # An empty number field would show 0.
                self.gsd = gr.Textbox(
                    label="Metres per pixel",
                    info="Where the image does not say, or is wrong; then trace again.",
                    placeholder="as the image says",
                    max_lines=1,
                    max_length=20,
                    elem_id="rt-gsd",
                )
                self.bands = gr.Textbox(
                    label="Bands",
                    info="For images with other bands than red, green, blue: 3,2,1 or their names.",
                    placeholder="as the image says",
                    max_lines=1,
                    max_length=100,
                    elem_id="rt-bands",
                )
                self.stretch = gr.Textbox(
                    label="Values",
                    info="How they are stretched: auto, none, per-band, or two values LOW,HIGH.",
                    placeholder=self.service.defaults.images.stretch or "auto",
                    max_lines=1,
                    max_length=50,
                    elem_id="rt-stretch",
                )
                again = gr.Button("Trace again", elem_id="rt-again")
        with gr.Column(visible=False) as self.several:
            self.gallery = gr.Gallery(
                label="Images", show_label=False, columns=8, fit_columns=False, object_fit="cover",
                allow_preview=False, interactive=False, buttons=[], elem_id="rt-gallery",
            )  # fmt: skip
            self.table = gr.HTML(js_on_load=_PICK, elem_id="rt-table")
        self._connect(samples, opacity, mode, again)

    def _connect(
        self, samples: gr.HTML, opacity: gr.Slider, mode: gr.Radio, again: gr.Button
    ) -> None:
        limits = self.service.limits
        quiet: dict[str, Any] = {"api_visibility": "private"}
        shown = [
            self.run, self.index, self.viewer, self.figures, self.foot, self.status,
            self.several, self.gallery, self.table,
        ]  # fmt: skip
        # The service has the queue and says when to try again.
        tracing: dict[str, Any] = {
            "fn": self.trace,
            "inputs": [
                self.files,
                self.gsd,
                self.bands,
                self.stretch,
                self.threshold,
                self.run,
            ],
            "outputs": shown,
            "concurrency_limit": limits.waiting,
            "show_progress_on": self.viewer,
            **quiet,
        }
        self.files.upload(**tracing)
        again.click(**tracing)
        self.gsd.submit(**tracing)
        self.bands.submit(**tracing)
        self.stretch.submit(**tracing)
        samples.click(self.example, None, self.files, **quiet).then(**tracing)
        self.threshold.input(
            None, self.threshold, None, js="(value) => window.rooftrace?.threshold(value)"
        )
        self.threshold.change(
            self.decide, [self.threshold, self.run, self.index],
            [self.viewer, self.figures, self.foot, self.status],
            trigger_mode="always_last", show_progress="hidden",
            concurrency_limit=limits.running, **quiet,
        )  # fmt: skip
        opacity.change(None, opacity, None, js="(value) => window.rooftrace?.opacity(value)")
        mode.change(None, mode, None, js="(value) => window.rooftrace?.mode(value)")
        picked = [
            self.index, self.viewer, self.figures, self.foot, self.status, self.threshold,
        ]  # fmt: skip
        at_once: dict[str, Any] = {"show_progress": "hidden", **quiet}
        self.gallery.select(self.pick, self.run, picked, **at_once)
        self.table.click(self.pick_row, self.run, picked, **at_once)

    def example(self, event: gr.EventData) -> list[str] | None:
        """Return the file of the example that was clicked."""
        number = _picked(event)
        if number is None or not 0 <= number < len(self.examples.paths):
            return None
        return [str(self.examples.paths[number])]

    def trace(
        self, given: Sequence[str] | None, gsd_m: str, bands: str, stretch: str,
        threshold: float | None, run: str,
    ) -> Iterator[_UPDATES]:  # fmt: skip
        """Predict the dropped files; the first image is shown as soon as it is done."""
        paths = [Path(one) for one in given or ()]
        try:
            options = chosen_options(self.service, gsd_m, threshold, bands, stretch)
        except RooftraceError as error:
            yield {self.status: strings.status(strings.sentence(error), "error")}
            return
        if not paths:
            yield {self.status: strings.status("There is no image yet: drop one first.", "note")}
            return
        if len(paths) > MOST_IMAGES:
            message = f"{len(paths)} images were dropped; at most {MOST_IMAGES} are allowed."
            remedy = "Drop fewer, or give the folder to rooftrace predict."
            yield {self.status: strings.status(f"{message} {remedy}", "error")}
            return
        self.store.forget(run)
        run = self.store.begin()
        many = len(paths) > 1
        first = True
        pictures: list[tuple[Any, str]] = []
        for count, result in enumerate(
            predict_files(self.service, self.store, run, paths, options), start=1
        ):
            if many:
                pictures.append(_gallery_entry(result))
            update: _UPDATES = {self.run: run}
            if first and (result.error is None or count == len(paths)):
                first = False
                update |= {self.index: count - 1} | self._shown(run, count - 1)
            if many:
                update |= {
                    self.several: gr.Column(visible=True),
                    self.gallery: gr.Gallery(value=pictures),
                    self.table: strings.table(self.store.run(run), self._buttons(run)),
                }
                update[self.status] = self._progress(run, len(paths))
            else:
                update[self.several] = gr.Column(visible=False)
            yield update

    def _buttons(self, run: str) -> Sequence[str]:
        """Return the button of each result that makes a job of it, if the server has jobs."""
        results = enumerate(self.store.run(run))
        return [strings.job_button(ROOT, run, *one) if self.jobs else "" for one in results]

    def _progress(self, run: str, count: int) -> str:
        """Return the progress of a run of several images."""
        results = self.store.run(run)
        failed = sum(result.error is not None for result in results)
        text = strings.images_done(len(results) - failed, count, failed)
        return strings.status(text, "error" if failed else "note")

    def decide(self, threshold: float, run: str, index: int) -> _UPDATES:
        """Apply another threshold without running the network."""
        result = self.store.get(run, index)
        if result is None or result.error is not None or not self.service.bundle.spec.is_binary:
            return {self.status: gr.skip()}
        try:
            result.at(threshold)
        except RooftraceError as error:
            return {self.status: strings.status(strings.sentence(error), "error")}
        return self._shown(run, index)

    def pick(self, run: str, event: gr.EventData) -> _UPDATES:
        """Show the image of the gallery that was clicked."""
        return self._chosen(run, _picked(event, "index"))

    def pick_row(self, run: str, event: gr.EventData) -> _UPDATES:
        """Show the image of the table row that was clicked."""
        return self._chosen(run, _picked(event))

    def _chosen(self, run: str, index: Any) -> _UPDATES:
        result = self.store.get(run, index) if isinstance(index, int) else None
        if result is None:
            return {self.status: gr.skip()}
        update: _UPDATES = {self.index: index} | self._shown(run, index)
        if result.summary is not None and result.summary.threshold is not None:
            update[self.threshold] = result.summary.threshold
        return update

    def _shown(self, run: str, index: int) -> _UPDATES:
        """Return the updates that show one result at its current threshold."""
        result = self.store.get(run, index)
        if result is None:
            return {self.status: gr.skip()}
        button = self._buttons(run)[index]
        try:
            scores, prediction = result.scores, result.at()
        except RooftraceError as error:
            return {
                self.viewer: None,
                self.figures: "",
                self.foot: "",
                self.status: strings.status(strings.sentence(error), "error", button),
            }
        summary = prediction.summary
        address = f"{ROOT}/{run}/{index}"
        threshold = summary.threshold
        asked = "" if threshold is None else f"?threshold={threshold!r}"
        view = {
            "name": result.name,
            "kind": "classes" if threshold is None else "score",
            "picture": f"{address}/picture.jpg",
            "fill": f"{address}/fill.png",
            "outlines": f"{address}/outlines.bin{asked}",
            "colours": outline_colours(prediction),
            "threshold": threshold,
            "metres_per_px": None if summary.gsd_m is None else summary.gsd_m * scores.step,
        }
        links = strings.downloads(ROOT, run, index, self.store.run(run), button)
        return {
            self.viewer: view,
            self.figures: strings.figures(prediction),
            self.foot: f'<div class="rt-foot">{links}{strings.legend(prediction)}</div>',
            self.status: strings.status(strings.notes(summary), "note"),
        }


def _gallery_entry(result: Result) -> tuple[Any, str]:
    try:
        return thumbnail(result.scores, result.at()), result.name
    except RooftraceError:
        return _BLANK, f"{result.name}: failed"


_BLANK = np.full((120, 120, 3), 128, dtype=np.uint8)


def _picked(event: gr.EventData, field: str = "pick") -> int | None:
    """Return the number of a clicked button of `_PICK`; None for anything else a browser may
    send.
    """
    number = event._data.get(field) if isinstance(event._data, dict) else None
    return number if isinstance(number, int) else None


def _threshold_info(service: Service) -> str:
    spec = service.bundle.spec
    if spec.is_binary:
        return f"The model's own: {spec.threshold:g}"
    return (
        f"None here: the model has {len(spec.classes)} classes, and each pixel takes the most "
        "probable."
    )


_PICK = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-pick]");
  if (button) trigger("click", { pick: Number(button.dataset.pick) });
});
"""

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


def mount_page(app: FastAPI, service: Service, *, intake: JobIntake | None = None) -> FastAPI:
    """Add the page at `/demo` and its routes. Call it last, because it takes all other addresses.

    Gradio's own files are at the root, and the page is there too where no other page has `/`.

    Only uploads and files made from them are served. Nothing is requested from other machines, and
    neither calls nor uploads are recorded.

    Args:
        app: Application to which the page is added.
        service: Model service.
        intake: Intake of the server's jobs, if it has any.
    """
    store = ResultStore()
    app.include_router(page_router(store, intake))
    limits = service.limits
    folder = UploadFolder(folder_of_process(), _MAX_UPLOADS * limits.upload_bytes, _AGE_S)

    async def mounted() -> None:
        page = build_page(service, store, jobs=intake is not None)
        _refuse_paths(page)
        gr.mount_gradio_app(
            app,
            page,
            path="/",
            theme=_theme(),
            css=static_text("page.css"),
            head=f'<link rel="stylesheet" href="{STYLESHEET}"><script src="{SCRIPT}"></script>',
            allowed_paths=[],
            max_file_size=limits.upload_bytes,
            show_error=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
        )
        gradio = _mounted(app)
        # Before Gradio's own routes, which take the rest.
        app.router.routes.insert(0, Route("/demo", GZipMiddleware(_AtRoot(gradio))))
        _refuse_malformed_bodies(gradio)
        gradio.add_middleware(
            UploadMiddleware,
            folder=folder,
            limiter=UploadLimiter(limits.waiting),
            max_bytes=MAX_FILES * limits.upload_bytes,
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


def _mounted(app: FastAPI) -> FastAPI:
    """Return Gradio's app within an application."""
    [mounted] = [route.app for route in app.routes if isinstance(route, Mount) and not route.path]
    assert isinstance(mounted, FastAPI)
    return mounted


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
            raise gr.Error("An address was given; drop a file.", print_exception=False)
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
