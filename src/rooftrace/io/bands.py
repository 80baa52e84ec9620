"""Bands that a model reads, or that show an image in its colours, found among those of an image."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rooftrace.core.errors import BandMismatch, ConfigError
from rooftrace.core.text import list_first, plural
from rooftrace.core.types import Raster, RasterSource, Window
from rooftrace.io.georeferenced import WrappedSource
from rooftrace.io.image_header import BandInfo

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

_SENTINEL_2 = {1: "coastal", 2: "blue", 3: "green", 4: "red", 8: "nir"}
_CODE = re.compile(r"b0*(\d+)")
"""Description with the number of a band of Sentinel-2, such as `B4` or `B04`."""

_LANDSAT_FILE = re.compile(r"(?<![a-z0-9])l[cote](0[4-9]_|[4-9]\d{13})")
"""Names of products whose bands have other colours than those of Sentinel-2 with the same codes."""

_COUNTED = re.compile(r"(?:b|band|layer|channel)?[ _-]?0*(\d+)")
"""Description that may be only the position of a band in the file."""

_PLACEHOLDER = re.compile(r"band\d+")
"""Name of a model's band that the training images did not name."""

_MAX_NAME = 40
"""Maximum number of characters of a description that becomes the name of a model's band."""

_WORLDVIEW_CODES = {
    "band_c": "coastal", "band_b": "blue", "band_g": "green", "band_y": "yellow", "band_r": "red",
    "band_re": "rededge", "band_n": "nir", "band_n1": "nir", "band_p": "pan",
}  # fmt: skip

_PLANET_FILE = re.compile(r"analyticms|_ssc\d+.*_(analytic|pansharpened)", re.IGNORECASE)
_ONE_COLOUR = re.compile(r"(?<![a-z])(red|green|blue)\.\w+$", re.IGNORECASE)
"""Ending of the name of a file with one colour of an image."""

