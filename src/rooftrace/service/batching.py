"""An engine that runs tiles of several requests together."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import StoppingError
from rooftrace.engines.base import Engine, run_quantised
from rooftrace.predict.pipeline import BATCH_PX

_MAX_TILES = 16
"""Maximum number of tiles in one batch."""


@dataclass(frozen=True)
class BatchFigures:
    """Work of the network since the server started.

    Args:
        batches: Number of calls of the network.
        tiles: Number of tiles in all calls.
        pixels: Number of pixels of these tiles, including overlaps and padding.
        seconds: Time spent in the network.
    """

    batches: int = 0
    tiles: int = 0
    pixels: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class _TileRequest:
    """Tiles of one request, (n, band, y, x), and the future of their probabilities."""

    tiles: NDArray[Any]
    answer: Future[NDArray[np.uint8]] = field(default_factory=Future)


class BatchingEngine:
    """An engine that many threads may call at the same time.

    Its own thread runs the network. While the network runs, tiles queue up. The next batch is the
    tile that has waited longest, with other tiles of the same shape, so no tile waits for a batch
    to fill. The number of tiles in a batch is a power of two, so few shapes are compiled.

    Args:
        engine: Engine of the network; only one thread calls it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: deque[_TileRequest] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._figures = BatchFigures()
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def precision(self) -> str:
        return self._engine.precision

    @property
    def settings(self) -> dict[str, Any]:
        """Return the compilation settings of the network, for the run record."""
        return dict(getattr(self._engine, "settings", {}))

    @property
    def figures(self) -> BatchFigures:
        """Return the work of the network so far."""
        return self._figures

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities (n, class, y, x), rounded to 255ths, of pixels (n, band, y, x)."""
        return self.run_quantised(batch).astype(np.float32) / np.float32(255)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Return probabilities (n, class, y, x) in 255ths of pixels (n, band, y, x).

        Raises:
            PredictError: The network failed on these tiles.
            StoppingError: The server is stopping.
        """
        request = _TileRequest(batch)
        with self._change:
            if self._closed:
                raise stopping_error()
            self._queue.append(request)
            self._change.notify()
        return request.answer.result()

    def close(self) -> None:
        """Stop the network; requests that still wait get an error."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        while (requests := self._next()) is not None:
            try:
                self._answer(requests)
            except Exception as error:  # any error of an engine belongs to the callers
                self._answer_separately(requests, error)
        for request in self._queue:
            request.answer.set_exception(stopping_error())

    def _next(self) -> list[_TileRequest] | None:
        """Return the requests of the next batch, all of one shape; None when closed."""
        with self._change:
            while not self._queue and not self._closed:
                self._change.wait()
            if self._closed:
                return None
            first = self._queue.popleft()
            alike = [
                request
                for request in self._queue
                if len(request.tiles) == 1
                and request.tiles.shape[1:] == first.tiles.shape[1:]
                and request.tiles.dtype == first.tiles.dtype
            ]
            count = 1
            if len(first.tiles) == 1:
                limit = min(max(BATCH_PX // max(first.tiles[0].size, 1), 1), _MAX_TILES)
                while count * 2 <= min(limit, len(alike) + 1):
                    count *= 2
            requests = [first, *alike[: count - 1]]
            for request in requests[1:]:
                self._queue.remove(request)
        return requests

    def _answer(self, requests: list[_TileRequest]) -> None:
        if len(requests) == 1:
            requests[0].answer.set_result(self._run(requests[0].tiles))
            return
        answers = self._run(np.concatenate([request.tiles for request in requests]))
        for request, answer in zip(requests, answers, strict=True):
            request.answer.set_result(answer[None])

    def _answer_separately(self, requests: list[_TileRequest], error: Exception) -> None:
        """Run each request alone, so that only the one with the failing tile gets the error."""
        for request in requests:
            if request.answer.done():
                continue
            try:
                if len(requests) == 1:
                    raise error
                request.answer.set_result(self._run(request.tiles))
            except Exception as own:
                request.answer.set_exception(own)

    def _run(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        started = time.perf_counter()
        answer = run_quantised(self._engine, batch)
        done = self._figures
        self._figures = BatchFigures(
            batches=done.batches + 1,
            tiles=done.tiles + len(batch),
            pixels=done.pixels + len(batch) * batch.shape[2] * batch.shape[3],
            seconds=done.seconds + time.perf_counter() - started,
        )
        return answer


def stopping_error() -> StoppingError:
    """Return the error of a request that a server which is stopping no longer answers."""
    return StoppingError("The server is stopping.", remedy="Retry when the server runs again.")
