"""Scenes of a catalogue: a folder, a list, STAC items or a search, and the origin of the images.

A catalogue is read without opening its images, and except for a search without network access.

Of a STAC item it is the asset that is the image, and its date, licence and providers. STAC
specification, versions 1.0 and 1.1: https://github.com/radiantearth/stac-spec
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.text import plural, reason_of
from rooftrace.core.types import Bounds
from rooftrace.flows.predict.folder_images import CATALOGUE_SUFFIXES, MASK, images_among
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.io.area import Area, area_in_degrees
from rooftrace.io.bands import band_name
from rooftrace.io.companions import no_image
from rooftrace.io.files import check_exists, is_url, visible_files
from rooftrace.io.imagery_search import FoundImagery, ImagerySearch, linked_address, search_imagery
from rooftrace.io.nodata import NodataRule
from rooftrace.io.raster import open_image
from rooftrace.io.remote import (
    ObjectAddress,
    is_object_url,
    list_objects,
    read_object,
    url_stem,
    without_query,
)
from rooftrace.io.stac_item import (
    Provenance,
    bounds_of,
    features_of,
    item_key,
    link_of,
    list_in,
    object_in,
)
from rooftrace.labels.mask_files import label_masks

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
        skipped: Files in the folder that are not predicted, each with the reason.
        notes: Decisions about the catalogue that the user should know.
    """

    name: str
    kind: str
    scenes: tuple[CatalogueScene, ...]
    skipped: Mapping[Path, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def with_unique_ids(scenes: Iterable[CatalogueScene], name: str) -> tuple[CatalogueScene, ...]:
    """Return the scenes with ids that are unique and valid as file names.

    The second scene with the same id becomes `ID-2`, and so on, in their order. A location that is
    listed twice is one scene.
    """
    kept: dict[str, CatalogueScene] = {}
    for scene in scenes:
        kept.setdefault(scene.location, scene)
    if not kept:
        raise DataError(f"{name} names no scenes.", remedy="Add at least one image to it.")
    used: Counter[str] = Counter()
    taken: set[str] = set()
    unique = []
    for scene in kept.values():
        plain = plain_id(scene.id)
        fit = plain
        while fit in taken:
            used[plain] += 1
            fit = f"{plain}-{used[plain] + 1}"
        taken.add(fit)
        unique.append(replace(scene, id=fit))
    return tuple(unique)


def plain_id(name: str) -> str:
    """Return the id of a scene in a layer: at most 120 letters, digits, `.`, `_`, `-` of ASCII."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:120] or "scene"


_IMAGE_KEYS = ("visual", "image", "data")
_IMAGE_ROLES = ("visual", "data")

_NON_IMAGE_ROLES = frozenset({"thumbnail", "overview", "metadata"})
_MAX_LISTED = 8
"""Maximum number of assets that an error message lists."""


def read_stac(name: str, content: bytes, asset: str | None) -> Catalogue:
    """Read the STAC items of an item collection, or a single item.

    The image of an item is the asset with the given key. Without a key it is the GeoTIFF with the
    key `visual`, `image` or `data`, else the one with the role `visual` or `data`, else the one
    whose bands have the common names red, green and blue, else the only one.

    Args:
        name: Path or URL of the JSON file, as the user gave it.
        asset: Key of the asset that is the image; None to find it.
    """
    try:
        document = json.loads(content)
    except ValueError as error:
        raise DataError(
            f"{name} cannot be read as JSON: {reason_of(error)}.",
            remedy="Save the response of the STAC search as it is.",
        ) from error
    kind = document.get("type") if isinstance(document, dict) else None
    if kind not in ("Feature", "FeatureCollection"):
        received = f"of type {kind!r}" if isinstance(kind, str) else "of no type"
        raise DataError(
            f"{name} is a JSON document {received}; expected STAC items: a FeatureCollection or a "
            "Feature.",
            remedy="Search the STAC catalog or collection, and save the items that it returns.",
        )
    scenes = [
        scene_of_item(item, f"{name}, item {number}", asset, partial(_located, name, item))
        for number, item in enumerate(features_of(document), 1)
    ]
    return Catalogue(name, "STAC items", with_unique_ids(scenes, name))


def scene_of_item(
    item: Mapping[str, Any],
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
    """
    if not isinstance(item.get("assets"), dict):
        raise DataError(
            f"{where} has no assets; expected a STAC item.",
            remedy="If this is a GeoJSON of footprints, which names no images, write their paths "
            "to a text file instead, one on each line.",
        )
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where} has no id.", remedy="Add an id to the item.")
    where = f"{where} ({name[:80]})"
    assets = {key: one for key, one in item["assets"].items() if isinstance(one, dict)}
    href = _chosen(assets, asset, where).get("href")
    if not isinstance(href, str) or not href:
        raise DataError(
            f"{where}: its asset has no href; expected a path or a URL.", remedy="Correct the item."
        )
    return CatalogueScene(
        name, located(href), bounds_of(item.get("bbox")), _provenance(item, name, collection or {})
    )


