"""`rooftrace video`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rooftrace.cli.options import (
    EngineName,
    Ensemble,
    Gsd,
    Json,
    ModelFiles,
    Precision,
    Threshold,
    Tta,
    Weights,
    models_of,
    parse_weights,
)
from rooftrace.cli.show import answered, bar, say
from rooftrace.core.errors import ConfigError

if TYPE_CHECKING:
    from rooftrace.flows.video import VideoReport

__all__ = ["video"]


def video(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A video, or camera, camera:1, /dev/video0.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The result: .mp4, .m4v, .mov or .mkv.")],
    models: ModelFiles = None,
    ensemble: Ensemble = None,
    weights: Weights = None,
    tta: Tta = None,
    gsd: Gsd = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Take frames so many times as large, whatever metres say."),
    ] = None,
    threshold: Threshold = None,
    min_area: Annotated[
        float | None, typer.Option("--min-area", min=0, help="Smallest building, m².")
    ] = None,
    stride: Annotated[
        int, typer.Option(min=1, help="Show the network each n-th frame, carry on between.")
    ] = 1,
    smoothing: Annotated[
        Literal["none", "exponential", "flow"],
        typer.Option(help="Mix each frame with those before; flow follows the moving ground."),
    ] = "flow",
    time_constant: Annotated[
        float, typer.Option("--time-constant", min=0, help="Of the smoothing, seconds.")
    ] = 0.15,
    table: Annotated[
        Path | None, typer.Option(help="A row for each frame: .csv or .parquet.")
    ] = None,
    opacity: Annotated[
        float, typer.Option(min=0, max=1, help="Of what is drawn over buildings.")
    ] = 0.35,
    outlines: Annotated[bool, typer.Option(help="A line around each building.")] = True,
    caption: Annotated[bool, typer.Option(help="Count and built-up share in the corner.")] = True,
    start: Annotated[float, typer.Option(min=0, help="Where to begin, seconds.")] = 0.0,
    end: Annotated[float | None, typer.Option(min=0, help="Where to end, seconds.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="How much to do, in place of --end.")
    ] = None,
    codec: Annotated[Literal["h264", "h265"], typer.Option(help="Of the result.")] = "h264",
    crf: Annotated[
        int, typer.Option(min=0, max=51, help="What the encoder may lose: 0 nothing, 51 most.")
    ] = 20,
    strict: Annotated[
        bool, typer.Option("--strict", help="A damaged or broken-off video is an error.")
    ] = False,
    engine: EngineName = None,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """The buildings of a video or a camera: the same video with them, and a table of its frames.

    A camera is recorded until Ctrl-C, or for --seconds.
    """
    from rooftrace.flows.video import VideoOptions, run_video
    from rooftrace.io.video_open import is_camera

    if end is not None and seconds is not None:
        raise ConfigError(
            "--end and --seconds were both given.",
            remedy="Say only one: where to end, or how long.",
        )
    options = VideoOptions(
        stride=stride, gsd_m=gsd, scale=scale, threshold=threshold, min_area_m2=min_area,
        smoothing=smoothing, smoothing_s=time_constant, opacity=opacity, outlines=outlines,
        caption=caption, table=table, codec=codec, crf=crf, start_s=start,
        end_s=end if seconds is None else start + seconds, strict=strict,
    )  # fmt: skip
    live = is_camera(source)
    if live and not as_json:
        say("recording; Ctrl-C ends it")
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
        _tell(report)


def _tell(report: VideoReport) -> None:
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
    """Ctrl-C, or a polite kill: a camera's recording ends whole, of a file nothing is left."""
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
