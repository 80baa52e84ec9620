"""`rooftrace video`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rooftrace.cli.option_groups import Fields, ModelGroup, Shown, scene_fields, with_groups
from rooftrace.cli.options import Json, option, out_option, result_file
from rooftrace.cli.show import answered, bar, counted, say
from rooftrace.predict.options import SceneOptions, VideoOptions

if TYPE_CHECKING:
    from rooftrace.flows.video import VideoReport

FRAMES = "Frames"
DRAWING = "Result"

_OPTIONS: dict[str, Shown] = {
    "stride": Shown(FRAMES, "N"),
    "smoothing": Shown(FRAMES),
    "time_constant_s": Shown(FRAMES, "S"),
    "table": Shown(DRAWING, "FILE"),
    "opacity": Shown(DRAWING, "X"),
    "start_s": Shown(FRAMES, "S"),
    "crf": Shown(DRAWING, "N"),
}


@with_groups
def video(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A video, or camera, camera:1, /dev/video0.")
    ],
    out: Annotated[Path, out_option("Video to write: .mp4, .m4v, .mov, .mkv.", parser=result_file)],
    *,
    images: Annotated[
        SceneOptions, scene_fields("gsd_m", "scale", "bands", "stretch", "threshold", "min_area_m2")
    ],
    options: Annotated[VideoOptions, Fields(VideoOptions, _OPTIONS)],
    model: ModelGroup,
    seconds: Annotated[
        float | None, option(FRAMES, min=0, metavar="S", help="Duration to process.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the buildings of a video or a camera into it, and write a table of its frames.

    A camera is recorded until Ctrl-C, or for --seconds.
    """
    from rooftrace.flows.video import run_video
    from rooftrace.io.video import is_camera

    end_s = None if seconds is None else options.start_s + seconds
    options = VideoOptions(**{**dict(options), "images": images, "end_s": end_s})
    live = is_camera(source)
    if live and not as_json:
        say("Recording; Ctrl-C stops it.")
    with (
        _stopped_by_signals(live) as stop,
        bar("video", counted("frames"), hidden=as_json) as shown,
    ):

        def progress(done: int, total: int) -> None:
            if shown is not None and total:
                shown(done, total)

        report = run_video(source, out, model.read(), options=options, progress=progress, stop=stop)
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
