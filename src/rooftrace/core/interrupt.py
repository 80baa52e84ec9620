"""Ctrl-C in the command line: when it is raised, and whether it came.

Libraries are not written for an exception at any moment. PyTorch's C++ code calls Python while it
is imported, and aborts the process; others take it for a missing part of theirs. Pydantic and
pybind11 raise another exception in its place.
"""

import _thread
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn

STOPPED = 130
"""Exit code of a command that Ctrl-C has stopped."""

_RAISED: list[None] = []
"""Not empty once Ctrl-C was raised."""

_WAITING: list[None] = []
"""Not empty while Ctrl-C waits for the end of an import."""


def handle_interrupts() -> None:
    """Let Ctrl-C wait for imports, and raise it again where a finaliser took it.

    Use it only in a process that belongs to rooftrace. A process that ignores Ctrl-C, as a shell
    starts jobs in the background, goes on to ignore it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _unraisable


def was_interrupted() -> bool:
    """Return True once Ctrl-C was raised, also if another exception has come of it."""
    return bool(_RAISED)


def stop() -> NoReturn:
    """End the process at once."""
    os.write(2, b"stopped\n")
    os._exit(STOPPED)


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, after the import if a module is being imported.

    A second Ctrl-C does not wait.
    """
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    if frame is None:
        _RAISED.append(None)
        raise KeyboardInterrupt
    if _WAITING:
        stop()
    _WAITING.append(None)
    _thread.start_new_thread(_interrupt_later, ())


def _interrupt_later() -> None:
    # Short for a person. An import is asked ten times a second whether it is over, and a finaliser
    # has returned by then.
    time.sleep(0.1)
    _WAITING.clear()
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        return  # the command has stopped meanwhile, and its exit code must not be that of a signal
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        # A signal wakes the main thread where it waits for a lock, a child or a server.
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _unraisable(ignored: Any) -> None:
    """Interrupt the main thread again where a finaliser, such as a data loader's, took Ctrl-C.

    Finalisers of what Ctrl-C left half made fail, too, and are not shown.
    """
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        # Later, since an interrupt of this function would be ignored, too.
        _thread.start_new_thread(_interrupt_later, ())
    elif not was_interrupted():
        sys.__unraisablehook__(ignored)
