"""Scenes of a catalogue, with the origin of their images as far as the catalogue has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rooftrace.core.errors import DataError
from rooftrace.core.names import scene_id
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.io.band_files import BandFile, open_bands, wanted_bands
from rooftrace.io.nodata import NodataRule
from rooftrace.io.raster import open_image
from rooftrace.io.remote import is_object_url, join_url
from rooftrace.io.stac_item import Provenance

__all__ = [
    "Bounds",
    "Catalogue",
    "CatalogueFile",
    "CatalogueScene",
    "join_address",
    "with_unique_ids",
]

_COLOURS = frozenset({"red", "green", "blue"})

Bounds = tuple[float, float, float, float]
"""West, south, east and north, in degrees."""


@dataclass(frozen=True)
class CatalogueScene:
    """A scene of a catalogue.

    Args:
        id: Id that is unique in the catalogue and valid as a file name.
        location: Path or address of the image; that of its first band if each has its own file.
        bounds: Bounds of the footprint, if the catalogue has them. They decide the order in which
            scenes are predicted.
        provenance: Date, licence and providers of the imagery, if the catalogue has them.
        problem: Reason why the image cannot be read, if the catalogue shows it.
        bands: Files of single bands, if the catalogue has them. They are read if there is no image
            of several bands, or if the model reads more than its colours.
    """

    id: str
    location: str
    bounds: Bounds | None = None
    provenance: Provenance | None = None
    problem: DataError | None = None
    bands: tuple[BandFile, ...] = ()

    def open(
        self, model_bands: Sequence[str], chosen: str | None, nodata: NodataRule | None
    ) -> SceneInput:
        """Return the opened image of the scene.

        Args:
            model_bands: Names of the model's bands.
            chosen: Bands that the user chose, see `parse_bands`.
            nodata: Pixel values that mean nodata, besides those that the files declare.

        Raises:
            RooftraceError: `problem`, and the errors of `open_bands` and `open_image`.
        """
        if self.problem is not None:
            raise self.problem
        wanted = wanted_bands(model_bands, chosen)
        has_image = self.location not in {band.location for band in self.bands}
        names = {band.name for band in self.bands}
        if has_image and ({*wanted} <= _COLOURS or not {*wanted} <= names):
            image = open_image(self.location, nodata=nodata)
            return SceneInput(self.id, Path(image.name), image)
        source = open_bands(self.id, self.bands, wanted, nodata)
        return SceneInput(self.id, Path(self.id), source)


@dataclass(frozen=True)
class Catalogue:
    """The scenes of a catalogue, in its order.

    Args:
        name: Path or address of the catalogue, as the user gave it.
        kind: Kind of the catalogue, for the user and the manifest.
        scenes: One or more scenes.
        skipped: Paths of files in the folder that are not images.
        notes: Decisions about the catalogue that the user should know.
    """

    name: str
    kind: str
    scenes: tuple[CatalogueScene, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CatalogueFile:
    """A file that names scenes.

    Args:
        name: Path or address of the file, as the user gave it.
        path: Path of the local file with its content.
        base: Folder, or `s3://` address of one, from which relative paths start.
    """

    name: str
    path: Path
    base: str

    def located(self, text: str) -> str:
        """Return the path or address that an entry of the file refers to."""
        if "://" in text:
            try:
                parts = urlsplit(text)
            except ValueError as error:
                raise _not_valid(text, error) from error
            return unquote(parts.path) if parts.scheme.lower() == "file" else text
        if is_object_url(self.base):
            return join_address(self.base, text)
        return str(Path(self.base) / text)


def join_address(base: str, relative: str) -> str:
    """Resolve a relative address against an absolute one.

    Raises:
        DataError: One of them is not a valid address.
    """
    try:
        return join_url(base, relative)
    except ValueError as error:
        raise _not_valid(f"{base} {relative}", error) from error


def _not_valid(text: str, error: ValueError) -> DataError:
    return DataError(
        f"{text[:200]!r} is not a valid address: {error}.",
        remedy="Correct the entry in the catalogue; brackets may only enclose an IPv6 address.",
    )


def with_unique_ids(scenes: Iterable[CatalogueScene], name: str) -> tuple[CatalogueScene, ...]:
    """Return the scenes with ids that are unique and valid as file names.

    The second scene with the same id becomes `ID-2`, and so on, in their order. A location that is
    listed twice is one scene.

    Args:
        scenes: Scenes with the ids of the catalogue.
        name: Name of the catalogue, for the error message.

    Raises:
        DataError: There is no scene.
    """
    kept: dict[str, CatalogueScene] = {}
    for scene in scenes:
        kept.setdefault(scene.location, scene)
    if not kept:
        raise DataError(f"{name} names no scenes.", remedy="Add at least one image to it.")
    used: Counter[str] = Counter()
    made = []
    for scene in kept.values():
        plain = scene_id(scene.id)
        used[plain] += 1
        fit = plain if used[plain] == 1 else f"{plain}-{used[plain]}"
        while used[fit] and fit != plain:
            used[plain] += 1
            fit = f"{plain}-{used[plain]}"
        if fit != plain:
            used[fit] += 1
        made.append(replace(scene, id=fit))
    return tuple(made)
