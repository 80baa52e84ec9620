"""Clicks on buildings from clients that send all clicks of a building with each request.

The segmenter of a building is kept, and continues if the clicks of a request begin with its own.
So a further click costs only its own views, and a client needs no session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence

from rooftrace.core.cache import LruCache
from rooftrace.core.errors import BusyError
from rooftrace.models.clicks import Click
from rooftrace.predict.clicks import ClickAnswer, ClickSegmenter

__all__ = ["ClickSessions"]

_WAITING = 16
"""Maximum number of requests that run or wait; each takes a fraction of a second."""


class ClickSessions:
    """Answers to the clicks of many buildings; safe for several threads.

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
        """Return the answer to all clicks of a request.

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
