"""Clicks and boxes, by which a person or a program hints at an object, and simulated clicks.

A click network takes the bands of an image and `CLICK_BANDS`, and returns the probability that
a pixel belongs to the building that was clicked. Its earlier output is an input (Sofiiuk et al.
2022, "Reviving Iterative Training with Mask Guidance for Interactive Segmentation"). A simulated
annotator clicks in the middle of the largest error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import BoolArray, Window

_HALF_PX = 8.0
"""Distance from a click in pixels of the network's input at which its map has fallen to half."""


@dataclass(frozen=True, slots=True)
class Click:
    """A click on an image.

    Args:
        row, col: Position in pixels, counted from the upper left corner of the first pixel, so that
            the middle of that pixel is (0.5, 0.5).
        positive: True for a place in the building, False for a place outside.
    """

    row: float
    col: float
    positive: bool = True


def draw_clicks(clicks: Sequence[Click], shape_yx: tuple[int, ...]) -> NDArray[np.float32]:
    """Return (2, y, x) maps of the positive and the negative clicks.

    A map is 1 at a click, half of it `_HALF_PX` away, and falls with the distance to the nearest
    click, so that every pixel knows how far away it is. Without a click it is 0.
    """
    maps = np.zeros((2, *shape_yx), dtype=np.float32)
    for kind, drawn in zip((True, False), maps):
        given = [click for click in clicks if click.positive == kind]
        if not given:
            continue
        rows, cols = np.ogrid[: shape_yx[0], : shape_yx[1]]
        distance = np.full(shape_yx, np.inf, np.float32)
        for click in given:
            one = np.hypot(rows + 0.5 - click.row, cols + 0.5 - click.col)
            np.minimum(distance, one, out=distance, casting="same_kind")
        drawn[:] = _HALF_PX / (_HALF_PX + distance)
    return maps


def largest_error(truth: BoolArray, predicted: BoolArray, valid: BoolArray) -> BoolArray | None:
    """Return the largest connected region of missing or of surplus pixels; None without any."""
    best, best_px = None, 0
    for wrong in (truth & ~predicted & valid, predicted & ~truth & valid):
        _, numbers, stats, _ = cv2.connectedComponentsWithStats(
            wrong.astype(np.uint8), connectivity=4
        )
        if len(stats) > 1:
            number = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
            area_px = int(stats[number, cv2.CC_STAT_AREA])
            if area_px > best_px:
                best, best_px = numbers == number, area_px
    return best


def middle(
    region: BoolArray, depth: float = 1.0, rng: np.random.Generator | None = None
) -> tuple[float, float]:
    """Return the row and column of the pixel that lies deepest in a region.

    Args:
        region: (y, x) mask with at least one pixel.
        depth: With `rng`: a random pixel at least this share of the largest depth inside.
        rng: Random generator; None takes the deepest pixel, the first of several.

    Returns:
        Position of the middle of that pixel, see `Click`.
    """
    inside = cv2.distanceTransform(
        np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )[1:-1, 1:-1]
    # OpenCV's last bit depends on where the array lies in memory; squared distances are integers.
    squared = np.rint(inside.astype(np.float64) ** 2)
    if rng is None:
        row, col = divmod(int(squared.argmax()), region.shape[1])
    else:
        found = np.flatnonzero((squared >= depth**2 * squared.max()) & region)
        row, col = divmod(int(found[rng.integers(len(found))]), region.shape[1])
    return row + 0.5, col + 0.5


def next_click(
    truth: BoolArray,
    predicted: BoolArray,
    valid: BoolArray,
    depth: float = 1.0,
    rng: np.random.Generator | None = None,
) -> Click | None:
    """Return the click of a simulated annotator: in the largest error, see `middle`.

    Args:
        truth: (y, x) mask of the building.
        predicted: (y, x) predicted mask; all False before the first click.
        valid: (y, x) pixels whose truth is known.
        depth, rng: See `middle`.

    Returns:
        The click; None if there is no error.
    """
    region = largest_error(truth, predicted, valid)
    if region is None:
        return None
    row, col = middle(region, depth, rng)
    return Click(row, col, bool(truth[int(row), int(col)]))


@dataclass(frozen=True)
class Prompt:
    """Hints at one object of an image: clicks, a box, or both.

    Args:
        clicks: Places in the object and outside of it.
        box: Window around the object; None for clicks alone.

    Raises:
        ConfigError: There is neither a click nor a box.
    """

    clicks: tuple[Click, ...] = ()
    box: Window | None = None

    def __post_init__(self) -> None:
        if not self.clicks and self.box is None:
            raise ConfigError(
                "A prompt has neither a click nor a box.", remedy="Give a click or a box."
            )


@dataclass(frozen=True)
class Segment:
    """Object that a network found for a prompt.

    Args:
        mask: (y, x) bool on the pixels of the image.
        score: IoU with the true object that the network estimates, about 0..1.
    """

    mask: NDArray[np.bool_]
    score: float


class PromptSegmenter(Protocol):
    """Network that outlines the object at which a prompt hints."""

    @property
    def record(self) -> dict[str, Any]:
        """Everything on which its results depend, as plain data."""
        ...

    def encode(self, image: NDArray[np.uint8]) -> Any:
        """Return the features of an image (3, y, x), red, green and blue, for any prompts."""
        ...

    def segment(self, image: Any, prompt: Prompt) -> Segment:
        """Return the object of a prompt on the pixels of an image that `encode` has returned."""
        ...
