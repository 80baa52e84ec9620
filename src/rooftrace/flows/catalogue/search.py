"""Catalogues from searches of STAC and OpenAerialMap, recorded so that a run resumes the same one.

OUT/search.json     the found STAC items, without keys in addresses, and the search that found them
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import shapely

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.text import plural
from rooftrace.flows.catalogue.scenes import Catalogue, CatalogueScene, with_unique_ids
from rooftrace.flows.catalogue.sources import read_catalogue
from rooftrace.flows.catalogue.stac_scenes import scene_of_item
from rooftrace.io.area import Area, area_in_degrees
from rooftrace.io.files import write_json
from rooftrace.io.imagery_search import FoundImagery, ImagerySearch, search_imagery
from rooftrace.io.json_documents import linked_address
from rooftrace.io.remote import Retry, is_object_url, is_url, without_query
from rooftrace.io.stac_item import item_key, link_of, links_of

__all__ = ["SEARCH", "is_searched", "open_catalogue", "search_catalogue"]

SEARCH = "search.json"
"""Name of the record of a search in the results folder."""

_CATALOG_TYPES = ("Catalog", "Collection")
_MAX_PEEKED_BYTES = 64 * 2**20


def open_catalogue(
    source: str,
    out: Path,
    *,
    collections: Sequence[str] = (),
    datetime: str | None = None,
    max_items: int | None = None,
    area: Area | None = None,
    asset: str | None = None,
    path_column: str | None = None,
) -> Catalogue:
    """Return the scenes of a catalogue, or those that a search finds.

    Args:
        source: Catalogue as in `read_catalogue`; or path of a static STAC catalog; or address of a
            STAC API, catalog or collection or of OpenAerialMap.
        out: Folder of the results, with the record of the search.
        collections, datetime, max_items: See `ImagerySearch`.
        area: Area that found images must overlap.
        asset, path_column: See `read_catalogue`.

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
                    remedy=f"Leave out {option}, or give the address of a STAC API.",
                )
        return read_catalogue(source, asset=asset, path_column=path_column)
    if path_column is not None:
        raise ConfigError(
            f"--path-column {path_column} is for GeoParquet, but {source} is searched.",
            remedy="Leave out --path-column.",
        )
    search = ImagerySearch(
        source, tuple(collections), datetime,
        None if area is None else area_in_degrees(area), max_items,
    )  # fmt: skip
    return search_catalogue(search, out, asset=asset)


def is_searched(source: str) -> bool:
    """Return True for a server, and for the file of a static STAC catalog or collection."""
    if is_url(source) and not is_object_url(source):
        return True
    path = urlsplit(source).path if is_object_url(source) else source
    if Path(path).suffix.lower() != ".json":
        return False
    if is_object_url(source):
        return Path(path).name in ("catalog.json", "collection.json")
    file = Path(path)
    if not file.is_file() or file.stat().st_size > _MAX_PEEKED_BYTES:
        return False
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("type") in _CATALOG_TYPES


def search_catalogue(
    search: ImagerySearch, out: Path, *, asset: str | None = None, retry: Retry | None = None
) -> Catalogue:
    """Return the scenes that a search finds, or found when an earlier run made the same search.

    An item without a usable image is a scene with a problem; the others are predicted.

    Args:
        search: The search.
        out: Folder of the results. The search is recorded there.
        asset: Key of the STAC asset that is the image; default: see `read_stac`.
        retry: Retries of requests.

    Raises:
        ConfigError, DataError, MissingExtraError: See `search_imagery`. The record is damaged, or
            no item has a usable image.
        ExportError: The record cannot be written.
    """
    path = out / SEARCH
    query = _query(search)
    # A catalog on disk is read again at no cost, so that additions to it are seen.
    record = _recorded(path) if is_url(search.address) else None
    notes = []
    if record is not None and record["search"] == query:
        found = FoundImagery(
            record["kind"], tuple(record["features"]), record["collections"], record["is_cut"]
        )
        if record["has_keys"]:
            found = _with_fresh_keys(found, search, retry)
        notes.append(
            f"The {plural(len(found.items), 'image')} of the search of {record['searched'][:10]} "
            f"are used again. Remove {path} to search again."
        )
    else:
        found = search_imagery(search, retry)
        if record is not None:
            notes.append(f"{path} recorded another search, and was replaced.")
        if is_url(search.address):
            _write(path, found, query)
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


def _query(search: ImagerySearch) -> dict[str, Any]:
    """Return the search as plain data; an address with keys is known by its hash alone."""
    area = None if search.area is None else hashlib.sha256(shapely.to_wkb(search.area)).hexdigest()
    return {
        "address": search.shown,
        "address_sha256": hashlib.sha256(search.address.encode()).hexdigest(),
        "collections": list(search.collections),
        "datetime": search.datetime,
        "area_sha256": area,
        "max_items": search.max_items,
    }


def _recorded(path: Path) -> dict[str, Any] | None:
    """Return the record of an earlier search; None if there is none.

    Raises:
        DataError: The record is damaged.
    """
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_bytes())
        record: dict[str, Any] = {**document["rooftrace"], "features": document["features"]}
        if not {"search", "kind", "collections", "is_cut", "has_keys", "searched"} <= record.keys():
            raise KeyError("rooftrace")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is not the record of a search that rooftrace wrote.",
            remedy="Remove the file to search again, or choose another folder with -o.",
        ) from error
    return record


def _write(path: Path, found: FoundImagery, query: Mapping[str, Any]) -> None:
    items = [_without_keys(item) for item in found.items]
    needed = ("type", "id", "license", "providers", "extent")
    document = {
        "type": "FeatureCollection",
        "features": items,
        "rooftrace": {
            "search": dict(query),
            "kind": found.kind,
            "is_cut": found.is_cut,
            "has_keys": items != list(found.items),
            "searched": datetime.now(UTC).isoformat(timespec="seconds"),
            "collections": {
                name: {key: one[key] for key in needed if key in one}
                for name, one in sorted(found.collections.items())
            },
        },
    }
    write_json(path, document)


def _without_keys(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item whose addresses have no query, which may hold a signature."""

    def plain(entry: Any) -> Any:
        href = entry.get("href") if isinstance(entry, dict) else None
        is_keyed = isinstance(href, str) and is_url(href) and href != without_query(href)
        return {**entry, "href": without_query(str(href))} if is_keyed else entry

    assets = item.get("assets")
    cleaned = {key: plain(one) for key, one in assets.items()} if isinstance(assets, dict) else {}
    return {**item, "assets": cleaned, "links": [plain(link) for link in links_of(item)]}


def _with_fresh_keys(
    found: FoundImagery, search: ImagerySearch, retry: Retry | None
) -> FoundImagery:
    """Search again for the recorded items, whose addresses need keys that are not recorded."""
    again = {item_key(item): item for item in search_imagery(search, retry).items}
    items = tuple(again.get(item_key(item), item) for item in found.items)
    return replace(found, items=items)
