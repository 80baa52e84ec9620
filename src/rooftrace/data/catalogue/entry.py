"""What a catalogue says of its scenes, in whatever form it comes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from rooftrace.core.errors import DataError
from rooftrace.io.objects import is_object_url

__all__ = ["Bounds", "Catalogue", "CatalogueFile", "CatalogueScene", "joined", "named"]

Bounds = tuple[float, float, float, float]
"""West, south, east, north, in degrees."""

_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 120


@dataclass(frozen=True)
class CatalogueScene:
    """One scene.

    Args:
        id: unique in the catalogue, and fit for the name of a file.
        location: a path, or an address.
        bounds: of its footprint, where the catalogue tells it: by them scenes are put in order.
    """

    id: str
    location: str
    bounds: Bounds | None = None


@dataclass(frozen=True)
class Catalogue:
    """Scenes, in the order in which the catalogue has them.

    Args:
        name: how it was given.
        kind: what it is, for people.
        scenes: one or more.
        skipped: what was there and is no scene.
    """

    name: str
    kind: str
    scenes: tuple[CatalogueScene, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class CatalogueFile:
    """A file that names scenes.

    Args:
        name: how it was given, for people.
        path: where its content is read.
        base: the folder, or the `s3://` address of one, that relative paths start from.
    """

    name: str
    path: Path
    base: str

    def located(self, text: str) -> str:
        """A path or an address that the file has, as it can be opened."""
        if "://" in text:
            parts = urlsplit(text)
            return unquote(parts.path) if parts.scheme.lower() == "file" else text
        if is_object_url(self.base):
            return joined(self.base, text)
        return str(Path(self.base) / text)


def joined(base: str, relative: str) -> str:
    """A relative address, from where an absolute one is."""
    if is_object_url(base):
        # Of whose scheme the standard library does not know that it has folders.
        return "s3:" + urljoin(base[len("s3:") :], relative)
    return urljoin(base, relative)


def named(scenes: Iterable[CatalogueScene], name: str) -> tuple[CatalogueScene, ...]:
    """Scenes whose ids are fit for names of files, and each its own.

    Of scenes of one id the second is called `ID-2`, and so on, in their order; a location that is
    named twice is one scene.

    Raises:
        DataError: there is no scene.
    """
    kept: dict[str, CatalogueScene] = {}
    for scene in scenes:
        kept.setdefault(scene.location, scene)
    if not kept:
        raise DataError(f"{name} names no scenes.", remedy="Name at least one image in it.")
    used: Counter[str] = Counter()
    made = []
    for scene in kept.values():
        plain = _ODD.sub("_", scene.id).strip("._")[:_LONGEST] or "scene"
        used[plain] += 1
        fit = plain if used[plain] == 1 else f"{plain}-{used[plain]}"
        while used[fit] and fit != plain:
            used[plain] += 1
            fit = f"{plain}-{used[plain]}"
        if fit != plain:
            used[fit] += 1
        made.append(replace(scene, id=fit))
    return tuple(made)
