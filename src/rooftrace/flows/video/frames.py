"""Run the network on the frames of a video, and draw the buildings that it finds on them.

The network runs in batches and ahead of drawing. A `Stage` is a thread that processes items in
their order. Buildings, their number and the built-up share are drawn on each frame.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rooftrace.core.errors import ConfigError, GeoreferenceError, RooftraceError
from rooftrace.io.sources import ArraySource
from rooftrace.io.video_read import AudioPacket, VideoFrame
from rooftrace.predict.block import Block
from rooftrace.predict.pipeline import run_scenes
from rooftrace.predict.plan import SceneOptions, ScenePlan, plan_scene, prepared
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scene_blocks import SceneBlocks
from rooftrace.predict.smoothing import SMOOTHINGS, CutFinder, Smoothing, smoother

Answer = NDArray[np.uint8]


@dataclass(frozen=True)
class Shot:
    """A frame on its way through the pipeline.

    Args:
        picture: Frame as it was decoded.
        answer: Future of the network's answer, (y, x) in 255ths; None if the frame is skipped.
        cut: Whether the frame begins a scene.
    """

    picture: VideoFrame
    answer: Future[Answer] | None
    cut: bool


class FrameAsker:
    """Run the network on every n-th frame of a scene, and pass on all frames in their order.

    A frame is passed on before its answer exists. The network takes several frames together, so
    some answers come late. If too many frames wait for one, the batch runs with those it has.

    Args:
        predictor: Model.
        plan: Plan of each frame.
        stride: Interval in frames at which the network runs.
        probable: Whether an answer is the probability of buildings, if the model has it; otherwise
            it is 255 on buildings and 0 elsewhere.
        name: Name of the video.
        hand_on: Function that takes frames and sound.
        is_crowded: Function that returns whether too much waits there to read on.
    """

    def __init__(
        self,
        predictor: Predictor,
        plan: ScenePlan,
        *,
        stride: int,
        probable: bool,
        name: str,
        hand_on: Callable[[Shot | AudioPacket], None],
        is_crowded: Callable[[], bool],
    ) -> None:
        self._predictor = predictor
        self._spec = predictor.bundle.spec
        self._plan = plan
        self._stride = stride
        self._probable = probable and plan.threshold is not None
        self._name = name
        self._hand_on = hand_on
        self._is_crowded = is_crowded
        self._cuts = CutFinder()
        self._since_asked = stride
        self._open: dict[SceneBlocks, Future[Answer]] = {}
        self._all_read = False
        self.asked = 0
        self.cuts = 0

    def run(self, items: Iterator[VideoFrame | AudioPacket], wait: Callable[[], None]) -> None:
        """Read the whole video.

        Args:
            items: Frames and sound of the video.
            wait: Function that returns when there is room for more.
        """
        while not self._all_read:
            wait()
            for blocks in run_scenes(self._scenes(items), self._predictor.engine):
                self._answer(blocks)

    def cancel(self) -> None:
        """Cancel the answers that are still missing, so that no thread waits for them."""
        for one in list(self._open.values()):
            one.cancel()

    def _scenes(self, items: Iterator[VideoFrame | AudioPacket]) -> Iterator[SceneBlocks]:
        for item in items:
            if isinstance(item, AudioPacket):
                self._hand_on(item)
                continue
            cut = self._cuts.is_cut(item.rgb)
            self.cuts += cut
            if cut or self._since_asked >= self._stride:
                self._since_asked = 1
                yield self._ask(item, cut=cut)
            else:
                self._since_asked += 1
                self._hand_on(Shot(item, None, cut))
            if self._is_crowded():
                return
        self._all_read = True

    def _ask(self, picture: VideoFrame, *, cut: bool) -> SceneBlocks:
        source = ArraySource(
            np.stack(cv2.split(picture.rgb)), name=f"{self._name}, frame {picture.number}"
        )
        plan = self._plan
        blocks = SceneBlocks(plan.for_source(prepared(source, plan.spec, plan.options)))
        promise: Future[Answer] = Future()
        self._open[blocks] = promise
        self.asked += 1
        # The copy is made before the frame is passed on, because it may be drawn on at once.
        self._hand_on(Shot(picture, promise, cut))
        return blocks

    def _answer(self, blocks: SceneBlocks) -> None:
        """Fulfil the promise of a frame."""
        answer = np.empty(blocks.plan.shape_yx, dtype=np.uint8)
        promise = self._open[blocks]
        try:
            for block in blocks.run_here():
                answer[block.window.slices()] = self._said_of(block)
        except RooftraceError as error:
            promise.set_exception(error)
        else:
            promise.set_result(answer)
        finally:
            del self._open[blocks]

    def _said_of(self, block: Block) -> Answer:
        if self._probable:
            return block.score
        is_building = block.mask == self._spec.building_class
        return np.asarray(is_building.view(np.uint8) * np.uint8(255), dtype=np.uint8)


T = TypeVar("T")


class Stage(Generic[T]):
    """A thread that takes items in their order and bounds the bytes that wait.

    An error of the thread is raised by the next call of `put`, `wait` or `finish`.

    Args:
        name: Name of the thread.
        work: Function called with each item.
        weigh: Function that returns the size of an item in bytes.
    """

    def __init__(self, name: str, work: Callable[[T], None], weigh: Callable[[T], int]) -> None:
        self._work = work
        self._weigh = weigh
        self._waiting: deque[T] = deque()
        self._bytes = 0
        self._ends = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Size in bytes of the items that were put and are not processed yet."""
        return self._bytes

    def put(self, item: T, *, room: int | None = None) -> None:
        """Add an item.

        Args:
            room: Wait until at most this number of bytes are waiting; None does not wait.
        """
        with self._changed:
            if room is not None:
                self._changed.wait_for(lambda: self._bytes <= room or self._error is not None)
            self._check()
            self._waiting.append(item)
            self._bytes += self._weigh(item)
            self._changed.notify_all()

    def wait(self, room: int) -> None:
        """Wait until at most `room` bytes are waiting."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes <= room or self._error is not None)
            self._check()

    def finish(self) -> None:
        """Wait until all items are processed, and end the thread."""
        self._end()
        self._check()

    def abandon(self) -> None:
        """Drop the waiting items, and end the thread after its current one."""
        with self._changed:
            self._waiting.clear()
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._ends)
                if not self._waiting:
                    return
                item = self._waiting.popleft()
            try:
                self._work(item)
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._waiting.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                self._bytes -= self._weigh(item)
                self._changed.notify_all()


@dataclass(frozen=True)
class VideoOptions:
    """Options of a video besides its model.

    Args:
        stride: Interval in frames at which the network runs; its answers are carried along between.
        gsd_m: Ground sample distance in metres per pixel; default the model's own.
        scale: Scale factor of the frames, in place of metres.
        bands: Bands of the frames in the order of the model's bands; default: red, green, blue.
        stretch: `auto` and `none` leave the values of frames as they are; `LOW,HIGH` stretches
            them, the same in every frame.
        threshold: Threshold on the building probability; default the model's own.
        min_area_m2: Minimum area of a building in m².
        smoothing: Kind of smoothing, see `predict.smoothing`.
        smoothing_s: Time constant of the smoothing in seconds.
        opacity: Opacity of the fill, 0 to 1.
        outlines: Whether to draw a line around each building.
        caption: Whether to write number and share into the corner.
        table: Path of a table with one row a frame, .csv or .parquet.
        codec: `h264` or `h265`.
        crf: Constant rate factor of the encoder: 0 is lossless, 51 is worst.
        start_s, end_s: Part to process, in seconds from the beginning.
        strict: Whether a damaged or incomplete video is an error, raised after the readable part
            has been written.

    Raises:
        ConfigError: A value is out of its range.
    """

    stride: int = 1
    gsd_m: float | None = None
    scale: float | None = None
    bands: str | None = None
    stretch: str = "auto"
    threshold: float | None = None
    min_area_m2: float | None = None
    smoothing: Smoothing = "flow"
    smoothing_s: float = 0.15
    opacity: float = 0.35
    outlines: bool = True
    caption: bool = True
    table: Path | None = None
    codec: str = "h264"
    crf: int = 20
    start_s: float = 0.0
    end_s: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.stretch == "per-band":
            raise ConfigError(
                "--stretch per-band was given for a video, whose frames would be stretched "
                "differently one after the other.",
                remedy="Give two values for all frames: --stretch 0,120",
            )
        end_s = np.inf if self.end_s is None else self.end_s
        wrong = [
            (self.stride < 1, f"a stride of {self.stride}", "1 or more"),
            (self.smoothing not in SMOOTHINGS, f"the smoothing {self.smoothing!r}",
             ", ".join(SMOOTHINGS)),
            (not 0 <= self.smoothing_s < np.inf, f"a smoothing over {self.smoothing_s:g} s",
             "0 or more"),
            (not 0 <= self.opacity <= 1, f"an opacity of {self.opacity:g}", "0 to 1"),
            (not 0 <= self.start_s < end_s, f"a part from {self.start_s:g} to {end_s:g} s",
             "a start of 0 or more, and an end behind it"),
        ]  # fmt: skip
        for is_wrong, received, expected in wrong:
            if is_wrong:
                raise ConfigError(
                    f"Of a video {received} was asked for, expected {expected}.",
                    remedy="Correct the option.",
                )


class FrameFigures(NamedTuple):
    """Figures of one frame.

    Args:
        buildings: Number of buildings.
        share: Built-up share, 0 to 1.
        smoothed: Whether earlier frames count, too.
    """

    buildings: int
    share: float
    smoothed: bool


class FramePainter:
    """Draw the buildings on the frames of one video, in their order.

    Args:
        name: Name of the video, for messages.
        shape_yx: Rows and columns of all frames.
        predictor: Model.
        options: Options of the video.

    Raises:
        ConfigError: A threshold was given for a model of more than two classes.
        GeoreferenceError: A minimum area was given without metres.
        BandMismatch, GsdMismatch: The model cannot be used for the video.
    """

    def __init__(
        self, name: str, shape_yx: tuple[int, int], predictor: Predictor, options: VideoOptions
    ) -> None:
        spec = predictor.bundle.spec
        threshold = predictor.threshold_for(options.threshold)
        self.plan = _plan(name, shape_yx, predictor, options)
        self._smallest_px = _smallest_px(self.plan, options, name)
        # Without smoothing, the mask is the network's own, to the last bit.
        probable = options.smoothing != "none" and threshold is not None
        self._level = 255 * threshold if probable and threshold is not None else 127.5
        self.probable = probable
        self._smoother = smoother(options.smoothing, options.smoothing_s)
        self._overlay = Overlay(options.opacity, outlines=options.outlines, caption=options.caption)
        self._follows = options.smoothing == "flow"
        self._mixing = options.smoothing != "none" and options.smoothing_s > 0
        self._begun = False
        self._carried: tuple[NDArray[np.bool_], int, float] | None = None
        self.notes = [note for note in (self.plan.scaling.note,) if note]
        if options.smoothing != "none" and threshold is None:
            self.notes.append(
                f"The model {spec.name!r} has {len(spec.classes)} classes: what is mixed over time "
                "is whether a pixel is building, not its probability."
            )

    def paint(self, shot: Shot) -> FrameFigures:
        """Wait for the answer on a frame, draw on the frame in place, and return its figures."""
        picture = shot.picture
        answer = None if shot.answer is None else shot.answer.result()
        smoothed = self._mixing and self._begun and not shot.cut
        if answer is not None or self._follows or self._carried is None:
            known = self._smoother.feed(picture.rgb, answer, picture.seconds, cut=shot.cut)
            mask, buildings = without_specks(known >= self._level, self._smallest_px)
            share = float(np.count_nonzero(mask) / mask.size)
            self._carried = mask, buildings, share
        mask, buildings, share = self._carried
        self._begun = True
        self._overlay.draw(picture.rgb, mask, buildings, share)
        return FrameFigures(buildings, share, smoothed)


def _plan(
    name: str, shape_yx: tuple[int, int], predictor: Predictor, options: VideoOptions
) -> ScenePlan:
    """Return the plan of a frame, which is the same for every frame."""
    blank = np.broadcast_to(np.uint8(0), (3, *shape_yx))
    return plan_scene(
        ArraySource(blank, name=name), predictor.bundle.spec,
        SceneOptions(
            gsd_m=options.gsd_m, scale=options.scale, threshold=options.threshold,
            bands=options.bands,
            stretch="none" if options.stretch == "auto" else options.stretch, outputs=("mask",),
        ),
    )  # fmt: skip


def _smallest_px(plan: ScenePlan, options: VideoOptions, name: str) -> float:
    """Return the minimum size of a building in pixels of a frame."""
    if options.min_area_m2 is None:
        return plan.min_building_px
    if options.gsd_m is None:
        raise GeoreferenceError(
            f"A smallest area of {options.min_area_m2:g} m² was asked for, but {name} does not say "
            "how large its pixels are on the ground.",
            remedy="Give the metres per pixel with --gsd.",
        )
    return options.min_area_m2 / options.gsd_m**2


Frame = NDArray[np.uint8]

_FILL = (255, 196, 0)
_OUTLINE = (255, 64, 32)
_PAPER, _INK = (24, 24, 28), (240, 240, 240)
_PAPER_SHARE = 0.75
_TEXT_SHARE = 1 / 26
"""Height of the text as a share of the frame's height."""

