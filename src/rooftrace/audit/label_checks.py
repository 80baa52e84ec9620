"""Checks of the labels of a set: each returns a finding, or None if all is well."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.audit.components import SPECK_PX
from rooftrace.audit.facts import (
    Finding,
    FindingContext,
    LabelFacts,
    SceneFacts,
    make_finding,
    share,
)
from rooftrace.core.text import plural
from rooftrace.labels.hidden_background import (
    HIDDEN_DETAIL,
    HIDDEN_REMEDY,
    describe_hidden,
    hides_background,
)
from rooftrace.labels.source import SceneSet

_EMPTY_NOTE, _EMPTY_WARNING = 0.1, 0.5
"""Shares of labels without a building from which a note or a warning is given."""

_FULL = 0.95
"""Built-up share above which a label counts as full."""

_INVERTED = 0.7
"""Share of all pixels labelled as building above which classes may be swapped. The densest old
towns have 0.6."""

_CUT_NOTE, _CUT_WARNING = 0.5, 0.75
"""Shares of buildings cut by an image edge from which a note or a warning is given."""

_UNKNOWN = 0.05
"""Least share of valid pixels that the labels leave unknown."""

_SPECKS = 0.02
"""Least number of specks, as a share of the buildings."""

_HOLES = 0.2
"""Least number of small holes, as a share of the buildings."""

_BLOCK_M2 = 2000.0
"""Area in m² of which half the building area must be larger to suggest whole blocks. In towns the
figure is 100 to 300 m², in industrial estates 1,000 m²."""

_BLOCK_PX = 10_000
"""Area in pixels that replaces `_BLOCK_M2` if metres are unknown: 100 × 100 pixels are 900 m² at
0.3 m per pixel."""


def no_building(context: FindingContext) -> Finding | None:
    """Find out whether no label has a building."""
    if not context.labelled or context.class_px[context.source.building_class]:
        return None
    name = context.source.classes[context.source.building_class]
    return make_finding(
        "label.none",
        "error",
        f"No pixel of the class {name} in {plural(len(context.labelled), 'label')}",
        [f for f, _ in context.labelled],
        remedy="A model cannot learn buildings from this set. Check which value, colour or name "
        "stands for this class in the labels, and set values, palette or names under [labels].",
    )


def inverted(context: FindingContext) -> Finding | None:
    """Find labels in which background and building may be swapped."""
    total = sum(context.class_px)
    built = context.class_px[context.source.building_class] if total else 0
    if len(context.source.classes) != 2 or built < _INVERTED * total or not built:
        return None
    unknown = float(np.mean([label.unknown_share for _, label in context.labelled]))
    if hides_background(built, total, unknown):
        return make_finding(
            "label.inverted",
            "warning",
            describe_hidden(unknown),
            [f for f, _ in context.labelled],
            detail=HIDDEN_DETAIL,
            remedy=HIDDEN_REMEDY,
            by=lambda f: f.label.unknown_share if isinstance(f.label, LabelFacts) else 0.0,
        )
    return make_finding(
        "label.inverted",
        "warning",
        f"{share(built, total)} of all pixels are labelled as building",
        [f for f, _ in context.labelled],
        detail="Even dense old towns have a built-up share of 60 % at most. Background and "
        "building may be swapped.",
        remedy="Look at some labels. If black and white are swapped, set under [labels]: values = "
        "{ background = 255, building = 0 }.",
        by=context.built_up,
    )


def unused_classes(context: FindingContext) -> Finding | None:
    """Find classes that no label contains."""
    if not sum(context.class_px):
        return None
    building = context.source.building_class
    names = [
        name
        for index, (name, px) in enumerate(zip(context.source.classes, context.class_px))
        if px == 0 and index != building
    ]
    if not names:
        return None
    return make_finding(
        "label.unused",
        "warning",
        f"No label contains a pixel of {', '.join(names)}",
        detail="A class that never occurs cannot be learnt, and its score of 0 lowers the mean of "
        "the scores.",
        remedy="Remove it from classes, or check which value or colour stands for it in the "
        "labels.",
    )


_BLOCK_REMEDY = (
    "Look at the largest ones. If they are blocks, use the set for density and not for footprints."
)


def whole_blocks(context: FindingContext) -> Finding | None:
    """Find labelled buildings that are so large that they may be whole blocks."""
    if not context.buildings:
        return None
    scenes = [f for f, _ in context.labelled]
    areas_px = np.concatenate([label.buildings_px for _, label in context.labelled]).astype(float)
    gsd_m = np.concatenate(
        [np.full(len(label.buildings_px), f.gsd_m or np.nan) for f, label in context.labelled]
    )
    known = np.isfinite(gsd_m)
    if known.all():
        half = _half_of_area(areas_px * gsd_m**2)
        if half < _BLOCK_M2:
            return None
        return make_finding(
            "label.blocks",
            "warning",
            f"Half of the building area lies in labelled buildings of {half:,.0f} m² or more",
            scenes,
            detail="Houses have 50 to 300 m². These buildings are either halls or whole blocks "
            "labelled as one building. From blocks a model learns to fill courtyards and gardens, "
            "and its polygons are not building footprints.",
            remedy=_BLOCK_REMEDY,
            by=_largest,
        )
    half = _half_of_area(areas_px)
    if known.any() or half < _BLOCK_PX:
        return None
    in_m2 = ", ".join(f"{half * gsd**2:,.0f} m² at {gsd:g} m" for gsd in (0.1, 0.3, 1.0))
    return make_finding(
        "label.blocks",
        "warning",
        f"Half of the building area lies in labelled buildings of {half:,.0f} px or more",
        scenes,
        detail=f"That is {in_m2} per pixel. A house has 50 to 300 m². The metres per pixel are "
        "unknown, so these may be halls, houses at a fine resolution, or whole blocks labelled as "
        "one building.",
        remedy=f"Set gsd_m. {_BLOCK_REMEDY}",
        by=_largest,
    )


def empty(context: FindingContext) -> Finding | None:
    """Find labels without a building."""
    scenes = [
        f for f, label in context.labelled if not label.class_px[context.source.building_class]
    ]
    part = len(scenes) / max(len(context.labelled), 1)
    if part < _EMPTY_NOTE or part == 1:
        return None
    return make_finding(
        "label.empty",
        "warning" if part >= _EMPTY_WARNING else "note",
        f"No building in {plural(len(scenes), 'label')} of {len(context.labelled):,} "
        f"({share(part, 1)})",
        scenes,
        detail="Some empty labels help: they teach what is not a building. With many of them a "
        "model tends to predict nothing. If their images show buildings, labels are missing.",
        remedy="Look at some of them. To leave most of them out of the training, set min_built_up "
        "= 0.01.",
        by=lambda f: f.contrast,
    )


def full(context: FindingContext) -> Finding | None:
    """Find labels that are building almost everywhere."""
    scenes = [f for f, _ in context.labelled if context.built_up(f) > _FULL]
    if not scenes or len(context.labelled) == 1:
        return None
    return make_finding(
        "label.full",
        "warning" if len(scenes) >= 0.01 * len(context.labelled) else "note",
        f"Almost only building in {plural(len(scenes), 'label')} of {len(context.labelled):,}",
        scenes,
        detail=f"Buildings cover more than {_FULL:.0%} of the pixels, which is rarely true on the "
        "ground.",
        remedy=f"Look at them. To leave them out of the training, set max_built_up = {_FULL}.",
        by=context.built_up,
    )


def cut(context: FindingContext) -> Finding | None:
    """Find out whether many buildings are cut by the edge of their image."""
    count = sum(label.cut for _, label in context.labelled)
    if count < _CUT_NOTE * context.buildings or not count:
        return None
    sides = [min(f.shape_yx) * f.gsd_m for f, _ in context.labelled if f.gsd_m is not None]
    wide = f" The images are {np.median(sides):.0f} m wide." if sides else ""
    return make_finding(
        "label.cut",
        "warning" if count >= _CUT_WARNING * context.buildings else "note",
        f"{share(count, context.buildings)} of the buildings are cut by the edge of their image",
        [f for f, label in context.labelled if label.cut],
        detail="The network rarely sees a whole building, and the counts and sizes of buildings "
        f"are unreliable.{wide}",
        remedy="Use larger images: join tiles into scenes, or use a coarser zoom.",
    )


def vanished(context: FindingContext) -> Finding | None:
    """Find shapes that are smaller than a pixel."""
    count = sum(label.vanished for _, label in context.labelled)
    if not count:
        return None
    return make_finding(
        "label.vanished",
        "note",
        f"{plural(count, 'building is', 'buildings are')} too small or too thin to cover a pixel",
        [f for f, label in context.labelled if label.vanished],
        detail="They are missing from the loss, the scores and the counts.",
        remedy="If they are slivers, nothing needs to be done. If they are houses, the images are "
        "too coarse for these labels.",
        by=lambda f: f.label.vanished if f.label else 0,
    )


def unknown(context: FindingContext) -> Finding | None:
    """Find valid pixels that the labels leave unknown."""
    if not context.labelled:
        return None
    part = float(np.mean([label.unknown_share for _, label in context.labelled]))
    if part < _UNKNOWN:
        return None
    return make_finding(
        "label.unknown",
        "note",
        f"{share(part, 1)} of the valid pixels have no label",
        [f for f, label in context.labelled if label.unknown_share >= _UNKNOWN],
        detail="They are marked as ignored and are left out of the loss and the scores.",
        by=lambda f: f.label.unknown_share if f.label else 0,
    )


def specks(context: FindingContext) -> Finding | None:
    """Find labelled regions that are too small to be buildings."""
    count = sum(label.specks for _, label in context.labelled)
    if count < _SPECKS * context.buildings or not count:
        return None
    return make_finding(
        "label.specks",
        "note",
        f"{plural(count, 'building')} of {context.buildings:,} with less than {SPECK_PX} px",
        [f for f, label in context.labelled if label.specks],
        detail="They come from slips of the hand, from a conversion, or from JPEG compression of "
        "the masks. Those at the edge of an image are not counted here.",
        remedy="Remove them from the masks. rooftrace removes such small regions from its own "
        "predictions.",
        by=lambda f: f.label.specks if f.label else 0,
    )


def holes(context: FindingContext) -> Finding | None:
    """Find small gaps between buildings that touch, and pinholes."""
    count = sum(label.holes for _, label in context.labelled)
    if count < _HOLES * context.buildings or not count:
        return None
    return make_finding(
        "label.holes",
        "note",
        f"{plural(count, 'hole')} of less than {SPECK_PX} px in "
        f"{plural(context.buildings, 'building')}",
        [f for f, label in context.labelled if label.holes],
        detail="Most are gaps of a pixel between neighbours that touch elsewhere. Neighbours that "
        "touch count as one building, so there are more and smaller buildings than this audit "
        "says.",
        by=lambda f: f.label.holes if f.label else 0,
    )


def _half_of_area(areas: NDArray[np.float64]) -> float:
    """Return the area for which buildings of this size or more have half of the total area."""
    ordered = np.sort(areas)
    return float(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])


def _largest(facts: SceneFacts) -> float:
    areas = () if facts.label is None else facts.label.buildings_px
    return float(max(areas, default=0)) * (facts.gsd_m or 1.0) ** 2


_MOST_BYTES = 2**20
"""Size above which a JSON file is not read as a class file."""

_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")
_NAMES = ("title", "name", "label", "class", "class_name")
_COLOURS = ("color", "colour", "rgb", "hex")


@dataclass(frozen=True, slots=True)
class ClassFile:
    """The classes and colours that a JSON file names.

    Args:
        path: Path of the file.
        colours: Name of each class and its colour, `#RRGGBB` in capitals.
    """

    path: Path
    colours: tuple[tuple[str, str], ...]


def class_files(source: SceneSet) -> list[ClassFile]:
    """Return the JSON files that name colours for two or more classes.

    They are searched beside the images and up to two folders above. Two forms are understood, as
    annotation tools write them: a list of objects with a name (`title`, `name`, `label`) and a
    colour (`color`: `#RRGGBB` or three numbers), and an object that maps names to such colours.
    Other files are ignored.
    """
    folders = {entry.image.parent for entry in (*source.entries, *source.unlabelled) if entry.image}
    if not folders:
        return []
    top = Path(os.path.commonpath(folders))
    # GROUP/images/NAME lies two folders below if there is only one group.
    places = [top, *top.parents[:2]] if top in folders else [top]
    found = []
    for path in sorted(path for place in places for path in place.glob("*.json")):
        try:
            if path.stat().st_size > _MOST_BYTES:
                continue
            colours = dict(_colours_in(json.loads(path.read_bytes())))
        except (OSError, ValueError):
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


_SHOWN = 10
"""Number of values or colours that a finding lists."""

_SIZE = "but its image"
_VALUES = "not of a class"
"""Words in the errors of `labels.mask_values` that identify the cause; a test compares both."""


def coloured(context: FindingContext) -> Finding | None:
    """Find coloured masks whose colours are not, or not all, assigned to classes."""
    scenes = [f for f in context.read if _kind(f) == "colours"]
    if not scenes:
        return None
    held, listed = _unreadable_values(scenes)
    top = held.most_common(_SHOWN)
    files = class_files(context.source)
    return make_finding(
        "label.colours",
        "error",
        f"Colours without a class in {plural(len(scenes), 'mask')} of {len(context.facts):,}",
        scenes,
        detail=f"The masks contain these colours: {listed}. "
        + " ".join(_compare(f, held) for f in files),
        remedy="Open a mask beside its image to see which colour stands for which class, and write "
        f"under [labels]: {_palette_lines(top, files)}.",
    )


def strange_values(context: FindingContext) -> Finding | None:
    """Find masks with values that are not classes."""
    scenes = [f for f in context.read if _kind(f) == "values"]
    if not scenes:
        return None
    held, listed = _unreadable_values(scenes)
    # Compression and interpolation leave a little of every value.
    blurred = len(held) > 2 * _SHOWN
    return make_finding(
        "label.values",
        "error",
        f"Values that are not classes in {plural(len(scenes), 'mask')} of {len(context.facts):,}",
        scenes,
        detail=f"The masks contain these values: {listed}"
        f"{', and more' if len(held) > _SHOWN else ''}. "
        + (
            "This many values come from JPEG compression or from resizing with interpolation. "
            if blurred
            else ""
        )
        + scenes[0].label_error,
        remedy="Export the masks again without JPEG and with nearest-neighbour resizing."
        if blurred
        else "Assign the values to classes under [labels], such as values = { building = [1, 2] }, "
        "or ignore them, such as ignore = [9].",
    )


def _unreadable_values(scenes: Sequence[SceneFacts]) -> tuple[Counter[str], str]:
    """Return the pixels of each value or colour in unreadable masks, and the commonest as text."""
    held: Counter[str] = Counter()
    for f in scenes:
        held.update(dict(f.label_values))
    total = held.total()
    text = ", ".join(f"{value} {share(px, total)}" for value, px in held.most_common(_SHOWN))
    return held, text


def other_size(context: FindingContext) -> Finding | None:
    """Find masks whose size differs from that of their image."""
    scenes = [f for f in context.read if _kind(f) == "size"]
    if not scenes:
        return None
    return make_finding(
        "label.size",
        "error",
        f"Size differs from the image in {plural(len(scenes), 'mask')} of {len(context.facts):,}",
        scenes,
        detail=scenes[0].label_error,
        remedy="Export the masks again at the size of their images. rooftrace does not stretch "
        "masks, because labels would then lie at the wrong place.",
    )


def unreadable(context: FindingContext) -> Finding | None:
    """Find labels that cannot be read for any other reason."""
    scenes = [f for f in context.read if _kind(f) == "other"]
    if not scenes:
        return None
    return make_finding(
        "label.unreadable",
        "error",
        f"{plural(len(scenes), 'label')} of {len(context.facts):,} cannot be read",
        scenes,
        detail=scenes[0].label_error,
        remedy="Training would stop at the first of them. Correct them, or remove them.",
    )


def _kind(facts: SceneFacts) -> str:
    """Return why a label cannot be read: `colours`, `values`, `size`, `other`; "" if it can."""
    if not facts.label_error:
        return ""
    if _SIZE in facts.label_error:
        return "size"
    if any(value.startswith("#") for value, _ in facts.label_values):
        return "colours"
    return "values" if _VALUES in facts.label_error else "other"


def _compare(file: ClassFile, held: Counter[str]) -> str:
    """Return a sentence on how a class file fits the colours in the masks."""
    fitting = [f"{name} {colour}" for name, colour in file.colours if colour in held]
    missing = [f"{name} {colour}" for name, colour in file.colours if colour not in held]
    if not missing:
        return f"{file.path.name} names all of them: {', '.join(fitting)}."
    return (
        f"{file.path.name} does not fit: of its {len(file.colours)} colours the masks contain "
        f"{len(fitting)} ({', '.join(fitting) or 'none'}), but not {', '.join(missing)}."
    )


def _palette_lines(top: list[tuple[str, int]], files: list[ClassFile]) -> str:
    """Return the TOML for `[labels]`, with class names from a class file if it has them."""
    names = {colour: name for file in files for name, colour in file.colours}
    keys = (
        json.dumps(names[colour]) if colour in names else f"NAME_{number}"
        for number, (colour, _) in enumerate(top, start=1)
    )
    entries = [f'{key} = "{colour}"' for key, (colour, _) in zip(keys, top)]
    return f"palette = {{ {', '.join(entries)} }}, and use the same names in classes"
