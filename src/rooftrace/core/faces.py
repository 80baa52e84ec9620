"""Messages in the words of the face that shows them: REST API or page.

Messages are written for the command line, where an option is called `--gsd`. The API calls it
`gsd`, and the page has the field “Metres per pixel”.
"""

from __future__ import annotations

import re

__all__ = ["API_PARAMETERS", "in_api_terms", "in_page_terms"]

API_PARAMETERS = frozenset({
    "bands", "cell", "gsd", "min-area", "min-hole", "portable", "scale", "stretch", "threshold",
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
    rf"(?<![\w-])--(?P<name>[a-z][a-z-]*)(?: (?P<value>{_VALUE}))?"
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


def _sentence_before(found: re.Match[str]) -> str:
    """Return the text of the sentence before an option."""
    return re.split(r"[.:;] ", found.string[: found.start()])[-1]


def _at(found: re.Match[str], words: str) -> str:
    """Return words with a capital letter if the option begins the text or a sentence."""
    before = found.string[: found.start()]
    is_first = not before or before.endswith(". ")
    return words[0].upper() + words[1:] if is_first else words
