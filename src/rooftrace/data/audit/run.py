"""All scenes of a set in figures, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import cv2

from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.data.audit.facts import SceneFacts
from rooftrace.data.audit.measure import measure_scene
from rooftrace.data.source import Entry, Progress, SceneSet

__all__ = ["measure_entry", "measure_set"]

_ALONE_S = 1.0
"""For so long a set is measured in this process; most sets are done by then."""

_WORTH_S = 4.0
"""If the rest would take longer than this, it is worth the start of more processes."""

_CHUNK = 32
_AHEAD = 4
"""So many chunks for each process are on their way at once: what bounds the memory."""


def measure_set(
    source: SceneSet, *, workers: int | None = None, progress: Progress | None = None
) -> tuple[SceneFacts, ...]:
    """Measure every scene of a set.

    The result does not depend on the number of processes. A script that calls this must be
    guarded by `if __name__ == "__main__":`, as `multiprocessing` demands.

    Args:
        source: with or without labels.
        workers: processes; 1 measures in this one alone; default as many as there are cores,
            where there is enough to do for them.
        progress: called with the scenes that are done and that there are.

    Returns:
        Facts in the order of `source.entries`; see `measure_scene` for what cannot be read.

    Raises:
        DataError: a process ended by itself, most likely for lack of memory.
    """
    started = time.monotonic()
    facts: list[SceneFacts] = []
    for entry in source.entries:
        spent = time.monotonic() - started
        left_s = spent / max(len(facts), 1) * (len(source) - len(facts))
        if workers != 1 and spent > _ALONE_S and left_s > _WORTH_S:
            break
        facts.append(measure_entry(source, entry))
        if progress is not None:
            progress(len(facts), len(source))
    rest = replace(source, entries=source.entries[len(facts) :], unlabelled=())
    if rest.entries:
        for chunk in _in_processes(rest, workers or _cores()):
            facts += chunk
            if progress is not None:
                progress(len(facts), len(source))
    return tuple(facts)


def measure_entry(source: SceneSet, entry: Entry) -> SceneFacts:
    """Measure one scene of a set; one that cannot be opened is a fact, too."""
    try:
        scene = source.open_scene(entry)
    except RooftraceError as error:
        name = entry.id if entry.image is None else str(entry.image)
        return SceneFacts(entry.id, name, entry.group, image_error=error.message)
    return measure_scene(scene, source.classes, source.building_class)


def _in_processes(source: SceneSet, workers: int) -> Iterator[list[SceneFacts]]:
    """The facts of all scenes in order, a chunk at a time."""
    # A fork of this process would share the locks of its threads.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([__name__])
    bare = replace(source, entries=())
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(bare,))
    chunks = (source.entries[i : i + _CHUNK] for i in range(0, len(source), _CHUNK))
    waiting: deque[Future[list[SceneFacts]]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_measure_chunk, chunk))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "A process that measured images ended by itself.",
            remedy="Look whether the memory was used up. A script that is not guarded by "
            'if __name__ == "__main__": ends so as well.',
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_SOURCE: SceneSet | None = None
"""In a worker alone: labels may be large, and come to it once and not with each chunk."""


def _begin(source: SceneSet) -> None:
    global _SOURCE  # noqa: PLW0603
    cv2.setNumThreads(1)
    _SOURCE = source


def _measure_chunk(entries: Sequence[Entry]) -> list[SceneFacts]:
    assert _SOURCE is not None
    return [measure_entry(_SOURCE, entry) for entry in entries]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
