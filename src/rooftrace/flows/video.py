"""`rooftrace video`: find the buildings in a video or camera, and write the video and a table.

Every n-th frame goes through the same pipeline as an image; the probabilities are smoothed over
time, and buildings, their number and the built-up share are drawn on each frame.
"""

import csv
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rooftrace.core.errors import GeoreferenceError
from rooftrace.core.report import Report
from rooftrace.core.system import peak_rss_mb
from rooftrace.core.types import Progress
from rooftrace.io.files import check_outputs, replacing
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.picture import font_for
from rooftrace.io.video import VideoFrame, VideoReader, check_video_name, is_camera, video_sink
from rooftrace.predict.block import Block
from rooftrace.predict.model_set import ModelSet, read_models
from rooftrace.predict.options import VideoOptions
from rooftrace.predict.outputs import figures_text
from rooftrace.predict.pipeline import run_many
from rooftrace.predict.plan import ScenePlan, plan_scene, prepared, threshold_for
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.smoothing import CutFinder, Smoother

_WAITING_BYTES = 64 * 2**20
"""Maximum size in bytes of the frames that were read and not drawn yet; `_WAITING_FRAMES` always
fit."""

_WAITING_FRAMES = 6


@dataclass(frozen=True)
class VideoReport(Report):
    """Result of a video.

    Args:
        asked: Number of frames on which the network ran.
        video_s: Duration of the result in seconds.
        seconds: Processing time in seconds, without loading the model.
        realtime: Seconds of video processed a second.
        buildings_mean, buildings_most: Mean and maximum number of buildings in a frame.
        broke_at_s: Time in seconds at which the input breaks off; None if it is complete.
        damaged: Number of frames that could not be decoded, or only in part.
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
    broke_at_s: float | None
    damaged: int
    peak_rss_mb: float
    notes: tuple[str, ...] = ()


def run_video(
    source: str | Path,
    out: Path,
    model: ModelSet | Path | None = None,
    *,
    predictor: Predictor | None = None,
    options: VideoOptions | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> VideoReport:
    """Find the buildings in every frame and write them into a video.

    Frames keep their times. Memory does not grow with the length of the video.

    Args:
        source: Video file, or `camera`, `camera:1`, `/dev/video0`.
        out: Video to write, .mp4, .m4v, .mov or .mkv; it appears when it is complete.
        model: Models that were read, one bundle, or None for the bundled model.
        predictor: Loaded model, in place of `model`.
        stop: Function called for every frame; when it returns True, the result ends there and is
            complete. A camera has no other end but `options.end_s`.

    Raises:
        ConfigError: An option is impossible, the result would overwrite the input, or a threshold
            was given for a model of more than two classes.
        MissingExtraError: PyAV is not installed.
        DataError: There is no such video, or none of its frames can be decoded.
        GeoreferenceError: A minimum area was given without metres.
        BundleError, BandMismatch, GsdMismatch: The model cannot be used for the video.
        PredictError: The network failed.
        ExportError: The result cannot be written.
    """
    options = options or VideoOptions()
    check_video_name(out)
    outputs = [out] if options.table is None else [out, options.table]
    check_outputs(outputs, [None if is_camera(source) else Path(source)])
    with ExitStack() as opened:
        reader = opened.enter_context(
            VideoReader(source, start_s=options.start_s, end_s=options.end_s, stop=stop)
        )
        if predictor is None:
            models = model if isinstance(model, ModelSet) else read_models(model)
            predictor = models.ready()
        started, info = time.perf_counter(), reader.info
        tracer = FrameTracer(reader.name, info.shape_yx, predictor, options)
        table = opened.enter_context(_frame_table(options.table)) if options.table else None
        sink = opened.enter_context(video_sink(out, info, crf=options.crf))
        total = _expected_frames(reader, options)
        frames, shares, buildings, most_buildings, video_s = 0, 0.0, 0, 0, 0.0
        for frame in opened.enter_context(closing(tracer.traced(reader.frames()))):
            picture = frame.picture
            sink.add(picture)
            if table is not None:
                table.writerow(
                    [picture.number, f"{picture.seconds:.6f}", f"{frame.built_up_share:.6f}",
                     frame.buildings, int(frame.smoothed), int(frame.skipped)]
                )  # fmt: skip
            frames += 1
            shares += frame.built_up_share
            buildings += frame.buildings
            most_buildings = max(most_buildings, frame.buildings)
            duration_s = picture.duration * float(info.time_base) or 1 / float(info.rate or 25)
            video_s = picture.seconds + duration_s
            if progress is not None:
                progress(frames, max(total, frames) if total else 0)
        seconds = max(time.perf_counter() - started, 1e-9)
        # Some errors are about what the engine received.
        engine_notes = predictor.engine.notes
    return VideoReport(
        path=out,
        table=options.table,
        frames=frames,
        asked=tracer.asked,
        cuts=tracer.cuts,
        shape_yx=info.shape_yx,
        video_s=video_s,
        seconds=seconds,
        frames_per_s=frames / seconds,
        realtime=video_s / seconds,
        built_up_share=shares / max(frames, 1),
        buildings_mean=buildings / max(frames, 1),
        buildings_most=most_buildings,
        broke_at_s=reader.broke_at_s,
        damaged=reader.damaged,
        peak_rss_mb=peak_rss_mb(),
        notes=(*tracer.notes, *reader.notes, *engine_notes),
    )


@contextmanager
def _frame_table(path: Path) -> Iterator[Any]:
    """Open a CSV table that appears under its name if the block succeeds."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", "seconds", "built_up_share", "buildings", "smoothed", "skipped"])
        yield writer


