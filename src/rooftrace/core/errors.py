"""All errors that rooftrace raises deliberately.

RooftraceError
├── ConfigError              exit 2   invalid configuration or command line
├── DataError                exit 3   unusable image, label or folder
│   ├── LayoutError                   files that cannot be paired
│   ├── LabelError                    content of a label
│   ├── GeoreferenceError             missing or wrong georeference
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
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rooftrace.core.text import in_python_terms

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
    "StoppingError",
    "TooLargeError",
    "TrainError",
]


class RooftraceError(Exception):
    """Base of all deliberate errors.

    Args:
        message: One or more sentences: the object, what was received, what was expected.
        remedy: One sentence: how to solve the problem.
    """

    exit_code: ClassVar[int] = 1

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
