"""`rooftrace video`: find the buildings in a video or camera, and write the video and a table.

The table is CSV or Parquet, with one row for each frame.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from rooftrace.core.errors import ConfigError, MissingExtraError, PredictError
from rooftrace.core.machine import peak_rss_mb
from rooftrace.core.types import Progress
from rooftrace.flows.video.frames import FrameAsker, FramePainter, Shot, Stage, VideoOptions
from rooftrace.io.files import check_outputs, replacing
from rooftrace.io.video_read import AudioPacket, VideoFrame, VideoReader, is_camera
from rooftrace.io.video_write import VideoWriter, check_video_name, video_sink
from rooftrace.predict.ensemble import Combine
from rooftrace.predict.model_set import Models, read_models
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.tta import TtaChoice

__all__ = ["VideoOptions", "VideoReport", "run_video"]


@dataclass(frozen=True)
class VideoReport:
    """Result of a video.

    Args:
        path: Path of the written video.
        table: Path of the table, or None.
        frames: Number of written frames.
        asked: Number of frames on which the network ran.
        cuts: Number of scene changes.
        shape_yx: Height and width of the frames.
        video_s: Duration of the result in seconds.
        seconds: Processing time in seconds, without loading the model.
        frames_per_s: Frames processed a second.
        realtime: Seconds of video processed a second.
        built_up_share: Mean built-up share of the frames.
        buildings_mean, buildings_most: Mean and maximum number of buildings in a frame.
        encoder: Name of the video encoder.
        sound: Number of copied audio tracks.
        broke_at_s: Time in seconds at which the input breaks off; None if it is complete.
        damaged: Number of frames that could not be decoded, or only in part.
        notes: Assumptions, for the person to read.
    """

    path: Path
    table: Path | None
    frames: int
    asked: int
    cuts: int
    shape_yx: tuple[int, int]
    video_s: float
    seconds: float
    frames_per_s: float
    realtime: float
    built_up_share: float
    buildings_mean: float
    buildings_most: int
    encoder: str
    sound: int
    broke_at_s: float | None
    damaged: int
    peak_rss_mb: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return asdict(self) | {
            "path": str(self.path),
            "table": None if self.table is None else str(self.table),
            "shape_yx": list(self.shape_yx),
            "notes": list(self.notes),
        }


_WAITING_BYTES = 64 * 2**20
"""Maximum size in bytes of the frames between reading and drawing; a few large frames always
fit.
"""

_WAITING_FRAMES = 6

_ENCODING_BYTES = 16 * 2**20
"""Maximum size in bytes of the drawn frames that wait for the encoder."""


def run_video(
    source: str | Path,
    out: Path,
    model: Models = None,
    *,
    predictor: Predictor | None = None,
    options: VideoOptions | None = None,
    ensemble: Combine = "average",
    weights: Sequence[float] | None = None,
    tta: TtaChoice | None = None,
    engine: str | None = None,
    precision: str | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> VideoReport:
    """Find the buildings in every frame and write them into a video.

    Frames keep their times and sound is copied. Reading, the network, drawing and encoding run at
    the same time; memory does not grow with the length of the video.

    Args:
        source: Video file, or `camera`, `camera:1`, `/dev/video0`.
        out: Video to write, .mp4, .m4v, .mov or .mkv; it appears when it is complete.
        model: Bundle, several bundles that are combined, or None for the bundled model.
        predictor: Loaded model, in place of `model`.
        options: Options of the video.
        ensemble, weights, tta, engine, precision: Options of the model.
        progress: See `Progress`; called from another thread.
        stop: Function called for every frame; when it returns True, the result ends there and is
            complete. A camera has no other end but `options.end_s`.

    Raises:
        ConfigError: An option is impossible, the result would overwrite the input, or a threshold
            was given for a model of more than two classes.
        MissingExtraError: PyAV is not installed.
        DataError: There is no such video, or none of its frames can be decoded.
        GeoreferenceError: A minimum area was given without metres.
        BundleError, BandMismatch, GsdMismatch: The model cannot be used for the video.
        PredictError: The network failed, or the video is damaged and `options.strict` is set.
        ExportError: The result cannot be written.
    """
    options = options or VideoOptions()
    _check_names(source, out, options)
    reader = VideoReader(source, start_s=options.start_s, end_s=options.end_s, stop=stop)
    with reader:
        loaded = (
            predictor
            or read_models(
                model, ensemble, weights=weights, tta=tta, engine=engine, precision=precision
            ).ready()
        )
        run = _Run(reader, loaded, options, progress)
        with (
            frame_table(options.table) as table,
            video_sink(
                out, reader.info, reader.sound_streams, codec=options.codec, crf=options.crf
            ) as sink,
        ):
            run.all(table, sink)
            report = run.report(out, sink)
    if options.strict and (report.broke_at_s is not None or report.damaged):
        raise PredictError(
            f"{' '.join(reader.notes)} {out} has the {report.frames:,} frames that could be "
            "decoded.",
            remedy="Get the video again, or leave out --strict.",
        )
    return report


def _check_names(source: str | Path, out: Path, options: VideoOptions) -> None:
    check_video_name(out)
    if options.table is not None:
        check_table(options.table)
    written = [out] if options.table is None else [out, options.table]
    check_outputs(written, [None if is_camera(source) else Path(source)])


class _Run:
    """One video from its first frame to its last."""

    def __init__(
        self,
        reader: VideoReader,
        predictor: Predictor,
        options: VideoOptions,
        progress: Progress | None,
    ) -> None:
        self._reader = reader
        self._predictor = predictor
        self._options = options
        self._progress = progress
        self._painter = FramePainter(reader.name, reader.info.shape_yx, predictor, options)
        self._asker: FrameAsker | None = None
        self._total = _frames_in(reader, options)
        self.frames = 0
        self._shares = 0.0
        self._buildings, self._most = 0, 0
        self._until_s = 0.0
        self._started = time.perf_counter()

    def all(self, table: FrameTable, sink: VideoWriter) -> None:
        """Read, predict, draw and encode at the same time."""

        def encode(item: VideoFrame | AudioPacket) -> None:
            if isinstance(item, AudioPacket):
                sink.add_sound(item)
            else:
                sink.add(item)

        def draw(item: Shot | AudioPacket) -> None:
            drawn = item if isinstance(item, AudioPacket) else self._drawn(item, table)
            encoding.put(drawn, room=_ENCODING_BYTES)

        height, width = self._reader.info.shape_yx
        most_bytes = max(_WAITING_BYTES, _WAITING_FRAMES * 3 * height * width)
        encoding: Stage[VideoFrame | AudioPacket] = Stage("encode", encode, _bytes_of)
        drawing: Stage[Shot | AudioPacket] = Stage("draw", draw, _bytes_of)
        self._asker = asker = FrameAsker(
            self._predictor, self._painter.plan, stride=self._options.stride,
            probable=self._painter.probable, name=self._reader.name, hand_on=drawing.put,
            is_crowded=lambda: drawing.waiting_bytes > most_bytes,
        )  # fmt: skip
        try:
            asker.run(self._reader.items(), lambda: drawing.wait(most_bytes // 2))
            drawing.finish()
            encoding.finish()
        except BaseException:
            asker.cancel()
            drawing.abandon()
            encoding.abandon()
            raise

    def report(self, out: Path, sink: VideoWriter) -> VideoReport:
        assert self._asker is not None
        reader, seconds = self._reader, time.perf_counter() - self._started
        # Some errors are about what the engine received.
        more = getattr(self._predictor.engine, "notes", ())
        return VideoReport(
            path=out,
            table=self._options.table,
            frames=self.frames,
            asked=self._asker.asked,
            cuts=self._asker.cuts,
            shape_yx=reader.info.shape_yx,
            video_s=self._until_s,
            seconds=seconds,
            frames_per_s=self.frames / max(seconds, 1e-9),
            realtime=self._until_s / max(seconds, 1e-9),
            built_up_share=self._shares / max(self.frames, 1),
            buildings_mean=self._buildings / max(self.frames, 1),
            buildings_most=self._most,
            encoder=sink.encoder,
            sound=sink.sound_tracks,
            broke_at_s=reader.broke_at_s,
            damaged=reader.damaged,
            peak_rss_mb=peak_rss_mb(),
            notes=(*self._painter.notes, *sink.notes, *reader.notes, *more),
        )

    def _drawn(self, shot: Shot, table: FrameTable) -> VideoFrame:
        """Return a frame with its buildings; runs in the drawing thread."""
        picture = shot.picture
        seen = self._painter.paint(shot)
        table.add(
            FrameRow(
                picture.number, picture.seconds, seen.share, seen.buildings, seen.smoothed,
                shot.answer is None,
            )
        )  # fmt: skip
        self._count(picture, seen.buildings, seen.share)
        return picture

    def _count(self, picture: VideoFrame, buildings: int, share: float) -> None:
        self.frames += 1
        self._shares += share
        self._buildings += buildings
        self._most = max(self._most, buildings)
        tick = float(self._reader.info.time_base)
        lasts_s = picture.duration * tick or 1 / float(self._reader.info.rate or 25)
        self._until_s = picture.seconds + lasts_s
        if self._progress is not None:
            self._progress(self.frames, max(self._total, self.frames) if self._total else 0)


def _frames_in(reader: VideoReader, options: VideoOptions) -> int:
    """Return the approximate number of frames; 0 if it is unknown."""
    info = reader.info
    ends = [end for end in (info.duration_s, options.end_s) if end is not None]
    if not ends or info.rate is None:
        return 0
    return max(1, round((min(ends) - options.start_s) * float(info.rate)))


def _bytes_of(item: Shot | VideoFrame | AudioPacket) -> int:
    if isinstance(item, AudioPacket):
        return int(item.packet.size)
    return (item.picture if isinstance(item, Shot) else item).rgb.nbytes


_AT_ONCE = 4096
"""Number of Parquet rows that are written together."""


@dataclass(frozen=True)
class FrameRow:
    """Figures of one frame.

    Args:
        frame: Number of the frame in the result, from 0.
        seconds: Time of the frame in seconds from the start of the result.
        built_up_share: Built-up share of its pixels.
        buildings: Number of connected parts of the mask.
        smoothed: Whether earlier frames count, too.
        skipped: Whether `--stride` skipped the network for this frame.
    """

    frame: int
    seconds: float
    built_up_share: float
    buildings: int
    smoothed: bool
    skipped: bool


class FrameTable(Protocol):
    """Takes rows in their order."""

    def add(self, row: FrameRow) -> None: ...


class _NoTable:
    def add(self, row: FrameRow) -> None:
        pass


def check_table(path: Path) -> None:
    """Raise ConfigError if the file name ends in neither .csv nor .parquet."""
    if path.suffix.lower() not in (".csv", ".parquet") or path.is_dir():
        raise ConfigError(
            f"The table was to be {path}, expected a file that ends in .csv or .parquet.",
            remedy="For example: --table frames.csv",
        )


@contextmanager
def frame_table(path: Path | None) -> Iterator[FrameTable]:
    """Open a table that appears under its name when the block ends without an error.

    Without a path nothing is kept.

    Raises:
        ConfigError: See `check_table`.
        MissingExtraError: The table is Parquet, and pyarrow is not installed.
        ExportError: The table cannot be written.
    """
    if path is None:
        with nullcontext(_NoTable()) as nothing:
            yield nothing
        return
    check_table(path)
    opened = _csv if path.suffix.lower() == ".csv" else _parquet
    with replacing(path) as partial, opened(partial) as table:
        yield table


class _Csv:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def add(self, row: FrameRow) -> None:
        self._writer.writerow(
            [row.frame, f"{row.seconds:.6f}", f"{row.built_up_share:.6f}", row.buildings,
             int(row.smoothed), int(row.skipped)]
        )  # fmt: skip


@contextmanager
def _csv(path: Path) -> Iterator[FrameTable]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([one.name for one in fields(FrameRow)])
        yield _Csv(writer)


class _Parquet:
    def __init__(self, arrow: Any, schema: Any, writer: Any) -> None:
        self._arrow, self._schema, self._writer = arrow, schema, writer
        self._rows: list[dict[str, Any]] = []

    def add(self, row: FrameRow) -> None:
        self._rows.append(asdict(row))
        if len(self._rows) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()


@contextmanager
def _parquet(path: Path) -> Iterator[FrameTable]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError.of("parquet", "A table in Parquet", "pyarrow") from error
    kinds = [pa.int64(), pa.float64(), pa.float64(), pa.int64(), pa.bool_(), pa.bool_()]
    schema = pa.schema([(one.name, kind) for one, kind in zip(fields(FrameRow), kinds)])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        table = _Parquet(pa, schema, writer)
        yield table
        table.flush()
