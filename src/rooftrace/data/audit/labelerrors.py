"""Findings about labels that cannot be read, and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from rooftrace.data.audit.classcolours import ClassFile, class_files
from rooftrace.data.audit.facts import Finding, SceneFacts
from rooftrace.data.audit.told import Told, plural, share, tell

__all__ = ["coloured", "other_size", "strange_values", "unreadable"]

_SHOWN = 10

# The words of `data.labels`; a test holds them to it.
_SIZE = "but its image"
_VALUES = "that are not classes"


def coloured(told: Told) -> Finding | None:
    """Masks whose colours nothing, or not all, is said of; with the lines that would say it."""
    scenes = [f for f in told.read if _kind(f) == "colours"]
    if not scenes:
        return None
    held, listed = _held(scenes)
    top = held.most_common(_SHOWN)
    files = class_files(told.source)
    return tell(
        "label.colours",
        "error",
        f"{plural(len(scenes), 'mask')} of {len(told.facts):,} hold colours, and it is not said "
        "which colour is which class",
        scenes,
        detail=f"Their colours: {listed}. " + " ".join(_compared(f, held) for f in files),
        remedy=f"Open a mask beside its image, and say it under [labels]: {_lines(top, files)}.",
    )


def strange_values(told: Told) -> Finding | None:
    """Masks with values that are no classes."""
    scenes = [f for f in told.read if _kind(f) == "values"]
    if not scenes:
        return None
    held, listed = _held(scenes)
    # Compression and interpolation leave a little of everything.
    blurred = len(held) > 2 * _SHOWN
    return tell(
        "label.values",
        "error",
        f"{plural(len(scenes), 'mask')} of {len(told.facts):,} hold values that are no classes",
        scenes,
        detail=f"Their values: {listed}{', and more' if len(held) > _SHOWN else ''}. "
        + ("So many values come of JPEG, or of resizing with interpolation. " if blurred else "")
        + scenes[0].label_error,
        remedy="Make them again without JPEG and with nearest-neighbour resizing."
        if blurred
        else "Say what they mean under [labels]: values = { building = [1, 2] }, or ignore = [9].",
    )


def _held(scenes: Sequence[SceneFacts]) -> tuple[Counter[str], str]:
    """Pixels of each value or colour in masks that could not be read; the commonest, for people."""
    held: Counter[str] = Counter()
    for f in scenes:
        held.update(dict(f.label_values))
    total = held.total()
    told = ", ".join(f"{value} {share(px, total)}" for value, px in held.most_common(_SHOWN))
    return held, told


def other_size(told: Told) -> Finding | None:
    """Masks that are not of the size of their image."""
    scenes = [f for f in told.read if _kind(f) == "size"]
    if not scenes:
        return None
    return tell(
        "label.size",
        "error",
        f"{plural(len(scenes), 'mask')} of {len(told.facts):,} differ in size from their image",
        scenes,
        detail=scenes[0].label_error,
        remedy="Export them again at the size of the image: to stretch them is to guess.",
    )


def unreadable(told: Told) -> Finding | None:
    """Labels that cannot be read for any other reason."""
    scenes = [f for f in told.read if _kind(f) == "other"]
    if not scenes:
        return None
    return tell(
        "label.unreadable",
        "error",
        f"{plural(len(scenes), 'label')} of {len(told.facts):,} cannot be read",
        scenes,
        detail=scenes[0].label_error,
        remedy="Correct them, or take them out; training stops at the first.",
    )


def _kind(facts: SceneFacts) -> str:
    """Why a label cannot be read: `colours`, `values`, `size` or `other`; "" where it can."""
    if not facts.label_error:
        return ""
    if _SIZE in facts.label_error:
        return "size"
    if any(value.startswith("#") for value, _ in facts.label_values):
        return "colours"
    return "values" if _VALUES in facts.label_error else "other"


def _compared(file: ClassFile, held: Counter[str]) -> str:
    """A sentence on how a class file fits what the masks hold."""
    fitting = [f"{name} {colour}" for name, colour in file.colours if colour in held]
    missing = [f"{name} {colour}" for name, colour in file.colours if colour not in held]
    if not missing:
        return f"{file.path.name} names them: {', '.join(fitting)}."
    return (
        f"{file.path.name} does not fit: of its {len(file.colours)} colours the masks hold "
        f"{len(fitting)} ({', '.join(fitting) or 'none'}), and not {', '.join(missing)}."
    )


def _lines(top: list[tuple[str, int]], files: list[ClassFile]) -> str:
    """The TOML for `[labels]`, with the names that a class file has for the colours."""
    names = {colour: name for file in files for name, colour in file.colours}
    keys = (
        json.dumps(names[colour]) if colour in names else f"NAME_{number}"
        for number, (colour, _) in enumerate(top, start=1)
    )
    entries = [f'{key} = "{colour}"' for key, (colour, _) in zip(keys, top)]
    return f"palette = {{ {', '.join(entries)} }}, with the same names in classes"
