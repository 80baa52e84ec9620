"""What a GeoJSON states outside of the attributes of its features, without parsing these."""

import io
import json
import mmap
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rooftrace.core.errors import GeoreferenceError
from rooftrace.io.files import opened

GEOJSON = (".geojson", ".json")
_WHOLE = (".geojson", ".json", ".esrijson", ".topojson", ".geojson.gz", ".json.gz")
"""Suffixes of files that are one JSON object, unless each of their lines is one."""

RECORD = b"\x1e"
"""Byte that begins each line of a GeoJSON text sequence (RFC 8142)."""

_FEATURES = re.compile(rb'"features"\s*:\s*\[')
_LINKED_CRS = re.compile(rb'(?i)"crs"\s*:\s*\{[^}]*"(?:href|url)"\s*:\s*"([^"]*)')

_LONLAT = re.compile(r'\b4326\b|(CRS|WGS).{0,3}84"', re.I)

_FEATURE_BYTES = 1 << 20
"""Number of bytes at the beginning of a file in which its first feature is looked for."""


def first_line(path: Path, head: bytes) -> bytes | None:
    """Return the first line of a file with a GeoJSON object on each; None for other files."""
    first, _, rest = head.partition(b"\n")
    is_whole = path.name.lower().endswith(_WHOLE) and not (
        first.rstrip().endswith(b"}") and rest.lstrip().startswith((b"{", RECORD))
    )
    return first if head.startswith((b"{", RECORD)) and not is_whole else None


def stated_crs(path: Path) -> str | None:
    """Return the CRS that a GeoJSON states, or else its first feature, as GDAL knows it.

    GDAL (3.12.4) takes a CRS that it does not know for WGS 84, and leaves out that of a feature, as
    PostGIS writes it, or of a line. It fetches a link, wherever that is.

    Raises:
        GeoreferenceError: GDAL does not know the CRS, or it is a link.
    """
    with opened(path) as file:
        is_plain = isinstance(file, io.BufferedReader)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if is_plain else file.read()
        linked = _LINKED_CRS.search(data)
        stated = next((one["crs"] for one in _described(data) if one.get("crs")), None)
    if linked is None and stated is None:
        return None
    text = json.dumps(stated) if linked is None else linked[1].decode("utf-8", "replace")
    known = _known_crs(text) if linked is None else None
    if known is None:
        raise GeoreferenceError(
            f"{path.name} has an unknown crs: {text}.",
            remedy="Name one, such as EPSG:…, in the GeoJSON, or assign it: "
            f"ogr2ogr -a_srs EPSG:… OUT.gpkg {shlex.quote(str(path))}",
        )
    return known


def _described(data: bytes | mmap.mmap) -> Iterator[dict[str, Any]]:
    """Yield the members of a GeoJSON around its features, those of the first, and its geometry."""
    features = _FEATURES.search(data)
    if features is not None:
        yield _object(data[: features.end()] + b"]}", is_whole=True)
        # What follows is of the file itself if no other bracket around it ends there.
        last = data.rfind(b'"crs"', features.end())
        yield _object(b"{" + data[last:], is_whole=True) if last > 0 else {}
    begin = 0 if features is None else features.end()
    first = _object(data[begin : begin + _FEATURE_BYTES if begin else None])
    yield first
    yield first.get("geometry") or {}


def _object(data: bytes, *, is_whole: bool = False) -> dict[str, Any]:
    """Return the JSON object with which data begin; {} if there is none, or more follows."""
    text = data.decode("utf-8-sig", "replace").lstrip("\x1e \t\r\n")
    try:
        found, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and not (is_whole and text[end:].strip()) else {}


def _known_crs(text: str) -> str | None:
    """Return GDAL's text of the `crs` of a GeoJSON; None for one that it does not know."""
    whole = f'{{"type": "FeatureCollection", "crs": {text}, "features": []}}'
    # `rooftrace predict` imports it while the network is compiled.
    import pyogrio

    stated = str(pyogrio.read_info(whole.encode())["crs"])
    return stated if stated != "EPSG:4326" or _LONLAT.search(text) else None


def has_ids(path: Path) -> bool:
    """Return whether the first feature of a GeoJSON has an id."""
    with path.open("rb") as file:
        head = file.read(_FEATURE_BYTES)
    features = _FEATURES.search(head)
    return features is not None and "id" in _object(head[features.end() :])