def _expected_frames(reader: VideoReader, options: VideoOptions) -> int:
    """Return the approximate number of frames; 0 if it is unknown."""
    info = reader.info
    ends = [end for end in (info.duration_s, options.end_s) if end is not None]
    if not ends or info.rate is None:
        return 0
    return max(1, round((min(ends) - options.start_s) * float(info.rate)))


class TracedFrame(NamedTuple):
    """A frame with its buildings drawn, and its figures.

    Args:
        buildings: Number of connected parts of the mask.
        built_up_share: Built-up share of its pixels, 0 to 1.
        smoothed: Whether earlier frames count, too.
        skipped: Whether the stride skipped the network for this frame.
    """

    picture: VideoFrame
    buildings: int
    built_up_share: float
    smoothed: bool
    skipped: bool


class _Waiting(NamedTuple):
    """A frame that was read, whether it begins a scene, and whether the network runs on it."""

    picture: VideoFrame
    is_cut: bool
    is_asked: bool


class FrameTracer:
    """Run the network on the frames of one video, and draw the buildings on them.

    Raises:
        ConfigError: A threshold was given for a model of more than two classes.
        GeoreferenceError: A minimum area was given without metres.
        BandMismatch, GsdMismatch: The model cannot be used for the video.
    """

    def __init__(
        self, name: str, shape_yx: tuple[int, int], predictor: Predictor, options: VideoOptions
    ) -> None:
        spec = predictor.bundle.spec
        images = options.images
        threshold = threshold_for(spec, images.threshold)
        how = "none" if images.stretch in (None, "auto") else images.stretch
        # The plan of a frame is the same for every frame.
        blank = np.broadcast_to(np.uint8(0), (3, *shape_yx))
        self._plan = plan_scene(
            ArraySource(blank, name=name), spec,
            images.model_copy(update={"stretch": how, "outputs": ("mask",), "min_area_m2": None}),
        )  # fmt: skip
        self._name = name
        self._predictor = predictor
        self._options = options
        self._smallest_px = self._plan.vector_options.min_area_px
        if images.min_area_m2 is not None:
            if images.gsd_m is None:
                raise GeoreferenceError(
                    f"The minimum area is {images.min_area_m2:g} m², but {name} does not say how "
                    "large its pixels are on the ground.",
                    remedy="Give the metres per pixel with --gsd.",
                )
            self._smallest_px = images.min_area_m2 / images.gsd_m**2
        # Without smoothing, the mask is the network's own, to the last bit.
        is_smoothed = options.smoothing != "none"
        self._uses_scores = is_smoothed and threshold is not None
        self._level = 255 * threshold if is_smoothed and threshold is not None else 127.5
        self._smoother = Smoother(options.smoothing, options.time_constant_s)
        self._fill: NDArray[np.uint8] | None = None
        """(1, 256, 3) the value of each band below the fill, by its original value."""

        if options.opacity > 0:
            own = np.arange(256)[None, :, None] * (1 - options.opacity)
            self._fill = np.rint(own + np.array(_FILL) * options.opacity).astype(np.uint8)
        self._cut_finder = CutFinder()
        self._since_asked = options.stride
        self._waiting: deque[_Waiting] = deque()
        self._most_waiting = max(_WAITING_BYTES // blank.size, _WAITING_FRAMES)
        self._is_all_read = False
        self._carried: tuple[NDArray[np.bool_], int, float] | None = None
        self.asked = 0
        self.cuts = 0
        self.notes = [note for note in (self._plan.scaling.note,) if note]
        if is_smoothed and threshold is None:
            self.notes.append(
                f"The model {spec.name!r} has {len(spec.classes)} classes: what is mixed over time "
                "is whether a pixel is building, not its probability."
            )

    def traced(
        self, frames: Iterator[VideoFrame], *, at_once: bool = False
    ) -> Generator[TracedFrame, None, None]:
        """Yield all frames in their order, drawn on in place.

        Args:
            frames: Frames; the next ones are read in another thread while a frame is drawn.
            at_once: Whether each frame is drawn before the next one is read.
        """
        most, blank = 0 if at_once else self._most_waiting, self._plan
        while not self._is_all_read:
            # Scenes come back in the order of their frames.
            scenes = self._scenes(frames, most)
            for _, plan, blocks in run_many(
                scenes,
                lambda frame: replace(blank, source=prepared(frame, blank.spec, blank.options)),
                self._predictor.engine,
            ):
                output = self._output(plan, blocks)
                yield from self._skipped()
                yield self._drawn(self._waiting.popleft(), output)
                yield from self._skipped()
            yield from self._skipped()

    def _skipped(self) -> Iterator[TracedFrame]:
        while self._waiting and not self._waiting[0].is_asked:
            yield self._drawn(self._waiting.popleft(), None)

    def _scenes(self, frames: Iterator[VideoFrame], most: int) -> Iterator[ArraySource]:
        """Yield the frames on which the network runs, and let all of them wait for its output.

        The network takes several frames together. If too many frames wait, the scenes end, so that
        a batch runs with the frames that it has.
        """
        for picture in frames:
            is_cut = self._cut_finder.is_cut(picture.rgb)
            self.cuts += is_cut
            is_asked = is_cut or self._since_asked >= self._options.stride
            self._since_asked = 1 if is_asked else self._since_asked + 1
            # The copy is made before the frame can be drawn on.
            pixels = np.stack(cv2.split(picture.rgb)) if is_asked else None
            self._waiting.append(_Waiting(picture, is_cut, is_asked))
            if pixels is not None:
                self.asked += 1
                yield ArraySource(pixels, name=f"{self._name}, frame {picture.number}")
            if len(self._waiting) > most:
                return
        self._is_all_read = True

    def _output(self, plan: ScenePlan, blocks: Iterator[Block]) -> NDArray[np.uint8]:
        """Return the (y, x) output of a frame in 255ths: scores, or 255 on buildings."""
        output = np.empty(plan.source.grid.shape, dtype=np.uint8)
        for block in blocks:
            if self._uses_scores:
                output[block.window.slices()] = block.score
            else:
                is_building = block.mask == self._plan.spec.building_class
                output[block.window.slices()] = is_building.view(np.uint8) * np.uint8(255)
        return output

    def _drawn(self, frame: _Waiting, output: NDArray[np.uint8] | None) -> TracedFrame:
        """Draw on a frame in place."""
        picture, options = frame.picture, self._options
        is_mixed = options.smoothing != "none" and options.time_constant_s > 0
        smoothed = is_mixed and self._carried is not None and not frame.is_cut
        if output is not None or options.smoothing == "flow" or self._carried is None:
            scores = self._smoother.feed(picture.rgb, output, picture.seconds, cut=frame.is_cut)
            mask, buildings = without_specks(scores >= self._level, self._smallest_px)
            self._carried = mask, buildings, float(np.count_nonzero(mask) / mask.size)
        mask, buildings, share = self._carried
        _draw_buildings(picture.rgb, mask, self._fill)
        classes = self._plan.spec.classes
        draw_caption(picture.rgb, figures_text(classes, buildings, share, " · "))
        return TracedFrame(picture, buildings, share, smoothed, output is None)


_FILL = (255, 196, 0)
_OUTLINE = (255, 64, 32)
_PLATE, _INK = (24, 24, 28), (240, 240, 240)
_PLATE_SHARE = 0.75
_TEXT_SHARE = 1 / 26
"""Height of the text as a share of the frame's height."""

_SMALLEST_TEXT_PX, _LARGEST_TEXT_PX = 11, 64
_LINE_SHARE = 1 / 1000


def without_specks(mask: NDArray[np.bool_], smallest_px: float) -> tuple[NDArray[np.bool_], int]:
    """Remove small connected parts from a mask, and count the others.

    Args:
        mask: (y, x) mask.
        smallest_px: Minimum number of pixels of a part.

    Returns:
        The mask, which may be the given array, and the number of parts.
    """
    # Parts that touch at a corner only are two buildings, as in polygons. Takes a third of the
    # time of OpenCV's statistics, which also measure the background.
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    kept = np.bincount(labels[mask], minlength=count) >= smallest_px
    kept[0] = False
    if kept[1:].all():
        return mask, int(count) - 1
    return np.asarray(kept[labels]), int(kept.sum())


def _draw_buildings(
    rgb: NDArray[np.uint8], mask: NDArray[np.bool_], filled_values: NDArray[np.uint8] | None
) -> None:
    """Fill and outline the buildings on a (y, x, 3) frame in place."""
    if filled_values is not None:
        cv2.copyTo(cv2.LUT(rgb, filled_values), mask.view(np.uint8), rgb)
    thickness = max(1, round(max(rgb.shape[:2]) * _LINE_SHARE))
    rings, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.polylines(rgb, rings, True, _OUTLINE, thickness, cv2.LINE_AA)


def draw_caption(rgb: NDArray[np.uint8], text: str) -> None:
    """Write figures on a dark plate in the upper left corner, if the frame has room for it."""
    size_px = round(rgb.shape[0] * _TEXT_SHARE)
    size_px = min(max(size_px, _SMALLEST_TEXT_PX), _LARGEST_TEXT_PX)
    while True:
        plate = _plate(text, size_px)
        margin = size_px // 2
        bottom, right = margin + plate.shape[0], margin + plate.shape[1]
        if bottom <= rgb.shape[0] and right <= rgb.shape[1]:
            break
        if size_px == _SMALLEST_TEXT_PX:
            return
        size_px = max(size_px - 2, _SMALLEST_TEXT_PX)
    corner = rgb[margin:bottom, margin:right]
    # Letters keep their brightness; the plate lets the ground shine through.
    opacity = np.maximum(plate.max(axis=2, keepdims=True) / np.float32(_INK[0]), _PLATE_SHARE)
    corner[:] = (plate * opacity + corner * (1 - opacity)).astype(np.uint8)


@lru_cache(maxsize=64)
def _plate(text: str, size_px: int) -> NDArray[np.uint8]:
    font = font_for(size_px, text)
    left, _, right, _ = font.getbbox(text)
    # The height is the same for every text, so that the plate does not move.
    high = font.getbbox("0gÅ")
    pad = size_px // 3
    size = int(right - left) + 2 * pad, int(high[3] - high[1]) + 2 * pad
    picture = Image.new("RGB", size, _PLATE)
    at = pad - left, pad - high[1]
    ImageDraw.Draw(picture).text(at, text, fill=_INK, font=font)
    return np.asarray(picture)
