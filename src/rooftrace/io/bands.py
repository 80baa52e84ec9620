"""Bands that a model reads, found among those of an image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rooftrace.core.errors import BandMismatch, ConfigError
from rooftrace.core.text import plural
from rooftrace.io.image_header import BandInfo

__all__ = ["BandMap", "find_bands", "parse_bands"]

_NAMES = {
    "red": ("red", "r", "b04"),
    "green": ("green", "g", "b03"),
    "blue": ("blue", "b", "b02"),
    "nir": ("nir", "nir1", "n", "near infrared", "near-infrared", "infrared", "b08"),
    "rededge": ("rededge", "red edge", "red-edge", "re"),
    "coastal": ("coastal", "coastal blue", "coastal_blue", "coastal aerosol", "b01"),
    "yellow": ("yellow", "y"),
    "pan": ("pan", "panchromatic", "gray", "grey"),
}
"""Names of bands by the name that models use."""

_KNOWN = {name: known for known, names in _NAMES.items() for name in names}

_SATELLITE_CODES = {"b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b8": "nir"}
"""Bands of Sentinel-2; those of Landsat 8 and 9 have the same colours."""

_WORLDVIEW_CODES = {
    "band_c": "coastal", "band_b": "blue", "band_g": "green", "band_y": "yellow", "band_r": "red",
    "band_re": "rededge", "band_n": "nir", "band_n1": "nir", "band_p": "pan",
}  # fmt: skip

_PLANET_FILE = re.compile(r"analyticms", re.IGNORECASE)
_PLANET_BANDS = {
    4: ("blue", "green", "red", "nir"),
    5: ("blue", "green", "red", "rededge", "nir"),
    8: ("coastal", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
}
"""Bands of Planet's analytic products, whose older files do not name them."""

_RGB = ("red", "green", "blue")


def parse_bands(text: str | None) -> tuple[str | int, ...] | None:
    """Return the numbers (from 1) and names of bands in a text such as `3,2,1`; None for None.

    Raises:
        ConfigError: A part is empty, or a number is below 1.
    """
    if text is None:
        return None
    parts = [part.strip().lower() for part in text.split(",")]
    bands = tuple(int(part) if part.lstrip("-").isdecimal() else part for part in parts)
    if not all(band >= 1 if isinstance(band, int) else band for band in bands):
        raise ConfigError(
            f"--bands received {text!r}; expected numbers from 1 or names, separated by commas.",
            remedy="For example: --bands 3,2,1, or --bands red,green,blue",
        )
    return bands


@dataclass(frozen=True)
class BandMap:
    """Bands of an image that a model reads.

    Args:
        indexes: Index of each of the model's bands among the colour bands of the source, from 0.
        numbers: Numbers of these bands in the file, from 1, for the record.
        note: Choice to report to the user; empty if there was none.
        maybe_alpha: Index of a band that is alpha if it has only two values; None if there is none.
    """

    indexes: tuple[int, ...]
    numbers: tuple[int, ...]
    note: str = ""
    maybe_alpha: int | None = None