_SMALLEST_TEXT_PX, _LARGEST_TEXT_PX = 11, 64
_LINE_SHARE = 1 / 1000
_CORNERS = 4
"""Connectivity: parts that touch at a corner only are two buildings, as in polygons."""


def without_specks(mask: NDArray[np.bool_], smallest_px: float) -> tuple[NDArray[np.bool_], int]:
    """Remove small connected parts from a mask, and count the others.

    Args:
        mask: (y, x) mask.
        smallest_px: Minimum number of pixels of a part.

    Returns:
        The mask, which may be the given array, and the number of parts.
    """
    # Takes a third of the time of OpenCV's statistics, which also measure the background.
    count, labels = cv2.connectedComponents(
        mask.view(np.uint8), connectivity=_CORNERS, ltype=cv2.CV_32S
    )
    kept = np.bincount(labels[mask], minlength=count) >= smallest_px
    kept[0] = False
    if kept[1:].all():
        return mask, int(count) - 1
    return np.asarray(kept[labels]), int(kept.sum())


class Overlay:
    """Draw on frames of one size.

    Args:
        opacity: Opacity of the fill, 0 to 1.
        outlines: Whether to draw a line around each building.
        caption: Whether to write number and share into the corner.
    """

    def __init__(self, opacity: float, *, outlines: bool = True, caption: bool = True) -> None:
        self._filled = _filled_values(opacity) if opacity > 0 else None
        self._outlines = outlines
        self._caption = caption

    def draw(self, rgb: Frame, mask: NDArray[np.bool_], buildings: int, share: float) -> None:
        """Draw on a (y, x, 3) frame in place, by its (y, x) mask of buildings."""
        if self._filled is not None:
            cv2.copyTo(cv2.LUT(rgb, self._filled), mask.view(np.uint8), rgb)
        if self._outlines:
            thickness = max(1, round(max(rgb.shape[:2]) * _LINE_SHARE))
            rings, _ = cv2.findContours(
                mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
            )
            cv2.polylines(rgb, rings, True, _OUTLINE, thickness, cv2.LINE_AA)
        if self._caption:
            size_px = round(rgb.shape[0] * _TEXT_SHARE)
            size_px = min(max(size_px, _SMALLEST_TEXT_PX), _LARGEST_TEXT_PX)
            plural = "" if buildings == 1 else "s"
            _write(rgb, f"{buildings:,} building{plural} · {share:.1%} built up", size_px)


