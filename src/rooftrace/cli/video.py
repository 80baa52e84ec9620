"""`rooftrace video`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rooftrace.cli.option_groups import SceneFields, with_groups
from rooftrace.cli.options import (
    EngineName,
    Ensemble,
    Json,
    ModelFiles,
    Precision,
    Tta,
    Weights,
    models_of,
    option,
    parse_weights,
)
from rooftrace.cli.show import answered, bar, say
from rooftrace.predict.options import SceneOptions

if TYPE_CHECKING:
    from rooftrace.flows.video import VideoReport

FRAMES = "Frames"
DRAWING = "Result"


@with_groups
def video(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A video, or camera, camera:1, /dev/video0.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Video to write: .mp4, .m4v, .mov, .mkv.",
        ),
    ],
    *,
    images: Annotated[
        SceneOptions,
        SceneFields(("gsd_m", "scale", "bands", "stretch", "threshold", "min_area_m2")),
    ],
    models: ModelFiles = None,
    ensemble: Ensemble = None,
    weights: Weights = None,
    tta: Tta = None,
    stride: Annotated[
        int,
        option(FRAMES, min=1, metavar="N", help="Predict every n-th frame only."),
    ] = 1,
    smoothing: Annotated[
        Literal["none", "exponential", "flow"],
        option(FRAMES, help="Smoothing over time; flow follows the moving ground."),
    ] = "flow",
    time_constant: Annotated[
        float,
        option(
            FRAMES,
            "--time-constant",
            min=0,
            metavar="S",
            help="Time constant of the smoothing in seconds.",
        ),
    ] = 0.15,
    table: Annotated[
        Path | None,
        option(DRAWING, metavar="FILE", help="CSV table with one row a frame."),
    ] = None,
    opacity: Annotated[
        float,
        option(DRAWING, min=0, max=1, metavar="X", help="Opacity of the fill of buildings."),
    ] = 0.35,
    start: Annotated[
        float,
        option(FRAMES, min=0, metavar="S", help="First second to process."),
    ] = 0.0,
    seconds: Annotated[
        float | None,
        option(FRAMES, min=0, metavar="S", help="Duration to process."),
    ] = None,
    crf: Annotated[
        int,
        option(
            DRAWING,
            min=0,
            max=51,
            metavar="N",
            help="Constant rate factor: 0 is lossless, 51 is worst.",
        ),
    ] = 20,
    strict: Annotated[
        bool,
        option(FRAMES, "--strict", help="Fail if the video is damaged or incomplete."),
    ] = False,
    engine: EngineName = None,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Draw the buildings of a video or a camera into it, and write a table of its frames.

    A camera is recorded until Ctrl-C, or for --seconds.
    """
    from rooftrace.flows.video import VideoOptions, run_video
    from rooftrace.io.video import is_camera

    options = VideoOptions(
        stride=stride, images=images,
        smoothing=smoothing, smoothing_s=time_constant, opacity=opacity, table=table, crf=crf,
        start_s=start, end_s=None if seconds is None else start + seconds, strict=strict,
    )  # fmt: skip
    live = is_camera(source)
    if live and not as_json:
        say("Recording; Ctrl-C stops it.")
    with _stopped_by_signals(live) as stop, bar("video", "frames", hidden=as_json) as shown:

        def progress(done: int, total: int) -> None:
            if shown is not None and total:
                shown(done, total)

        report = run_video(
            source, out, models_of(models, ensemble), options=options,
            ensemble=ensemble or "average", weights=parse_weights(weights), tta=tta, engine=engine,
            precision=precision, progress=progress, stop=stop,
        )  # fmt: skip
    if not answered(report, as_json=as_json):
        _print_report(report)


def _print_report(report: VideoReport) -> None:
    say(
        f"{report.path}: {report.frames:,} frames, {report.video_s:.2f} s, "
        f"on average {report.buildings_mean:,.1f} buildings, {report.built_up_share:.1%} built up"
    )
    if report.table is not None:
        say(f"  table    {report.table}")
    say(
        f"{report.frames_per_s:.1f} frames/s, {report.realtime:.2f} times real time, "
        f"peak memory {report.peak_rss_mb:.0f} MB"
    )


@contextmanager
def _stopped_by_signals(live: bool) -> Iterator[Callable[[], bool]]:
    """Stop on SIGINT or SIGTERM: a recording is finished, an unfinished file is removed."""
    stopped = threading.Event()

    def handle(number: int, frame: object) -> None:
        if live and not stopped.is_set():
            stopped.set()
            return
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
