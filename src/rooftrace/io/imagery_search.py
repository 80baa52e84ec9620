"""Search for imagery in STAC APIs and static STAC catalogs, on servers, in storage and on disk.

Every kind of server gives the same: STAC items as plain JSON, the newest first. Images are not
opened here.

STAC API 1.0: https://github.com/radiantearth/stac-api-spec
"""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlencode, urljoin, urlsplit
from urllib.request import url2pathname

import shapely

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.text import list_and_count, reason_of
from rooftrace.io.files import is_url
from rooftrace.io.remote import is_object_url, join_url, read_document, read_object, without_query
from rooftrace.io.reproject import degrees_box
from rooftrace.io.stac_item import (
    Json,
    Times,
    bounds_of,
    features_of,
    item_key,
    item_times,
    link_of,
    links_of,
    list_in,
    meets,
    moment_of,
    object_in,
    overlap,
)


def _read(address: str) -> Json:
    """Return a JSON object from a web server, object storage or disk."""
    if is_object_url(address):
        text = read_object(address)
    elif is_url(address):
        text = read_document(address)
    else:
        try:
            text = Path(address).read_bytes()
        except OSError as error:
            raise DataError(
                f"{address} cannot be read: {reason_of(error)}.", remedy="Check the path."
            ) from error
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    what = "a web page (HTML)" if text.lstrip().startswith(b"<") else "not a JSON object"
    raise DataError(
        f"{without_query(address)} is {what}; expected a JSON document of STAC.",
        remedy="Give the URL of a catalog.json, or of the API's first page, often …/stac or …/v1.",
    )


def _tried(address: str) -> Json | None:
    """Return a JSON object; None if the server does not have it."""
    try:
        return _read(address)
    except DataError:
        return None


def _pages(address: str, first: Json) -> Iterator[Json]:
    """Yield a page and those that follow it by GET links."""
    seen = {address}
    page: Json | None = first
    while page is not None:
        yield page
        after = link_of(page, "next")
        after = linked_address(address, after) if after else ""
        page = None if not after or after in seen else _read(after)
        seen.add(after)


def _items(address: str, first: Json) -> Iterator[Json]:
    """Yield the items of a page and those that follow; one that is empty or repeated is the last.

    Some servers name a next page after each.
    """
    seen: set[tuple[str, str]] = set()
    for page in _pages(address, first):
        items = features_of(page)
        keys = {item_key(item) for item in items}
        if keys <= seen:
            return
        seen |= keys
        yield from items


def linked_address(parent: str, href: str) -> str:
    """Return the URL or path of a linked document."""
    try:
        scheme = urlsplit(href).scheme.lower()
        if not is_url(parent):
            if scheme == "file":
                return url2pathname(urlsplit(href).path)
            return href if is_url(href) else os.path.normpath(Path(parent).parent / href)
        if scheme in ("", "http", "https", "s3"):
            return href if is_url(href) else join_url(parent, href)
    except ValueError:
        # Brackets that enclose no IPv6 address.
        pass
    raise DataError(
        f"{without_query(parent)} links to {href[:200]!r}; expected a URL that begins https://.",
        remedy="Correct the catalogue, or download it with its files, and give the copy.",
    )


MAX_ITEMS = 10_000
"""Maximum number of items of a search for which the user gives no limit."""

_PAGE_ITEMS = 100
_PARALLEL_REQUESTS = 8


@dataclass(frozen=True)
class ImagerySearch:
    """Conditions of a search.

    Args:
        address: URL of a STAC API, of one of its collections, of a static catalog or
            collection, or of an item collection; or path of a static catalog.
        collections: Ids of the collections; empty for all.
        datetime: Moment or period of the imagery as STAC APIs take it, such as `2024`, `2024-06` or
            `2023-01-01/2024-06-30`; None for any.
        area: Polygon or multipolygon in degrees that images must overlap; None for any.
        max_items: Maximum number of items; None if more than `MAX_ITEMS` are an error.
    """

    address: str
    collections: tuple[str, ...] = ()
    datetime: str | None = None
    area: shapely.Geometry | None = None
    max_items: int | None = None

    @property
    def shown(self) -> str:
        """Address or path for messages, without keys."""
        return without_query(self.address)

    @cached_property
    def period(self) -> Times:
        """First and last moment that `datetime` describes."""
        if self.datetime is None:
            return None, None
        first, _, last = self.datetime.partition("/")
        try:
            times = _span(first)[0], _span(last or first)[1]
            if times == (None, None):
                raise ValueError(self.datetime)
        except (ValueError, OverflowError) as error:
            raise ConfigError(
                f"--datetime {self.datetime} is not a moment or a period.",
                remedy="Write 2024, 2024-06, 2024-06-30, or two with a slash; .. is an open end.",
            ) from error
        return times

    @property
    def conditions(self) -> str:
        """Conditions of the search for a message."""
        named = f" of {', '.join(self.collections)}" if self.collections else ""
        when = f" from {self.datetime}" if self.datetime else ""
        return named + when + (" in the area" if self.area is not None else "")


