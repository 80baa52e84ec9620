"""The page: drop images, see buildings, move the threshold, take the files along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from rooftrace.app.page import words
from rooftrace.app.page.card import model_card
from rooftrace.app.page.examples import Examples
from rooftrace.app.page.pictures import outline_colours, thumbnail
from rooftrace.app.page.results import Result, ResultStore
from rooftrace.app.page.routes import ROOT
from rooftrace.app.page.tracing import MOST_IMAGES, chosen_options, trace
from rooftrace.core.errors import RooftraceError
from rooftrace.service.service import Service

__all__ = ["build_page", "static_text"]

_MODES = ("Overlay", "Outlines", "Mask", "Image")
_OPACITY = 45
_EVERY_S, _AGE_S = 600, 3600
"""How often uploads are looked through, and when they go."""

_UPDATES = dict[Any, Any]


def static_text(name: str) -> str:
    """A file that comes with the page."""
    return (files("rooftrace.app.page") / "static" / name).read_text(encoding="utf-8")


def build_page(
    service: Service, store: ResultStore | None = None, *, video: bool = False
) -> gr.Blocks:
    """The page of a service, to be mounted by `mount_page`, which serves what it refers to.

    Args:
        service: predicts.
        store: where results are held; the routes of `page_router` hand them out.
        video: whether there is a tab for videos.
    """
    page = _Page(service, store or ResultStore())
    blocks: gr.Blocks = gr.Blocks(
        title="rooftrace",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_EVERY_S, _AGE_S),
    )
    with blocks:
        gr.HTML(_HEAD.format(model=escape(service.bundle.spec.name)))
        with gr.Tabs():
            with gr.Tab("Images"):
                page.images()
            if video:
                from rooftrace.app.page.video import video_tab

                with gr.Tab("Video"):
                    video_tab(service)
            with gr.Tab("Model"):
                gr.HTML(model_card(service.bundle.spec, service.predictor.engine))
    blocks.queue(max_size=service.limits.waiting, api_open=False)
    return blocks


_HEAD = (
    '<header class="rt-head"><h1>rooftrace</h1><p>Buildings in overhead images · model {model}</p>'
    '<a href="/map">Map</a><a href="/jobs">Jobs</a><a href="/v1/docs">API</a></header>'
)


class _Page:
    """The components of the tab for images, and what happens between them."""

    def __init__(self, service: Service, store: ResultStore) -> None:
        self.service = service
        self.store = store
        self.examples = Examples()

    def images(self) -> None:
        """Lay out the tab."""
        spec = self.service.bundle.spec
        self.run = gr.State("", delete_callback=self.store.forget)
        self.index = gr.State(0)
        # In the order of a narrow screen; on a wide one the stylesheet sets two beside the result.
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
                self.status = gr.HTML(elem_id="rt-status")
                self.figures = gr.HTML(elem_id="rt-figures")
                self.viewer = gr.HTML(
                    None, html_template=static_text("viewer.html"),
                    js_on_load=static_text("viewer.js"), elem_id="rt-viewer",
                )  # fmt: skip
                self.foot = gr.HTML(elem_id="rt-foot")
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
                # A number's empty field would show 0.
                self.gsd = gr.Textbox(
                    label="Metres per pixel",
                    info="Where the image does not say, or is wrong; then trace again.",
                    placeholder="as the image says",
                    max_lines=1,
                    max_length=20,
                    elem_id="rt-gsd",
                )
                again = gr.Button("Trace again", elem_id="rt-again")
        with gr.Column(visible=False) as self.several:
            self.gallery = gr.Gallery(
                label="Images", columns=8, fit_columns=False, height=168, object_fit="cover",
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
        # The service has the queue, and says when to come again.
        tracing: dict[str, Any] = {
            "fn": self.trace,
            "inputs": [self.files, self.gsd, self.threshold, self.run],
            "outputs": shown,
            "concurrency_limit": limits.waiting,
            "show_progress_on": self.viewer,
            **quiet,
        }
        self.files.upload(**tracing)
        again.click(**tracing)
        self.gsd.submit(**tracing)
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
        """The file of the example that was clicked."""
        number = _picked(event)
        if number is None or not 0 <= number < len(self.examples.paths):
            return None
        return [str(self.examples.paths[number])]

    def trace(
        self, given: Sequence[str] | None, gsd_m: str, threshold: float | None, run: str
    ) -> Iterator[_UPDATES]:
        """Predict what was dropped; the first image is shown as soon as it is done."""
        paths = [Path(one) for one in given or ()]
        try:
            options = chosen_options(self.service, gsd_m, threshold)
        except RooftraceError as error:
            yield {self.status: words.status(words.sentence(error), "error")}
            return
        if not paths:
            yield {self.status: words.status("There is no image yet: drop one first.", "note")}
            return
        if len(paths) > MOST_IMAGES:
            told = f"{len(paths)} images at once are more than the {MOST_IMAGES} that are taken."
            remedy = "Drop fewer, or give the folder to rooftrace predict."
            yield {self.status: words.status(f"{told} {remedy}", "error")}
            return
        self.store.forget(run)
        run = self.store.begin()
        many = len(paths) > 1
        first = True
        pictures: list[tuple[Any, str]] = []
        for count, result in enumerate(
            trace(self.service, self.store, run, paths, options), start=1
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
                    self.table: words.table(self.store.run(run)),
                }
                update[self.status] = self._progress(run, len(paths))
            else:
                update[self.several] = gr.Column(visible=False)
            yield update

    def _progress(self, run: str, count: int) -> str:
        """How far a run of several images is."""
        results = self.store.run(run)
        failed = sum(result.error is not None for result in results)
        told = f"{len(results)} of {count} images are done"
        told += f", of which {failed} failed: the table says why." if failed else "."
        return words.status(told, "error" if failed else "note")

    def decide(self, threshold: float, run: str, index: int) -> _UPDATES:
        """Another threshold; the network is not run."""
        result = self.store.get(run, index)
        if result is None or result.error is not None or not self.service.bundle.spec.is_binary:
            return {self.status: gr.skip()}
        try:
            result.at(threshold)
        except RooftraceError as error:
            return {self.status: words.status(words.sentence(error), "error")}
        return self._shown(run, index)

    def pick(self, run: str, event: gr.SelectData) -> _UPDATES:
        """The image of the gallery that was clicked."""
        return self._chosen(run, event.index)

    def pick_row(self, run: str, event: gr.EventData) -> _UPDATES:
        """The image of the table's row that was clicked."""
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
        """What is seen of one result, as it was decided last."""
        result = self.store.get(run, index)
        if result is None:
            return {self.status: gr.skip()}
        try:
            scores, prediction = result.scores, result.at()
        except RooftraceError as error:
            return {
                self.viewer: None,
                self.figures: "",
                self.foot: "",
                self.status: words.status(words.sentence(error), "error"),
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
        links = words.downloads(ROOT, run, index, self.store.run(run))
        return {
            self.viewer: view,
            self.figures: words.figures(prediction),
            self.foot: f'<div class="rt-foot">{links}{words.legend(prediction)}</div>',
            self.status: words.status(words.notes(summary), "note"),
        }


def _gallery_entry(result: Result) -> tuple[Any, str]:
    try:
        return thumbnail(result.scores, result.at()), result.name
    except RooftraceError:
        return _BLANK, f"{result.name}: failed"


_BLANK = np.full((120, 120, 3), 128, dtype=np.uint8)


def _picked(event: gr.EventData) -> int | None:
    """The number that a button of `_PICK` has; whatever else a browser may send is None."""
    number = event._data.get("pick") if isinstance(event._data, dict) else None
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
