"""Clicks on buildings from clients that send all clicks of a building with each request.

The segmenter of a building is kept, and continues if the clicks of a request begin with its own.
So a further click costs only its own views, and a client needs no session. Label Studio is such a
client: the key points of its smart tool are clicks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from rooftrace.core.cache import LruCache
from rooftrace.core.errors import BusyError
from rooftrace.core.types import BoolArray, Footprints, GeoGrid, RasterSource
from rooftrace.models.clicks import Click
from rooftrace.predict.clicks import ClickAnswer, ClickModel, ClickSegmenter
from rooftrace.predict.plan import SceneOptions
from rooftrace.vector.footprints import make_footprints

_WAITING = 16
"""Maximum number of requests that run or wait; each takes a fraction of a second."""


class ClickSessions:
    """Predictions for the clicks of many buildings; safe for several threads.

    Args:
        limit: See `LruCache`.
        size_of: Size of a segmenter in the unit of `limit`; 1 by default.
    """

    def __init__(self, limit: int, size_of: Callable[[ClickSegmenter], int] | None = None) -> None:
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(_WAITING)
        self._kept: LruCache[Hashable, ClickSegmenter] = (
            LruCache(limit) if size_of is None else LruCache(limit, size_of)
        )

    def answer(
        self, key: Hashable, begin: Callable[[], ClickSegmenter], clicks: Sequence[Click]
    ) -> ClickAnswer:
        """Return the prediction for all clicks of a request.

        Args:
            key: Name of the building or of its image; a request with other clicks of the same
                name begins anew.
            begin: Function that returns a segmenter of the image without clicks.
            clicks: Clicks in pixels of the image, the first of them positive.

        Raises:
            DataError, BandMismatch, PredictError: See `ClickSegmenter`.
            BusyError: Too many requests wait.
        """
        if not self._room.acquire(blocking=False):
            raise BusyError("Too many clicks wait for their outlines.", retry_after_s=1.0)
        try:
            # The network runs on all cores: two at once would not be faster.
            with self._lock:
                segmenter = self._kept.get(key)
                done = () if segmenter is None else segmenter.clicks
                if segmenter is None or not done or done != tuple(clicks[: len(done)]):
                    segmenter, done = begin(), ()
                for click in clicks[len(done) :]:
                    segmenter.click(click.row, click.col, positive=click.positive)
                self._kept.put(key, segmenter)
                return segmenter.answer()
        finally:
            self._room.release()


_KEPT_PX = 64 * 2**20
"""Maximum number of pixels of the images whose segmenters are kept."""


def click_bands(bands: str | None) -> str | None:
    """Return the bands of a prediction if they suit the click network, which has three colours."""
    return bands if bands is not None and bands.count(",") == 2 else None


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
        self, key: str, image: RasterSource, clicks: Sequence[Click], options: SceneOptions
    ) -> ClickedBuilding:
        """Return the building at all clicks of a request.

        Args:
            key: Name of the image's content.
            image: The image.
            clicks: Clicks in pixels of the image, the first of them positive.
            options: Metres per pixel, bands and stretch of a prediction of the image.

        Raises:
            DataError, BandMismatch, PredictError, BusyError: See `ClickSessions.answer`.
        """
        gsd_m, bands = options.gsd_m, click_bands(options.bands)
        stretch = options.stretch or "auto"
        answer = self._sessions.answer(
            (key, gsd_m, bands, stretch),
            lambda: ClickSegmenter(image, self.model, gsd_m=gsd_m, bands=bands, stretch=stretch),
            clicks,
        )
        return _on_image(answer, image.grid.shape)


def _on_image(answer: ClickAnswer, shape_yx: tuple[int, int]) -> ClickedBuilding:
    grid = GeoGrid(shape_yx)
    mask = np.zeros(shape_yx, dtype=np.bool_)
    mask[answer.window.slices()] = answer.mask
    score = np.full(len(answer.outlines), answer.score, np.float32)
    return ClickedBuilding(make_footprints(answer.outlines, score, grid), mask, grid)
