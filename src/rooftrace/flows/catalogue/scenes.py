"""Scenes of a catalogue, with the origin of their images as far as the catalogue has it.

Of a STAC item it is the asset that is the image, and its date, licence and providers. STAC
specification, versions 1.0 and 1.1: https://github.com/radiantearth/stac-spec
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from rooftrace.core.errors import DataError
from rooftrace.core.text import reason_of
from rooftrace.core.types import Bounds
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.io.bands import band_name
from rooftrace.io.imagery_search import linked_address
from rooftrace.io.nodata import NodataRule
from rooftrace.io.remote import is_url, without_query
from rooftrace.io.remote_raster import open_image
from rooftrace.io.stac_item import Provenance, bounds_of, link_of, list_in, object_in

_COLOURS = frozenset({"red", "green", "blue"})


@dataclass(frozen=True)
class CatalogueScene:
    """A scene of a catalogue.

    Args:
        id: Id that is unique in the catalogue and valid as a file name.
        location: Path or URL of the image; that of its first band if each has its own file.
        bounds: West, south, east and north of the footprint in degrees, if the catalogue has them;
            the east is more than 180 where it lies across longitude 180. They decide the order in
            which scenes are predicted.
        provenance: Date, licence and providers of the imagery, if the catalogue has them.
        problem: Reason why the image cannot be read, if the catalogue shows it.
    """

    id: str
    location: str
    bounds: Bounds | None = None
    provenance: Provenance | None = None
    problem: DataError | None = None

    def open(self, nodata: NodataRule | None) -> SceneInput:
        """Return the opened image of the scene.

        Args:
            nodata: Pixel values that mean nodata, besides those that the files declare.

        Raises:
            RooftraceError: `problem`, and the errors of `open_image`.
        """
        if self.problem is not None:
            raise self.problem
        image = open_image(self.location, nodata=nodata)
        return SceneInput(self.id, Path(image.name), image)


@dataclass(frozen=True)
class Catalogue:
    """The scenes of a catalogue, in its order.

    Args:
        name: Path or URL of the catalogue, as the user gave it.
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
        name: Path or URL of the file, as the user gave it.
        content: Its content.
    """

    name: str
    content: bytes

    def located(self, text: str) -> str:
        """Return the path or URL that an entry of the file refers to."""
        if is_url(self.name) or is_url(text):
            return linked_address(self.name, text)
        # Not normalised: what `..` means after a link depends on the disk.
        return str(Path(self.name).parent / text)


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
    taken: set[str] = set()
    made = []
    for scene in kept.values():
        plain = plain_id(scene.id)
        fit = plain
        while fit in taken:
            used[plain] += 1
            fit = f"{plain}-{used[plain] + 1}"
        taken.add(fit)
        made.append(replace(scene, id=fit))
    return tuple(made)


def plain_id(name: str) -> str:
    """Return the id of a scene in a layer: at most 120 letters, digits, `.`, `_`, `-` of ASCII."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:120] or "scene"


_IMAGE_KEYS = ("visual", "image", "data")
_IMAGE_ROLES = ("visual", "data")

_NON_IMAGE_ROLES = frozenset({"thumbnail", "overview", "metadata"})
_MAX_LISTED = 8
"""Maximum number of assets that an error message lists."""


def read_stac(file: CatalogueFile, asset: str | None) -> Catalogue:
    """Read the STAC items of an item collection, or a single item.

    The image of an item is the asset with the given key. Without a key it is the GeoTIFF with the
    key `visual`, `image` or `data`, else the one with the role `visual` or `data`, else the one
    whose bands have the common names red, green and blue, else the only one.

    Args:
        file: JSON file.
        asset: Key of the asset that is the image; None to find it.

    Raises:
        DataError: The file is not JSON, it holds no STAC items, or the image asset is ambiguous.
    """
    try:
        document = json.loads(file.content)
    except ValueError as error:
        raise DataError(
            f"{file.name} cannot be read as JSON: {reason_of(error)}.",
            remedy="Save the response of the STAC search as it is.",
        ) from error
    items = _items(document, file.name)
    scenes = [_scene(item, number, file, asset) for number, item in enumerate(items, 1)]
    return Catalogue(file.name, "STAC items", with_unique_ids(scenes, file.name))


def _items(document: Any, name: str) -> Sequence[Any]:
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "Feature":
        return [document]
    features = document.get("features") if isinstance(document, dict) else None
    if kind != "FeatureCollection" or not isinstance(features, list):
        received = f"of type {kind!r}" if isinstance(kind, str) else "of no type"
        raise DataError(
            f"{name} is a JSON document {received}; expected STAC items: a FeatureCollection or a "
            "Feature.",
            remedy="Search the STAC catalog or collection, and save the items that it returns.",
        )
    return features


def _scene(item: Any, number: int, file: CatalogueFile, asset: str | None) -> CatalogueScene:
    where = f"{file.name}, item {number}"
    return scene_of_item(item, where, asset, lambda href: _located(href, item, file))


