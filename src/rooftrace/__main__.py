"""`python -m rooftrace`, and the command `rooftrace`."""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130."""
    # A shell starts jobs in the background so that they ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    codes: list[int] = []
    # What is registered first is called last: threads have ended, temporary files are removed.
    atexit.register(_leave, codes)
    sys.unraisablehook = _unraisable
    try:
        from rooftrace.core.system import importing, limit_arenas

        limit_arenas()
        with importing():
            from rooftrace.cli import main as run
            from rooftrace.cli.commands import import_command

            with suppress(Exception):  # `run` imports the command again and reports the error
                import_command(sys.argv[1:])
        run()
    except KeyboardInterrupt:
        _stop()
    except SystemExit as ended:
        codes += [ended.code] if isinstance(ended.code, int) else []
        raise


_WAITING: list[None] = []
"""Not empty while Ctrl-C waits for the end of an import."""


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, after the import if a module is being imported.

    PyTorch's C++ code calls Python while it is imported, and an exception there aborts the process.
    Other libraries take it for a missing part of theirs. A second Ctrl-C does not wait.
    """
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    if frame is None:
        raise KeyboardInterrupt
    if _WAITING:
        _stop()
    _WAITING.append(None)
    _thread.start_new_thread(_interrupt_later, ())


def _interrupt_later() -> None:
    time.sleep(0.1)
    _WAITING.clear()
    _thread.interrupt_main()


def _stop() -> NoReturn:
    os.write(2, b"stopped\n")
    os._exit(130)


def _unraisable(ignored: Any) -> None:
    """Interrupt the main thread again where a finaliser, such as a data loader's, took Ctrl-C."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        # Later, since an interrupt of this function would be ignored, too.
        _thread.start_new_thread(_interrupt_later, ())
    else:
        sys.__unraisablehook__(ignored)


def _leave(codes: list[int]) -> None:
    """End the process without freeing its objects, which takes a tenth of a short command."""
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    main()
