"""What a GeoJSON states outside of the attributes of its features, without parsing these."""

import io
import json
import mmap
import re
import shlex
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from rooftrace.core.errors import GeoreferenceError
from rooftrace.core.text import list_first
from rooftrace.io.files import opened

GEOJSON = (".geojson", ".json")
_WHOLE = (".geojson", ".json", ".esrijson", ".topojson", ".geojson.gz", ".json.gz")
"""Suffixes of files that are one JSON object, unless each of their lines is one."""

RECORD = b"\x1e"
"""Byte that begins each line of a GeoJSON text sequence (RFC 8142)."""

_CRS = re.compile(rb'(?i)"crs"\s*:(?!\s*null)\s*')
_PROPERTIES = re.compile(rb'"(properties|attributes)"\s*:\s*\{')
"""Begin of the attributes of a feature of GeoJSON or Esri JSON."""

_BRACES = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}]')
_NAMED = {"name", "epsg", "ogc"}
_LONGEST_CRS = 1 << 13
"""Maximum number of bytes of a CRS."""

_LONLAT = re.compile(r'\b4326\b|(CRS|WGS).{0,3}84"', re.I)

_FEATURE_BYTES = 1 << 20
"""Number of bytes at the beginning of a file in which its first feature is looked for."""


def is_lines(path: Path, head: bytes) -> bool:
    """Return whether a file has a GeoJSON object on each line."""
    if not head.startswith((b"{", RECORD)):
        return False
    first, _, rest = head.partition(b"\n")
    return not path.name.lower().endswith(_WHOLE) or (
        first.rstrip().endswith(b"}") and rest.lstrip().startswith((b"{", RECORD))
    )


def stated_crs(path: Path) -> str | None:
    """Return the CRS that a GeoJSON, its features or its lines state, as GDAL knows it.

    An attribute called `crs` does not count. GDAL (3.12.4) fetches a link, takes what it does not
    know for WGS 84, and leaves out that of a feature or of a line.

    Raises:
        GeoreferenceError: GDAL does not know the CRS, it is a link, or there are several.
    """
    found = set()
    with opened(path) as file:
        is_plain = isinstance(file, io.BufferedReader)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if is_plain else file.read()
        # Esri JSON, which states its CRS otherwise, has attributes.
        key = b'"properties"' if data.find(b'"properties"') >= 0 else b'"attributes"'
        for place in _CRS.finditer(data):
            if not _is_attribute(data, place.start(), key):
                text = data[place.end() : place.end() + _LONGEST_CRS].decode("utf-8", "replace")
                found.add(json.dumps(json.JSONDecoder().raw_decode(text)[0]))
    known = _known_crs(min(found)) if len(found) == 1 else None
    if found and known is None:
        raise GeoreferenceError(
            f"{path.name} has {'several' if len(found) > 1 else 'an unknown'} crs: "
            f"{list_first(sorted(found), 3)}.",
            remedy="Name one, such as EPSG:…, in the GeoJSON, or assign it: "
            f"ogr2ogr -a_srs EPSG:… OUT.gpkg {shlex.quote(str(path))}",
        )
    return known


def _is_attribute(data: bytes | mmap.mmap, place: int, key: bytes) -> bool:
    """Return whether a place in a GeoJSON or Esri JSON is inside of the attributes of a feature."""
    begin = _PROPERTIES.match(data, max(data.rfind(key, 0, place), 0))
    tokens = _BRACES.findall(data, begin.end(), place) if begin else [b"}"]
    return all(accumulate(((one == b"{") - (one == b"}") for one in tokens), initial=1))


def _known_crs(text: str) -> str | None:
    """Return GDAL's text of the `crs` of a GeoJSON; None for one that it does not know."""
    crs = json.loads(text)
    members = crs.items() if isinstance(crs, dict) else ()
    if {str(kind).lower() for key, kind in members if key.lower() == "type"} - _NAMED:
        return None
    whole = f'{{"type": "FeatureCollection", "crs": {text}, "features": []}}'
    # `rooftrace predict` imports it while the network is compiled.
    import pyogrio

    stated = str(pyogrio.read_info(whole.encode())["crs"])
    return stated if stated != "EPSG:4326" or _LONLAT.search(text) else None


def has_ids(path: Path) -> bool:
    """Return whether the first feature of a GeoJSON has an id."""
    with path.open("rb") as file:
        first = file.read(_FEATURE_BYTES).partition(b'"features"')[2].decode("utf-8", "replace")
    with suppress(ValueError):
        return "id" in json.JSONDecoder().raw_decode(first, first.index("{"))[0]
    return False
