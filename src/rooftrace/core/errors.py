"""Everything that rooftrace raises on purpose.

    RooftraceError
    ├── ConfigError              exit 2   the configuration or the command line
    ├── DataError                exit 3   images, labels, folders
    │   ├── LayoutError                   which file is whose partner
    │   ├── LabelError                    what a label says
    │   ├── GeoreferenceError             where on the ground it lies
    │   └── TooLargeError                 more than a server takes from a stranger
    ├── BundleError              exit 4   a model file
    │   ├── BandMismatch                  its bands against the image's
    │   └── GsdMismatch                   its metres per pixel against the image's
    ├── PredictError             exit 5   a run that could not finish
    │   └── DeadlineError                 it took longer than a server allows
    ├── TrainError               exit 5   a training that could not finish
    ├── ExportError              exit 5   an output that could not be written
    ├── BusyError                exit 5   a server that has enough to do; come again
    └── MissingExtraError        exit 6   an optional part that is not installed

A message names the object, what was received and what was expected; the remedy is a sentence
of its own, so that a face (command line, REST, page) can set it apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

__all__ = [
    "BandMismatch",
    "BundleError",
    "BusyError",
    "ConfigError",
    "DataError",
    "DeadlineError",
    "ExportError",
    "GeoreferenceError",
    "GsdMismatch",
    "LabelError",
    "LayoutError",
    "MissingExtraError",
    "PredictError",
    "RooftraceError",
    "TooLargeError",
    "TrainError",
]


class RooftraceError(Exception):
    """Base of all deliberate errors.

    Args:
        message: object, received, expected; one or more sentences.
        remedy: what the person can do now.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        # A keyword-only argument would be lost on the way out of a worker process.
        return (_rebuild, (type(self), self.message, self.remedy))

    def to_json(self) -> dict[str, str]:
        """The `error` object of every `--json` answer."""
        return {"type": type(self).__name__, "message": self.message, "remedy": self.remedy}

    @staticmethod
    def from_json(told: Mapping[str, str]) -> RooftraceError:
        """An error as another process told it by `to_json`; of an unknown type, a `DataError`."""
        kind = globals().get(told["type"]) if told["type"] in __all__ else DataError
        return _rebuild(kind or DataError, told["message"], told["remedy"])


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
    """A label holds what its classes do not allow."""


class GeoreferenceError(DataError):
    """A place or a length on the ground is needed and is not known."""


class TooLargeError(DataError):
    """An upload, or the image in it, is larger than the server's limits."""


class BundleError(RooftraceError):
    """A `.rooftrace` file is damaged, tampered with, or not what it says."""

    exit_code = 4


class BandMismatch(BundleError):
    """The image has not the bands that the model was trained on."""


class GsdMismatch(BundleError):
    """The image's metres per pixel are too far from the model's."""


class PredictError(RooftraceError):
    """A prediction could not be finished."""

    exit_code = 5


class DeadlineError(PredictError):
    """A request took longer than the server allows, or nobody waits for its answer any more."""


class TrainError(RooftraceError):
    """A training could not be finished."""

    exit_code = 5


class ExportError(RooftraceError):
    """An output could not be written."""

    exit_code = 5


class BusyError(RooftraceError):
    """A server has as much to do as it takes on; what was asked was not begun.

    Args:
        message, remedy: as of all errors.
        retry_after_s: when it is worth asking again.
    """

    exit_code = 5

    def __init__(self, message: str, *, remedy: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class MissingExtraError(RooftraceError):
    """A command needs packages that the installed extras do not bring."""

    exit_code = 6

    @classmethod
    def of(cls, extra: str, needed_for: str, package: str) -> MissingExtraError:
        return cls(
            f"{needed_for} needs the package {package!r}, which is not installed.",
            remedy=f"Install it with: pip install 'rooftrace[{extra}]'",
        )
