"""From what was dropped on the page to results in its store."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from rooftrace.app.page.results import Result, ResultStore
from rooftrace.core.errors import BusyError, ConfigError, DataError, PredictError, RooftraceError
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.scores import KeptPrediction
from rooftrace.service.service import Service

__all__ = ["MOST_IMAGES", "chosen_options", "trace"]

MOST_IMAGES = 100
"""That are taken at once: more are a folder for the command line."""

_log = logging.getLogger(__name__)


def chosen_options(service: Service, gsd: str, threshold: float | None) -> SceneOptions:
    """What the page's fields say; the density by cells is not made, nobody would see it.

    Args:
        gsd: metres per pixel as they were typed; empty for what the image says.
        threshold: of the slider; the model's own, where it was not moved.

    Raises:
        ConfigError: a field holds what cannot be.
    """
    spec = service.bundle.spec
    own = not spec.is_binary or threshold is None or abs(threshold - spec.threshold) < 1e-9
    return SceneOptions(
        gsd_m=_metres(gsd),
        threshold=None if own else threshold,
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


def trace(
    service: Service, store: ResultStore, run: str, files: Sequence[Path], options: SceneOptions
) -> Iterator[Result]:
    """Predict the files of a run, some at a time; each result is in the store when it comes.

    What goes wrong with one is its result, and the others go on. A queue that is full is waited
    for, unless nothing of the run was begun yet.

    Args:
        files: at most `MOST_IMAGES`.
        options: for all of them.

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
        result = _result(path.name, answer)
        begun = begun or not isinstance(answer, BusyError)
        store.add(run, result)
        yield result


def _submit(service: Service, path: Path, options: SceneOptions) -> Future[KeptPrediction]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path.name} is not on the server any more.", remedy="Drop it once more."
        ) from error
    return service.submit_keeping(data, path.name, options).answer


def _result(name: str, answer: Future[KeptPrediction] | RooftraceError) -> Result:
    try:
        if isinstance(answer, RooftraceError):
            raise answer
        return Result(name, kept=answer.result())
    except RooftraceError as error:
        return Result(name, error=error)
    except Exception:
        # The person is told that it was not his fault; the log has the rest.
        _log.exception("The page could not predict %s", name)
        broken = PredictError(
            f"{name} could not be predicted: an error inside rooftrace.",
            remedy="The log of the server says more.",
        )
        return Result(name, error=broken)
