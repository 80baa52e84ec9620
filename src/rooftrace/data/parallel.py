"""All scenes of a set, each taken by itself, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any, TypeVar

import cv2

from rooftrace.core.errors import DataError
from rooftrace.data.source import Entry, Progress, SceneSet

__all__ = ["map_entries"]

T = TypeVar("T")

_ALONE_S = 0.3
"""For so long all is done in this process, to see how long the rest would take."""

_WORTH_S = 4.0
"""If the rest would take longer than this, it is worth the start of more processes."""

_CHUNK = 32
_AHEAD = 4
"""So many chunks for each process are on their way at once: what bounds the memory."""


def map_entries(
    source: SceneSet,
    work: Callable[[SceneSet, Entry], T],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[T, ...]:
    """What `work` makes of every entry of a set; the same on any number of processes.

    A script that calls this must be guarded by `if __name__ == "__main__":`, as `multiprocessing`
    demands.

    Args:
        work: (set without its entries, entry); a function of a module, as processes share no other.
        workers: processes; 1 does all in this one; default as many as there are cores, where
            there is enough to do for them.
        progress: called with the entries that are done and that there are.

    Raises:
        DataError: a process ended by itself, most likely for lack of memory.
    """
    bare = replace(source, entries=(), unlabelled=(), census=None)
    started = time.monotonic()
    done: list[T] = []
    for entry in source.entries:
        spent = time.monotonic() - started
        left_s = spent / max(len(done), 1) * (len(source) - len(done))
        if workers != 1 and spent > _ALONE_S and left_s > _WORTH_S:
            break
        done.append(work(bare, entry))
        if progress is not None:
            progress(len(done), len(source))
    rest = source.entries[len(done) :]
    if rest:
        for chunk in _in_processes(bare, rest, work, workers or _cores()):
            done += chunk
            if progress is not None:
                progress(len(done), len(source))
    return tuple(done)


def _in_processes(
    source: SceneSet,
    entries: Sequence[Entry],
    work: Callable[[SceneSet, Entry], T],
    workers: int,
) -> Iterator[list[T]]:
    """What is made of all entries in order, a chunk at a time."""
    # A fork of this process would share the locks of its threads.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(source, work))
    chunks = (entries[i : i + _CHUNK] for i in range(0, len(entries), _CHUNK))
    waiting: deque[Future[list[T]]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_work_on, chunk))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "A process that read images ended by itself.",
            remedy="Look whether the memory was used up. A script that is not guarded by "
            'if __name__ == "__main__": ends so as well.',
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_TASK: tuple[SceneSet, Callable[[SceneSet, Entry], Any]] | None = None
"""In a worker alone: labels may be large, and come to it once and not with each chunk."""


def _begin(source: SceneSet, work: Callable[[SceneSet, Entry], Any]) -> None:
    global _TASK  # noqa: PLW0603
    cv2.setNumThreads(1)
    _TASK = source, work


def _work_on(entries: Sequence[Entry]) -> list[Any]:
    assert _TASK is not None
    source, work = _TASK
    return [work(source, entry) for entry in entries]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
