"""Names of files: how they are shown, and what they are called in results.

A name in a folder is bytes. Python marks those that are not UTF-8 with surrogates, which can be
neither printed nor written, and GDAL cannot open such a file: see `io.gdal.check_utf8`. Some other
names can be read, but not written: the readers and writers of polygons split paths at `!` and `;`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from rooftrace.core.errors import DataError
from rooftrace.core.text import escape_surrogates

_UNUSABLE = re.compile("[\x00-\x1f\x7f!;\\\\\ud800-\udfff]")
"""Control characters, characters that divide a path, and bytes that are not UTF-8."""

_NOT_ID = re.compile(r"[^A-Za-z0-9._-]+")

_NOT_QUOTABLE = re.compile(r'[^ -~]|["%\\]')
"""Characters that browsers read in different ways in the quoted name of a download: those that are
not printable ASCII, quotes, percent signs and backslashes (RFC 6266, appendix D)."""

_MAX_CHARS = 120
"""Maximum length of the id of a scene, and of the name of an upload."""

_MAX_BYTES = 215
"""Maximum length of a name of results; with the longest ending, also that of a file that is being
written, it has the 255 bytes of a file system."""

_DIGEST = 8


def result_name(name: str) -> str:
    """Return the name under which the results of an image can be written and read.

    Args:
        name: Name of the image, without folder and suffix.

    Returns:
        The same name, with `_` in place of each character that no file of polygons can have. Two
        names may become the same one: the caller has to check that. The end of a name that leaves
        no room for the endings of the results becomes a digest of the name.
    """
    fit = _UNUSABLE.sub("_", name)
    encoded = fit.encode()
    if len(encoded) <= _MAX_BYTES:
        return fit
    digest = hashlib.sha256(encoded).hexdigest()[:_DIGEST]
    return f"{encoded[: _MAX_BYTES - _DIGEST - 1].decode(errors='ignore')}-{digest}"


def scene_id(name: str) -> str:
    """Return the id of a scene in a layer: letters, digits, `.`, `_` and `-` of ASCII only."""
    return _NOT_ID.sub("_", name).strip("._")[:_MAX_CHARS] or "scene"


UNNAMED = "image"
"""Name of an uploaded image for which the client gave none."""


def upload_name(name: str) -> str:
    """Return a client's file name without folders and special characters, safe to show and use."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c if c.isalnum() or c in "-_. ()" else "_" for c in last).strip(" .")
    return kept[-_MAX_CHARS:] or UNNAMED


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
    fit = _NOT_QUOTABLE.sub("_", name)
    if fit == name:
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename=\"{plain or fit}\"; filename*=UTF-8''{quote(name, safe='')}"


def layer_name(name: str) -> str:
    """Return the name of a file's layer: a table must begin with a letter, a digit or `_`."""
    fit = _UNUSABLE.sub("_", name)
    return fit if fit[:1].isalnum() or fit[:1] in ("_", " ") else f"_{fit}"


def local_path(path: Path) -> Path:
    """Return a path that readers take as it is.

    They would take `http:a.tif` for an address, and ignore a space at the beginning.
    """
    first = "".join(path.parts[:1])
    return path.absolute() if ":" in first or first[:1].isspace() else path


def unusable_characters(path: Path) -> list[str]:
    """Return the characters of a path that no file of polygons can have, as they are shown."""
    text = path.absolute().as_posix()
    return sorted({_shown(one) for one in _UNUSABLE.findall(text)})


def _shown(character: str) -> str:
    shown = escape_surrogates(character)
    return shown if shown != character or character.isprintable() else repr(character)[1:-1]


def check_vector_name(path: Path) -> None:
    """Check that a file of polygons with this name can be opened.

    Raises:
        DataError: the path, or that of its folder, has a character that cannot be used.
    """
    unusable = unusable_characters(path)
    if unusable:
        raise DataError(
            f"{path} cannot be opened as vector data: its path has {' and '.join(unusable)}.",
            remedy="Rename the file or the folder.",
        )
