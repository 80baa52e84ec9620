"""`python -m rooftrace`, and the command `rooftrace`."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from rooftrace.core.errors import DefectError, OutOfMemoryError, RooftraceError
from rooftrace.core.failures import DEBUG, explained, require_address_space
from rooftrace.core.machine import importing, limit_arenas

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_MESSAGE = b"stopped\n"
_ADDRESS_SPACE = 2**30
"""Minimum number of bytes of address space that must be free at the start. With less, OpenBLAS and
OpenCV end the process while they are loaded, without a word or by an interruption."""

_BETWEEN_S = 0.5
"""Minimum time between two Ctrl-C of a person; libraries raise the first one again."""

_END_S = 60.0
"""Time that a command has to end by itself after the first Ctrl-C, more than any of ours needs.

An exception that is raised between the taking of a lock and the block that releases it, as in a
queue of `multiprocessing`, leaves the lock taken, and the code that cleans up waits for ever.
"""

_LEAVE_S = 3.0
"""Time that a command has to end by itself after the second Ctrl-C."""

_AGAIN_S = 0.01
"""Time between two looks at whether an interruption can be raised again."""

_STOPPED = 130
"""Exit code of a command that Ctrl-C has stopped."""


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130 at any moment from here on."""
    _open_closed_streams()
    try:
        require_address_space(_ADDRESS_SPACE, "the libraries of rooftrace")
    except OutOfMemoryError as error:
        _fail(error)
    limit_arenas()
    # Rich would show nothing at all.
    if not os.environ.get("COLUMNS", "80").strip("0"):
        del os.environ["COLUMNS"]
    # A parent process may have it ignored, as a shell does for jobs in the background.
    interruption = None
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        interruption = _Interruption()
    try:
        with importing():
            from rooftrace.cli import main as run
            from rooftrace.cli.commands import import_command

            import_command(sys.argv[1:])
    except Exception as error:
        shown = explained(error, "rooftrace")
        if isinstance(shown, DefectError) and os.environ.get(DEBUG):
            raise
        _fail(shown)
    if interruption is None:
        run()
    else:
        interruption.run(run)


def _open_closed_streams() -> None:
    """Open the null device for each standard stream that the caller has closed, as by `>&-`.

    Its number would go to the next file that is opened, into which native code would print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _fail(error: RooftraceError) -> NoReturn:
    """Print an error without the command line, which could not be imported, and exit."""
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": error.to_json()}) + "\n")
    else:
        sys.stderr.write(f"error: {error.message}\n{error.remedy}\n")
    sys.exit(error.exit_code)


class _Interruption:
    """Handler of Ctrl-C while modules are imported, while the command runs, and while it ends.

    While modules are imported, nothing has been written, so the process ends at once: an exception
    in an import may be swallowed or changed by a library. Afterwards a KeyboardInterrupt is raised.
    Where that ends as another error, as where worker processes die of the same Ctrl-C, the command
    was stopped all the same. Where it is raised in a destructor, Python drops it and calls its hook
    for such errors; it is raised again as soon as the hook has ended. Forked processes, which
    prepare samples, get the same Ctrl-C from the terminal and leave it to this one, which ends
    them.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.arrived = False
        self.dropping = False
        self.raised = False
        self.exit_code: int | None = None
        # What is registered first is called last.
        atexit.register(self._end)
        signal.signal(signal.SIGINT, self._stop)
        self._end_in_time()

    def run(self, command: Callable[[], None]) -> None:
        hook = sys.unraisablehook

        def again(unraisable: UnraisableHookArgs) -> None:
            if isinstance(unraisable.exc_value, KeyboardInterrupt):
                self.dropping, self.raised = True, False
                # In a thread, because in this one it would be raised inside the hook.
                threading.Thread(target=self._raise_again, daemon=True).start()
                self.dropping = False
            elif not self.arrived:  # else a destructor found an object that was not yet complete
                hook(unraisable)

        sys.unraisablehook = again
        try:
            signal.signal(signal.SIGINT, self._raise)
            command()
        except BaseException as error:
            if not self.arrived or (isinstance(error, SystemExit) and not error.code):
                if isinstance(error, SystemExit) and isinstance(error.code, int):
                    self.exit_code = error.code
                raise
            self.exit_code = _STOPPED
            if not isinstance(error, SystemExit):  # else the command has said so
                os.write(2, _MESSAGE)
            sys.exit(_STOPPED)
        finally:
            # Python prints a traceback if its shutdown is interrupted.
            signal.signal(signal.SIGINT, self._stop)
            if not self.arrived:
                sys.unraisablehook = hook

    def _raise(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if os.getpid() == self.process:
            self.arrived = True
            if not self.dropping:
                self.raised = True
                raise KeyboardInterrupt

    def _raise_again(self) -> None:
        while self.dropping:
            time.sleep(_AGAIN_S)
        if self.raised:  # since a person has sent another one
            return
        if sys.platform == "win32":
            signal.raise_signal(signal.SIGINT)
        else:  # where a call that waits ends only if its own thread gets the signal
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        _exit()

    def _end(self) -> None:
        # Python would take a twentieth of the time of a short command to free its objects. Where
        # the signal arrived in code that an extension module runs, it would moreover end itself by
        # SIGINT in place of the exit code. Threads have ended, and temporary files are removed.
        if self.exit_code is None:
            return
        # A full disk behind stderr takes no words. What stdout cannot take, Python reports itself.
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            os._exit(self.exit_code)

    def _end_in_time(self) -> None:
        """Make the process end though the main thread does not.

        Python runs a handler of signals only in the main thread, and only between two of its own
        instructions. A model whose graph loops for ever would never return to it.
        """
        if sys.platform == "win32":  # where this needs a socket
            return
        signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        # A forked child would write to the same pipe.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        threading.Thread(target=self._watch, args=(signals,), name="ctrl-c", daemon=True).start()

    def _watch(self, signals: int) -> None:
        first_s = None
        while numbers := os.read(signals, 64):
            if signal.SIGINT not in numbers:
                continue
            now_s = time.monotonic()
            if first_s is None:
                first_s = now_s
                limit = threading.Timer(_END_S, self._leave)
                limit.daemon = True
                limit.start()
            elif now_s - first_s > _BETWEEN_S:
                time.sleep(_LEAVE_S)
                _exit()

    def _leave(self) -> None:
        # Otherwise the command has a handler of its own, as one that finishes a recording.
        if self.arrived:
            _exit()


def _exit() -> NoReturn:
    """End the process at once, without waiting for its threads."""
    os.write(2, _MESSAGE)
    os._exit(_STOPPED)


if __name__ == "__main__":
    main()
