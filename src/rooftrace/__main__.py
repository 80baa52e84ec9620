"""`python -m rooftrace`, and the command `rooftrace`."""

from __future__ import annotations

import _thread
import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import Any

from rooftrace.core.system import importing, limit_arenas


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130."""
    codes: list[int] = []
    # What is registered first is called last: threads have ended, temporary files are removed.
    atexit.register(_leave, codes)
    sys.unraisablehook = _unraisable
    limit_arenas()
    try:
        with importing():
            from rooftrace.cli import main as run
            from rooftrace.cli.commands import import_command

            with suppress(Exception):  # `run` imports the command again and reports the error
                import_command(sys.argv[1:])
        run()
    except KeyboardInterrupt:
        os.write(2, b"stopped\n")
        os._exit(130)
    except SystemExit as ended:
        codes += [ended.code] if isinstance(ended.code, int) else []
        raise


def _unraisable(ignored: Any) -> None:
    """Interrupt the main thread again where a finaliser, such as a data loader's, took Ctrl-C."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        # Later, since an interrupt of this function would be ignored, too.
        threading.Timer(0.1, _thread.interrupt_main).start()
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
