"""Images of OpenAerialMap, as STAC items: https://docs.openaerialmap.org/api/api/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import shapely

from rooftrace.core.errors import DataError
from rooftrace.io.json_documents import JsonReader
from rooftrace.io.remote import without_query
from rooftrace.io.stac_item import Json, malformed_ignored, object_in

__all__ = ["is_openaerialmap", "openaerialmap_items"]

_COLLECTION = "openaerialmap"
_PAGE_ITEMS = 100


def is_openaerialmap(address: str) -> bool:
    """Return True for the server of OpenAerialMap, and for another one whose path is `/meta`."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    is_web = parts.scheme.lower() in ("http", "https")
    return is_web and (host == "api.openaerialmap.org" or parts.path.rstrip("/").endswith("/meta"))


def openaerialmap_items(
    address: str, area: shapely.Geometry | None, reader: JsonReader
) -> Iterator[Json]:
    """Yield the images whose bounds meet those of an area in degrees, newest first.

    Args:
        address: Address of the server, with or without `/meta`.
        area: Polygon or multipolygon; None for all images.
        reader: Reader of the pages.

    Raises:
        DataError: The server does not answer as OpenAerialMap does.
    """
    base = address.partition("?")[0].rstrip("/")
    base = base if base.endswith("/meta") else f"{base}/meta"
    asked: Json = {"limit": _PAGE_ITEMS, "order_by": "acquisition_end", "sort": "desc"}
    if area is not None:
        asked["bbox"] = ",".join(f"{edge:.9g}" for edge in shapely.bounds(area).tolist())
    seen: set[str] = set()
    page = 1
    while True:
        answer = reader.read(base, {**asked, "page": page})
        results = answer.get("results")
        if not isinstance(results, list):
            raise DataError(
                f"{without_query(base)} has no list 'results', which OpenAerialMap sends.",
                remedy="Check the address: https://api.openaerialmap.org/meta",
            )
        images = [one for one in results if isinstance(one, dict) and one.get("uuid")]
        fresh = [one for one in images if str(one["uuid"]) not in seen]
        if not fresh:
            return
        seen |= {str(one["uuid"]) for one in fresh}
        yield from (_openaerialmap_item(one, base) for one in fresh)
        meta = object_in(answer, "meta")
        # The server may send smaller pages than were asked for.
        total, size = meta.get("found"), meta.get("limit", _PAGE_ITEMS)
        if isinstance(total, int) and isinstance(size, int) and page * size >= total:
            return
        page += 1


def _openaerialmap_item(image: Json, base: str) -> Json:
    """Return the STAC item of an image of OpenAerialMap."""
    own = object_in(image, "properties")
    start, end = image.get("acquisition_start"), image.get("acquisition_end")
    provider = image.get("provider")
    properties: Json = {
        "datetime": None, "start_datetime": start or end, "end_datetime": end or start,
        "title": image.get("title"), "gsd": image.get("gsd"), "platform": image.get("platform"),
        "license": own.get("license"),
        "providers": [{"name": provider, "roles": ["producer"]}] if provider else None,
    }  # fmt: skip
    geometry = image.get("geojson")
    if not isinstance(geometry, dict):
        with malformed_ignored():
            geometry = json.loads(shapely.to_geojson(shapely.from_wkt(str(image["footprint"]))))
    name = str(image.get("_id") or Path(urlsplit(str(image["uuid"])).path).stem)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "collection": _COLLECTION,
        "geometry": geometry,
        "bbox": image.get("bbox"),
        "properties": {key: one for key, one in properties.items() if one or key == "datetime"},
        "links": [{"rel": "self", "href": f"{base}/{quote(name, safe='')}"}],
        "assets": {"image": {"href": str(image["uuid"]), "type": "image/tiff", "roles": ["data"]}},
    }
