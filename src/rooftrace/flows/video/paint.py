"""Turn the network's answers on the frames of a video into masks, and draw them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, GeoreferenceError
from rooftrace.flows.video.frames import Shot
from rooftrace.flows.video.overlay import Overlay, without_specks
from rooftrace.io.sources import ArraySource
from rooftrace.predict.plan import MIN_BUILDING_PX, SceneOptions, ScenePlan, plan_scene
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.smoothing import SMOOTHINGS, Smoothing, smoother

__all__ = ["FrameFigures", "FramePainter", "VideoOptions"]


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
        scale_y, scale_x = plan.scaling.scale_yx
        return MIN_BUILDING_PX * scale_y * scale_x
    if options.gsd_m is None:
        raise GeoreferenceError(
            f"A smallest area of {options.min_area_m2:g} m² was asked for, but {name} does not say "
            "how large its pixels are on the ground.",
            remedy="Give the metres per pixel with --gsd.",
        )
    return options.min_area_m2 / options.gsd_m**2
