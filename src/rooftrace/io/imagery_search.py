"""Search for imagery in STAC APIs and static STAC catalogs, on servers, in storage and on disk.

Every kind of server gives the same: STAC items as plain JSON, the newest first. Images are not
opened here.

STAC API 1.0: https://github.com/radiantearth/stac-api-spec
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import ssl
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import url2pathname

import shapely

from rooftrace.core.errors import ConfigError, DataError, MissingExtraError
from rooftrace.core.text import json_kind, list_and_count, reason_of
from rooftrace.io.files import is_url
from rooftrace.io.remote import (
    TRANSIENT_STATUSES,
    Retry,
    is_object_url,
    join_url,
    read_object,
    without_query,
)
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

_RETRY, _MAX_WAIT_S = Retry(attempts=4), 30

_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""Errors of Python for documents that differ from their specification."""


class _JsonReader:
    """Reads JSON documents from web servers, object storage and disk."""

    def __init__(self) -> None:
        self.web = _web_io()

    def read(self, address: str, parameters: Json | None = None) -> Json:
        """Return a JSON object.

        Raises:
            DataError: It cannot be read, or is not a JSON object.
        """
        if "@" in urlsplit(address).netloc:
            raise DataError(
                f"{without_query(address)} was given with a user name.",
                remedy="Put the user name and password into the file ~/.netrc.",
            )
        if is_object_url(address):
            text: str | bytes = read_object(address)
        elif is_url(address):
            with _request_errors(address):
                text = self.web.request(address, parameters=parameters)
        else:
            try:
                text = Path(address).read_bytes()
            except OSError as error:
                raise DataError(
                    f"{address} cannot be read: {reason_of(error)}.", remedy="Check the path."
                ) from error
        return _json_object(text, address)

    def tried(self, address: str) -> Json | None:
        """Return a JSON object; None if the server does not have it."""
        try:
            return self.read(address)
        except DataError:
            return None

    def pages(self, address: str, first: Json) -> Iterator[Json]:
        """Yield a page and those that follow it by GET links."""
        seen = {address}
        page: Json | None = first
        while page is not None:
            yield page
            after = link_of(page, "next")
            after = linked_address(address, after) if after else ""
            page = None if not after or after in seen else self.read(after)
            seen.add(after)


def _web_io() -> Any:
    from pystac_client.stac_api_io import StacApiIO
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry as HttpRetry

    class Adapter(HTTPAdapter):
        """Adapter that trusts what Python trusts, SSL_CERT_FILE too, besides certifi."""

        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs, ssl_context=ssl.create_default_context())

    # It would print whole URLs, which may hold keys, at each retry.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    attempts = _RETRY.attempts - 1
    retries = HttpRetry(
        total=attempts, connect=min(1, attempts), read=min(2, attempts), status=attempts,
        backoff_factor=_RETRY.delay_s, backoff_max=_MAX_WAIT_S,
        status_forcelist=TRANSIENT_STATUSES, allowed_methods=("GET", "POST"), raise_on_status=False,
    )  # fmt: skip
    web = StacApiIO(headers={"User-Agent": "rooftrace"}, timeout=_RETRY.timeout_s)
    for scheme in ("http://", "https://"):
        web.session.mount(scheme, Adapter(max_retries=retries))
    return web


def _json_object(text: str | bytes, address: str) -> Json:
    shown = without_query(address)
    try:
        found = json.loads(text)
    except ValueError as error:
        start = text[:200].decode("latin-1") if isinstance(text, bytes) else text[:200]
        what = "a web page (HTML)" if re.match(r"\s*<", start) else "not JSON"
        raise DataError(
            f"{shown} is {what}; expected a JSON document of STAC.",
            remedy="Give the URL of the API's first page, which often ends with /stac or /v1, "
            "or of a catalog.json.",
        ) from error
    if not isinstance(found, dict):
        raise DataError(
            f"{shown} is a JSON document that holds {json_kind(found)}; expected an object of "
            "STAC.",
            remedy="Check the URL.",
        )
    return found


@contextmanager
def _request_errors(address: str) -> Iterator[None]:
    """Raise the errors of requests as `DataError`."""
    from pystac import STACError
    from pystac_client.errors import ClientTypeError
    from pystac_client.exceptions import APIError, ParametersError

    not_stac = STACError, ClientTypeError, ParametersError, shapely.errors.ShapelyError
    try:
        yield
    except APIError as error:
        shown = without_query(address)
        status = getattr(error, "status_code", None)
        if status is None:
            reason, remedy = _connection_reason(error)
        else:
            reason, remedy = f"the server answered {status}", _remedy_for(status, str(error))
        raise DataError(f"{shown} cannot be searched: {reason}.", remedy=remedy) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{without_query(address)} answers a search with a document that is not JSON.",
            remedy="Run the command again later; if that does not help, check the URL.",
        ) from error
    except (*_MALFORMED, *not_stac) as error:
        raise _not_stac(address, error) from error