_PLANET_BANDS = {
    4: ("blue", "green", "red", "nir"),
    5: ("blue", "green", "red", "rededge", "nir"),
    8: ("coastal", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
}
"""Bands of Planet's analytic products, whose older files do not name them."""

_RGB = ("red", "green", "blue")
_PLAIN_RGB = [(colour, "") for colour in _RGB]

HEIGHT_BAND = "height"
"""Name of the band of heights above ground, see `io.elevation.WithHeights`."""

GREY_LOSS = "is used as red, green and blue: the default model then loses 2 to 7 points of IoU."
"""End of the notes on images of one band; measured at four places, see docs/default-model.md."""


def parse_bands(text: str | None) -> tuple[str | int, ...] | None:
    """Return the numbers (from 1) and names of bands in a text such as `3,2,1`; None for None."""
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


def band_name(text: str) -> str:
    """Return the name by which models know a band, such as `red` for `R` and `B04`."""
    lowered = text.strip().lower()
    return _KNOWN.get(lowered, lowered)


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

    Raises:
        ConfigError: The chosen bands do not exist, or are too few or too many.
        BandMismatch: The bands of the model cannot be found.
    """
    count, is_rgb = len(infos), tuple(wanted) == _RGB
    if given is None and is_rgb and [(i.colour, i.description) for i in infos] == _PLAIN_RGB:
        # Most images, of which there may be thousands.
        return BandMap((0, 1, 2), tuple(info.number for info in infos))
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
            is_doubtful = is_rgb and _is_unclear(infos, name)
            return chosen(found, _doubt(infos, found, wanted, name) if is_doubtful else "")
        note = f"{name}: {_listed(infos, found, wanted)}, as the file says."
        fourth = infos[3] if count == 4 and is_rgb and 3 not in found else None
        is_nameless = fourth is not None and (fourth.colour, fourth.description) == (
            "undefined",
            "",
        )
        return chosen(found, note, 3 if is_nameless else None)
    if count == len(wanted):
        found = _by_position(wanted, named)
        is_usual = is_rgb or all(map(_PLACEHOLDER.fullmatch, wanted))
        return chosen(found, "" if is_usual and not named else _doubt(infos, found, wanted, name))
    if count == 1 and is_rgb:
        note = f"{name} has one band, which {GREY_LOSS}"
        if _ONE_COLOUR.search(name):
            note += " If red, green and blue are files of their own, join them: gdalbuildvrt "
            note += "-separate OUT.vrt RED.tif GREEN.tif BLUE.tif"
        return chosen([0] * len(wanted), note)
    if count == 4 and is_rgb and not {*_RGB} & {*named}:
        is_unclear = _is_unclear(infos, name)
        unknown = "whose descriptions are not understood" if is_unclear else "without names"
        note = (
            f"{name} has 4 bands {unknown}: {_listed(infos, range(3), wanted)}. If blue comes "
            "first, as in images of Planet and Sentinel, give --bands 3,2,1."
        )
        return chosen(range(3), note, None if 3 in named.values() else 3)
    shown = list_first([_shown(info) for info in infos], 20)
    if count >= len(wanted):
        example = ",".join(str(number) for number in range(1, len(wanted) + 1))
        remedy = f"Give their numbers in this order with --bands, such as --bands {example}"
    else:
        remedy = f"To read one band as all {len(wanted)}, give its number: --bands 1"
    if HEIGHT_BAND in wanted and HEIGHT_BAND not in named:
        remedy = "Give a surface and a terrain model: rooftrace predict --surface … --terrain …"
    raise BandMismatch(
        f"{name} has {plural(count, 'band')} ({shown}); the model expects {len(wanted)}: "
        f"{', '.join(wanted)}, and the file does not say which these are.",
        remedy=f"{remedy}, or use a model for your bands.",
    )


def names_infrared(source: RasterSource) -> bool:
    """Return whether an image says which of its bands is near infrared."""
    return "nir" in _named(band_infos(source), source.name)


def name_bands(infos: Sequence[BandInfo], name: str) -> tuple[str, ...]:
    """Return the names under which a model that is trained on an image records its bands.

    A band has the name of its colour, otherwise its own description, otherwise its position:
    `band1`, `band2` and so on. Three bands of which nothing is known are red, green and blue.
    """
    named = _named(infos, name)
    if len(infos) == len(_RGB) and not named:
        return _RGB
    names = [f"band{position}" for position in range(1, len(infos) + 1)]
    # The name of a colour comes before the description of the same band, except a default colour.
    order = named.items() if _is_unclear(infos, name) else reversed(named.items())
    for band, index in order:
        names[index] = band
    return tuple(names)


def band_infos(source: RasterSource) -> tuple[BandInfo, ...]:
    """Return the descriptions of an image's bands; only their numbers if it has none."""
    infos: tuple[BandInfo, ...] = getattr(source, "band_info", ())
    return infos or tuple(BandInfo(index + 1) for index in range(source.bands))


class _SelectedBands(WrappedSource):
    """A `RasterSource` that shows the bands of another source with some indexes, from 0."""

    def __init__(self, source: RasterSource, indexes: Sequence[int]) -> None:
        super().__init__(source)
        self._indexes = list(indexes)

    @property
    def bands(self) -> int:
        return len(self._indexes)

    @property
    def band_info(self) -> tuple[BandInfo, ...]:
        infos = band_infos(self.source)
        return tuple(infos[index] for index in self._indexes)

    def read(self, window: Window | None = None) -> Raster:
        raster = self.source.read(window)
        return replace(raster, data=raster.data[self._indexes])


def in_colours(source: RasterSource, given: str | None = None) -> RasterSource:
    """Return an image whose first three bands are red, green and blue, for people to look at.

    An image whose colours are not known is returned as it is, and so is one with a single band.

    Args:
        source: Image; one that is prepared for a model is returned as it is.
        given: Bands that the user chose, see `parse_bands`; others than three have no effect.
    """
    infos = band_infos(source)
    if getattr(source, "is_prepared", False) or len(infos) != source.bands:
        return source
    for chosen in (given, None):
        try:
            indexes = find_bands(infos, _RGB, chosen, source.name).indexes
        except (ConfigError, BandMismatch):
            continue
        is_usual = indexes == tuple(range(len(_RGB))) or source.bands == 1
        return source if is_usual else _SelectedBands(source, indexes)
    return source


def _by_position(wanted: Sequence[str], named: dict[str, int]) -> list[int]:
    """Return the indexes of as many bands as the model has.

    Bands that the training images did not name are the remaining ones in their order. If a band
    that has a name is not found, all are taken in their order.
    """
    found = [named.get(band) for band in wanted]
    missing = [band for band, index in zip(wanted, found) if index is None]
    if not all(map(_PLACEHOLDER.fullmatch, missing)):
        return list(range(len(wanted)))
    rest = (index for index in range(len(wanted)) if index not in found)
    return [next(rest) if index is None else index for index in found]


def _doubt(infos: Sequence[BandInfo], found: list[int], wanted: Sequence[str], name: str) -> str:
    """Return a note on bands whose choice does not follow from the file."""
    shown = ", ".join(_shown(infos[index]) for index in found)
    example = ",".join(str(infos[index].number) for index in reversed(found))
    note = f"{name}: bands {shown} are read as {', '.join(wanted)}, which the file does not say. "
    if tuple(wanted) == _RGB and "nir" in _named(infos, name):
        return note + "The model is wrong on near infrared: take an image of natural colours."
    return note + f"Give another order with --bands, such as --bands {example}."


def _named(infos: Sequence[BandInfo], name: str) -> dict[str, int]:
    """Return the index of each band by the name that models use, or by its own description."""
    descriptions = [info.description.strip().lower() for info in infos]
    named = _by_description(descriptions, name)
    # Folders say nothing about the sensor.
    file = re.split(r"[/\\]", name)[-1]
    colours: dict[str, int] = {}
    for index, info in enumerate(infos):
        colours.setdefault(info.colour, index)
    if colours.keys() >= {*_RGB}:
        # Formats give colours to unnamed bands by default; a description is a deliberate choice.
        described = {*named.values()}
        for colour, index in colours.items():
            if colour in _RGB and index not in described:
                named.setdefault(colour, index)
    elif _PLANET_FILE.search(file) and not named.keys() >= {*_RGB}:
        planet = _PLANET_BANDS.get(len(infos))
        named = named if planet is None else {band: index for index, band in enumerate(planet)}
    if _are_counted(descriptions):
        return named
    for index, text in enumerate(descriptions):
        is_name = text.isprintable() and 0 < len(text) <= _MAX_NAME
        if is_name and not _PLACEHOLDER.fullmatch(text):
            named.setdefault(text, index)
    return named


def _by_description(descriptions: Sequence[str], name: str) -> dict[str, int]:
    """Return the index of each band whose description is known, by the name that models use."""
    # `B3` is a code of Sentinel-2, unless it only counts, or the file is of Landsat.
    file = re.split(r"[/\\]", name.lower())[-1]
    is_other = _are_counted(descriptions) or _LANDSAT_FILE.search(file)
    bands = {} if is_other else _SENTINEL_2
    matches = {text: _CODE.fullmatch(text) for text in descriptions}
    codes = {text: bands.get(int(match[1]), "") for text, match in matches.items() if match}
    found: dict[str, int] = {}
    for index, text in enumerate(descriptions):
        known = codes.get(text) or _KNOWN.get(text) or _WORLDVIEW_CODES.get(text)
        if known is not None:
            found.setdefault(known, index)
    for index, text in enumerate(descriptions):
        # Such as "B4 (red)", "Red: 665 nm" or "sur_refl_red".
        words = {_KNOWN.get(word) for word in re.split(r"[^a-z]+", text) if len(word) > 2}
        words.discard(None)
        if len(words) == 1:
            found.setdefault(str(words.pop()), index)
    return found


def _are_counted(descriptions: Sequence[str]) -> bool:
    """Return True if descriptions only count the bands of the file.

    `B1` to `B12` are the bands of a sensor; as few as four may only be counted.
    """
    matches = [_COUNTED.fullmatch(text) for text in descriptions]
    is_counted = [match is not None and int(match[1]) == n for n, match in enumerate(matches, 1)]
    is_coded = len(descriptions) > 4 and descriptions[0] == "b1"
    return all(is_counted) and not is_coded


def _is_unclear(infos: Sequence[BandInfo], name: str) -> bool:
    """Return True if all bands have descriptions of which none is understood."""
    descriptions = [info.description.strip().lower() for info in infos]
    is_described = all(descriptions) and not _are_counted(descriptions)
    return is_described and not _by_description(descriptions, name)


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
        f"{list_first([_shown(info) for info in infos], 20)}.",
        remedy="Choose among these bands by their numbers.",
    )


def _listed(infos: Sequence[BandInfo], found: Sequence[int], wanted: Sequence[str]) -> str:
    """Return a text such as `bands 3, 2, 1 are read as red, green, blue`."""
    numbers = ", ".join(str(infos[index].number) for index in found)
    return f"bands {numbers} are read as {', '.join(wanted)}"


def _shown(info: BandInfo) -> str:
    label = info.description or ("" if info.colour == "undefined" else info.colour)
    return f"{info.number} {label}" if label else str(info.number)
