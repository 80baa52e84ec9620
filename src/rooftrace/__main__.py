"""`python -m rooftrace`, and the command `rooftrace`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from rooftrace.core.machine import importing, limit_arenas


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130."""
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


if __name__ == "__main__":
    main()
