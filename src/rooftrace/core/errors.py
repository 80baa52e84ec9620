"""All errors that rooftrace raises deliberately.

RooftraceError
├── ConfigError              exit 2   invalid configuration or command line
├── DataError                exit 3   unusable image, label or folder
│   ├── LayoutError                   files that cannot be paired
│   ├── LabelError                    content of a label
│   ├── GeoreferenceError             missing or wrong georeference
│   ├── SplitError                    images that cannot be divided into parts
│   ├── TooLargeError                 upload larger than the server's limits
│   └── ServiceError                  map service that refuses requests or does not answer
├── BundleError              exit 4   unusable model file
│   ├── BandMismatch                  bands of the model and of the image differ
│   └── GsdMismatch                   metres per pixel of model and image differ too much
├── PredictError             exit 5   prediction that could not finish
│   ├── DeadlineError                 request that took longer than the server allows
│   └── StoppingError                 request to a server that is stopping
├── TrainError               exit 5   training that could not finish
├── ExportError              exit 5   output that could not be written
├── BusyError                exit 5   server that is fully occupied; try again later
├── OutOfMemoryError         exit 5   memory or address space that was not enough
├── MissingExtraError        exit 6   package that is not installed, or cannot be loaded
└── DefectError              exit 1   mistake in rooftrace, found by the last net

A message names the object, what was received and what was expected. The remedy is a separate
sentence, so that the command line, the REST API and the page can show it by itself.

Docstrings outside of docs/reference leave out what follows from this tree: a file that cannot be
read is a DataError, one that cannot be written an ExportError, a package that is not installed a
MissingExtraError. Nor do they repeat what a short function raises below, or one that it calls.

Failures of other libraries become errors of this tree by `explained`. Each library reports a lack
of memory in its own way: as MemoryError, as an ImportError of a shared library, or as a
RuntimeError with the text of C++. `is_out_of_memory` knows them all.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from rooftrace.core.text import in_python_terms, reason_of

__all__ = [
    "BandMismatch",
    "BundleError",
    "BusyError",
    "ConfigError",
    "DataError",
    "DeadlineError",
    "DefectError",
    "ExportError",
    "GeoreferenceError",
    "GsdMismatch",
    "LabelError",
    "LayoutError",
    "MissingExtraError",
    "OutOfMemoryError",
    "PredictError",
    "RooftraceError",
    "ServiceError",
    "SplitError",
    "StoppingError",
    "TooLargeError",
    "TrainError",
]


class RooftraceError(Exception):
    """Base of all deliberate errors.

    Args:
        message: One or more sentences: the object, what was received, what was expected.
        remedy: One sentence: how to solve the problem.

    The attributes `message` and `remedy` name options of the command line, from which each face
    makes its own words. `str(error)` has both in those of Python.
    """

    exit_code: ClassVar[int] = 1

    report: Any = None
    """Report of what was finished, if only some of several images failed."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        # A message often has a path in it, and is printed, logged and sent.
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """Return message and remedy in the words of Python: `gsd_m`, not `--gsd`."""
        return in_python_terms(self.in_full)

    @property
    def in_full(self) -> str:
        """Message and remedy as they are written, in the words of the command line."""
        return f"{self.message} {self.remedy}".strip()

    def named(self, name: str, more: str = "") -> RooftraceError:
        """Return the error with the name of what failed, if its message lacks it, and `more`."""
        message = self.message if name in self.message else f"{name}: {self.message}"
        return _rebuild(type(self), f"{message} {more}".strip(), self.remedy)

    def __reduce__(self) -> tuple[object, ...]:
        # Pickling passes positional arguments alone; a worker process would lose the remedy.
        return (_rebuild, (type(self), self.message, self.remedy))

    def to_json(self) -> dict[str, str]:
        """Return the `error` object of every `--json` answer."""
        return {"type": type(self).__name__, "message": self.message, "remedy": self.remedy}

    @staticmethod
    def from_json(data: Mapping[str, str]) -> RooftraceError:
        """Return the error that `to_json` of another process described.

        An unknown type becomes a `DataError`.
        """
        kind = globals().get(data["type"]) if data["type"] in __all__ else DataError
        return _rebuild(kind or DataError, data["message"], data["remedy"])


