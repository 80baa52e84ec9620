"""One network for many requests: what waits while it computes goes through it together."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import PredictError
from rooftrace.engines.base import Engine
from rooftrace.predict.stream import BATCH_PX
from rooftrace.tiling.blend import quantise

__all__ = ["BatchFigures", "BatchingEngine"]

_MOST_TILES = 16


@dataclass(frozen=True)
class BatchFigures:
    """What went through the network since the server began.

    Args:
        batches: calls of the network.
        tiles: in all of them.
        pixels: of these tiles, overlaps and padding included.
        seconds: that the network took.
    """

    batches: int = 0
    tiles: int = 0
    pixels: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class _Asked:
    """Tiles of one request, (n, band, y, x), and who waits for them."""

    batch: NDArray[Any]
    answer: Future[NDArray[np.uint8]] = field(default_factory=Future)


class BatchingEngine:
    """An engine that many threads may call at once.

    One thread of its own runs the network. Meanwhile tiles gather; those that have the shape of the
    one that has waited longest go with it, so that nobody waits for a batch to become full. A
    batch has a power of two of tiles, so that few shapes are ever compiled.

    Args:
        engine: the network; called from one thread alone.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[_Asked] = deque()
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
        """How the network was compiled, for the record."""
        return dict(getattr(self._engine, "settings", {}))

    @property
    def figures(self) -> BatchFigures:
        """What went through so far."""
        return self._figures

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x) probabilities, to 255ths."""
        return self.run_quantised(batch).astype(np.float32) / np.float32(255)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """(n, band, y, x) pixel values to (n, class, y, x) probabilities in 255ths.

        Raises:
            PredictError: the network failed on these tiles, or the server is being stopped.
        """
        asked = _Asked(batch)
        with self._change:
            if self._closed:
                raise _stopped()
            self._waiting.append(asked)
            self._change.notify()
        return asked.answer.result()

    def close(self) -> None:
        """Run nothing more; who still waits gets an error."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        while (together := self._next()) is not None:
            try:
                self._answer(together)
            except Exception as error:  # whatever an engine raises is told to who asked
                self._answer_apart(together, error)
        for asked in self._waiting:
            asked.answer.set_exception(_stopped())

    def _next(self) -> list[_Asked] | None:
        """Those who are answered next, of one shape; None when it is over."""
        with self._change:
            while not self._waiting and not self._closed:
                self._change.wait()
            if self._closed:
                return None
            first = self._waiting.popleft()
            alike = [
                asked
                for asked in self._waiting
                if len(asked.batch) == 1
                and asked.batch.shape[1:] == first.batch.shape[1:]
                and asked.batch.dtype == first.batch.dtype
            ]
            count = 1
            if len(first.batch) == 1:
                most = min(max(BATCH_PX // max(first.batch[0].size, 1), 1), _MOST_TILES)
                while count * 2 <= min(most, len(alike) + 1):
                    count *= 2
            together = [first, *alike[: count - 1]]
            for asked in together[1:]:
                self._waiting.remove(asked)
        return together

    def _answer(self, together: list[_Asked]) -> None:
        if len(together) == 1:
            together[0].answer.set_result(self._run(together[0].batch))
            return
        answers = self._run(np.concatenate([asked.batch for asked in together]))
        for asked, answer in zip(together, answers, strict=True):
            asked.answer.set_result(answer[None])

    def _answer_apart(self, together: list[_Asked], error: Exception) -> None:
        """Each by itself: only who brought the tile that fails is told so."""
        for asked in together:
            if asked.answer.done():
                continue
            try:
                if len(together) == 1:
                    raise error
                asked.answer.set_result(self._run(asked.batch))
            except Exception as own:  # as above
                asked.answer.set_exception(own)

    def _run(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        started = time.perf_counter()
        rounded = getattr(self._engine, "run_quantised", None)
        answer = quantise(self._engine.run(batch)) if rounded is None else rounded(batch)
        done = self._figures
        self._figures = BatchFigures(
            batches=done.batches + 1,
            tiles=done.tiles + len(batch),
            pixels=done.pixels + len(batch) * batch.shape[2] * batch.shape[3],
            seconds=done.seconds + time.perf_counter() - started,
        )
        return np.asarray(answer, dtype=np.uint8)


def _stopped() -> PredictError:
    return PredictError("The server is being stopped.", remedy="Ask again when it is back.")
