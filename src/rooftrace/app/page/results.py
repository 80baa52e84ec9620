"""Results of the page: predict the dropped images, and keep what was found for a while."""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from rooftrace.core.errors import BusyError, ConfigError, DataError, PredictError, RooftraceError
from rooftrace.io.pixels import parse_stretch
from rooftrace.predict.plan import OUTPUTS, SceneOptions
from rooftrace.predict.result import Prediction, PredictionSummary
from rooftrace.predict.scores import KeptPrediction, KeptScores
from rooftrace.service.service import Service

MOST_BYTES = 2**30
"""Maximum size of all results in bytes; the result that was used longest ago is dropped first."""

_MOST_RUNS = 500
"""Maximum number of runs; their figures and errors are small, but they add up."""

_BYTES_PER_OUTLINE = 1000
"""Approximate size in bytes of a shapely polygon with its figures."""


_DEFAULT_OPTIONS = SceneOptions()


class Result:
    """Prediction of one image, or the error in its place.

    Args:
        name: Name of the image.
        kept: Prediction with its scores.
        error: Error if the prediction failed.
        file: Uploaded file, which may be removed from the disk in the meantime.
        options: Options of the prediction.
    """

    def __init__(
        self, name: str, *, kept: KeptPrediction | None = None, error: RooftraceError | None = None,
        file: Path | None = None, options: SceneOptions = _DEFAULT_OPTIONS,
    ) -> None:  # fmt: skip
        self.name = name
        self.error = error
        self.file = file
        self._options = options
        self.summary: PredictionSummary | None = None if kept is None else kept.prediction.summary
        """PredictionSummary at the threshold that was used last."""
        self._scores = None if kept is None else kept.scores
        self._now = None if kept is None else kept.prediction
        self._lock = threading.Lock()
        self.nbytes = 0 if kept is None else _nbytes(kept)

    @property
    def scores(self) -> KeptScores:
        """The prediction with its scores.

        Raises:
            RooftraceError: The prediction failed, or was dropped since.
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
        """Return the prediction at a threshold; the default is the threshold that was used last.

        Raises:
            ConfigError: A threshold was given for a model of more than two classes.
            RooftraceError: See `scores`.
        """
        with self._lock:
            scores, now = self.scores, self._now
            assert now is not None
            if threshold is not None and threshold != now.summary.threshold:
                self._now = now = scores.redecide(threshold)
                self.summary = now.summary
            return now

    @property
    def job_options(self) -> SceneOptions:
        """Options of a job that repeats the prediction, with all outputs, at the threshold that
        was used last.
        """
        options = replace(self._options, outputs=OUTPUTS)
        if self.summary is None or self.summary.threshold is None:
            return options
        return replace(options, threshold=self.summary.threshold)

    def let_go(self) -> None:
        """Drop everything but the figures and the error."""
        self._scores = self._now = None
        self.nbytes = 0


class ResultStore:
    """Results by run, where a run is a set of images dropped together. Threads may share it.

    The name of a run gives access to its results. It is drawn at random and known only to the
    session that began the run.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._runs: OrderedDict[str, list[Result]] = OrderedDict()
        self._used: OrderedDict[int, Result] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Size of all results in bytes."""
        with self._lock:
            return sum(result.nbytes for result in self._used.values())

    def begin(self) -> str:
        """Begin a run without results and return its name."""
        run = secrets.token_urlsafe(16)
        with self._lock:
            self._runs[run] = []
            while len(self._runs) > _MOST_RUNS:
                _, oldest = self._runs.popitem(last=False)
                self._remove(oldest)
        return run

    def add(self, run: str, result: Result) -> None:
        """Add a result to a run; older results are dropped for it, or it is dropped if it is too
        large.

        A run that has been forgotten in the meantime ignores the result.
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
        """Return all results of a run; none if there is no such run."""
        with self._lock:
            return tuple(self._runs.get(run, ()))

    def get(self, run: str, index: int) -> Result | None:
        """Return a result and mark it as the one used last; None if there is none."""
        with self._lock:
            results = self._runs.get(run, [])
            if not 0 <= index < len(results):
                return None
            if id(results[index]) in self._used:
                self._used.move_to_end(id(results[index]))
            return results[index]

    def forget(self, run: str) -> None:
        """Forget a run; an unknown name is ignored."""
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


