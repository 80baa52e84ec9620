"""Read catalogues of scenes: folder trees, text lists, STAC items, and searches.

A catalogue is read without opening the images that it names, and without network access for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.text import plural, reason_of
from rooftrace.flows.catalogue.scenes import (
    Catalogue,
    CatalogueFile,
    CatalogueScene,
    read_stac,
    scene_of_item,
    with_unique_ids,
)
from rooftrace.flows.predict.inputs import CATALOGUE_SUFFIXES, holds_results, is_result
from rooftrace.io.area import Area, area_in_degrees
from rooftrace.io.companions import is_sidecar
from rooftrace.io.elevation import is_elevation
from rooftrace.io.files import visible_files
from rooftrace.io.gdal import is_raster
from rooftrace.io.imagery_search import FoundImagery, ImagerySearch, linked_address, search_imagery
from rooftrace.io.remote import (
    ObjectAddress,
    is_object_url,
    is_url,
    list_objects,
    read_object,
    url_stem,
)
from rooftrace.io.stac_item import item_key, link_of
from rooftrace.labels.folders import masks_under
from rooftrace.labels.image_files import is_lost_image

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
    given = str(path)
    remote = is_object_url(given)
    is_folder = given.endswith("/") if remote else Path(path).is_dir()
    suffix = Path(given).suffix.lower()
    stac = suffix in (".json", ".geojson")
    if asset is not None and (is_folder or not stac):
        raise ConfigError(
            f"--asset {asset} is for STAC items, but {path} holds none.",
            remedy="Leave out --asset.",
        )
    if is_folder:
        return _objects(given) if remote else _tree(Path(path))
    if suffix not in CATALOGUE_SUFFIXES and (remote or Path(path).is_file()):
        raise DataError(
            f"{path} has the ending {suffix!r}; expected a folder, or a file with one of the "
            f"endings {', '.join(CATALOGUE_SUFFIXES)}.",
            remedy="Rename the file to the ending of its format, or write the paths of a table to "
            "a text file, one on each line.",
        )
    if not remote and not Path(path).is_file():
        raise DataError(f"There is no catalogue at {path}.", remedy="Check the path.")
    try:
        file = CatalogueFile(given, read_object(given) if remote else Path(path).read_bytes())
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {reason_of(error)}.", remedy="Check who may read it."
        ) from error
    return read_stac(file, asset) if stac else _list(file)


def _objects(url: str) -> Catalogue:
    found = list_objects(url, _TIFFS)
    if not found:
        raise DataError(f"There is no GeoTIFF at {url}.", remedy="Check the URL.")
    # The listed URLs are in normal form; bring the folder into the same form.
    folder = str(ObjectAddress.parse(url))
    scenes = [
        CatalogueScene("_".join(PurePosixPath(one[len(folder) :]).with_suffix("").parts), one)
        for one in found
    ]
    return Catalogue(url, "folder", with_unique_ids(scenes, url))


def _tree(folder: Path) -> Catalogue:
    scenes, skipped = [], []
    masks = masks_under(folder)
    for where, names in visible_files(folder):
        results = holds_results(where)
        for path in (where / name for name in names):
            if is_sidecar(path):
                continue
            is_image = (is_raster(path) or is_lost_image(path)) and not is_elevation(path)
            if path in masks or (results and is_result(path)) or not is_image:
                skipped.append(str(path))
                continue
            relative = path.relative_to(folder).with_suffix("")
            scenes.append(CatalogueScene("_".join(relative.parts), str(path)))
    if not scenes:
        raise DataError(
            f"There is no image in {folder} or its subfolders.",
            remedy="Give the folder that holds the images.",
        )
    found = with_unique_ids(scenes, str(folder))
    return Catalogue(str(folder), "folder", found, tuple(skipped))


def _list(file: CatalogueFile) -> Catalogue:
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file.name} cannot be read as text: {reason_of(error)}.", remedy="Save it as UTF-8."
        ) from error
    scenes = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if "\0" in entry:
            raise DataError(
                f"{file.name}, line {number}: {entry[:60]!r}… is not a path or a URL.",
                remedy="Write one path or URL on each line.",
            )
        location = file.located(entry)
        stem = url_stem(location) if "://" in location else Path(location).stem
        scenes.append(CatalogueScene(stem, location))
    return Catalogue(file.name, "text list", with_unique_ids(scenes, file.name))


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
        asset: See `read_catalogue`.

    Raises:
        ConfigError: An option belongs to another kind of catalogue.
        DataError, MissingExtraError: See `read_catalogue` and `search_imagery`.
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
    return search_catalogue(search, asset=asset)


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


def search_catalogue(search: ImagerySearch, *, asset: str | None = None) -> Catalogue:
    """Return the scenes that a search finds.

    An item without a usable image is a scene with a problem; the others are predicted.

    Args:
        search: The search.
        asset: Key of the STAC asset that is the image; default: see `read_stac`.

    Raises:
        ConfigError, DataError, MissingExtraError: See `search_imagery`; or no item has a usable
            image.
    """
    found, notes = search_imagery(search), []
    if found.is_cut:
        notes.append(
            f"{search.shown} has more than the {plural(len(found.items), 'image')} of --max-items."
        )
    scenes = [_scene(item, search, found, asset) for item in found.items]
    problems = [scene.problem for scene in scenes if scene.problem is not None]
    if len(problems) == len(scenes):
        raise problems[0]
    return Catalogue(
        search.shown, found.kind, with_unique_ids(scenes, search.shown), notes=tuple(notes)
    )


def _scene(
    item: Mapping[str, Any], search: ImagerySearch, found: FoundImagery, asset: str | None
) -> CatalogueScene:
    collection, name = item_key(item)
    own = link_of(item, "self")
    # A server must not lead to files of this machine, but a catalog on its disk may.
    base = search.address if is_url(search.address) and not is_url(own) else own or search.address

    def located(href: str) -> str:
        return linked_address(base, href)

    try:
        return scene_of_item(item, search.shown, asset, located, found.collections.get(collection))
    except DataError as error:
        # The location only distinguishes the scenes.
        return CatalogueScene(name, f"{base}#{collection}/{name}", problem=error)
