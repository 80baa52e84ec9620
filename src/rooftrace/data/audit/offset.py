"""Whether labels lie where their images show the buildings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Literal

import cv2
import numpy as np

from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import Scene, Window
from rooftrace.data.audit.facts import MOST_IDS, Finding, Offset, SceneFacts
from rooftrace.data.audit.registration import Surface, edge_surface
from rooftrace.data.dataset import full_scale_of
from rooftrace.data.parallel import map_entries
from rooftrace.data.source import Entry, Progress, SceneSet

__all__ = ["OFF_PX", "SURE", "estimate_offsets", "offset_findings"]

SURE = 0.2
"""Confidence from which an estimate counts. On five real sets half of the scenes reach it; of these
a planted shift of 6 px was found within 2 px in all, 99 % lie within 3 px of what their whole set
says, and of labels laid over the wrong image 2 % reach it."""

OFF_PX = 2.0
"""A shift that is seen: an outline of 10 × 10 px loses a third of its IoU."""

_MOST_SCENES = 300
_WINDOW_PX = 1024
_WINDOWS = 4
"""A scene is matched in so many windows of about that side at most, spread over it evenly."""

_POOL = 5
"""From so many scenes on, what a group says together is told."""

_GSD_STEP = math.log(1.1)
"""Scenes within a step of metres per pixel are taken together: a shift is in pixels."""

_SEEN_M = 0.3
"""A smaller shift is less than the pixel of most imagery that buildings are mapped on."""

_OFTEN = 0.2
"""If fewer scenes than this are off, they are single mistakes, or roofs that lean."""

_FAR_PX = 4.0
"""A single scene is worth a look from here on."""


def estimate_offsets(
    source: SceneSet,
    facts: Sequence[SceneFacts],
    *,
    most: int = _MOST_SCENES,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[Offset, ...]:
    """How far labels lie off, of scenes with buildings spread evenly over a set.

    Args:
        source: the set; scenes that it has besides `facts` are left out.
        facts: what was measured of it.
        most: scenes that are looked at.
        workers, progress: see `data.parallel.map_entries`.

    Returns:
        One for each scene that was looked at; then one for each group of 5 or more of them, and
        one for the whole set, each made of the sum of their surfaces: tiles that are too small to
        tell anything do so together. Scenes of one resolution only are summed, so that there may
        be several for a group or a set.

    Raises:
        DataError: see `data.parallel.map_entries`.
    """
    measured = {f.id: f for f in facts if f.label is not None and len(f.label.buildings_px)}
    entries = [entry for entry in source.entries if entry.id in measured]
    step = max(len(entries) / most, 1.0)
    chosen = [entries[int(i * step)] for i in range(min(len(entries), most))]
    sample = replace(source, entries=tuple(chosen))
    surfaces = map_entries(sample, _surface_of, workers=workers, progress=progress)
    matched = [
        _Matched(measured[entry.id], surface)
        for entry, surface in zip(chosen, surfaces)
        if surface is not None
    ]
    return (
        *(_offset(m.facts.id, "scene", [m]) for m in matched),
        *_pooled(matched, "group", lambda m: m.facts.group),
        *_pooled(matched, "set", lambda _: source.name),
    )


def offset_findings(offsets: Sequence[Offset]) -> list[Finding]:
    """`label.offset`: labels of the whole set, or of single scenes, that lie 2 px or more off."""
    scenes = [o for o in offsets if o.level == "scene"]
    sure = sorted((o for o in scenes if o.confidence >= SURE), key=lambda o: -o.px)
    off = [o for o in sure if o.px >= OFF_PX]
    whole = [o for o in offsets if o.level == "set" and o.confidence >= SURE and o.px >= OFF_PX]
    often = len(off) >= max(_OFTEN * len(sure), 1)
    far = [o for o in off if o.px >= _FAR_PX]
    if not whole and not (often or far):
        return []
    told = (
        f"Estimated on {len(scenes)} scenes by laying the outlines over the edges of the images; "
        f"of {len(sure)} it can be told, and {len(off)} of these are off by {OFF_PX:g} px or more."
    )
    ids = tuple(o.id for o in off[:MOST_IDS])
    if whole:
        most = max(whole, key=lambda o: o.scenes)
        where = _direction(most.rows, most.cols)
        return [
            Finding(
                "label.offset",
                "warning" if _matters([most]) else "note",
                f"Labels lie {_length(most)} off what the images show, in all "
                f"{most.scenes} scenes taken together",
                f"Moved {where} they fit best. {told}{_median(sure)}",
                f"Move them: label_shift_px = [{round(most.rows)}, {round(most.cols)}] in the "
                "configuration of the set; look at some, and inspect again. Where tall buildings "
                "lean, roofs are off their ground and that is no mistake.",
                ids,
                len(off),
            )
        ]
    return [
        Finding(
            "label.offset",
            "warning" if often and _matters(off) else "note",
            f"{len(off)} of {len(sure)} labels lie {OFF_PX:g} px or more off what the image shows",
            f"{off[0].id} lies {_length(off[0])} off. {told}{_median(sure)}",
            "Look at the worst first. Correct labels that are off, or leave their scenes out; "
            "where tall buildings lean, roofs are off their ground and that is no mistake.",
            ids,
            len(off),
        )
    ]


@dataclass(frozen=True, slots=True)
class _Matched:
    facts: SceneFacts
    surface: Surface

    @property
    def gsd_step(self) -> int | None:
        gsd_m = self.facts.gsd_m
        return None if gsd_m is None else round(math.log(gsd_m) / _GSD_STEP)


def _pooled(
    matched: Sequence[_Matched], level: Literal["group", "set"], name_of: Callable[[_Matched], str]
) -> list[Offset]:
    pools: dict[tuple[str, int | None], list[_Matched]] = defaultdict(list)
    for one in matched:
        pools[name_of(one), one.gsd_step].append(one)
    return [
        _offset(name, level, pool)
        for (name, _), pool in pools.items()
        if name and len(pool) >= _POOL
    ]


def _offset(name: str, level: Literal["scene", "group", "set"], pool: Sequence[_Matched]) -> Offset:
    surface = reduce(add, (one.surface for one in pool))
    peak = surface.peak()
    gsds = [one.facts.gsd_m for one in pool if one.facts.gsd_m is not None]
    return Offset(
        name,
        peak.rows,
        peak.cols,
        peak.confidence,
        level,
        len(pool),
        float(np.median(gsds)) if gsds else None,
    )


def _surface_of(source: SceneSet, entry: Entry) -> Surface | None:
    """None where the scene cannot be read any more, or shows no building."""
    try:
        scene = source.open_scene(entry)
        surfaces = [
            surface
            for window in _windows(scene.image.grid.shape)
            if (surface := _match(scene, window, source.building_class)) is not None
        ]
    except RooftraceError:
        return None
    return reduce(add, surfaces) if surfaces else None


def _match(scene: Scene, window: Window, building_class: int) -> Surface | None:
    assert scene.label is not None
    mask = scene.label.read(window)
    building = (mask.data == building_class) & mask.valid
    if not building.any():
        return None
    raster = scene.image.read(window)
    scale = 255 / full_scale_of(raster.data.dtype)
    bands = [band.astype(np.float32) * np.float32(scale) for band in raster.data[:3]]
    luma = bands[0]
    if len(bands) == 3:
        luma = np.asarray(cv2.cvtColor(cv2.merge(bands), cv2.COLOR_RGB2GRAY))
    return edge_surface(luma, raster.valid, building, mask.valid)


def _windows(shape_yx: tuple[int, int]) -> list[Window]:
    """Cells of the scene of about _WINDOW_PX, at most _WINDOWS, spread evenly."""
    down, along = (max(round(side / _WINDOW_PX), 1) for side in shape_yx)
    height, width = min(shape_yx[0], _WINDOW_PX), min(shape_yx[1], _WINDOW_PX)
    count = down * along
    cells = sorted({int((i + 0.5) * count / _WINDOWS) for i in range(_WINDOWS)})
    return [
        Window(
            (shape_yx[0] - height) * (cell // along) // max(down - 1, 1),
            (shape_yx[1] - width) * (cell % along) // max(along - 1, 1),
            height,
            width,
        )
        for cell in cells
    ]


def _matters(offsets: Sequence[Offset]) -> bool:
    metres = [o.px * o.gsd_m for o in offsets if o.gsd_m is not None]
    return not metres or float(np.median(metres)) >= _SEEN_M


def _length(offset: Offset) -> str:
    metres = "" if offset.gsd_m is None else f" ({offset.px * offset.gsd_m:.1f} m)"
    return f"{offset.px:.1f} px{metres}"


def _direction(rows: float, cols: float) -> str:
    parts = [
        f"{abs(px):.1f} px {names[px > 0]}"
        for px, names in ((rows, ("up", "down")), (cols, ("left", "right")))
        if abs(px) >= 0.5
    ]
    return " and ".join(parts)


def _median(sure: Sequence[Offset]) -> str:
    if not sure:
        return ""
    rows, cols = (float(np.median([getattr(o, axis) for o in sure])) for axis in ("rows", "cols"))
    return f" Their median is {_direction(rows, cols) or 'less than half a pixel'}."
