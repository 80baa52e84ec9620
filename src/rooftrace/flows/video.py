"""`rooftrace video`: a video or a camera in, the same with its buildings and a table out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, GeoreferenceError, PredictError
from rooftrace.flows.machine import peak_rss_mb
from rooftrace.flows.video_frames import FrameAsker, Shot
from rooftrace.flows.video_overlay import Overlay, without_specks
from rooftrace.flows.video_report import VideoOptions, VideoReport
from rooftrace.flows.video_stage import Stage
from rooftrace.flows.video_table import FrameRow, FrameTable, check_table, frame_table
from rooftrace.io.memory import ArraySource
from rooftrace.io.video import Picture, Sound, VideoReader
from rooftrace.io.video_open import is_camera
from rooftrace.io.video_write import VideoWriter, check_video_name, video_sink
from rooftrace.predict.ensemble import Combine
from rooftrace.predict.model_set import Models, load_models
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scene import ScenePlan, plan_scene
from rooftrace.predict.smoothing import smoother
from rooftrace.predict.tta import Tta
from rooftrace.predict.work import SMALLEST_PX

__all__ = ["VideoOptions", "VideoReport", "run_video"]

Progress = Callable[[int, int], None]
"""Called with the frames that are drawn and that there are about; 0 where that is not known."""

_WAITING_BYTES = 64 * 2**20
"""Of frames between reading and drawing, at the most; of large ones some may wait in any case."""

_WAITING_FRAMES = 6

_ENCODING_BYTES = 16 * 2**20
"""Of drawn frames that wait for the encoder."""


def run_video(
    source: str | Path,
    out: Path,
    model: Models = None,
    *,
    predictor: Predictor | None = None,
    options: VideoOptions | None = None,
    ensemble: Combine = "average",
    weights: Sequence[float] | None = None,
    tta: Tta | None = None,
    engine: str | None = None,
    precision: str | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> VideoReport:
    """Find the buildings in every frame and write them into a video.

    Frames keep their times, sound is copied. Reading, the network, drawing and encoding go on at
    the same time, in memory that does not grow with the video.

    Args:
        source: a file, or `camera`, `camera:1`, `/dev/video0`.
        out: the video, .mp4, .m4v, .mov or .mkv; it appears when all of it is there.
        model: a bundle, several that are combined, or None for the one that comes with rooftrace.
        predictor: in place of the model, one that is loaded already.
        options: what can be chosen.
        ensemble, weights, tta, engine, precision: of the model.
        progress: see `Progress`; called from another thread.
        stop: asked for every frame; once it says so, what there is is a complete result. A camera
            has no other end but `options.end_s`.

    Raises:
        ConfigError: an option that cannot be; the result would be written over the input; a
            threshold for a model of more than two classes.
        MissingExtraError: PyAV is not installed.
        DataError: there is no such video, or no frame of it can be decoded.
        GeoreferenceError: a smallest area without metres.
        BundleError, BandMismatch, GsdMismatch: as the model gives cause.
        PredictError: the network failed; the video is damaged, and `options.strict`.
        ExportError: the result cannot be written.
    """
    options = options or VideoOptions()
    _check_names(source, out, options)
    reader = VideoReader(source, start_s=options.start_s, end_s=options.end_s, stop=stop)
    with reader:
        loaded = predictor or load_models(
            model, ensemble, weights=weights, tta=tta, engine=engine, precision=precision
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
    if not is_camera(source) and out.exists() and Path(source).exists() and out.samefile(source):
        raise ConfigError(
            f"The result would be written over the video {source}.",
            remedy="Give it another name with -o.",
        )


class _Run:
    """One video from its first frame to its last.

    Args:
        reader: of the video.
        predictor: the model.
        options: what was chosen.
        progress: see `Progress`.
    """

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
        spec = predictor.bundle.spec
        threshold = predictor.threshold_for(options.threshold)
        self._plan = _plan(reader, predictor, options)
        self._smallest_px = _smallest_px(self._plan, options, reader.name)
        # What is not mixed is taken as the network's own mask, to the last bit.
        probable = options.smoothing != "none" and threshold is not None
        self._level = 255 * threshold if probable and threshold is not None else 127.5
        self._threshold, self._probable = threshold, probable
        self._smoother = smoother(options.smoothing, options.smoothing_s)
        self._overlay = Overlay(options.opacity, outlines=options.outlines, caption=options.caption)
        self._mixing = options.smoothing != "none" and options.smoothing_s > 0
        self._begun = False
        self._carried: tuple[NDArray[np.bool_], int, float] | None = None
        self._asker: FrameAsker | None = None
        self._total = _frames_in(reader, options)
        self.frames = 0
        self._shares = 0.0
        self._buildings, self._most = 0, 0
        self._until_s = 0.0
        self._started = time.perf_counter()
        self._notes = [note for note in (self._plan.scaling.note,) if note]
        if options.smoothing != "none" and threshold is None:
            self._notes.append(
                f"The model {spec.name!r} has {len(spec.classes)} classes: what is mixed over time "
                "is whether a pixel is building, not its probability."
            )

    def all(self, table: FrameTable, sink: VideoWriter) -> None:
        """Read, ask, draw and encode, at the same time."""

        def encode(item: Picture | Sound) -> None:
            if isinstance(item, Sound):
                sink.add_sound(item)
            else:
                sink.add(item)

        def draw(item: Shot | Sound) -> None:
            drawn = item if isinstance(item, Sound) else self._drawn(item, table)
            encoding.put(drawn, room=_ENCODING_BYTES)

        height, width = self._reader.info.shape_yx
        most_bytes = max(_WAITING_BYTES, _WAITING_FRAMES * 3 * height * width)
        encoding: Stage[Picture | Sound] = Stage("encode", encode, _bytes_of)
        drawing: Stage[Shot | Sound] = Stage("draw", draw, _bytes_of)
        self._asker = asker = FrameAsker(
            self._predictor, self._plan, self._threshold, stride=self._options.stride,
            probable=self._probable, name=self._reader.name, hand_on=drawing.put,
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
        # Some are of what the engine met on its way.
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
            notes=(*self._notes, *sink.notes, *reader.notes, *more),
        )

    def _drawn(self, shot: Shot, table: FrameTable) -> Picture:
        """A frame with its buildings; in the thread that draws."""
        picture = shot.picture
        answer = None if shot.answer is None else shot.answer.result()
        smoothed = self._mixing and self._begun and not shot.cut
        if answer is not None or self._options.smoothing == "flow" or self._carried is None:
            known = self._smoother.feed(picture.rgb, answer, picture.seconds, cut=shot.cut)
            mask, buildings = without_specks(known >= self._level, self._smallest_px)
            share = float(np.count_nonzero(mask) / mask.size)
            self._carried = mask, buildings, share
        mask, buildings, share = self._carried
        self._begun = True
        self._overlay.draw(picture.rgb, mask, buildings, share)
        table.add(
            FrameRow(picture.number, picture.seconds, share, buildings, smoothed, answer is None)
        )
        self._count(picture, buildings, share)
        return picture

    def _count(self, picture: Picture, buildings: int, share: float) -> None:
        self.frames += 1
        self._shares += share
        self._buildings += buildings
        self._most = max(self._most, buildings)
        tick = float(self._reader.info.time_base)
        lasts_s = picture.duration * tick or 1 / float(self._reader.info.rate or 25)
        self._until_s = picture.seconds + lasts_s
        if self._progress is not None:
            self._progress(self.frames, max(self._total, self.frames) if self._total else 0)


def _plan(reader: VideoReader, predictor: Predictor, options: VideoOptions) -> ScenePlan:
    """The tiles of each frame, which are those of any frame."""
    blank = np.broadcast_to(np.uint8(0), (3, *reader.info.shape_yx))
    return plan_scene(
        ArraySource(blank, name=reader.name), predictor.bundle.spec,
        gsd_m=options.gsd_m, scale=options.scale,
    )  # fmt: skip


def _smallest_px(plan: ScenePlan, options: VideoOptions, name: str) -> float:
    """Of a building, in the pixels of a frame."""
    if options.min_area_m2 is None:
        scale_y, scale_x = plan.scaling.scale_yx
        return SMALLEST_PX * scale_y * scale_x
    if options.gsd_m is None:
        raise GeoreferenceError(
            f"A smallest area of {options.min_area_m2:g} m² was asked for, but {name} does not say "
            "how large its pixels are on the ground.",
            remedy="Give the metres per pixel with --gsd.",
        )
    return options.min_area_m2 / options.gsd_m**2


def _frames_in(reader: VideoReader, options: VideoOptions) -> int:
    """About how many frames there are to come; 0 where that is not known."""
    info = reader.info
    ends = [end for end in (info.duration_s, options.end_s) if end is not None]
    if not ends or info.rate is None:
        return 0
    return max(1, round((min(ends) - options.start_s) * float(info.rate)))


def _bytes_of(item: Shot | Picture | Sound) -> int:
    if isinstance(item, Sound):
        return int(item.packet.size)
    return (item.picture if isinstance(item, Shot) else item).rgb.nbytes