def find_bands(
    infos: Sequence[BandInfo], wanted: Sequence[str], given: str | None, name: str
) -> BandMap:
    """Find the bands of a model among those of an image.

    They are found by the names that the user gave, by the descriptions or the colours in the file,
    and at last by their number.

    Args:
        infos: Colour bands of the image.
        wanted: Names of the model's bands.
        given: Bands that the user chose, see `parse_bands`.
        name: Name of the image in messages.

    Raises:
        ConfigError: The chosen bands do not exist, or are too few or too many.
        BandMismatch: The bands of the model cannot be found.
    """
    count, is_rgb = len(infos), tuple(wanted) == _RGB
    named = _named(infos, name)

    def chosen(indexes: Sequence[int], note: str = "", alpha: int | None = None) -> BandMap:
        numbers = tuple(infos[index].number for index in indexes)
        return BandMap(tuple(indexes), numbers, note, alpha)

    bands = parse_bands(given)
    if bands is not None:
        found = [_index_of(band, infos, named, name) for band in bands]
        if len(found) == 1:
            found *= len(wanted)
        if len(found) != len(wanted):
            raise ConfigError(
                f"--bands received {given!r}, {plural(len(found), 'band')}; the model reads "
                f"{len(wanted)}: {', '.join(wanted)}.",
                remedy=f"Name one band for each of them, or one for all: --bands {bands[0]}",
            )
        return chosen(found)
    if all(band in named for band in wanted):
        found = [named[band] for band in wanted]
        if found == list(range(count)):
            return chosen(found)
        return chosen(found, f"{name}: {_listed(infos, found, wanted)}, as the file says.")
    if count == len(wanted):
        note = (
            f"{name}: bands {', '.join(map(_shown, infos))} are read as {', '.join(wanted)}. The "
            "accuracy on such an image is not known."
        )
        return chosen(range(count), note if is_rgb and "nir" in named else "")
    if count == 1 and is_rgb:
        note = (
            f"{name} has one band, which is used as red, green and blue. The model was trained "
            "on colour images, and its accuracy on others is lower."
        )
        return chosen([0] * len(wanted), note)
    if count == 4 and is_rgb and not {*_RGB} & {*named}:
        note = (
            f"{name} has 4 bands without names: {_listed(infos, range(3), wanted)}. If blue comes "
            "first, as in images of Planet and Sentinel, give --bands 3,2,1."
        )
        return chosen(range(3), note, 3)
    shown = ", ".join(_shown(info) for info in infos)
    remedy = "Use a model for your bands."
    if count >= len(wanted):
        example = ",".join(str(number) for number in range(1, len(wanted) + 1))
        remedy = (
            f"Give their numbers in this order with --bands, such as --bands {example}, or use a "
            "model for your bands."
        )
    raise BandMismatch(
        f"{name} has {plural(count, 'band')} ({shown}); the model expects {len(wanted)}: "
        f"{', '.join(wanted)}, and the file does not say which these are.",
        remedy=remedy,
    )


def _named(infos: Sequence[BandInfo], name: str) -> dict[str, int]:
    """Return the index of each band whose colour is known, by the name that models use."""
    descriptions = [info.description.strip().lower() for info in infos]
    by_description = _by_description(descriptions) if any(descriptions) else {}
    if all(colour in by_description for colour in _RGB):
        # Formats give colours to unnamed bands by default; a description is a deliberate choice.
        return by_description
    by_colour: dict[str, int] = {}
    for index, info in enumerate(infos):
        if info.colour in ("red", "green", "blue"):
            by_colour.setdefault(info.colour, index)
    if all(colour in by_colour for colour in _RGB):
        return by_description | by_colour
    planet = _PLANET_BANDS.get(len(infos)) if _PLANET_FILE.search(name) else None
    if planet is not None:
        return {band: index for index, band in enumerate(planet)}
    return by_description


def _by_description(descriptions: Sequence[str]) -> dict[str, int]:
    """Return the index of each band whose description is known, by the name that models use."""
    counted = [f"b{number}" for number in range(1, len(descriptions) + 1)]
    # Bands that are only counted have no colours, except in products with many bands.
    is_counted = descriptions == counted and len(descriptions) <= 4
    codes = {} if is_counted else _SATELLITE_CODES
    found: dict[str, int] = {}
    for index, text in enumerate(descriptions):
        known = _KNOWN.get(text) or codes.get(text) or _WORLDVIEW_CODES.get(text)
        if known is not None:
            found.setdefault(known, index)
    for index, text in enumerate(descriptions):
        # Such as "B4 (red)", "Red: 665 nm" or "sur_refl_red".
        words = {_KNOWN.get(word) for word in re.split(r"[^a-z]+", text) if len(word) > 2}
        words.discard(None)
        if len(words) == 1:
            found.setdefault(str(words.pop()), index)
    return found


def _index_of(band: str | int, infos: Sequence[BandInfo], named: dict[str, int], name: str) -> int:
    if isinstance(band, int):
        known = {info.number: index for index, info in enumerate(infos)}
        if band in known:
            return known[band]
    else:
        exact = {info.description.strip().lower(): index for index, info in enumerate(infos)}
        index = exact.get(band, named.get(_KNOWN.get(band, band)))
        if index is not None:
            return index
    raise ConfigError(
        f"--bands names the band {band!r}, which {name} does not have; its bands are "
        f"{', '.join(_shown(info) for info in infos)}.",
        remedy="Choose among these bands by their numbers.",
    )


def _listed(infos: Sequence[BandInfo], found: Sequence[int], wanted: Sequence[str]) -> str:
    """Return a text such as `bands 3, 2, 1 are read as red, green, blue`."""
    numbers = ", ".join(str(infos[index].number) for index in found)
    return f"bands {numbers} are read as {', '.join(wanted)}"


def _shown(info: BandInfo) -> str:
    label = info.description or ("" if info.colour == "undefined" else info.colour)
    return f"{info.number} {label}" if label else str(info.number)
