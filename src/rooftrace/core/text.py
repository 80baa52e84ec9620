"""Lines for the user: counts and sizes in words, and the words of each interface.

Messages are written for the command line, where an option is called `--gsd`. The API calls it
`gsd`, and the page has the field “Metres per pixel”.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def list_first(names: Sequence[object], most: int) -> str:
    """Return the first names as text, with an ellipsis if there are more: `a, b, …`."""
    return ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")


def list_and_count(names: Sequence[object], most: int) -> str:
    """Return the first names as text, with the number of the others: `a, b and 3 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


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
    """Return the first line of an error, at most 200 characters and without a stop or colon.

    An error without a text gives the name of its type.
    """
    lines = _text(error).splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(" .:")


def _text(error: BaseException) -> str:
    """Return the text of an error without what Python adds to an error of the system."""
    if isinstance(error, UnicodeDecodeError):
        return f"its byte {error.start} is not {error.encoding.upper()}"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno} is no JSON"
    if type(error) is KeyError:
        return f"{error} is missing"
    text = getattr(error, "strerror", None) or str(error)
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
        more = f" ({plural(len(same), 'more image')} with such a note)" if same else ""
        merged.append(first + more)
    return merged


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: `1 image`, `2,000 images`.

    Args:
        count: Count to write.
        one: Singular of the noun.
        many: Plural of the noun; default: the singular with an s.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def minutes_text(minutes: float) -> str:
    """Return a time as text: `1 minute`, `2.5 minutes`."""
    return f"{minutes:g} minute" + ("" if minutes == 1 else "s")


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


def print_plain(console: Console | None, text: str) -> None:
    """Print a line without interpreting brackets in paths; without a console print nothing."""
    if console is not None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


API_PARAMETERS = frozenset({
    "bands", "cell", "gsd", "min-area", "min-hole", "scale", "stretch", "threshold",
})  # fmt: skip
"""Options of the command line that are parameters of the API, too."""

_PAGE_FIELDS = {
    "bands": ("in", "the field “Bands”"),
    "gsd": ("in", "the field “Metres per pixel”"),
    "stretch": ("in", "the field “Values”"),
    "threshold": ("on", "the slider “Threshold”"),
}
"""Options of the command line that are fields of the page, each with its preposition."""

# A value has a digit or a comma, or is one of these words; another word continues the sentence.
_VALUE = r"(?:\d[\w.,+-]*(?<![.,])|\w+(?:,\w+)+|[A-Za-z]+\d\w*|per-band|auto|none|red)\b"

_OPTION = re.compile(
    r"(?P<command>rooftrace [a-z]+ [^.;]*)?(?P<with>\bwith )?"
    rf"(?<![\w-])--(?P<name>[a-z][a-z-]*)(?: (?P<value>\"[^\"]*\"|{_VALUE}))?"
)


def in_api_terms(text: str) -> str:
    """Replace options of the command line by parameters of the API.

    `--gsd 0.3` becomes `gsd=0.3`, and `--gsd` without a value “the parameter gsd”.
    """

    def parameter(found: re.Match[str]) -> str:
        if found["name"] not in API_PARAMETERS or found["command"]:
            return found[0]
        name, value = found["name"].replace("-", "_"), found["value"]
        named = f"{name}={value}" if value else _at(found, f"the parameter {name}")
        return (found["with"] or "") + named

    return _OPTION.sub(parameter, text)


def in_page_terms(text: str) -> str:
    """Replace options of the command line by fields of the page.

    `--bands 3,2,1` becomes “3,2,1 in the field “Bands””. Where the page has no such field, the text
    names the command: `rooftrace predict --scale 2`.
    """

    def field(found: re.Match[str]) -> str:
        name, value, joined = found["name"], found["value"], found["with"] or ""
        if found["command"]:
            return found[0]
        if name not in _PAGE_FIELDS:
            option = f"rooftrace predict --{name}"
            return f"{joined}{option} {value}" if value else f"{joined}{option}"
        where, title = _PAGE_FIELDS[name]
        if not value:
            return f"{where} {title}" if joined else _at(found, title)
        # The first value of a sentence names the field for those that follow.
        named = f"--{name}" in _sentence_before(found)
        return joined + (value if named else f"{value} {where} {title}")

    return _OPTION.sub(field, text)


def in_command_terms(text: str, terms: Mapping[str, tuple[str, str]]) -> str:
    """Replace options that a command does not have.

    Args:
        text: Remedy of an error.
        terms: Words for each such option without and with a value, `{}`, by its name without
            dashes.
    """

    def own(found: re.Match[str]) -> str:
        if found["name"] not in terms or found["command"]:
            return found[0]
        alone, valued = terms[found["name"]]
        value = found["value"]
        return (found["with"] or "") + (valued.format(value) if value else alone)

    return _OPTION.sub(own, text)


def _sentence_before(found: re.Match[str]) -> str:
    """Return the text of the sentence before an option."""
    return re.split(r"[.:;] ", found.string[: found.start()])[-1]


def _at(found: re.Match[str], words: str) -> str:
    """Return words with a capital letter if the option begins the text or a sentence."""
    before = found.string[: found.start()]
    is_first = not before or before.endswith(". ")
    return words[0].upper() + words[1:] if is_first else words