def _provenance(item: Mapping[str, Any], name: str, collection: Mapping[str, Any]) -> Provenance:
    properties = object_in(item, "properties")

    def text(value: object) -> str:
        return value if isinstance(value, str) else ""

    listed = list_in(properties, "providers") or list_in(collection, "providers")
    href = link_of(item, "self")
    return Provenance(
        name,
        without_query(href),
        text(item.get("collection")),
        text(properties.get("datetime")) or None,
        text(properties.get("start_datetime")) or None,
        text(properties.get("end_datetime")) or None,
        text(properties.get("license")) or text(collection.get("license")),
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
    bands = list_in(asset, "bands") or list_in(asset, "eo:bands")
    return [band for band in bands if isinstance(band, dict)]


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
    return [one for one in list_in(asset, "roles") if isinstance(one, str)]


def _located(name: str, item: Mapping[str, Any], href: str) -> str:
    """Return the path or URL that an entry of a file at a path or URL refers to.

    A relative href starts from the URL of the item itself, if the item states one.
    """
    link = link_of(item, "self")
    if is_url(link) and not (is_url(href) or href.startswith("/") or PureWindowsPath(href).drive):
        name = link
    if is_url(name) or is_url(href):
        return linked_address(name, href)
    # Not normalised: what `..` means after a link depends on the disk.
    return str(Path(name).parent / href)


_TIFFS = (".tif", ".tiff")


def read_catalogue(path: Path | str, *, asset: str | None = None) -> Catalogue:
    """Read the scenes of a catalogue.

    Args:
        path: Path of a folder or a file. All images of a folder and of its subfolders are scenes. A
            file is a text with a path or a URL on each line, or STAC items as JSON. Both may be in
            object storage: `s3://BUCKET/KEY`, with a slash at the end of a folder.
        asset: Key of the STAC asset that is the image; default: see `read_stac`.

    Raises:
        DataError: The catalogue does not exist, has an unknown format, is damaged, or names no
            scene.
        ConfigError: An option belongs to another format.
        MissingExtraError: obstore is missing for object storage.
    """
    source = str(path)
    remote = is_object_url(source)
    is_folder = source.endswith("/") if remote else Path(path).is_dir()
    suffix = Path(source).suffix.lower()
    stac = suffix in (".json", ".geojson")
    if asset is not None and (is_folder or not stac):
        raise ConfigError(
            f"--asset {asset} is for STAC items, but {path} holds none.",
            remedy="Leave out --asset.",
        )
    if is_folder:
        return _objects(source) if remote else _tree(Path(path))
    if suffix not in CATALOGUE_SUFFIXES and (remote or Path(path).is_file()):
        raise DataError(
            f"{path} has the ending {suffix!r}; expected a folder, or a file with one of the "
            f"endings {', '.join(CATALOGUE_SUFFIXES)}.",
            remedy="Rename the file to the ending of its format, or write the paths of a table to "
            "a text file, one on each line.",
        )
    if not remote:
        check_exists(Path(path))
    try:
        content = read_object(source) if remote else Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {reason_of(error)}.", remedy="Check who may read it."
        ) from error
    return read_stac(source, content, asset) if stac else _list(source, content)


def _objects(url: str) -> Catalogue:
    urls = list_objects(url, _TIFFS)
    if not urls:
        raise DataError(f"There is no GeoTIFF at {url}.", remedy="Check the URL.")
    # The listed URLs are in normal form; bring the folder into the same form.
    folder = str(ObjectAddress.parse(url))
    scenes = [
        CatalogueScene("_".join(PurePosixPath(one[len(folder) :]).with_suffix("").parts), one)
        for one in urls
    ]
    return Catalogue(url, "folder", with_unique_ids(scenes, url))