def _span(text: str) -> Times:
    """Return the first and last moment of a year, month, day or moment; None for an open end.

    Raises:
        ValueError: The text is none of them.
    """
    if text in ("", ".."):
        return None, None
    if not re.fullmatch(r"\d{4}(-\d\d){0,2}", text):
        moment = moment_of(text)
        if moment is None:
            raise ValueError(text)
        return moment, moment
    first = datetime.fromisoformat(f"{text}-01-01"[:10]).replace(tzinfo=UTC)
    if len(text) == len("2024"):
        after = first.replace(year=first.year + 1)
    elif len(text) == len("2024-06"):
        after = (first + timedelta(days=31)).replace(day=1)
    else:
        after = first + timedelta(days=1)
    return first, after - timedelta(seconds=1)


@dataclass(frozen=True)
class FoundImagery:
    """Result of a search.

    Args:
        items: STAC items, newest first, then by collection and id.
        collections: STAC collections of the items by id, as far as the server has them.
        is_cut: Whether the server has more items than were asked for.
    """

    kind: str
    items: tuple[Json, ...]
    collections: Mapping[str, Json]
    is_cut: bool = False


def search_imagery(search: ImagerySearch) -> FoundImagery:
    """Return the items that match a search.

    Raises:
        ConfigError: The period cannot be read, or no or an unknown collection was given.
        DataError: The server does not answer, refuses the search, or finds nothing.
    """
    _ = search.period  # raises the error before a request
    found = _search(search)
    if not found.items:
        raise DataError(
            f"{search.shown} has no images{search.conditions}.",
            remedy="Check the area in a GIS, the period of --datetime and the --collection.",
        )
    if search.max_items is None and found.is_cut:
        raise DataError(
            f"{search.shown} has more than {MAX_ITEMS:,} images{search.conditions}.",
            remedy="Give a smaller --area, a shorter --datetime, or a number with --max-items.",
        )
    return found


def _search(search: ImagerySearch) -> FoundImagery:
    document = _read(search.address)
    kind = document.get("type")
    if kind in ("Feature", "FeatureCollection"):
        return _gathered("STAC items", _items(search.address, document), search, {})
    if "conformsTo" in document or link_of(document, "search"):
        return _api(search, search.address, document)
    root = link_of(document, "root")
    if kind == "Collection" and is_url(search.address) and root:
        top = urljoin(search.address, root)
        found = _read(top) if top != search.address else document
        if "conformsTo" in found or link_of(found, "search"):
            collections = search.collections or (str(document.get("id")),)
            return _api(replace(search, collections=collections), top, found)
    if kind in ("Catalog", "Collection"):
        held: dict[str, Json] = {}
        crawled = _crawled(search, document, held)
        imagery = _gathered("static STAC catalog", crawled, search, held)
        if not imagery.items:
            _check_collections(search, sorted(held))
        return imagery
    keys = ", ".join(list(document)[:8]) or "nothing"
    raise DataError(
        f"{search.shown} is a JSON document with {keys}; expected a STAC API, catalog or items.",
        remedy="Give the URL of the API's first page, which often ends with /stac or /v1.",
    )


def _api(search: ImagerySearch, address: str, landing: Json) -> FoundImagery:
    classes = list_in(landing, "conformsTo")
    if classes and not any("item-search" in str(one) for one in classes):
        raise DataError(
            f"{without_query(address)} is a STAC API without item search.",
            remedy="Give a static catalog of the same data, or save its items as a .json file.",
        )
    base = address.partition("?")[0].rstrip("/")
    listing = urljoin(address, link_of(landing, "data") or f"{base}/collections")
    collections = _asked_collections(search, listing)
    asked = {"limit": str(min(_PAGE_ITEMS, search.max_items or _PAGE_ITEMS))}
    if search.collections:
        asked["collections"] = ",".join(search.collections)
    if search.area is not None:
        asked["bbox"] = ",".join(map(str, shapely.bounds(search.area).tolist()))
    if search.datetime is not None:
        moments = (one and one.astimezone(UTC) for one in search.period)
        ends = (f"{one:%Y-%m-%dT%H:%M:%SZ}" if one else ".." for one in moments)
        asked["datetime"] = "/".join(ends)
    url = urljoin(address, link_of(landing, "search") or f"{base}/search")
    url += ("&" if "?" in url else "?") + urlencode(asked, safe=",:/")
    # The server has compared the dates.
    found = _gathered(
        "STAC API", _items(url, _read(url)), replace(search, datetime=None), collections
    )
    # The licence and the providers of an item are often those of its collection.
    for name in {str(item["collection"]) for item in found.items if "collection" in item}:
        if name not in collections:
            collections[name] = _tried(_collection_url(listing, name)) or {}
    return found


