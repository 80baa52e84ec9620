"""The key points of a smart tool as clicks on a building.

Label Studio sends all key points of a building with each request, and no session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rooftrace.core.types import BoolArray, Footprints, GeoGrid, RasterSource
from rooftrace.models.clicks import Click
from rooftrace.predict.clicks import ClickAnswer, ClickModel, ClickSegmenter
from rooftrace.service.clicks import ClickSessions
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
        self._sessions = ClickSessions(_KEPT_PX, lambda segmenter: segmenter.area_px)

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
            DataError, BandMismatch, PredictError, BusyError: See `ClickSessions.answer`.
        """
        answer = self._sessions.answer(
            (key, gsd_m), lambda: ClickSegmenter(image, self.model, gsd_m=gsd_m), clicks
        )
        return _on_image(answer, image.grid.shape)


def _on_image(answer: ClickAnswer, shape_yx: tuple[int, int]) -> ClickedBuilding:
    grid = GeoGrid(shape_yx)
    mask = np.zeros(shape_yx, dtype=np.bool_)
    mask[answer.window.slices()] = answer.mask
    score = np.full(len(answer.outlines), answer.score, np.float32)
    return ClickedBuilding(make_footprints(answer.outlines, score, grid), mask, grid)
