"""An ensemble as a file: which bundles, how they are combined, and what was fitted for that.

A small JSON text beside the bundles, `NAME.ensemble.json`. It holds no part of a model: members are
named by their paths, which start from the file's folder, and by what they must be.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.io.atomic import write_atomically
from rooftrace.models.calibration import Calibration
from rooftrace.models.spec import Measured
from rooftrace.predict.ensemble_engine import Combine

__all__ = ["EnsembleFile", "Member", "is_ensemble", "read_ensemble", "write_ensemble"]

BUNDLED = "default"
"""In place of a path: the model that comes with rooftrace."""

_SUFFIX = ".json"
_MAX_BYTES = 2**20
_MAX_MEMBERS = 64
_REMEDY = "Make the file again with rooftrace ensemble."

Unit = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Member(_Frozen):
    """One bundle.

    Args:
        path: relative to the file's folder, with `/`; `default` is the bundled model.
        sha256: its `ModelBundle.sha256`.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    def at(self, file: Path) -> Path | None:
        """Where it lies; None for the bundled model."""
        return None if self.path == BUNDLED else file.parent / self.path


class EnsembleFile(_Frozen):
    """What the file says.

    Args:
        members: in the order of the weights.
        combine: see `Combine`.
        weights: with `weighted`, of each member, summing to 1 or near it; else None.
        threshold: on the building's probability, or on the share of votes; None for what `combine`
            takes.
        calibration: of the scores at that threshold; None for what `combine` keeps.
        metrics: figures, with what they were measured on.
    """

    schema_version: Literal[1] = 1
    kind: Literal["ensemble"] = "ensemble"
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=_MAX_MEMBERS)]
    combine: Combine
    weights: tuple[Share, ...] | None = None
    threshold: Unit | None = None
    calibration: Calibration | None = None
    metrics: tuple[Measured, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> EnsembleFile:
        if (self.weights is None) == (self.combine == "weighted"):
            raise ValueError("weights belong to the ensemble 'weighted', and to no other")
        if self.weights is not None and len(self.weights) != len(self.members):
            raise ValueError(
                f"there are {len(self.weights)} weights for {len(self.members)} members"
            )
        return self


def is_ensemble(path: Path | None) -> bool:
    """Whether a path names an ensemble file, by its ending; a bundle has another."""
    return path is not None and path.suffix.lower() == _SUFFIX


def members_from(
    bundles: Sequence[Path | None], digests: Sequence[str], file: Path
) -> tuple[Member, ...]:
    """Entries for bundles, None being the bundled model.

    Args:
        bundles: where they lie.
        digests: `ModelBundle.sha256` of each.
        file: that the entries are for.
    """
    base = file.parent.resolve()
    return tuple(
        Member(path=BUNDLED if bundle is None else _relative(bundle.resolve(), base), sha256=digest)
        for bundle, digest in zip(bundles, digests)
    )


def _relative(path: Path, base: Path) -> str:
    try:
        return PurePath(os.path.relpath(path, base)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def write_ensemble(path: Path, ensemble: EnsembleFile) -> None:
    """Write the file; its bytes depend on the content alone.

    Raises:
        ConfigError: the name does not end in `.json`, by which the file is known.
        ExportError: the folder cannot be written to.
    """
    if not is_ensemble(path):
        raise ConfigError(
            f"{path} was given for an ensemble file; expected a name that ends in {_SUFFIX}.",
            remedy="For example: -o team.ensemble.json",
        )
    write_atomically(path, (ensemble.model_dump_json(indent=1) + "\n").encode())


def read_ensemble(path: Path) -> EnsembleFile:
    """Read the file; its members are not opened.

    Raises:
        BundleError: there is no such file, it is too large, or not of this kind.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(
            f"The ensemble file {path} cannot be read: {reason}.",
            remedy="Give the path of a file that rooftrace ensemble has written.",
        ) from error
    if len(text) > _MAX_BYTES:
        raise BundleError(
            f"{path} has more than the {_MAX_BYTES} bytes that an ensemble file may have.",
            remedy="Give the path of a file that rooftrace ensemble has written.",
        )
    try:
        return EnsembleFile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        raise BundleError(
            f"{path} is not an ensemble file: {where}: {first['msg']} "
            f"(received {str(first.get('input'))[:80]!r}).",
            remedy=_REMEDY,
        ) from error