def _asked_collections(search: ImagerySearch, listing: str) -> dict[str, Json]:
    """Return the named collections of an API, as far as it has a page for each."""
    pages = {name: _tried(_collection_url(listing, name)) for name in search.collections}
    known = {name: page for name, page in pages.items() if page is not None}
    if search.collections and len(known) == len(pages):
        return known
    ids = []
    try:
        for page in _pages(listing, _read(listing)):
            for one in list_in(page, "collections"):
                if isinstance(one, dict) and isinstance(one.get("id"), str):
                    ids.append(one["id"])
                    known.setdefault(one["id"], one)
    except DataError:
        # An API need not have pages of collections; the search itself decides.
        return known
    _check_collections(search, ids)
    if not search.collections and len(ids) > 1:
        raise ConfigError(
            f"{search.shown} has {len(ids)} collections: {list_and_count(ids, 20)}.",
            remedy="Choose one with --collection.",
        )
    return known


def _check_collections(search: ImagerySearch, ids: Sequence[str]) -> None:
    for name in search.collections:
        if name not in ids:
            raise ConfigError(
                f"{search.shown} has no collection {name!r}; it has {list_and_count(ids, 20)}.",
                remedy="Give one of them with --collection.",
            )


def _collection_url(listing: str, name: str) -> str:
    return f"{listing.partition('?')[0].rstrip('/')}/{quote(name, safe='')}"


def _gathered(
    kind: str, items: Iterable[Json], search: ImagerySearch, collections: Mapping[str, Json]
) -> FoundImagery:
    """Return the items that match the search, up to its limit, in a fixed order."""
    limit = MAX_ITEMS if search.max_items is None else search.max_items
    kept: dict[tuple[str, str], Json] = {}
    is_cut = False
    for item in items:
        if not meets(item, search.area, search.period):
            continue
        if len(kept) == limit and item_key(item) not in kept:
            is_cut = True
            break
        kept.setdefault(item_key(item), item)
    ordered = sorted((kept[key] for key in sorted(kept)), key=_newest_first)
    return FoundImagery(kind, tuple(ordered), collections, is_cut)


def _newest_first(item: Json) -> float:
    known = [one for one in item_times(item) if one is not None]
    return -max(one.timestamp() for one in known) if known else math.inf


def _crawled(search: ImagerySearch, document: Json, collections: dict[str, Json]) -> Iterator[Json]:
    """Yield the items below a catalog, depth first in the order of its links.

    Collections whose extents miss the search are not read further.
    """
    seen = {search.address}
    waiting: list[tuple[str, Json | None, str | None]] = [(search.address, document, None)]
    with ThreadPoolExecutor(_PARALLEL_REQUESTS, "stac") as pool:
        while waiting:
            address, page, collection = waiting.pop()
            page = _read(address) if page is None else page
            if page.get("type") == "FeatureCollection":
                yield from _owned(features_of(page), collection, search)
                continue
            if page.get("type") == "Collection" and isinstance(page.get("id"), str):
                collection = page["id"]
                collections[collection] = page
                wanted = collection in search.collections or not search.collections
                if wanted and not _may_hold(page, search.area, search.period):
                    continue
            links = [
                (str(link.get("rel")), linked_address(address, str(link.get("href"))))
                for link in links_of(page)
                if link.get("rel") in ("child", "item", "items") and link.get("href")
            ]
            fresh = [(rel, to) for rel, to in dict.fromkeys(links) if to not in seen]
            seen |= {to for _, to in fresh}
            deeper: list[tuple[str, Json | None, str | None]] = [
                (to, None, collection) for rel, to in fresh if rel != "item"
            ]
            waiting += reversed(deeper)
            if collection is None or collection in search.collections or not search.collections:
                own = [to for rel, to in fresh if rel == "item"]
                for start in range(0, len(own), _PAGE_ITEMS):
                    part = own[start : start + _PAGE_ITEMS]
                    read = [_with_self(item, to) for to, item in zip(part, pool.map(_read, part))]
                    yield from _owned(read, collection, search)


def _owned(items: Iterable[Json], collection: str | None, search: ImagerySearch) -> Iterator[Json]:
    """Yield the items of the wanted collections, each with the name of its collection."""
    for item in items:
        own = item.get("collection", collection)
        if not search.collections or own in search.collections:
            yield item if own is None else {**item, "collection": own}


def _with_self(item: Json, address: str) -> Json:
    """Return an item with the URL from which it was read, where relative hrefs start."""
    links = [link for link in links_of(item) if link.get("rel") != "self"]
    return {**item, "links": [*links, {"rel": "self", "href": address}]}


def _may_hold(collection: Json, area: shapely.Geometry | None, times: Times) -> bool:
    """Return False if the extents of a collection exclude that it has matching items."""
    extent = object_in(collection, "extent")
    boxes = list_in(object_in(extent, "spatial"), "bbox") if area is not None else []
    if boxes:
        found = [bounds_of(box) for box in boxes]
        known = [degrees_box(box) for box in found if box is not None]
        if len(known) == len(boxes) and not any(shapely.intersects(one, area) for one in known):
            return False
    periods = list_in(object_in(extent, "temporal"), "interval")
    if periods:
        spans = [
            (moment_of(one[0]), moment_of(one[1]))
            for one in periods
            if isinstance(one, list) and len(one) == 2
        ]
        return not spans or any(overlap(span, times) for span in spans)
    return True
