"""Origin of an image: its name and the date on which it was taken, where its file states one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import UNKNOWN_PROVENANCE, RasterSource, ResultProvenance
from rooftrace.io.georeferenced import innermost

__all__ = ["imagery_date", "parse_imagery_date", "provenance_of", "tags_of"]

_DATE_TAGS = ("ACQUISITIONDATETIME", "EXIF_DateTimeOriginal", "EXIF_DateTime", "TIFFTAG_DATETIME")
"""Tags with a date, the most specific first: a satellite's metadata, EXIF, TIFF."""

_WRITTEN = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)(?:[ T](\d\d:\d\d:\d\d)(?:\.\d+)?(Z?))?")


def provenance_of(source: RasterSource) -> ResultProvenance:
    """Return the attribute `provenance` of an image, or an unknown origin if it has none."""
    origin: ResultProvenance = getattr(innermost(source), "provenance", UNKNOWN_PROVENANCE)
    return origin


def imagery_date(tags: Mapping[str, str]) -> str | None:
    """Return the date in a file's tags in the form of ISO 8601; None if there is none.

    Args:
        tags: Values by GDAL's names of the tags.
    """
    for name in _DATE_TAGS:
        match = _WRITTEN.fullmatch(tags.get(name, "").strip().strip('"'))
        if match is None:
            continue
        year, month, day, clock, zone = match.groups()
        text = f"{year}-{month}-{day}" + (f"T{clock}{zone}" if clock else "")
        # Cameras and programs without a clock write zeros.
        if _is_date(text):
            return text
    return None


def parse_imagery_date(text: str) -> str:
    """Return a date, a date with a time, or an interval of two of them, as they were given.

    Args:
        text: Text in the form of ISO 8601, such as `2024-05-17` or `2024-05-01/2024-05-31`.

    Raises:
        ConfigError: The text has another form.
    """
    parts = text.split("/")
    if len(parts) > 2 or not all(map(_is_date, parts)):
        raise ConfigError(
            f"The imagery date is {text!r}; expected a date such as 2024-05-17, or two of them "
            "such as 2024-05-01/2024-05-31.",
            remedy="Write year, month and day with hyphens.",
        )
    return text


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return len(text) >= len("2024-05-17")


def tags_of(dataset: Any) -> dict[str, str]:
    """Return the tags of an open rasterio dataset, and those of a satellite's metadata files."""
    return {**dataset.tags(), **dataset.tags(ns="IMAGERY")}
