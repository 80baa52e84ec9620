"""Files that appear under their name when they are complete, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rooftrace.core.errors import ExportError

__all__ = ["export_error", "replacing", "write_atomically"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write under; it takes the place of `path` when the block ends well.

    The ending is kept, since drivers choose their format by it. Whatever fails, nothing is left
    under either name that was not there before.

    Raises:
        ExportError: the folder cannot be made or written to.
    """
    # Processes of several machines may have one number.
    unique = f"{os.getpid()}{secrets.randbelow(10**9):09d}"
    partial = path.with_name(f".{path.stem}.{unique}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened once here, so that the reason is the system's and not a driver's.
        partial.open("wb").close()
        yield partial
        partial.replace(path)
    except OSError as error:
        raise export_error(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def write_atomically(path: Path, data: bytes, *, lasting: bool = False) -> None:
    """Write all of a file at once.

    Args:
        lasting: wait until the disk has it, so that it is whole after a loss of power, too.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(data)
        if lasting:
            file.flush()
            os.fsync(file.fileno())


def export_error(path: Path, error: Exception) -> ExportError:
    """What is told of a file that could not be written."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or repr(error)
    return ExportError(
        f"{path} could not be written: {reason.rstrip('.')}.",
        remedy="Choose a folder that you may write to and that has room.",
    )
