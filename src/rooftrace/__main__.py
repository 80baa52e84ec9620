"""`python -m rooftrace`, and the command `rooftrace`."""

import atexit
import os
import sys
from contextlib import suppress

from rooftrace.core.interrupt import handle_interrupts, stop


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130."""
    handle_interrupts()
    codes: list[int] = []
    # What is registered first is called last: threads have ended, temporary files are removed.
    atexit.register(_leave, codes)
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
        stop()
    except SystemExit as ended:
        codes += [ended.code] if isinstance(ended.code, int) else []
        raise


def _leave(codes: list[int]) -> None:
    """End the process without freeing its objects, which takes a tenth of a short command."""
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    main()