def _filled_values(opacity: float) -> Frame:
    """Return (1, 256, 3) the value of each band below the fill, by its original value."""
    values = np.arange(256)[None, :, None] * (1 - opacity) + np.array(_FILL) * opacity
    return np.asarray(np.rint(values), dtype=np.uint8)


def _write(rgb: Frame, text: str, size_px: int) -> None:
    """Write on a dark plate in the upper left corner; write nothing if the frame is too small."""
    plate = _plate(text, size_px)
    height, width = plate.shape[:2]
    margin = size_px // 2
    if margin + height > rgb.shape[0] or margin + width > rgb.shape[1]:
        if size_px > _SMALLEST_TEXT_PX:
            _write(rgb, text, max(size_px - 2, _SMALLEST_TEXT_PX))
        return
    corner = rgb[margin : margin + height, margin : margin + width]
    # Letters keep their brightness; the plate lets the ground shine through.
    share = np.maximum(plate.max(axis=2, keepdims=True) / np.float32(_INK[0]), _PAPER_SHARE)
    corner[:] = (plate * share + corner * (1 - share)).astype(np.uint8)


@lru_cache(maxsize=64)
def _plate(text: str, size_px: int) -> Frame:
    font = ImageFont.load_default(size=size_px)
    left, _, right, _ = font.getbbox(text)
    # The height is the same for every text, so that the plate does not move.
    high = font.getbbox("0gÅ")
    pad = size_px // 3
    size = int(right - left) + 2 * pad, int(high[3] - high[1]) + 2 * pad
    picture = Image.new("RGB", size, _PAPER)
    at = pad - left, pad - high[1]
    ImageDraw.Draw(picture).text(at, text, fill=_INK, font=font)
    return np.asarray(picture)
