"""Calls of functions in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.core.machine import importing
from rooftrace.core.system import block_interrupts

if TYPE_CHECKING:
    from ctypes import c_byte

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def _lost() -> PredictError:
    return PredictError(
        "A process that shared the work ended unexpectedly.",
        remedy="Check whether the memory was used up. To continue, run the same command again.",
    )


class Processes:
    """Processes of this machine, for work that holds the interpreter; see `Workers`.

    Threads take turns in such work, so that more than two or three of them are no faster.

    Use it in a `with` block; a script that does so must be guarded by `if __name__ == "__main__":`,
    as `multiprocessing` requires.

    Args:
        size: Number of processes.
        modules: Modules that all of them need, imported once.
        begin: Function that each process calls first. It must be picklable.
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
        """True once a process has ended unexpectedly; each call is an error then."""

        self._lost = lost
        context = _process_context(modules)
        # Without a lock, which a process that is killed would keep.
        self._stopping = context.RawValue("b", 0)
        self._pool = ProcessPoolExecutor(
            size, context, initializer=_live_with_parent, initargs=(begin, self._stopping)
        )
        self._starting: threading.Thread | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._starting is not None:
            self._starting.join()
        self._pool.shutdown(cancel_futures=True)

    def stop(self) -> None:
        """Ask calls to return what they have, see `is_stopping`."""
        self._stopping.value = 1

    def start(self) -> threading.Thread:
        """Start the processes in the background, in advance of the first call."""
        if self._starting is None:
            self._starting = threading.Thread(target=self._warm, daemon=True)
            self._starting.start()
        return self._starting

    def submit(self, work: Callable[[*Ts], T], /, *given: *Ts) -> Future[T]:
        """Begin a call; its result raises the error of `lost` if a process has ended."""
        self.start().join()
        result: Future[T] = Future()
        try:
            call = self._pool.submit(work, *given)
        except (BrokenProcessPool, OSError):
            result.set_exception(self._lose())
        else:
            call.add_done_callback(lambda done: self._hand_over(done, result))
        return result

    def _warm(self) -> None:
        # Processes that this thread starts inherit its mask: Ctrl-C would interrupt their imports.
        block_interrupts()
        # The first process waits for the imports of all.
        with suppress(BrokenProcessPool, OSError):
            self._pool.submit(int)

    def _hand_over(self, done: Future[T], result: Future[T]) -> None:
        if done.cancelled():
            result.cancel()
        elif (error := done.exception()) is None:
            result.set_result(done.result())
        else:
            result.set_exception(self._lose() if isinstance(error, BrokenProcessPool) else error)

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


_STOPPING: list[c_byte] = []
"""Value that is not 0 once this process was asked to stop."""


def is_stopping() -> bool:
    """Return True in a process whose parent waits for it to return what it has."""
    return any(one.value for one in _STOPPING)


def _live_with_parent(begin: Callable[[], object], stopping: c_byte) -> None:
    """Leave Ctrl-C to the parent process, and end when it has ended; called in a new process.

    Args:
        begin: Function to call then.
        stopping: Value for `is_stopping`.
    """
    _STOPPING.append(stopping)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where there are no masks
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    with importing(unwanted=()):
        begin()