def _connection_reason(error: Exception) -> tuple[str, str]:
    """Return the reason why a server did not answer, and the remedy."""
    text = " ".join(str(error.__context__).split())
    if "certificate" in text.lower():
        detail = re.search(r"certificate verify failed: ([^(\"']+)", text)
        return (
            f"its certificate is not trusted ({detail[1].strip() if detail else 'TLS failed'})",
            "If you trust the server, set SSL_CERT_FILE to its authority's certificate file.",
        )
    if "timed out" in text:
        return "the server does not answer in time", "Run the command again later."
    return "the server cannot be reached", "Check the URL and the network connection."


def _remedy_for(status: int, text: str) -> str:
    if status in (401, 403):
        return (
            "The server requires an account: put its user name and password into ~/.netrc, or "
            "save the items that its own tool finds as a .json file and give that."
        )
    if status in TRANSIENT_STATUSES:
        return "Run the command again later."
    detail = "" if "<" in text[:50] else " ".join(text.split())[:200]
    return f"Check the URL and the search. The server says: {detail}" if detail else (
        "Check the URL."
    )  # fmt: skip


def _not_stac(address: str, error: Exception) -> DataError:
    """Return the error for a document that differs from the STAC specification."""
    reason = " ".join(str(error).replace(address, without_query(address)).split())[:200]
    if isinstance(error, AttributeError | LookupError | TypeError) or not reason:
        # Python's words for a part of the document that was not found.
        reason = "a part of the document is missing, or of another type"
    return DataError(
        f"{without_query(address)} differs from the STAC specification: {reason.rstrip('.')}.",
        remedy="Check the document, and that a server supports STAC API 1.0.",
    )


def linked_address(parent: str, href: str) -> str:
    """Return the URL or path of a linked document.

    Raises:
        DataError: The URL is malformed, or a document on a server leads to a file of this machine.
    """
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
        f"{without_query(parent)} links to {href[:200]!r}; expected a URL that begins with "
        "https://, http:// or s3://.",
        remedy="Correct the catalogue, or download it with its files, and give the copy.",
    )


MAX_ITEMS = 10_000
"""Maximum number of items of a search for which the user gives no limit."""

