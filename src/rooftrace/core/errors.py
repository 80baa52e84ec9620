"""Everything that rooftrace raises on purpose.

    RooftraceError
    ├── ConfigError              exit 2   the configuration or the command line
    ├── DataError                exit 3   images, labels, folders
    │   ├── LayoutError                   which file is whose partner
    │   ├── LabelError                    what a label says
    │   └── GeoreferenceError             where on the ground it lies
    ├── BundleError              exit 4   a model file
    │   ├── BandMismatch                  its bands against the image's
    │   └── GsdMismatch                   its metres per pixel against the image's
    ├── PredictError             exit 5   a run that could not finish
    ├── TrainError               exit 5   a training that could not finish
    ├── ExportError              exit 5   an output that could not be written
    └── MissingExtraError        exit 6   an optional part that is not installed

A message names the object, what was received and what was expected; the remedy is a sentence
of its own, so that a face (command line, REST, page) can set it apart.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BandMismatch",
    "BundleError",
    "ConfigError",
    "DataError",
    "ExportError",
    "GeoreferenceError",
    "GsdMismatch",
    "LabelError",
    "LayoutError",
    "MissingExtraError",
    "PredictError",
    "RooftraceError",
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


class TrainError(RooftraceError):
    """A training could not be finished."""

    exit_code = 5


class ExportError(RooftraceError):
    """An output could not be written."""

    exit_code = 5


class MissingExtraError(RooftraceError):
    """A command needs packages that the installed extras do not bring."""

    exit_code = 6

    @classmethod
    def of(cls, extra: str, needed_for: str, package: str) -> MissingExtraError:
        return cls(
            f"{needed_for} needs the package {package!r}, which is not installed.",
            remedy=f"Install it with: pip install 'rooftrace[{extra}]'",
        )
