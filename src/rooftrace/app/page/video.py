"""The page's tab for videos."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from rooftrace.app.page import strings
from rooftrace.app.page.results import chosen_options
from rooftrace.core.errors import ConfigError, DeadlineError, PredictError, RooftraceError
from rooftrace.core.text import in_page_terms
from rooftrace.flows.video import VideoOptions
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.smoothing import SMOOTHINGS
from rooftrace.service.service import Service

_MOST_VIDEO_S = 120.0
"""Maximum duration in seconds of a processed video; longer ones belong on the command line."""

_MOST_S = 900.0
"""Maximum time in seconds that the processing of one video may take."""


class VideoRun:
    """One video, processed in a process of its own.

    Args:
        service: Service whose model and engine are used; its own network is not.
        source: Video file.
        folder: Folder for the results.
        options: Options, with a table.
        most_s: Maximum time in seconds.
    """

    def __init__(
        self,
        service: Service,
        source: Path,
        folder: Path,
        options: VideoOptions,
        *,
        most_s: float = _MOST_S,
    ) -> None:
        self.out = folder / f"{source.stem}_buildings.mp4"
        self.table = folder / f"{source.stem}_buildings.csv"
        self._most_s = most_s
        self._name = source.name
        engine = service.predictor.engine
        chosen = asdict(options) | {"table": str(self.table)}
        self._request = json.dumps({
            "source": str(source), "out": str(self.out), "options": chosen,
            "model": None if service.model_path is None else str(service.model_path),
            "engine": engine.name, "precision": engine.precision,
        })  # fmt: skip
        self._hidden = json.dumps(f"{source.parent}/")[1:-1]
        self._late = False

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield messages of the process: `done` and `total` frames, and finally `report`.

        The process is ended when the generator is closed.

        Raises:
            RooftraceError: See `run_video`; the message names the kind.
            DeadlineError: The processing took too long.
            PredictError: The process died.
        """
        process = subprocess.Popen(
            [sys.executable, "-m", "rooftrace.app.page.video_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        timer = threading.Timer(self._most_s, self._end, [process])
        timer.start()
        finished = False
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(self._request)
            process.stdin.close()
            for line in process.stdout:
                # Paths of uploads must not be shown.
                message = json.loads(line.replace(self._hidden, ""))
                if "error" in message:
                    raise RooftraceError(
                        message["error"]["message"], remedy=message["error"]["remedy"]
                    )
                finished = "report" in message
                yield message
            if not finished:
                raise self._died(process.wait())
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def _end(self, process: subprocess.Popen[str]) -> None:
        self._late = True
        process.kill()

    def _died(self, code: int) -> RooftraceError:
        if self._late:
            return DeadlineError(
                f"{self._name} took longer than {self._most_s:g} s.",
                remedy="Choose a shorter part or a larger stride, or use rooftrace video.",
            )
        return PredictError(
            f"{self._name} could not be done: its process ended with the code {code}.",
            remedy="Play it with another program to see whether it is whole.",
        )


def video_tab(service: Service) -> None:
    """Lay out the tab inside the page."""
    tab = _VideoTab(service)
    with gr.Row(elem_id="rt-video"):
        with gr.Column(scale=3, min_width=280):
            source = gr.File(
                label="Video (MP4, MOV, MKV, WebM, AVI…)", height=132, elem_id="rt-video-file"
            )
            start = gr.Number(0, label="From, s", minimum=0, elem_id="rt-video-start")
            length = gr.Number(
                20, label="For, s", minimum=1, maximum=_MOST_VIDEO_S,
                info=f"At most {_MOST_VIDEO_S:g} s; rooftrace video does all of it.",
            )  # fmt: skip
            stride = gr.Slider(
                1, 10, 2, step=1, label="Stride",
                info="The network runs on every n-th frame; its answer follows the ground between.",
            )  # fmt: skip
            smoothing = gr.Radio([*SMOOTHINGS], value="flow", label="Smoothing over time")
            gsd = gr.Textbox(
                label="Metres per pixel", max_lines=1, max_length=20, placeholder="as the model's"
            )
            bands = gr.Textbox(
                label="Bands", max_lines=1, max_length=100, placeholder="red,green,blue",
                info="Bands of the frames in the order of the model's bands.",
                elem_id="rt-video-bands",
            )  # fmt: skip
            stretch = gr.Textbox(
                label="Values", max_lines=1, max_length=50, placeholder="as they are",
                info="Two values LOW,HIGH that are stretched to the model's range.",
                elem_id="rt-video-stretch",
            )  # fmt: skip
            run = gr.Button("Trace the video", variant="primary", elem_id="rt-video-run")
            stop = gr.Button("Stop", elem_id="rt-video-stop")
        with gr.Column(scale=8, min_width=320):
            status = gr.HTML(elem_id="rt-video-status")
            result = gr.Video(
                show_label=False,
                interactive=False,
                buttons=[],
                height=560,
                elem_id="rt-video-result",
            )
            files = gr.File(label="Files", visible=False, elem_id="rt-video-files")
    started = run.click(
        tab.trace, [source, start, length, stride, smoothing, gsd, bands, stretch],
        [status, result, files],
        concurrency_limit=1, api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    stop.click(
        lambda: strings.status("Stopped.", "note"), None, status, cancels=[started],
        api_visibility="private",
    )  # fmt: skip


class _VideoTab:
    """The events of the tab."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def trace(
        self, given: str | None, start_s: float | None, length_s: float | None, stride: float,
        smoothing: Any, gsd: str, bands: str, stretch: str,
    ) -> Iterator[tuple[str, Any, Any]]:  # fmt: skip
        """Yield status, video and files while the video is processed and when it is done."""
        empty = None, gr.File(visible=False)
        if not given:
            yield strings.status("There is no video yet: drop one first.", "note"), *empty
            return
        yield strings.status("Begun: the model is being loaded."), *empty
        folder = Path(tempfile.mkdtemp(prefix="rooftrace-video-"))
        try:
            options = self._options(
                start_s, length_s, stride, smoothing,
                chosen_options(self._service, gsd, None, bands, stretch),
            )  # fmt: skip
            run = VideoRun(self._service, Path(given), folder, options)
            for message in run.events():
                if "report" in message:
                    made = [str(run.out), str(run.table)]
                    files = gr.File(value=made, visible=True)
                    yield strings.status(_summary(message["report"]), "note"), str(run.out), files
                else:
                    of = f" of about {message['total']:,}" if message["total"] else ""
                    yield strings.status(f"{message['done']:,} frames{of} are done."), *empty
        except RooftraceError as error:
            yield strings.status(strings.sentence(error), "error"), *empty
        finally:
            # Gradio has its own copies of the files that it shows.
            shutil.rmtree(folder, ignore_errors=True)

    def _options(
        self, start_s: float | None, length_s: float | None, stride: float, smoothing: Any,
        chosen: SceneOptions,
    ) -> VideoOptions:  # fmt: skip
        start, length = start_s or 0.0, length_s or 0.0
        if not 0 < length <= _MOST_VIDEO_S:
            raise ConfigError(
                f"{length:g} s of the video were asked for; more than 0 and at most "
                f"{_MOST_VIDEO_S:g} s are done here.",
                remedy="Correct the field, or use rooftrace video.",
            )
        filled = self._service.defaults.filled(chosen)
        stretch = filled.stretch
        if chosen.stretch is None and stretch == "per-band":
            # The server's stretch of images, which would change from frame to frame.
            stretch = None
        return VideoOptions(
            stride=int(stride), gsd_m=filled.gsd_m, scale=filled.scale, smoothing=smoothing,
            start_s=start, end_s=start + length, bands=filled.bands, stretch=stretch or "auto",
        )  # fmt: skip


def _summary(report: dict[str, Any]) -> str:
    text = (
        f"{report['frames']:,} frames in {report['seconds']:.0f} s: on average "
        f"{report['buildings_mean']:.1f} buildings and {report['built_up_share']:.1%} built up."
    )
    return " ".join([text, *(in_page_terms(note) for note in report["notes"])])
