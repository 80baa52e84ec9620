"""Ensemble file: the bundles of an ensemble, their method of combination, and fitted values.

The file is a small JSON file beside the bundles, `NAME.ensemble.json`. It contains no part of a
model. Members are identified by their path, relative to the file's folder, and by their SHA-256.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rooftrace.core.config import invalid_values
from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.core.text import plural, reason_of
from rooftrace.io.files import write_atomically
from rooftrace.models.bundle import BUNDLED_MODELS
from rooftrace.models.spec import Calibration, MeasuredMetrics
from rooftrace.predict.ensemble import Combine

_SUFFIX = ".json"
_MAX_MEMBERS = 64
"""Maximum number of members of an ensemble."""

_REMEDY = "Make the file again with rooftrace fit."

Unit = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class _EnsembleModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EnsembleMember(_EnsembleModel):
    """One bundle of an ensemble.

    Args:
        path: Path relative to the file's folder, with `/`, or one of `BUNDLED_MODELS`.
        sha256: `ModelBundle.sha256` of the bundle.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    def at(self, file: Path) -> Path:
        """Return the path of the bundle, or its name if it is a bundled model."""
        return Path(self.path) if self.path in BUNDLED_MODELS else file.parent / self.path


class EnsembleFile(_EnsembleModel):
    """Content of an ensemble file.

    Args:
        members: Bundles in the order of the weights.
        combine: Method of combination, see `Combine`.
        weights: For `weighted`, one weight for each member, summing to about 1; otherwise None.
        threshold: Threshold on the building probability, or on the share of votes; None for the
            threshold of `combine`.
        calibration: Calibration of the scores at this threshold; None for the calibration of
            `combine`.
        metrics: Metrics, with the data on which they were measured.
    """

    schema_version: Literal[1] = 1
    kind: Literal["ensemble"] = "ensemble"
    members: Annotated[tuple[EnsembleMember, ...], Field(min_length=1, max_length=_MAX_MEMBERS)]
    combine: Combine
    weights: tuple[Share, ...] | None = None
    threshold: Unit | None = None
    calibration: Calibration | None = None
    metrics: tuple[MeasuredMetrics, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> EnsembleFile:
        if (self.weights is None) == (self.combine == "weighted"):
            raise ValueError(
                "weights are required for the method 'weighted', and not allowed otherwise"
            )
        if self.weights is not None and len(self.weights) != len(self.members):
            count = plural(len(self.weights), "weight was", "weights were")
            raise ValueError(f"{count} given for {plural(len(self.members), 'member')}")
        return self


def is_ensemble(path: Path | None) -> bool:
    """Return whether a path names an ensemble file, judged by its extension."""
    return path is not None and path.suffix.lower() == _SUFFIX


def members_from(
    bundles: Sequence[Path | None], digests: Sequence[str], file: Path
) -> tuple[EnsembleMember, ...]:
    """Return the members of an ensemble file.

    Args:
        bundles: Paths of the bundles, or names of bundled models; None stands for the default.
        digests: `ModelBundle.sha256` of each bundle.
        file: Path of the ensemble file.
    """
    base = file.parent.resolve()
    return tuple(
        EnsembleMember(path="default" if bundle is None else _relative(bundle, base), sha256=digest)
        for bundle, digest in zip(bundles, digests)
    )


def _relative(path: Path, base: Path) -> str:
    if str(path) in BUNDLED_MODELS:
        return str(path)
    path = path.resolve()
    try:
        return PurePath(os.path.relpath(path, base)).as_posix()
    except ValueError:  # the paths are on different drives
        return path.as_posix()


def write_ensemble(path: Path, ensemble: EnsembleFile) -> None:
    """Write an ensemble file; its bytes depend only on the content.

    Raises:
        ConfigError: The name does not end in `.json`.
        ExportError: The folder is not writable.
    """
    if not is_ensemble(path):
        raise ConfigError(
            f"{path} was given as ensemble file; expected a name that ends in {_SUFFIX}.",
            remedy="For example: -o team.ensemble.json",
        )
    write_atomically(path, (ensemble.model_dump_json(indent=1) + "\n").encode())


def read_ensemble(path: Path) -> EnsembleFile:
    """Read an ensemble file without opening its members.

    Raises:
        BundleError: The file does not exist, is too large, or is not an ensemble file.
    """
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise BundleError(
            f"The ensemble file {path} cannot be read: {reason}.",
            remedy="Give the path of a file that rooftrace fit has written.",
        ) from error
    try:
        return EnsembleFile.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(
            f"{path} is not an ensemble file: {invalid_values(error, EnsembleFile, 1)}.",
            remedy=_REMEDY,
        ) from error