MOST_IMAGES = 100
"""Maximum number of images in one run; more belong on the command line."""

_log = logging.getLogger(__name__)


def chosen_options(
    service: Service, gsd: str, threshold: float | None, bands: str = "", stretch: str = ""
) -> SceneOptions:
    """Return the options that the page's fields give; the page does not show density by cells.

    Args:
        gsd: Metres per pixel as typed; empty to use the image's georeference.
        threshold: Value of the slider; None for the model's own threshold.
        bands: Bands as typed; empty to find them in the image.
        stretch: Stretch of the values as typed; empty for that of the server.

    Raises:
        ConfigError: A field has an impossible value.
    """
    how = stretch.strip() or None
    if how is not None:
        parse_stretch(how)
    spec = service.bundle.spec
    own = not spec.is_binary or threshold is None or abs(threshold - spec.threshold) < 1e-9
    return SceneOptions(
        gsd_m=_metres(gsd),
        threshold=None if own else threshold,
        bands=bands.strip() or None,
        stretch=how,
        outputs=("mask", "polygons", "preview"),
    )


def _metres(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        metres = float(text.replace(",", ".").strip().removesuffix("m"))
    except ValueError:
        metres = math.nan
    if not 0 < metres < math.inf:
        raise ConfigError(
            f"Metres per pixel are {text[:20]!r}; a number above 0 was expected, such as 0.3.",
            remedy="Correct the field, or empty it.",
        )
    return metres


def predict_files(
    service: Service, store: ResultStore, run: str, files: Sequence[Path], options: SceneOptions
) -> Iterator[Result]:
    """Predict the files of a run, a few at a time, and add each result to the store.

    An error becomes the result of its image, and the other images go on. A full queue is waited
    for, unless nothing of the run has begun yet.

    Args:
        files: At most `MOST_IMAGES` files.
        options: Options for all files.

    Yields:
        Results in the order of the files.
    """
    waiting: deque[tuple[Path, Future[KeptPrediction] | RooftraceError]] = deque()
    rest = deque(files)
    begun = False
    while rest or waiting:
        while rest and len(waiting) < service.limits.running:
            path = rest[0]
            try:
                waiting.append((path, _submit(service, path, options)))
            except BusyError as busy:
                if waiting:
                    break
                if begun:
                    time.sleep(busy.retry_after_s)
                    continue
                waiting.append((path, busy))
            except RooftraceError as error:
                waiting.append((path, error))
            rest.popleft()
        path, answer = waiting.popleft()
        result = _result(path, answer, options)
        begun = begun or not isinstance(answer, BusyError)
        store.add(run, result)
        yield result


def _submit(service: Service, path: Path, options: SceneOptions) -> Future[KeptPrediction]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise missing_file(path) from error
    return service.submit_keeping(data, path.name, options).answer


def missing_file(path: Path) -> DataError:
    """Return the error of an uploaded file that has been removed."""
    return DataError(f"{path.name} is not on the server any more.", remedy="Drop it once more.")


def _result(
    path: Path, answer: Future[KeptPrediction] | RooftraceError, options: SceneOptions
) -> Result:
    name = path.name
    try:
        if isinstance(answer, RooftraceError):
            raise answer
        return Result(name, kept=answer.result(), file=path, options=options)
    except RooftraceError as error:
        return Result(name, error=error, file=path, options=options)
    except Exception:
        # The person reads that the server is at fault; the log has the details.
        _log.exception("The page could not predict %s", name)
        broken = PredictError(
            f"{name} could not be predicted: an error inside rooftrace.",
            remedy="The log of the server says more.",
        )
        return Result(name, error=broken)
