"""STAC items as plain JSON: ids, times, origins, footprints and links; any may be missing.

STAC specification 1.0 and 1.1: https://github.com/radiantearth/stac-spec
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
import shapely

from rooftrace.core.arrays import finite_array
from rooftrace.core.types import Bounds, ResultProvenance
from rooftrace.io.make_valid import made_valid
from rooftrace.io.reproject import degrees_box, split_at_180

Json = dict[str, Any]
Times = tuple[datetime | None, datetime | None]
"""First and last moment; None for an open end."""


def object_in(document: Mapping[str, Any], key: str) -> Json:
    """Return the object under a key; {} if there is none, or something else."""
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def list_in(document: Mapping[str, Any], key: str) -> list[Any]:
    """Return the list under a key; [] if there is none, or something else."""
    found = document.get(key)
    return found if isinstance(found, list) else []


@dataclass(frozen=True)
class Provenance:
    """Origin of a scene, as the STAC item of its image states it.

    Args:
        href: URL of the item; "" if it is not known.
        collection: Id of the item's collection; "" if it has none.
        datetime: Moment of the imagery (RFC 3339); None if it is a period or not known.
        start, end: First and last moment of a period.
        license: Licence of the imagery, of the item or else of its collection; "" if not known.
        providers: STAC providers of the imagery, of the item or else of its collection.
    """

    item: str
    href: str = ""
    collection: str = ""
    datetime: str | None = None
    start: str | None = None
    end: str | None = None
    license: str = ""
    providers: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what is known as plain data for the manifest."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        found = {key: value for key, value in known.items() if value}
        return found | {"providers": list(self.providers)} if self.providers else found

    def result(self) -> ResultProvenance:
        """Return the date, and the providers with the licence, as polygons carry them."""
        period = f"{self.start}/{self.end}" if self.start and self.end else None
        source = ", ".join(str(one["name"]) for one in self.providers)
        # A CC licence asks to be named with the author; STAC's other values name none.
        if source and self.license not in ("", "proprietary", "various", "other"):
            source += f" ({self.license})"
        return ResultProvenance(self.datetime or period, source or None)


def item_key(item: Mapping[str, Any]) -> tuple[str, str]:
    """Return collection and id of an item, which together are unique."""
    return str(item.get("collection") or ""), str(item.get("id"))


def item_times(item: Mapping[str, Any]) -> Times:
    """Return the first and last moment of an item's imagery; (None, None) if not known."""
    own = object_in(item, "properties")
    start, end = moment_of(own.get("start_datetime")), moment_of(own.get("end_datetime"))
    moment = moment_of(own.get("datetime"))
    return (start or moment or end), (end or moment or start)


def meets(item: Json, area: shapely.Geometry | None, times: Times) -> bool:
    """Return True if an item overlaps an area and a period, as far as it states its own."""
    known = item_times(item)
    if known != (None, None) and not overlap(known, times):
        return False
    if area is None:
        return True
    shape = _footprint(item)
    if shape is None:
        return True
    if shapely.get_dimensions(shape) < 2:
        return bool(shapely.intersects(shape, area))
    # Neighbours of the area that only touch it show nothing of it.
    return bool(shapely.area(shapely.intersection(shape, area)) > 0)


def _footprint(item: Json) -> shapely.Geometry | None:
    """Return the footprint of an item, divided at longitude 180; None if it states none."""
    bounds = bounds_of(item.get("bbox"))
    geometry = item.get("geometry")
    if isinstance(geometry, dict):
        with suppress(KeyError, ValueError, TypeError, shapely.errors.GEOSException):
            shape = shapely.from_geojson(json.dumps(geometry))
            if not shapely.is_empty(shape):
                # A footprint may also be wider than half the Earth: the bbox decides.
                if bounds is not None and bounds[2] > 180:
                    shape = split_at_180(np.array([shape], np.object_))[0]
                return shape if shapely.is_valid(shape) else made_valid(shape)
    return None if bounds is None else degrees_box(bounds)


def bounds_of(bbox: object) -> Bounds | None:
    """Return west, south, east and north of a GeoJSON bbox of 4 or 6 numbers; None for others.

    A bbox across longitude 180 has a west that is more than its east (RFC 7946, section 5.2); the
    east that is returned is then more than 180.
    """
    if not isinstance(bbox, list) or len(bbox) not in (4, 6):
        return None
    flat = bbox if len(bbox) == 4 else [bbox[0], bbox[1], bbox[3], bbox[4]]
    found = finite_array(flat)
    if found is None or found.shape != (4,):
        return None
    west, south, east, north = found.tolist()
    return west, south, east if west <= east else east + 360, north


def overlap(one: Times, other: Times) -> bool:
    """Return True if two periods have a common moment."""
    return not (
        (one[1] is not None and other[0] is not None and one[1] < other[0])
        or (other[1] is not None and one[0] is not None and other[1] < one[0])
    )


def moment_of(text: object) -> datetime | None:
    """Return the moment that a text of RFC 3339 describes; None for others."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def features_of(page: Json) -> list[Json]:
    """Return the items of an item collection, or the item itself."""
    if page.get("type") == "Feature":
        return [page]
    return [one for one in list_in(page, "features") if isinstance(one, dict)]


def links_of(document: Mapping[str, Any]) -> list[Json]:
    """Return the links of a document."""
    return [one for one in list_in(document, "links") if isinstance(one, dict)]


def link_of(document: Mapping[str, Any], rel: str) -> str:
    """Return the href of the first link with a relation; "" if there is none."""
    return next((str(one["href"]) for one in links_of(document)
                 if one.get("rel") == rel and isinstance(one.get("href"), str)), "")  # fmt: skip