_PAGE_ITEMS = 100
_MAX_DOCUMENTS = 100_000
"""Maximum number of documents that are read of a static catalog."""

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
        """First and last moment that `datetime` describes.

        Raises:
            ConfigError: It describes none.
        """
        if self.datetime is None:
            return None, None
        from pystac_client import ItemSearch

        try:
            query = ItemSearch("https://localhost", datetime=self.datetime)
            start, _, end = str(query.get_parameters()["datetime"]).partition("/")
            times = moment_of(start), moment_of(end or start)
            if times == (None, None):
                raise ValueError(self.datetime)
        except Exception as error:  # pystac_client raises errors of several types, also Exception
            raise ConfigError(
                f"--datetime {self.datetime} is not a moment or a period.",
                remedy="Write it as 2024, 2024-06, 2024-06-30, or with a slash between the first "
                "and the last: 2023-01-01/2024-06-30; .. is an open end.",
            ) from error
        return times

    @property
    def conditions(self) -> str:
        """Conditions of the search for a message."""
        named = f" of {', '.join(self.collections)}" if self.collections else ""
        when = f" from {self.datetime}" if self.datetime else ""
        return named + when + (" in the area" if self.area is not None else "")


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
        MissingExtraError: The extra `stac` is not installed.
    """
    with MissingExtraError.on_import("stac", "A search for imagery", "pystac_client"):
        import pystac_client  # noqa: F401
    _ = search.period  # raises the error before a request
    reader = _JsonReader()
    with warnings.catch_warnings():
        # Libraries warn of servers that differ from the specification in ways that do not matter.
        warnings.simplefilter("ignore")
        # A document may differ from its specification in any place.
        with _request_errors(search.address):
            found = _search(search, reader)
    if not found.items:
        raise DataError(
            f"{search.shown} has no images{search.conditions}.",
            remedy="Check the area in a GIS, the period of --datetime and the --collection.",
        )
    if search.max_items is None and found.is_cut:
        raise DataError(
            f"{search.shown} has more than {MAX_ITEMS:,} images{search.conditions}.",
            remedy="Give a smaller --area, a shorter --datetime, or the number of images to take "
            "with --max-items.",
        )
    return found


def _search(search: ImagerySearch, reader: _JsonReader) -> FoundImagery:
    document = reader.read(search.address)
    kind = document.get("type")
    if kind in ("Feature", "FeatureCollection"):
        pages = reader.pages(search.address, document)
        items = (item for page in pages for item in features_of(page))
        return _gathered("STAC items", items, search, {})
    if "conformsTo" in document or link_of(document, "search"):
        return _api(search, search.address, document, reader)
    root = link_of(document, "root")
    if kind == "Collection" and is_url(search.address) and root:
        top = urljoin(search.address, root)
        found = reader.read(top) if top != search.address else document
        if "conformsTo" in found or link_of(found, "search"):
            collections = search.collections or (str(document.get("id")),)
            return _api(replace(search, collections=collections), top, found, reader)
    if kind in ("Catalog", "Collection"):
        held: dict[str, Json] = {}
        crawled = _crawled(search, document, reader, held)
        imagery = _gathered("static STAC catalog", crawled, search, held)
        if not imagery.items:
            _check_collections(search, sorted(held))
        return imagery
    keys = ", ".join(list(document)[:8]) or "nothing"
    raise DataError(
        f"{search.shown} is a JSON document with {keys}; expected a STAC API, catalog, collection "
        "or items.",
        remedy="Give the URL of the API's first page, which often ends with /stac or /v1.",
    )


def _api(search: ImagerySearch, address: str, landing: Json, reader: _JsonReader) -> FoundImagery:
    from pystac_client import Client

    client = Client.from_dict(landing, href=address)
    client._stac_io = reader.web
    if not client.has_conforms_to():
        client.add_conforms_to("ITEM_SEARCH")
    if not client.conforms_to("ITEM_SEARCH"):
        raise DataError(
            f"{without_query(address)} is a STAC API without item search.",
            remedy="Give the URL of a static catalog or collection of the same data, or "
            "save its items as a .json file and give that.",
        )
    link = link_of(landing, "data")
    listing = (
        urljoin(address, link) if link else f"{address.partition('?')[0].rstrip('/')}/collections"
    )
    collections = _asked_collections(search, listing, reader)
    methods = {
        str(one.get("method", "GET")).upper()
        for one in links_of(landing)
        if one.get("rel") == "search"
    }
    query = client.search(
        method="POST" if "POST" in methods or not methods else "GET",
        collections=list(search.collections) or None,
        bbox=None if search.area is None else list(shapely.bounds(search.area).tolist()),
        datetime=search.datetime,
        limit=min(_PAGE_ITEMS, search.max_items or _PAGE_ITEMS),
    )
    items = _paged(query.pages_as_dicts())
    # The server has compared the dates.
    found = _gathered("STAC API", items, replace(search, datetime=None), collections)
    # The licence and the providers of an item are often those of its collection.
    for name in {str(item["collection"]) for item in found.items if "collection" in item}:
        if name not in collections:
            collections[name] = reader.tried(_collection_url(listing, name)) or {}
    return found


def _asked_collections(search: ImagerySearch, listing: str, reader: _JsonReader) -> dict[str, Json]:
    """Return the named collections of an API, as far as it has a page for each."""
    known = {}
    for name in search.collections:
        document = reader.tried(_collection_url(listing, name))
        if document is not None:
            known[name] = document
    if known.keys() >= {*search.collections} and search.collections:
        return known
    ids = []
    try:
        for page in reader.pages(listing, reader.read(listing)):
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
            f"{search.shown} has {len(ids)} collections, and none was chosen: {_listed(ids)}.",
            remedy="Choose one with --collection.",
        )
    return known


def _check_collections(search: ImagerySearch, ids: Sequence[str]) -> None:
    for name in search.collections:
        if name not in ids:
            raise ConfigError(
                f"{search.shown} has no collection {name!r}; it has {_listed(ids)}.",
                remedy="Give one of them with --collection.",
            )


def _listed(names: Sequence[str]) -> str:
    return list_and_count(names, 20) or "none"


def _collection_url(listing: str, name: str) -> str:
    return f"{listing.partition('?')[0].rstrip('/')}/{quote(name, safe='')}"


def _paged(pages: Iterable[Json]) -> Iterator[Json]:
    """Yield the items of pages; a server that repeats a page ends the search."""
    seen: set[tuple[str, str]] = set()
    for page in pages:
        features = features_of(page)
        keys = {item_key(item) for item in features}
        if keys <= seen:
            return
        seen |= keys
        yield from features


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
    ordered = [kept[key] for key in sorted(kept)]
    ordered.sort(key=_newest_first)
    return FoundImagery(kind, tuple(ordered), collections, is_cut)


def _newest_first(item: Json) -> float:
    known = [one for one in item_times(item) if one is not None]
    return -max(one.timestamp() for one in known) if known else math.inf


def _crawled(
    search: ImagerySearch, document: Json, reader: _JsonReader, collections: dict[str, Json]
) -> Iterator[Json]:
    """Yield the items below a catalog, depth first in the order of its links.

    Collections whose extents miss the search are not read further.
    """
    seen = {search.address}
    waiting: list[tuple[str, Json | None, str | None]] = [(search.address, document, None)]
    with ThreadPoolExecutor(_PARALLEL_REQUESTS, "stac") as pool:
        while waiting:
            address, page, collection = waiting.pop()
            page = reader.read(address) if page is None else page
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
            if len(seen) > _MAX_DOCUMENTS:
                raise DataError(
                    f"{search.shown} links to more than {_MAX_DOCUMENTS:,} documents.",
                    remedy="Give the URL of one of its collections.",
                )
            deeper: list[tuple[str, Json | None, str | None]] = [
                (to, None, collection) for rel, to in fresh if rel != "item"
            ]
            waiting += reversed(deeper)
            if collection is None or collection in search.collections or not search.collections:
                own = [to for rel, to in fresh if rel == "item"]
                for start in range(0, len(own), _PAGE_ITEMS):
                    part = own[start : start + _PAGE_ITEMS]
                    read = [
                        _with_self(item, to) for to, item in zip(part, pool.map(reader.read, part))
                    ]
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
