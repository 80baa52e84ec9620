"""Messages in the words of the face that shows them: REST API or page.

Messages are written for the command line, where an option is called `--gsd`. The API calls it
`gsd`, and the page has the field “Metres per pixel”.
"""

from __future__ import annotations

import re

__all__ = ["API_PARAMETERS", "in_api_terms", "in_page_terms"]

API_PARAMETERS = frozenset({
    "bands", "cell", "gsd", "min-area", "min-hole", "scale", "stretch", "threshold",
})  # fmt: skip
"""Options of the command line that are parameters of the API, too."""

_PAGE_FIELDS = {
    "bands": "the field “Bands”",
    "gsd": "the field “Metres per pixel”",
    "threshold": "the slider “Threshold”",
}
"""Options of the command line that are fields of the page."""

_OPTION = re.compile(r"(?P<command>rooftrace [a-z]+ [^.;]*)?(?<![\w-])--(?P<name>[a-z][a-z-]*)")


def in_api_terms(text: str) -> str:
    """Replace options of the command line by parameters of the API: `--gsd 0.3` by `gsd=0.3`."""
    return re.sub(
        rf"--({'|'.join(sorted(API_PARAMETERS))})\b( (?=\d))?",
        lambda found: found[1].replace("-", "_") + ("=" if found[2] else ""),
        text,
    )


def in_page_terms(text: str) -> str:
    """Replace options of the command line by fields of the page.

    Where the page has no such field, the text names the command: `rooftrace predict --scale 2`.
    """

    def field(found: re.Match[str]) -> str:
        if found["command"]:
            return found[0]
        return _PAGE_FIELDS.get(found["name"], f"rooftrace predict {found[0]}")

    return _OPTION.sub(field, text)