def scene_of_item(
    item: Any,
    where: str,
    asset: str | None,
    located: Callable[[str], str],
    collection: Mapping[str, Any] | None = None,
) -> CatalogueScene:
    """Return the scene that a STAC item describes.

    Args:
        item: The item as plain JSON.
        where: Place of the item, for messages.
        asset: Key of the asset that is the image, see `read_stac`.
        located: Function that returns the path or URL of an href.
        collection: Collection of the item, whose licence and providers count if the item has none.

    Raises:
        DataError: The item has no id or no usable asset.
    """
    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict):
        raise DataError(
            f"{where} has no assets; expected a STAC item.",
            remedy="If this is a GeoJSON of footprints, which names no images, write their paths "
            "to a text file instead, one on each line.",
        )
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where} has no id.", remedy="Add an id to the item.")
    where = f"{where} ({name[:80]})"
    known = {key: one for key, one in item["assets"].items() if isinstance(one, dict)}
    href = _chosen(known, asset, where).get("href")
    if not isinstance(href, str) or not href or "\0" in href:
        raise DataError(
            f"{where}: its asset has no href; expected a path or a URL.",
            remedy="Correct the item.",
        )
    return CatalogueScene(
        name,
        located(href),
        bounds_of(item.get("bbox")),
        _provenance(item, name, collection or {}),
    )


def _provenance(item: Mapping[str, Any], name: str, collection: Mapping[str, Any]) -> Provenance:
    own = object_in(item, "properties")

    def text(value: object) -> str:
        return value if isinstance(value, str) else ""

    listed = list_in(own, "providers") or list_in(collection, "providers")
    href = link_of(item, "self")
    return Provenance(
        name,
        without_query(href),
        text(item.get("collection")),
        text(own.get("datetime")) or None,
        text(own.get("start_datetime")) or None,
        text(own.get("end_datetime")) or None,
        text(own.get("license")) or text(collection.get("license")),
        tuple(one for one in listed if isinstance(one, dict) and text(one.get("name"))),
    )


def _listed(assets: Mapping[str, Any]) -> str:
    return ", ".join(list(assets)[:_MAX_LISTED]) or "none"


def _chosen(
    assets: Mapping[str, Mapping[str, Any]], asset: str | None, where: str
) -> Mapping[str, Any]:
    """Return the asset that is the image."""
    if asset is not None:
        if asset not in assets:
            raise DataError(
                f"{where} has no asset {asset!r}; it has {_listed(assets)}.",
                remedy="Give one of them with --asset.",
            )
        return assets[asset]
    images = {key: one for key, one in assets.items() if _is_image(one)}
    for key in _IMAGE_KEYS:
        if key in images:
            return images[key]
    for role in _IMAGE_ROLES:
        having = [one for one in images.values() if role in _roles(one)]
        if len(having) == 1:
            return having[0]
    coloured = [
        one for one in images.values() if {band_name(_name_of(b)) for b in _bands(one)} >= _COLOURS
    ]
    if len(coloured) == 1:
        return coloured[0]
    if len(images) == 1:
        return next(iter(images.values()))
    if not images:
        raise DataError(
            f"{where} has no GeoTIFF among its assets: {_listed(assets)}.",
            remedy="Give the key of the image with --asset, if one of them is a GeoTIFF.",
        )
    raise DataError(
        f"{where}: it is not clear which of its assets is the image: {_listed(assets)}.",
        remedy="Give its key with --asset. If each band has a file of its own, join them: "
        "gdalbuildvrt -separate -resolution highest OUT.vrt RED.tif GREEN.tif BLUE.tif",
    )


def _bands(asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the bands of an asset, by STAC 1.1 or the extension eo."""
    own = list_in(asset, "bands") or list_in(asset, "eo:bands")
    return [band for band in own if isinstance(band, dict)]


def _name_of(band: Mapping[str, Any]) -> str:
    return str(band.get("eo:common_name") or band.get("common_name") or band.get("name"))


def _is_image(asset: Mapping[str, Any]) -> bool:
    if not _NON_IMAGE_ROLES.isdisjoint(_roles(asset)):
        return False
    kind = asset.get("type")
    if isinstance(kind, str):
        return kind.partition(";")[0].strip().lower() in ("image/tiff", "image/vnd.stac.geotiff")
    href = asset.get("href")
    return isinstance(href, str) and href.partition("?")[0].lower().endswith((".tif", ".tiff"))


def _roles(asset: Mapping[str, Any]) -> list[str]:
    roles = asset.get("roles")
    return [one for one in roles if isinstance(one, str)] if isinstance(roles, list) else []


def _located(href: str, item: Mapping[str, Any], file: CatalogueFile) -> str:
    """Return the location of an asset.

    A relative href starts from the URL of the item itself, if the item states one.
    """
    own = link_of(item, "self")
    is_relative = not (is_url(href) or href.startswith("/") or PureWindowsPath(href).drive)
    return linked_address(own, href) if is_relative and is_url(own) else file.located(href)
