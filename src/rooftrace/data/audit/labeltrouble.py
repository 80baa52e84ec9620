"""Findings about labels that can be read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rooftrace.data.audit.components import SPECK_PX
from rooftrace.data.audit.facts import Finding, SceneFacts
from rooftrace.data.audit.told import Told, plural, share, tell

__all__ = [
    "cut",
    "empty",
    "full",
    "holes",
    "inverted",
    "no_building",
    "specks",
    "unknown",
    "unused_classes",
    "vanished",
    "whole_blocks",
]

_EMPTY_NOTE, _EMPTY_WARNING = 0.1, 0.5
_FULL = 0.95
_INVERTED = 0.7
"""Of all pixels: the densest old towns have 0.6."""

_CUT_NOTE, _CUT_WARNING = 0.5, 0.75
_UNKNOWN = 0.05
_SPECKS = 0.02
_HOLES = 0.2
"""Of the number of buildings."""

_BLOCK_M2 = 2000.0
"""Half of the area in larger buildings: towns have 100 to 300 m², industrial estates 1,000."""

_BLOCK_PX = 10_000
"""The same where metres are not known: a square of 100 pixels, 900 m² at 0.3 m per pixel."""


def no_building(told: Told) -> Finding | None:
    """Labels that teach nothing."""
    if not told.labelled or told.class_px[told.source.building_class]:
        return None
    name = told.source.classes[told.source.building_class]
    return tell(
        "label.none",
        "error",
        f"None of {plural(len(told.labelled), 'label')} holds a pixel of the class {name}",
        [f for f, _ in told.labelled],
        remedy="Check what stands for it in the labels: values, palette or names under [labels].",
    )


def inverted(told: Told) -> Finding | None:
    """Background and building that are taken for one another."""
    total = sum(told.class_px)
    built = told.class_px[told.source.building_class] if total else 0
    if len(told.source.classes) != 2 or built < _INVERTED * total or not built:
        return None
    return tell(
        "label.inverted",
        "warning",
        f"{share(built, total)} of all pixels are labelled as building",
        [f for f, _ in told.labelled],
        detail="Even old towns are built up to 60 % at most.",
        remedy="Look at some labels; if black and white are swapped: values = { background = 255, "
        "building = 0 } under [labels].",
        by=told.built_up,
    )


def unused_classes(told: Told) -> Finding | None:
    """Classes that no label has."""
    if not sum(told.class_px):
        return None
    building = told.source.building_class
    names = [
        name
        for index, (name, px) in enumerate(zip(told.source.classes, told.class_px))
        if px == 0 and index != building
    ]
    if not names:
        return None
    return tell(
        "label.unused",
        "warning",
        f"No label holds a pixel of {', '.join(names)}",
        detail="A class that is never shown cannot be learnt, and counts as 0 in the mean of "
        "the scores.",
        remedy="Remove it from classes, or check what stands for it in the labels.",
    )


def whole_blocks(told: Told) -> Finding | None:
    """Pieces that are too large for one building."""
    if not told.buildings:
        return None
    scenes = [f for f, _ in told.labelled]
    areas_px = np.concatenate([label.buildings_px for _, label in told.labelled]).astype(float)
    gsd_m = np.concatenate(
        [np.full(len(label.buildings_px), f.gsd_m or np.nan) for f, label in told.labelled]
    )
    known = np.isfinite(gsd_m)
    if known.all():
        half = _half_of_area(areas_px * gsd_m**2)
        if half < _BLOCK_M2:
            return None
        return tell(
            "label.blocks",
            "warning",
            f"Half of the building area lies in pieces of {half:,.0f} m² or more",
            scenes,
            detail="Houses have 50 to 300 m². These are halls, or whole blocks that are labelled "
            "as one; a model learns to fill courts and gardens, and footprints of it are none.",
            remedy="Look at the largest. If they are blocks, use the set for density, and not for "
            "footprints.",
            by=_largest,
        )
    half = _half_of_area(areas_px)
    if known.any() or half < _BLOCK_PX:
        return None
    in_m2 = ", ".join(f"{half * gsd**2:,.0f} m² at {gsd:g} m" for gsd in (0.1, 0.3, 1.0))
    return tell(
        "label.blocks",
        "warning",
        f"Half of the building area lies in pieces of {half:,.0f} px or more: perhaps whole blocks",
        scenes,
        detail=f"That is {in_m2} per pixel, which is not known here; a house has 50 to 300 m². So "
        "it cannot be said whether these are halls, close pictures, or blocks labelled as one.",
        remedy="Look at the largest, and give gsd_m. If they are blocks, use the set for density, "
        "and not for footprints.",
        by=_largest,
    )


def empty(told: Told) -> Finding | None:
    """Labels without a building."""
    scenes = [f for f, label in told.labelled if not label.class_px[told.source.building_class]]
    part = len(scenes) / max(len(told.labelled), 1)
    if part < _EMPTY_NOTE or part == 1:
        return None
    return tell(
        "label.empty",
        "warning" if part >= _EMPTY_WARNING else "note",
        f"{plural(len(scenes), 'label')} of {len(told.labelled):,} hold no building "
        f"({share(part, 1)})",
        scenes,
        detail="Some teach what no building looks like; many make a model say nothing. Where "
        "buildings can be seen in them, their labels are missing.",
        remedy="Look at some. To leave most of them out: min_built_up = 0.01.",
        by=lambda f: f.contrast,
    )


def full(told: Told) -> Finding | None:
    """Labels that are all building."""
    scenes = [f for f, _ in told.labelled if told.built_up(f) > _FULL]
    if not scenes or len(told.labelled) == 1:
        return None
    return tell(
        "label.full",
        "warning" if len(scenes) >= 0.01 * len(told.labelled) else "note",
        f"{plural(len(scenes), 'label')} of {len(told.labelled):,} "
        f"{'is' if len(scenes) == 1 else 'are'} building all over",
        scenes,
        detail=f"More than {_FULL:.0%} of their pixels.",
        remedy=f"Look at them. To leave them out: max_built_up = {_FULL}.",
        by=told.built_up,
    )


def cut(told: Told) -> Finding | None:
    """Buildings that reach out of their image."""
    count = sum(label.cut for _, label in told.labelled)
    if count < _CUT_NOTE * told.buildings or not count:
        return None
    sides = [min(f.shape_yx) * f.gsd_m for f, _ in told.labelled if f.gsd_m is not None]
    wide = f" Images are {np.median(sides):.0f} m wide." if sides else ""
    return tell(
        "label.cut",
        "warning" if count >= _CUT_WARNING * told.buildings else "note",
        f"{share(count, told.buildings)} of the buildings are cut by the edge of their image",
        [f for f, label in told.labelled if label.cut],
        detail=f"The network rarely sees a whole one, and counts and sizes mean little.{wide}",
        remedy="Use larger images: join tiles to scenes, or take a coarser zoom.",
    )


def vanished(told: Told) -> Finding | None:
    """Shapes that are smaller than a pixel."""
    count = sum(label.vanished for _, label in told.labelled)
    if not count:
        return None
    return tell(
        "label.vanished",
        "note",
        f"{plural(count, 'building')} are too small or too thin to colour a pixel",
        [f for f, label in told.labelled if label.vanished],
        detail="They are missing from loss, scores and counts.",
        remedy="Nothing, if they are slivers; else the images are too coarse for these labels.",
        by=lambda f: f.label.vanished if f.label else 0,
    )


def unknown(told: Told) -> Finding | None:
    """Pixels about which labels say nothing."""
    if not told.labelled:
        return None
    part = float(np.mean([label.unknown_share for _, label in told.labelled]))
    if part < _UNKNOWN:
        return None
    return tell(
        "label.unknown",
        "note",
        f"Labels say nothing about {share(part, 1)} of the valid pixels",
        [f for f, label in told.labelled if label.unknown_share >= _UNKNOWN],
        detail="They are marked as ignored, and take no part in loss and scores.",
        by=lambda f: f.label.unknown_share if f.label else 0,
    )


def specks(told: Told) -> Finding | None:
    """Buildings that are too small to be any."""
    count = sum(label.specks for _, label in told.labelled)
    if count < _SPECKS * told.buildings or not count:
        return None
    return tell(
        "label.specks",
        "note",
        f"{plural(count, 'building')} of {told.buildings:,} are smaller than {SPECK_PX} px",
        [f for f, label in told.labelled if label.specks],
        detail="Slips of the hand, rests of a conversion, or JPEG in masks; those at the edge of "
        "an image are not counted here.",
        remedy="Remove them from the masks: rooftrace itself leaves out what is as small.",
        by=lambda f: f.label.specks if f.label else 0,
    )


def holes(told: Told) -> Finding | None:
    """Gaps between buildings that touch, and pinholes."""
    count = sum(label.holes for _, label in told.labelled)
    if count < _HOLES * told.buildings or not count:
        return None
    return tell(
        "label.holes",
        "note",
        f"{plural(count, 'hole')} smaller than {SPECK_PX} px lie inside {told.buildings:,} "
        "buildings",
        [f for f, label in told.labelled if label.holes],
        detail="Mostly gaps of a pixel between neighbours that touch at other places: these count "
        "as one building, so that there are more buildings than said here, and smaller ones.",
        by=lambda f: f.label.holes if f.label else 0,
    )


def _half_of_area(areas: NDArray[np.float64]) -> float:
    """Half of the whole area lies in pieces of this or more."""
    ordered = np.sort(areas)
    return float(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])


def _largest(facts: SceneFacts) -> float:
    areas = () if facts.label is None else facts.label.buildings_px
    return float(max(areas, default=0)) * (facts.gsd_m or 1.0) ** 2
