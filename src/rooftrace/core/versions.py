"""Which versions of packages are installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

__all__ = ["installed", "version_of"]


def version_of(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions by name, of those that are there."""
    return {name: version for name in packages if (version := version_of(name)) is not None}
