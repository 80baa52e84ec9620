"""Names of uploads and downloads, and ids of scenes."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import quote

_NOT_ID = re.compile(r"[^A-Za-z0-9._-]+")

_NOT_QUOTABLE = re.compile(r'[^ -~]|["%\\]')
"""Characters that browsers read in different ways in the quoted name of a download: those that are
not printable ASCII, quotes, percent signs and backslashes (RFC 6266, appendix D)."""

_MAX_CHARS = 120
"""Maximum length of the id of a scene, and of the name of an upload."""

UNNAMED = "image"
"""Name of an uploaded image for which the client gave none."""


def scene_id(name: str) -> str:
    """Return the id of a scene in a layer: letters, digits, `.`, `_` and `-` of ASCII only."""
    return _NOT_ID.sub("_", name).strip("._")[:_MAX_CHARS] or "scene"


def upload_name(name: str) -> str:
    """Return a client's file name without folders and special characters, safe to show and use."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    safe = "".join(c if c.isalnum() or c in "-_. ()" else "_" for c in last).strip(" .")
    return safe[-_MAX_CHARS:] or UNNAMED


def content_disposition(
    name: str, kind: Literal["attachment", "inline"] = "attachment", *, plain: str = ""
) -> str:
    """Return the value of the header Content-Disposition (RFC 6266) for a name in any script.

    Args:
        name: Name of the file.
        kind: `attachment` for a download, `inline` for a file that a browser shows.
        plain: Name for programs that read only ASCII, such as curl, where `name` has other
            characters; default `name` with `_` in place of each of them.
    """
    ascii_name = _NOT_QUOTABLE.sub("_", name)
    if ascii_name == name:
        return f'{kind}; filename="{name}"'
    encoded = quote(name, safe="")
    return f"{kind}; filename=\"{plain or ascii_name}\"; filename*=UTF-8''{encoded}"
