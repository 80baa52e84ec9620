"""Failures that rooftrace did not raise itself, as errors of its own.

Every library reports a lack of memory in its own way: as MemoryError, as an ImportError of a shared
library, or as a RuntimeError with the text of C++. `is_out_of_memory` knows them all, and
`explained` makes one error of the tree out of any exception.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from pathlib import Path

from rooftrace.core.errors import (
    DefectError,
    MissingExtraError,
    OutOfMemoryError,
    RooftraceError,
)
from rooftrace.core.text import reason_of

DEBUG = "ROOFTRACE_DEBUG"
"""Environment variable that, if it is not empty, shows the traceback of a defect."""

_TEXTS = (
    "alloc_failed",  # cuDNN and cuBLAS
    "bad allocation",
    "bad_alloc",  # C++
    "can't allocate memory",  # PyTorch
    "can't start new thread",
    "cannot allocate memory",  # the system, and the loader of shared libraries
    "defaultcpuallocator",
    "failed to allocate",  # OpenVINO, ONNX Runtime
    "failed to map segment",  # the loader of shared libraries
    "out of memory",  # CUDA, SQLite, GDAL
    "unable to allocate",  # NumPy
)
"""Parts of messages, in lower case, that say that memory was not enough."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception, or one that led to it, says that memory was not enough."""
    return any(map(_says_so, _chain(error)))


def clear_frames(error: BaseException) -> None:
    """Clear the local variables of the functions that an error, and those that led to it, ended.

    Such functions and their error refer to each other. Without this, what they worked on, such as
    the image of a failed request, would stay in memory until Python looks for cycles, which it does
    rarely in a large program. The lines of the traceback are kept.
    """
    for one in _chain(error):
        traceback.clear_frames(one.__traceback__)


def drop_tracebacks(error: BaseException) -> None:
    """Drop the tracebacks of an error that is kept for its message, and of those that led to it.

    See `clear_frames`: a function that is still running keeps its local variables.
    """
    for one in _chain(error):
        one.__traceback__ = None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _says_so(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, OutOfMemoryError)):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    # Messages of rooftrace quote names of files, which may contain any of the texts.
    if isinstance(error, RooftraceError):
        return False
    text = str(error).lower()
    return any(part in text for part in _TEXTS)


def out_of_memory(doing: str) -> OutOfMemoryError:
    """Return the error for a lack of memory.

    Args:
        doing: Name of the work that needed the memory, such as `rooftrace predict`.
    """
    return OutOfMemoryError(
        f"There is not enough memory for {doing}.",
        remedy="Close other programs, or use a machine with more memory.",
    )


def explained(error: Exception, doing: str) -> RooftraceError:
    """Return the error that is shown for any exception that has ended a command.

    Args:
        error: The exception. An error of rooftrace is returned unchanged.
        doing: Name of the work that failed, such as `rooftrace predict`.
    """
    if isinstance(error, RooftraceError):
        return error
    if is_out_of_memory(error):
        return out_of_memory(doing)
    reason = reason_of(error, most=300) if str(error) else "no reason was given"
    if isinstance(error, ImportError) and not (error.name or "").startswith("rooftrace"):
        return MissingExtraError(
            f"A library that {doing} needs cannot be loaded: {reason}.",
            remedy="Install rooftrace again in a new environment, then run: rooftrace doctor",
        )
    return DefectError(
        f"This is a defect: {doing} failed {_place(error)} with {type(error).__name__}: {reason}.",
        remedy=f"Run the command again with {DEBUG}=1 in the environment to see the traceback, "
        "and report it to the maintainers together with the command.",
    )


def _place(error: BaseException) -> str:
    """Return the innermost place of rooftrace in the traceback of an exception."""
    package = Path(__file__).parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(package):
            return f"in {frame.name} ({path.relative_to(package.parent)}, line {frame.lineno})"
    return "outside of rooftrace"
