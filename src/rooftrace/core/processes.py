"""Calls of functions in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import TypeVar, TypeVarTuple

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.core.parallel import Threads

__all__ = ["Processes"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def _lost() -> PredictError:
    return PredictError(
        "A process that shared the work ended unexpectedly.",
        remedy="Check whether the memory was used up. To continue, run the same command again.",
    )


class Processes:
    """Processes of this machine, for work that holds the interpreter; see `Workers`.

    Threads take turns in such work, so that more than two or three of them are no faster. They do
    it where the system starts no more processes.

    Use it in a `with` block; a script that does so must be guarded by `if __name__ == "__main__":`,
    as `multiprocessing` requires.

    Args:
        size: Number of processes.
        modules: Modules that all of them need, imported once.
        begin: Function that each process calls first; threads call it once. It must be picklable.
        lost: Function that makes the error to raise if a process has ended unexpectedly.
    """

    def __init__(
        self,
        size: int,
        modules: Sequence[str] = (),
        begin: Callable[[], object] = int,
        lost: Callable[[], RooftraceError] = _lost,
    ) -> None:
        self.size = size
        self.has_lost = False
        """True once a process has ended unexpectedly after the start; each call is an error then.
        Where the processes cannot even start, threads do the work, and this stays False."""

        self._begin, self._lost = begin, lost
        self._pool = ProcessPoolExecutor(
            size, _process_context(modules), initializer=_live_with_parent, initargs=(begin,)
        )
        self._starting: threading.Thread | None = None
        self._threads: Threads | None = None
        """Threads in place of processes, where the system starts none."""

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._starting is not None:
            self._starting.join()
        self._pool.shutdown(cancel_futures=True)
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def start(self) -> threading.Thread:
        """Start the processes in the background, in advance of the first call."""
        if self._starting is None:
            self._starting = threading.Thread(target=self._warm, daemon=True)
            self._starting.start()
        return self._starting

    def submit(self, work: Callable[[*Ts], T], /, *given: *Ts) -> Future[T]:
        """Begin a call; its result raises the error of `lost` if a process has ended."""
        self.start().join()
        if self._threads is not None:
            return self._threads.submit(work, *given)
        answer: Future[T] = Future()
        try:
            made = self._pool.submit(work, *given)
        except BrokenProcessPool:
            answer.set_exception(self._lose())
        except _NO_PROCESS:
            return self._in_threads().submit(work, *given)
        else:
            made.add_done_callback(lambda done: self._hand_over(done, answer))
        return answer

    def _warm(self) -> None:
        # Processes that this thread starts inherit its mask: Ctrl-C would interrupt their imports.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        # The first process waits for the imports of all.
        try:
            self._pool.submit(int)
        except (BrokenProcessPool, *_NO_PROCESS):
            self._in_threads()

    def _in_threads(self) -> Threads:
        self._begin()
        self._threads = Threads("processes")
        return self._threads

    def _hand_over(self, done: Future[T], answer: Future[T]) -> None:
        if done.cancelled():
            answer.cancel()
        elif (error := done.exception()) is None:
            answer.set_result(done.result())
        else:
            answer.set_exception(self._lose() if isinstance(error, BrokenProcessPool) else error)

    def _lose(self) -> RooftraceError:
        self.has_lost = True
        return self._lost()


def _process_context(modules: Sequence[str] = ()) -> BaseContext:
    """Return the way in which processes start here, with modules that all of them need."""
    # A fork of this process would share the locks of its threads.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(list(modules))
    return context


_NO_PROCESS = (OSError, EOFError)
"""Errors where the system does not start a process, for example at a limit of their number."""


def _live_with_parent(begin: Callable[[], object]) -> None:
    """Leave Ctrl-C to the parent process, and end when it has ended; called in a new process.

    Args:
        begin: Function to call then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where there are no masks
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    begin()