def _rebuild(kind: type[RooftraceError], message: str, remedy: str) -> RooftraceError:
    return kind(message, remedy=remedy)


class ConfigError(RooftraceError):
    """The configuration or the command line asks for something that does not exist."""

    exit_code = 2


class DataError(RooftraceError):
    """An image, a label or a folder cannot be used."""

    exit_code = 3


class LayoutError(DataError):
    """The files of a folder cannot be paired without guessing."""


class LabelError(DataError):
    """A label has content that its classes do not allow."""


class GeoreferenceError(DataError):
    """A position or a length on the ground is needed and not known."""


class SplitError(DataError):
    """Images, or their groups or blocks, are too few or too close to be divided into parts."""


class TooLargeError(DataError):
    """An upload, or the image in it, is larger than the server's limits."""


class ServiceError(DataError):
    """A map service refuses requests or does not answer, so that later requests would fail, too."""


class BundleError(RooftraceError):
    """A `.rooftrace` file is damaged, was modified, or differs from its description."""

    exit_code = 4


class BandMismatch(BundleError):
    """The image does not have the bands that the model was trained on."""


class GsdMismatch(BundleError):
    """The metres per pixel of the image differ too much from those of the model."""


class PredictError(RooftraceError):
    """A prediction could not be finished."""

    exit_code = 5


class DeadlineError(PredictError):
    """A request took longer than the server allows, or its client has disconnected."""


class StoppingError(PredictError):
    """The server is stopping, and no longer answers this request."""


class TrainError(RooftraceError):
    """A training could not be finished."""

    exit_code = 5


class ExportError(RooftraceError):
    """An output could not be written."""

    exit_code = 5


class BusyError(RooftraceError):
    """A server is fully occupied and did not start the request.

    Args:
        message: See `RooftraceError`.
        remedy: See `RooftraceError`.
        retry_after_s: Seconds after which the client should try again.
    """

    exit_code = 5

    def __init__(self, message: str, *, remedy: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class OutOfMemoryError(RooftraceError):
    """The memory of the machine, or the address space of the process, is not enough."""

    exit_code = 5


class DefectError(RooftraceError):
    """An exception that nothing in rooftrace expected: a mistake in rooftrace or in a library."""


class MissingExtraError(RooftraceError):
    """A command needs a package that is not installed, or that cannot be loaded."""

    exit_code = 6

    @classmethod
    def of(cls, extra: str, needed_for: str, package: str) -> MissingExtraError:
        """Return the error for a missing package.

        Args:
            extra: Name of the extra that installs the package.
            needed_for: Feature that needs the package, as the beginning of a sentence.
            package: Name of the package.
        """
        return cls(
            f"{needed_for} needs the package {package!r}, which is not installed.",
            remedy=f"Install it with: pip install 'rooftrace[{extra}]'",
        )

    @classmethod
    @contextmanager
    def on_import(cls, extra: str, needed_for: str, package: str) -> Iterator[None]:
        """Raise the error for a missing package, or for one that cannot be loaded.

        It names the package that Python did not find, or else `package`. A lack of memory and
        mistakes in rooftrace stay what they are, see `explained`.
        """
        try:
            yield
        except ImportError as error:
            name = (error.name or package).partition(".")[0]
            if name == "rooftrace" or is_out_of_memory(error):
                raise
            if isinstance(error, ModuleNotFoundError):
                raise cls.of(extra, needed_for, name) from error
            raise cls(
                f"{needed_for} needs the package {name!r}, which cannot be loaded: "
                f"{reason_of(error, most=300)}.",
                remedy=_REINSTALL,
            ) from error


_REINSTALL = "Install rooftrace again in a new environment, then run: rooftrace doctor"

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
            remedy=_REINSTALL,
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