def _tree(folder: Path) -> Catalogue:
    scenes: list[CatalogueScene] = []
    files = (where / name for where, names in visible_files(folder) for name in names)
    images, skipped = images_among(files)
    masks = label_masks(images)
    skipped |= dict.fromkeys(sorted(masks), MASK)
    for path in images:
        if path not in masks:
            relative = path.relative_to(folder).with_suffix("")
            scenes.append(CatalogueScene("_".join(relative.parts), str(path)))
    if not scenes:
        raise no_image(folder)
    unique = with_unique_ids(scenes, str(folder))
    return Catalogue(str(folder), "folder", unique, skipped)


def _list(name: str, content: bytes) -> Catalogue:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} cannot be read as text: {reason_of(error)}.", remedy="Save it as UTF-8."
        ) from error
    scenes = []
    for entry in map(str.strip, text.splitlines()):
        if not entry or entry.startswith("#"):
            continue
        location = _located(name, {}, entry)
        stem = url_stem(location) if "://" in location else Path(location).stem
        scenes.append(CatalogueScene(stem, location))
    return Catalogue(name, "text list", with_unique_ids(scenes, name))


_CATALOG_TYPES = ("Catalog", "Collection")


def open_catalogue(
    source: str,
    *,
    collections: Sequence[str] = (),
    datetime: str | None = None,
    max_items: int | None = None,
    area: Area | None = None,
    asset: str | None = None,
) -> Catalogue:
    """Return the scenes of a catalogue, or those that a search finds.

    Args:
        source: Catalogue as in `read_catalogue`; or path of a static STAC catalog; or URL of a
            STAC API, catalog or collection.
        collections, datetime, max_items: See `ImagerySearch`.
        area: Area that found images must overlap.
    """
    if not is_searched(source):
        for option, value in (
            ("--collection", ", ".join(collections)), ("--datetime", datetime),
            ("--max-items", max_items),
        ):  # fmt: skip
            if value:
                raise ConfigError(
                    f"{option} {value} is for searches, but {source} is a list of scenes.",
                    remedy=f"Leave out {option}, or give the URL of a STAC API.",
                )
        return read_catalogue(source, asset=asset)
    search = ImagerySearch(
        source, tuple(collections), datetime,
        None if area is None else area_in_degrees(area), max_items,
    )  # fmt: skip
    return _search(search, asset)


def is_searched(source: str) -> bool:
    """Return True for a server, and for the file of a static STAC catalog or collection."""
    if is_url(source) and not is_object_url(source):
        return True
    path = urlsplit(source).path if is_object_url(source) else source
    if Path(path).suffix.lower() != ".json":
        return False
    if is_object_url(source):
        return Path(path).name in ("catalog.json", "collection.json")
    try:
        document = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("type") in _CATALOG_TYPES


def _search(search: ImagerySearch, asset: str | None) -> Catalogue:
    """Return the scenes that a search finds.

    An item without a usable image is a scene with a problem; the others are predicted.
    """
    imagery, notes = search_imagery(search), []
    if imagery.is_cut:
        notes.append(
            f"{search.shown} has more than the {plural(len(imagery.items), 'image')} of "
            "--max-items."
        )
    scenes = [_searched_scene(item, search, imagery, asset) for item in imagery.items]
    problems = [scene.problem for scene in scenes if scene.problem is not None]
    if len(problems) == len(scenes):
        raise problems[0]
    return Catalogue(
        search.shown, imagery.kind, with_unique_ids(scenes, search.shown), notes=tuple(notes)
    )


def _searched_scene(
    item: Mapping[str, Any], search: ImagerySearch, found: FoundImagery, asset: str | None
) -> CatalogueScene:
    collection, name = item_key(item)
    source, link = search.address, link_of(item, "self")
    # A server must not lead to files of this machine, but a catalog on its disk may.
    base = source if is_url(source) and not is_url(link) else link or source
    held = found.collections.get(collection)
    try:
        return scene_of_item(item, search.shown, asset, partial(linked_address, base), held)
    except DataError as error:
        # The location only distinguishes the scenes.
        return CatalogueScene(name, f"{base}#{collection}/{name}", problem=error)
