"""Lines for the user: counts, sizes and names in words, and the words of each interface.

Messages are written for the command line, where an option is called `--gsd`. The API calls it
`gsd`, Python `gsd_m`, and the page has the field “Metres per pixel”. `in_terms` is the one place
where a face's words are put in: the API and `str(error)` call it; the page replaces the API's own.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


ASSIGN_CRS = "gdal_edit.py -a_srs EPSG:… IMAGE"
"""Command that gives an image another coordinate system, for remedies."""

EIGHT_DIGITS = (
    "Eastings of 8 digits that begin with the UTM zone are EPSG:4647 (zone 32) or EPSG:5650 (zone "
    "33)."
)
CHECK_CRS = f"Check its CRS, and assign the right one: {ASSIGN_CRS}. {EIGHT_DIGITS}"
"""Remedy for a position that does not fit the coordinate system of an image."""

PLACE_IMAGE = "gdal_translate -a_srs EPSG:… -a_ullr LEFT TOP RIGHT BOTTOM IMAGE OUT.tif"
"""Command that gives an image a coordinate system and a position, for remedies."""


def utc_now() -> str:
    """Return the time in UTC, as records hold it: `2026-01-02T03:04:05+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def list_first(names: Sequence[object], most: int = 5) -> str:
    """Return the first names as text, with an ellipsis if there are more: `a, b, …`."""
    return ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")


def list_and_count(names: Sequence[object], most: int = 5) -> str:
    """Return the first names as text, with the number of the others: `a, b and 3 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def distinct(names: Sequence[str]) -> list[str]:
    """Return names, with their places from 1 where several are equal: `a (1)`, `b`, `a (3)`."""
    return [f"{n} ({at})" if names.count(n) > 1 else n for at, n in enumerate(names, start=1)]


