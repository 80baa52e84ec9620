"""Calls of functions in processes of this machine: workers, and one child for a stranger's file.

A library that reads a stranger's file may loop without end, exhaust the memory or end the process.
`run_limited` gives it a child with limits of time and memory, which starts in an empty folder, so
that relative paths in a file lead nowhere.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from rooftrace.core.errors import BundleError, PredictError, RooftraceError, is_out_of_memory
from rooftrace.core.system import block_interrupts, importing, limit_memory
from rooftrace.core.text import first_line

if TYPE_CHECKING:
    from ctypes import c_byte


T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Processes:
    """Processes of this machine, for work that holds the interpreter; see `Workers`.

    Threads take turns in such work, so that more than two or three of them are no faster.

    Use it in a `with` block; a script that does so must be guarded by `if __name__ == "__main__":`,
    as `multiprocessing` requires.

    Args:
        size: Number of processes.
        modules: Modules that all of them need, imported once.
        begin: Function that each process calls first. It must be picklable.
    """

    def __init__(
        self,
        size: int,
        modules: Sequence[str] = (),
        begin: Callable[[], object] = int,
    ) -> None:
        self.size = size
        self.has_lost = False
        """True once a process has ended unexpectedly; each call is an error then."""

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
        """Begin a call; its result raises PredictError if a process has ended."""
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

    def _lose(self) -> PredictError:
        self.has_lost = True
        return PredictError(
            "A process that shared the work ended unexpectedly.",
            remedy="Check whether the memory was used up, and run the same command again. This "
            'also happens in a script that is not guarded by if __name__ == "__main__":.',
        )


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
    """Leave Ctrl-C to the parent process, and end when it has ended; called in a new process."""
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


_CODE = "import sys; from rooftrace.core.processes import _serve; _serve(*sys.argv[1:])"
_RESULT, _ERROR = b"+", b"-"
"""First byte of what the child writes, before the result or the error as JSON."""

_REMEDY = "Do not use the file if you do not know where it comes from; else get it again."


def run_limited(
    function: Callable[[bytes], bytes],
    data: bytes,
    *,
    source: str,
    seconds: float,
    memory_bytes: int,
) -> bytes:
    """Return what a function makes of some bytes in a child process.

    Args:
        function: Function of a module; the child imports it by its name.
        data: Argument of the function.
        source: Name of the file that the data come from, for messages.
        seconds: Maximum duration in seconds.
        memory_bytes: Maximum memory that the child allocates; it is only limited on Linux.

    Raises:
        BundleError: The child exceeded a limit, or ended before the function returned.
        RooftraceError: The error that the function raised; one of another library is a BundleError.
    """
    names = function.__module__, function.__qualname__, str(memory_bytes)
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            done = subprocess.run(  # noqa: S603  # ourselves
                [sys.executable, "-c", _CODE, *names],
                input=data,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BundleError(
                f"{source} was not loaded and run on one tile within {seconds:g} s.", remedy=_REMEDY
            ) from error
    kind, result = done.stdout[:1], done.stdout[1:]
    if kind == _ERROR:
        raise RooftraceError.from_json(json.loads(result))
    if kind != _RESULT or done.returncode:
        raise BundleError(
            f"{source} ended the process that loaded it, with exit code {done.returncode}.",
            remedy=_REMEDY,
        )
    return result


def _serve(module: str, name: str, memory_bytes: str) -> None:
    """Run a function in the child process, from standard input to standard output."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print on standard output
    limit_memory(int(memory_bytes), "DATA")
    try:
        result = getattr(import_module(module), name)(sys.stdin.buffer.read())
        out.write(_RESULT + result)
    except Exception as error:  # engines raise many types
        reported = error
        if is_out_of_memory(error):
            mib = int(memory_bytes) // 2**20
            reported = BundleError(f"The model needs more than {mib:,} MiB.", remedy=_REMEDY)
        elif not isinstance(error, RooftraceError):
            reported = BundleError(f"The model cannot be run: {first_line(error)}.", remedy=_REMEDY)
        assert isinstance(reported, RooftraceError)
        out.write(_ERROR + json.dumps(reported.to_json()).encode())
    out.close()
