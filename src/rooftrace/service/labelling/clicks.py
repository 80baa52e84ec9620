"""The key points of a smart tool as clicks on a building.

Label Studio sends all key points of a building with each request, and no session. The segmenter of
an image is therefore kept, and continues if the key points of a request begin with its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rooftrace.core.cache import LruCache
from rooftrace.core.types import BoolArray, Footprints, GeoGrid, RasterSource
from rooftrace.models.clicks import Click
from rooftrace.predict.clicks import ClickAnswer, ClickModel, ClickSegmenter
from rooftrace.vector.footprints import make_footprints

__all__ = ["ClickTool", "ClickedBuilding"]

_KEPT_PX = 64 * 2**20
"""Maximum number of pixels of the images whose segmenters are kept."""


@dataclass(frozen=True)
class ClickedBuilding:
    """The building at some clicks.

    Args:
        outlines: Its polygons in pixels of the image; none if nothing was found.
        mask: (y, x) its pixels on the whole image.
        grid: Grid of the image, without a georeference.
    """

    outlines: Footprints
    mask: BoolArray
    grid: GeoGrid


class ClickTool:
    """Outlines buildings from clicks on images; safe for several threads.

    Args:
        model: Loaded click network.
    """

    def __init__(self, model: ClickModel) -> None:
        self.model = model
        self._lock = threading.Lock()
        self._kept: LruCache[tuple[str, float | None], ClickSegmenter] = LruCache(
            _KEPT_PX, lambda segmenter: segmenter.area_px
        )

    def outline(
        self, key: str, image: RasterSource, clicks: Sequence[Click], gsd_m: float | None
    ) -> ClickedBuilding:
        """Return the building at all clicks of a request.

        Args:
            key: Name of the image's content.
            image: The image.
            clicks: Clicks in pixels of the image, the first of them positive.
            gsd_m: Metres per pixel, where the georeference is missing.

        Raises:
            DataError, BandMismatch, PredictError: See `ClickSegmenter`.
        """
        # The network runs on all cores: two at once would not be faster.
        with self._lock:
            segmenter = self._kept.get((key, gsd_m))
            done = () if segmenter is None else segmenter.clicks
            if segmenter is None or not done or done != tuple(clicks[: len(done)]):
                segmenter, done = ClickSegmenter(image, self.model, gsd_m=gsd_m), ()
            self._kept.put((key, gsd_m), segmenter)
            for click in clicks[len(done) :]:
                segmenter.click(click.row, click.col, positive=click.positive)
            answer = segmenter.answer()
        return _on_image(answer, image.grid.shape)


def _on_image(answer: ClickAnswer, shape_yx: tuple[int, int]) -> ClickedBuilding:
    grid = GeoGrid(shape_yx)
    mask = np.zeros(shape_yx, dtype=np.bool_)
    mask[answer.window.slices()] = answer.mask
    score = np.full(len(answer.outlines), answer.score, np.float32)
    return ClickedBuilding(make_footprints(answer.outlines, score, grid), mask, grid)
