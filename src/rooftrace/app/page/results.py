"""What the page shows and hands out: results of images, held in memory for a while."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence

from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.predict.result import Prediction, Summary
from rooftrace.predict.scores import KeptPrediction, KeptScores

__all__ = ["MOST_BYTES", "Result", "ResultStore"]

MOST_BYTES = 2**30
"""Of all results together; beyond that the one that was longest not asked for goes."""

_MOST_RUNS = 500
"""Their figures and errors are small, but not nothing."""

_BYTES_PER_OUTLINE = 1000
"""About, of a shapely polygon with its figures."""


class Result:
    """One image: its prediction, or why there is none.

    Args:
        name: of the image.
        kept: what was made of it.
        error: what went wrong instead.
    """

    def __init__(
        self, name: str, *, kept: KeptPrediction | None = None, error: RooftraceError | None = None
    ) -> None:
        self.name = name
        self.error = error
        self.summary: Summary | None = None if kept is None else kept.prediction.summary
        """At the threshold that was asked for last."""
        self._scores = None if kept is None else kept.scores
        self._now = None if kept is None else kept.prediction
        self._lock = threading.Lock()
        self.nbytes = 0 if kept is None else _nbytes(kept)

    @property
    def scores(self) -> KeptScores:
        """What is kept of it.

        Raises:
            RooftraceError: what went wrong; or it was let go.
        """
        if self.error is not None:
            raise self.error
        if self._scores is None:
            raise DataError(
                f"The result of {self.name} was let go, to make room for others.",
                remedy="Drop the image once more.",
            )
        return self._scores

    def at(self, threshold: float | None = None) -> Prediction:
        """The prediction at a threshold; default the one that was asked for last.

        Raises:
            ConfigError: a threshold for a model of more than two classes.
            RooftraceError: as `scores`.
        """
        with self._lock:
            scores, now = self.scores, self._now
            assert now is not None
            if threshold is not None and threshold != now.summary.threshold:
                self._now = now = scores.redecide(threshold)
                self.summary = now.summary
            return now

    def let_go(self) -> None:
        """Keep figures and error only."""
        self._scores = self._now = None
        self.nbytes = 0


class ResultStore:
    """Results by run, a run being what was dropped at once; safe for threads.

    Who knows the name of a run may see its results: it is drawn at random, and told to the session
    alone that began it.

    Args:
        most_bytes: that may be held.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._runs: OrderedDict[str, list[Result]] = OrderedDict()
        self._used: OrderedDict[int, Result] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """That are held."""
        with self._lock:
            return sum(result.nbytes for result in self._used.values())

    def begin(self) -> str:
        """The name of a new run, without results yet."""
        run = secrets.token_urlsafe(16)
        with self._lock:
            self._runs[run] = []
            while len(self._runs) > _MOST_RUNS:
                _, oldest = self._runs.popitem(last=False)
                self._remove(oldest)
        return run

    def add(self, run: str, result: Result) -> None:
        """Hold a result of a run; others may have to go for it, and itself where it is too large.

        A run that was forgotten meanwhile takes nothing.
        """
        with self._lock:
            if run not in self._runs:
                return
            self._runs[run].append(result)
            self._used[id(result)] = result
            held = sum(one.nbytes for one in self._used.values())
            while held > self._most_bytes:
                _, oldest = self._used.popitem(last=False)
                held -= oldest.nbytes
                oldest.let_go()

    def run(self, run: str) -> Sequence[Result]:
        """All results of a run; none where there is no such run."""
        with self._lock:
            return tuple(self._runs.get(run, ()))

    def get(self, run: str, index: int) -> Result | None:
        """A result, which now is the one that was asked for last; None where there is none."""
        with self._lock:
            results = self._runs.get(run, [])
            if not 0 <= index < len(results):
                return None
            if id(results[index]) in self._used:
                self._used.move_to_end(id(results[index]))
            return results[index]

    def forget(self, run: str) -> None:
        """Let go of a whole run; one that is not known is passed over."""
        with self._lock:
            self._remove(self._runs.pop(run, []))

    def _remove(self, results: Sequence[Result]) -> None:
        for result in results:
            self._used.pop(id(result), None)
            result.let_go()


def _nbytes(kept: KeptPrediction) -> int:
    made = kept.prediction
    picture = made.result.preview
    return (
        kept.scores.nbytes
        + made.mask.data.nbytes
        + made.mask.valid.nbytes
        + len(made.outlines) * _BYTES_PER_OUTLINE
        + (0 if picture is None else picture.width * picture.height * 3)
    )