def reason_of(error: BaseException, *, most: int | None = None) -> str:
    """Return an error's reason as the end of a sentence, on one line and without a full stop.

    The number and the path that Python adds to an error of the system are left out. An error
    without a text gives the name of its type.

    Args:
        error: Any error.
        most: Number of characters above which the middle of the reason is left out. Give it where
            a library may fill a screen.
    """
    text = " ".join(_text(error).split()).rstrip(".") or type(error).__name__
    if most is None or len(text) <= most:
        return text
    return f"{text[: most // 2]} … {text[-most // 2 :]}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error at most 200 characters, without a stop or colon.

    An error without a text gives the name of its type.
    """
    lines = _text(error).splitlines() or [type(error).__name__]
    whole = lines[0].rstrip(" .:")
    return whole if len(whole) <= 200 else re.sub(r" \S*$", "", whole[:200]).rstrip(" .:") + " …"


def _text(error: BaseException) -> str:
    """Return the text of an error without what Python adds to an error of the system."""
    if isinstance(error, UnicodeDecodeError):
        return f"its byte {error.start} is not {error.encoding.upper()}"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno} is not JSON"
    if type(error) is KeyError:
        return f"{error} is missing"
    text = getattr(error, "strerror", None) or getattr(error, "in_full", None) or str(error)
    # Lines of OpenVINO about its own source code.
    text = re.sub(r"^(Exception from|Check ').*\n", "", text, flags=re.MULTILINE)
    # Calls of SQLite, and types of GEOS.
    text = re.sub(r"^\w+Exception: |sqlite3_\w+\(.*\) failed: ", "", text)
    return re.sub(r"^\[Errno -?\d+\] ", "", text).strip()


def json_kind(value: object) -> str:
    """Return the kind of a value in a JSON document: `a list`, `null`."""
    kinds = {
        bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list",
        dict: "an object",
    }  # fmt: skip
    return kinds.get(type(value), "null")


def without_folders(text: str, paths: Iterable[Path | str]) -> str:
    """Return a message without the folders of some paths and URLs, up to their last slash.

    Clients of a server, and readers of a report, need not know where files lie.
    """
    folders = {f"{path}"[: f"{path}".rfind(os.sep) + 1] for path in paths} - {os.sep}
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(folder, "")
    return text


def merge_notes(notes: Iterable[str], names: Collection[str]) -> list[str]:
    """Return notes in which those that only differ in the image and in numbers are one.

    Args:
        notes: Notes. Those about an image begin with its name.
        names: Names of the images.
    """
    groups: dict[str, list[str]] = {}
    for note in notes:
        ends = (match.start() for match in re.finditer(r"[: ]", note))
        name = next((note[:end] for end in ends if note[:end] in names), None)
        key = note if name is None else " " + re.sub(r"\d+(?:[.,]\d+)*", "0", note[len(name) :])
        groups.setdefault(key, []).append(note)
    merged = []
    for first, *others in groups.values():
        same = [one for one in others if one != first]
        count = f" ({plural(len(same), 'more image')} with such a note)" if same else ""
        merged.append(first + count)
    return merged


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: `1 image`, `2,000 images`.

    Args:
        count: Count to write.
        one: Singular of the noun.
        many: Plural of the noun; default: the singular with an s.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def plain_number(value: float, digits: int = 3) -> str:
    """Return a number with at most `digits` significant digits, without an exponent.

    `120.4` becomes `120`, and `0.0000345` stays `0.0000345`.
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{round(value, decimals):.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def size_text(shape_yx: tuple[int, int]) -> str:
    """Return a size in pixels as text: `512 rows × 256 columns`."""
    return f"{shape_yx[0]} rows × {shape_yx[1]} columns"


def set_option(key: str, value: object) -> str:
    """Return the option that gives a value of a data card, as a shell reads it: `--set order=row`.

    Args:
        key: Path of the key, such as `labels.values.building`.
        value: A word, or a number or list.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"--set {shlex.quote(f'{key}={text}')}"


def print_plain(console: Console | None, text: str) -> None:
    """Print a line without interpreting brackets in paths; without a console print nothing."""
    if console is not None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


Terms = Mapping[str, tuple[str, str]]
"""Words of another face for an option of the command line without and with a value, `{}`, by the
name of the option without dashes."""

API_PARAMETERS = ("bands", "cell", "gsd", "min-area", "min-hole", "scale", "stretch", "threshold")
"""Options of the command line that are parameters of the API, too."""

_OF_THE_SERVER: Terms = {
    option: (f"rooftrace serve --{option}", f"rooftrace serve --{option} {{}}")
    for option in ("engine", "nodata", "precision")
}
"""Options that the owner of a server gives, for all requests."""

_API: Terms = {
    **_OF_THE_SERVER,
    "min-score": ("a minimum score", "a minimum score of {}"),
    "value": ("the parameter value", "value={}"),
    "zones": ("zones", "zones {}"),
    **{
        option: (f"the parameter {name}", f"{name}={{}}")
        for option in API_PARAMETERS
        for name in [option.replace("-", "_")]
    },
}

_PYTHON: Terms = {
    "gsd": ("gsd_m", "gsd_m={}"),
    "threshold": ("threshold", "threshold={}"),
    "min-area": ("min_area_m2", "min_area_m2={}"),
    **{
        option: (f"SceneOptions.{field}", f"SceneOptions({field}={{}})")
        for option, field in {
            "scale": "scale", "cell": "cell_m", "min-hole": "min_hole_m2", "outline": "outline",
        }.items()
    },
    **{
        option: (f"SceneOptions.{option}", f'SceneOptions({option}="{{}}")')
        for option in ("bands", "stretch")
    },
    "nodata": ("nodata of open_raster", "nodata of open_raster {}"),
}  # fmt: skip
"""Names of Python; other options have the names of parameters, see `in_python_terms`."""

# A value has a digit or a comma, or is one of these words; another word continues the sentence.
_VALUE = r"(?:\d[\w.,+-]*(?<![.,])|\w+(?:,\w+)+|[A-Za-z]+\d\w*|per-band|auto|none|red|height)\b"

_OPTION = re.compile(
    r"(?P<command>rooftrace [a-z]+ (?:[^.;]|\.(?! |$))*)?"
    rf"(?<![\w-])--(?P<name>[a-z][a-z-]*)(?: (?P<value>\"[^\"]*\"|{_VALUE}))?"
)


def in_terms(text: str, terms: Terms) -> str:
    """Replace the options of the command line in a message by the words of another face."""

    def replaced(option: re.Match[str]) -> str:
        if option["name"] not in terms or option["command"]:
            return option[0]
        alone, valued = terms[option["name"]]
        if option["value"]:
            return valued.format(option["value"])
        before = text[: option.start()]
        is_first = (not before or before.endswith(". ")) and alone.startswith("the ")
        return alone[0].upper() + alone[1:] if is_first else alone

    return _OPTION.sub(replaced, text)


def in_api_terms(text: str) -> str:
    """Replace options by parameters of the API: `--gsd 0.3` becomes `gsd=0.3`."""
    return in_terms(text, _API)


_NODATA = re.compile(r"--nodata (none|-?\d[\d.,e+-]*(?<![.,]))")


def _nodata_in_python(option: re.Match[str]) -> str:
    """Return what gives a value or colour of nodata in Python."""
    value = option[1]
    if value == "none":
        in_file = "open_raster(path, nodata=NodataRule(declared=False))"
        return f"ArraySource(array, keeps_fill=True) or {in_file}"
    rule = f"colour=({value})" if "," in value else f"value={value}"
    return f"a masked array or open_raster(path, nodata=NodataRule({rule}))"


def in_python_terms(text: str) -> str:
    """Replace options by what Python calls them: `--gsd 0.3` becomes `gsd_m=0.3`.

    Commands that a text names, such as `rooftrace split DATA --by block`, stay.
    """
    if "--" not in text:
        return text
    text = _NODATA.sub(_nodata_in_python, text)
    names = {option["name"]: option["name"].replace("-", "_") for option in _OPTION.finditer(text)}
    others = {option: (name, f"{name}={{}}") for option, name in names.items()}
    return in_terms(text, others | dict(_PYTHON))
