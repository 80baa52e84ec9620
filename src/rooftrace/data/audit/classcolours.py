"""Class files: JSON beside the images that says which colour a class has."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rooftrace.data.source import SceneSet

__all__ = ["ClassFile", "class_files"]

_MOST_BYTES = 2**20
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")
_NAMES = ("title", "name", "label", "class", "class_name")
_COLOURS = ("color", "colour", "rgb", "hex")


@dataclass(frozen=True, slots=True)
class ClassFile:
    """What a file says of classes.

    Args:
        path: of the file.
        colours: name of each class and its colour, `#RRGGBB` in capitals.
    """

    path: Path
    colours: tuple[tuple[str, str], ...]


def class_files(source: SceneSet) -> list[ClassFile]:
    """JSON files with a colour for two classes or more, beside the images or up to two folders up.

    Any list of objects with a name (`title`, `name`, `label`) and a colour (`color`: `#RRGGBB` or
    three numbers) is understood, as annotation tools write them, and any object of such colours by
    name. What is no such file is passed over.
    """
    folders = {entry.image.parent for entry in (*source.entries, *source.unlabelled) if entry.image}
    if not folders:
        return []
    top = Path(os.path.commonpath(folders))
    # GROUP/images/NAME lies two folders below, if there is but one group.
    places = [top, *top.parents[:2]] if top in folders else [top]
    found = []
    for path in sorted(path for place in places for path in place.glob("*.json")):
        try:
            if path.stat().st_size > _MOST_BYTES:
                continue
            colours = dict(_colours_in(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, RecursionError):
            continue
        if len(colours) >= 2:
            found.append(ClassFile(path, tuple(colours.items())))
    return found


def _colours_in(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for item in value:
            yield from _colours_in(item)
    elif isinstance(value, dict):
        name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
        colour = next((_colour(value[key]) for key in _COLOURS if key in value), None)
        if name is not None and colour is not None:
            yield name, colour
            return
        for key, item in value.items():
            if (own := _colour(item)) is not None:
                yield str(key), own
            else:
                yield from _colours_in(item)


def _colour(value: Any) -> str | None:
    if isinstance(value, str) and _COLOUR.fullmatch(value):
        return value.upper()
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(part, int) and 0 <= part <= 255 for part in value)
    ):
        return "#{:02X}{:02X}{:02X}".format(*value)
    return None
