"""What can be chosen for a video, and what is told of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rooftrace.core.errors import ConfigError
from rooftrace.predict.smoothing import SMOOTHINGS, Smoothing

__all__ = ["VideoOptions", "VideoReport"]


@dataclass(frozen=True)
class VideoOptions:
    """What can be chosen for a video, apart from the model.

    Args:
        stride: the network is shown every so many frames; between them its answer is carried on.
        gsd_m: metres per pixel of the ground; default the model's own.
        scale: frames are taken so many times as large, whatever metres say.
        threshold: on the building's probability; default the model's own.
        min_area_m2: smaller buildings are left out.
        smoothing: see `predict.smoothing`.
        smoothing_s: its time constant, in seconds.
        opacity: of the fill, 0 to 1.
        outlines: whether buildings have a line around them.
        caption: whether count and share stand in the corner.
        table: where a row for each frame goes, .csv or .parquet.
        codec: `h264` or `h265`.
        crf: how much the encoder may lose: 0 nothing, 51 most.
        start_s, end_s: the part that is done, in seconds from the beginning.
        strict: whether a video that is damaged or breaks off is an error, once what there is of
            it is written.

    Raises:
        ConfigError: a value is out of its range.
    """

    stride: int = 1
    gsd_m: float | None = None
    scale: float | None = None
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


@dataclass(frozen=True)
class VideoReport:
    """What became of a video.

    Args:
        path: of the result.
        table: None where none was asked for.
        frames: that were written.
        asked: of them, those that the network was shown.
        cuts: where another scene begins.
        shape_yx: of the frames.
        video_s: how long the result is shown.
        seconds: that it took, without loading the model.
        frames_per_s: by it.
        realtime: seconds of video for each second that it took.
        built_up_share: mean over the frames.
        buildings_mean, buildings_most: over the frames.
        encoder: that wrote the pictures.
        sound: how many tracks were copied.
        broke_at_s: where the input breaks off, in its own seconds; None where it is whole.
        damaged: frames of it that could not be decoded, or only in part.
        notes: what was assumed, for the person to see.
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
        """The contract of `--json`."""
        return asdict(self) | {
            "path": str(self.path),
            "table": None if self.table is None else str(self.table),
            "shape_yx": list(self.shape_yx),
            "notes": list(self.notes),
        }
