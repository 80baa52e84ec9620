"""One writer at a time: a folder that is being written to is not written to by anybody else."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rooftrace.core.errors import ExportError
from rooftrace.io.atomic import export_error

__all__ = ["locked"]

if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[str]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs; the system gives it back with the process, however it ends.

    Args:
        path: of the lock's file, which is there only meanwhile.
        what: it stands for, as the person knows it.

    Raises:
        ExportError: somebody else holds it, or the file cannot be made.
    """
    file = _held(path, what)
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
    finally:
        # Removed before it is given back: nobody may take a lock whose file is about to go.
        with suppress(OSError):
            path.unlink()
        file.close()


def _held(path: Path, what: str) -> IO[str]:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise export_error(path, error) from error
        try:
            _take(file)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise ExportError(
                f"{what} is being written to by {holder}.",
                remedy="Wait until that run has ended, stop it, or choose another folder with -o.",
            ) from error
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        # Whoever held it has just removed it, and this lock is one on nothing.
        file.close()
