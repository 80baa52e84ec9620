"""Estimate by how many pixels labels are shifted against their images.

The outline of a label is moved over the image. How well it fits edges of its own direction is a
surface over all shifts, and the peak of the surface is the estimated shift. Edge alignment is an
old way to register maps with images: chamfer matching (H. G. Barrow et al., Parametric
correspondence and chamfer matching, 1977) and, for the building maps of OpenStreetMap,
J. E. Vargas-Muñoz et al., Correcting rural building annotations in OpenStreetMap using
convolutional neural networks (2019). Directions are compared at twice their angle, so that a dark
roof on light ground counts like a light roof on dark ground (A. J. Fitch et al., Orientation
correlation, BMVC 2002). All shifts are computed at once with the Fourier transform.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from operator import add
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.audit.duplicates import luma_of
from rooftrace.audit.facts import MOST_IDS, Finding, Offset, SceneFacts, Severity
from rooftrace.audit.measure import WINDOW_PX, spread_windows
from rooftrace.core.errors import RooftraceError
from rooftrace.core.text import plural, set_option
from rooftrace.core.types import Scene, Window
from rooftrace.labels.source import SceneEntry, SceneSet, map_entries
from rooftrace.samples.dataset import full_scale_of

REACH_PX = 24
"""Largest shift that is searched, in pixels along rows and along columns."""

_PEAK_PX = 5.0
"""Distance in pixels beyond which a second peak is a different shift."""

_LEAST_Z, _MOST_Z = 2.0, 6.0
"""Height of a peak above the rest, in robust standard deviations, at which the confidence begins to
rise and at which it is full. Labels of other images reach 2 to 5, fitting labels 4 to 25."""

_ENOUGH_PX = 300.0
"""Outline length in pixels for full confidence; shorter outlines fit somewhere by chance."""

_BLOCK = 31
"""Side in pixels of the neighbourhood in which the strength of edges is compared."""


@dataclass(frozen=True, slots=True)
class Surface:
    """The fit of an outline at each shift. Surfaces of several scenes can be added.

    Args:
        fit: (49, 49) float64, sum over the pixels of the outline of their fit, -1..1 each.
        weight: (49, 49) float64, number of outline pixels that lie on valid pixels.
    """

    fit: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __add__(self, other: Surface) -> Surface:
        return Surface(self.fit + other.fit, self.weight + other.weight)

    def peak(self) -> tuple[float, float, float]:
        """Return the best shift, down and to the right in pixels, and its confidence, 0..1.

        The confidence is the height of the peak above the best shift more than 5 px away, divided
        by its height above the median. It is lower if the peak stands out little from the scatter
        of the rest (in robust standard deviations) or if the outline is short. It is 0 at the end
        of the reach, because a higher point may lie beyond it.
        """
        score = self.fit / np.maximum(self.weight, 0.25 * self.weight.max() + 1e-9)
        row, col = divmod(int(score.argmax()), score.shape[1])
        rows, cols = np.ogrid[: score.shape[0], : score.shape[1]]
        rest = score[np.hypot(rows - row, cols - col) > _PEAK_PX]
        middle = float(np.median(rest))
        scatter = 1.4826 * float(np.median(np.abs(rest - middle))) + 1e-12
        height = float(score[row, col]) - middle
        if height <= 0 or not 0 < row < 2 * REACH_PX or not 0 < col < 2 * REACH_PX:
            return row - REACH_PX, col - REACH_PX, 0.0
        alone = (float(score[row, col]) - float(rest.max())) / height
        clear = (height / scatter - _LEAST_Z) / (_MOST_Z - _LEAST_Z)
        long = float(self.weight.max()) / _ENOUGH_PX
        confidence = max(alone, 0.0) * min(max(clear, 0.0), 1.0) * min(long, 1.0)
        return (
            row - REACH_PX + parabola_peak(score[:, col], row),
            col - REACH_PX + parabola_peak(score[row], col),
            confidence,
        )


def edge_surface(
    luma: NDArray[np.float32],
    valid: NDArray[np.bool_],
    building: NDArray[np.bool_],
    known: NDArray[np.bool_],
) -> Surface:
    """Return the fit of a label's outline to the edges of an image at all shifts up to REACH_PX.

    Args:
        luma: (y, x) brightness, 0..255.
        valid: (y, x), False where the image is nodata.
        building: (y, x), True where the label shows a building.
        known: (y, x), False where the label is unknown.
    """
    filled = np.where(valid, luma, luma[valid].mean() if valid.any() else 0).astype(np.float32)
    across, down = _gradient(filled)
    # The border of the valid area is no edge of the image, and the border of the known area is no
    # edge of the label.
    inside = _eroded(valid, 7, outside=1)
    strength = np.hypot(across, down)
    near = cv2.blur(strength * inside, (_BLOCK, _BLOCK)) / np.maximum(
        cv2.blur(inside, (_BLOCK, _BLOCK)), 1e-3
    )
    # Limit the strength to below 1, so that a strong hedge does not outweigh ten roofs.
    strength *= inside / (near + strength + 2.0)
    outline_across, outline_down = _gradient(building.astype(np.float32))
    length = np.hypot(outline_across, outline_down) * _eroded(known, 9, outside=0)
    shape_yx = tuple(cv2.getOptimalDFTSize(side + REACH_PX) for side in luma.shape)
    image = np.fft.fft2(_twice_the_angle(across, down, strength), shape_yx)
    outline = np.fft.fft2(_twice_the_angle(outline_across, outline_down, length), shape_yx)
    fit = np.fft.ifft2(image * np.conj(outline)).real
    weight = np.fft.irfft2(
        np.fft.rfft2(inside, shape_yx) * np.conj(np.fft.rfft2(length, shape_yx)), shape_yx
    )
    shifts = np.ix_(*(np.arange(-REACH_PX, REACH_PX + 1),) * 2)
    return Surface(fit[shifts].astype(np.float64), weight[shifts].astype(np.float64))


def _gradient(picture: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the gradients along columns and rows of the slightly blurred image."""
    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0)
    return (
        np.asarray(cv2.Scharr(smooth, cv2.CV_32F, 1, 0)) / 32,
        np.asarray(cv2.Scharr(smooth, cv2.CV_32F, 0, 1)) / 32,
    )


def _eroded(area: NDArray[np.bool_], side_px: int, *, outside: int) -> NDArray[np.float32]:
    square = np.ones((side_px, side_px), np.uint8)
    eroded = cv2.erode(
        area.view(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=outside
    )
    return np.asarray(eroded, dtype=np.float32)


def _twice_the_angle(
    across: NDArray[np.float32], down: NDArray[np.float32], length: NDArray[np.float32]
) -> NDArray[np.complex64]:
    """Return vectors of the given length whose direction is twice that of (across, down)."""
    vector = (across + 1j * down) ** 2
    vector *= length / np.maximum(np.abs(vector), 1e-9)
    return vector.astype(np.complex64)


def parabola_peak(line: NDArray[np.float64], at: int) -> float:
    """Return the distance from the highest sample to the peak of the parabola through its
    neighbours.
    """
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = line[at - 1 : at + 2]
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))


SURE = 0.2
"""Confidence from which an estimate counts.

On five real sets, half of the scenes reach it. In all of these a planted shift of 6 px was found
within 2 px, and 99 % of their estimates lie within 3 px of the estimate for the whole set. Of
labels laid over the wrong image, 2 % reach it."""

OFF_PX = 2.0
"""Shift in pixels from which labels are off. It costs a square of 10 × 10 px a third of its IoU."""

_MOST_SCENES = 300
"""Maximum number of scenes that are matched."""

_WINDOWS = 4
"""Maximum number of windows per scene, see `measure.spread_windows`."""

_LEAST_SCENES = 5
"""Minimum number of scenes for a common estimate."""

_GSD_STEP = math.log(1.1)
"""Width of a class of resolutions, as a logarithm. Only scenes of one class are added up, because
a shift is in pixels."""

_SEEN_M = 0.3
"""Shift in metres below which it does not matter: less than a pixel of most imagery."""

_OFTEN = 0.2
"""Share of scenes from which a shift is common. Fewer are single mistakes or leaning roofs."""

_SCATTER_PX = 3.0
"""Distance in pixels up to which a single estimate scatters around that of a set that fits."""

_FAR_PX = 4.0
"""Shift in pixels from which a single scene is reported."""

_ENOUGH_SCENES = 12
"""Minimum number of scenes from which it is judged whether labels fit their images at all."""

_ENOUGH_BUILDINGS = 35
"""Minimum number of buildings for a warning that labels fit no image; with fewer it is a note. Of
random dozens of Rotterdam's tiles with one or two buildings, 17 in all, 13 % seemed to fit none; of
two dozens, 36 buildings, none did. Under the names of other images, 96 and 100 % were found."""

_TOGETHER = 0.12
"""Share of the other scenes with an estimate within `_SCATTER_PX` of one scene's, for labels that
fit. Of sixteen real sets, fifteen reach 0.4 to 1, and labels over the wrong images 0 to 0.09."""


def estimate_offsets(
    source: SceneSet, facts: Sequence[SceneFacts], *, most: int = _MOST_SCENES
) -> tuple[Offset, ...]:
    """Estimate the offsets of labels in scenes with buildings, spread evenly over a set.

    Args:
        source: The set. Scenes without facts are left out.
        facts: Facts of its scenes.
        most: Maximum number of scenes that are matched.

    Returns:
        One offset for each scene that was matched, then one for all of them if there are 5 or more.
        It comes from the sum of the surfaces, so that tiles that are too small alone are estimated
        together. Only scenes of one resolution are added up, so a set may have several offsets.
    """
    measured = {f.id: f for f in facts if f.label is not None and len(f.label.buildings_px)}
    entries = [entry for entry in source.entries if entry.id in measured]
    step = max(len(entries) / most, 1.0)
    chosen = [entries[int(i * step)] for i in range(min(len(entries), most))]
    sample = replace(source, entries=tuple(chosen))
    surfaces = map_entries(sample, _surface_of)
    matched = [
        (measured[entry.id], surface)
        for entry, surface in zip(chosen, surfaces)
        if surface is not None
    ]
    return (
        *(_offset(facts.id, "scene", [(facts, surface)]) for facts, surface in matched),
        *_pooled(matched, source.name),
    )


_LEANING = (
    "Roofs of tall buildings lean away from their ground in many images; that is not a mistake."
)


def offset_findings(
    offsets: Sequence[Offset], label_shift_px: tuple[int, int] = (0, 0)
) -> list[Finding]:
    """Return `label.offset` if the labels of the set or of single scenes are 2 px or more off, or
    `label.pairs` if labels do not fit their images at any shift.

    Args:
        offsets: Offsets of the labels as they were read.
        label_shift_px: Shift of the labels that the configuration of the set has already, in pixels
            down and to the right. The value that the remedy names includes it.
    """
    scenes = [o for o in offsets if o.level == "scene"]
    sure = sorted((o for o in scenes if o.confidence >= SURE), key=lambda o: -o.px)
    off = [o for o in sure if o.px >= OFF_PX]
    pools = [o for o in offsets if o.level == "set" and o.confidence >= SURE]
    whole = [o for o in pools if o.px >= OFF_PX]
    if not pools and len(scenes) >= _ENOUGH_SCENES and _together(scenes) < _TOGETHER:
        is_sure = sum(scene.buildings for scene in scenes) >= _ENOUGH_BUILDINGS
        return [
            Finding(
                "label.pairs",
                "warning" if is_sure else "note",
                f"Outlines of the labels of {len(scenes)} scenes do not follow edges in the images",
                f"At no shift of up to {REACH_PX} px do they fit better than labels of other "
                "images would. A model would learn nothing from them.",
                "Look at the contact sheets that -o writes: is each mask that of its image? Names "
                "pair them, so a mask under the name of another image is no error. Labels may also "
                "be far off, or drawn very coarsely.",
                tuple(o.id for o in scenes[:MOST_IDS]),
                len(scenes),
            )
        ]
    if not whole:
        off = [o for o in off if all(_apart(o, pool) >= _SCATTER_PX for pool in pools)]
    often = len(off) >= max(_OFTEN * len(sure), 1)
    far = [o for o in off if o.px >= _FAR_PX]
    if not whole and not (often or far):
        return []
    method = (
        f"Estimated on {plural(len(scenes), 'scene')} by comparing outlines of labels with edges "
        f"in the images. The estimate is reliable for {len(sure)} of them, and {len(off)} of these "
        f"are off by {OFF_PX:g} px or more."
    )
    severity: Severity
    if whole:
        most = max(whole, key=lambda o: o.scenes)
        total = [label_shift_px[0] + round(most.rows), label_shift_px[1] + round(most.cols)]
        of_scenes = ""
        if max(_apart(o, most) for o in pools) >= OFF_PX and most.gsd_m is not None:
            of_scenes = (
                f" for the scenes at {most.gsd_m:.2g} m per pixel, in a set of their own (glob). "
                "Those at other metres per pixel need another shift, or none"
            )
        severity = "warning" if _matters([most]) else "note"
        title = (
            f"Labels are {_length(most)} off the buildings in the images "
            f"({most.scenes} scenes together)"
        )
        detail = (
            f"They fit best when shifted {_direction(most.rows, most.cols)}. A model would learn "
            f"outlines at the wrong place. {method}"
        )
        remedy = (
            f"Shift them: {set_option('label_shift_px', total)}{of_scenes}. Look at some scenes "
            f"and inspect again. {_LEANING}"
        )
    else:
        severity = "warning" if often and _matters(off) else "note"
        title = f"{OFF_PX:g} px or more between label and image in {len(off)} of {len(sure)} scenes"
        detail = f"{off[0].id} is {_length(off[0])} off. {method}"
        remedy = (
            "Look at the worst first. Correct labels that are off, or leave their scenes out. "
            f"{_LEANING}"
        )
    ids = tuple(o.id for o in off[:MOST_IDS])
    return [Finding("label.offset", severity, title, detail, remedy, ids, len(off))]


_Pool = Sequence[tuple[SceneFacts, Surface]]


def _pooled(matched: _Pool, name: str) -> list[Offset]:
    """Return the common offset of the scenes of each resolution."""
    pools: dict[int | None, list[tuple[SceneFacts, Surface]]] = defaultdict(list)
    for facts, surface in matched:
        gsd_m = facts.gsd_m
        step = None if gsd_m is None else round(math.log(gsd_m) / _GSD_STEP)
        pools[step].append((facts, surface))
    return [_offset(name, "set", pool) for pool in pools.values() if len(pool) >= _LEAST_SCENES]


def _offset(name: str, level: Literal["scene", "set"], pool: _Pool) -> Offset:
    rows, cols, confidence = reduce(add, (surface for _, surface in pool)).peak()
    gsds = [facts.gsd_m for facts, _ in pool if facts.gsd_m is not None]
    gsd_m = float(np.median(gsds)) if gsds else None
    buildings = sum(len(facts.label.buildings_px) for facts, _ in pool if facts.label is not None)
    return Offset(name, rows, cols, confidence, level, len(pool), gsd_m, buildings)


def _surface_of(source: SceneSet, entry: SceneEntry) -> Surface | None:
    """Return the surface of a scene; None if it cannot be read any more or has no building."""
    try:
        scene = source.open_scene(entry)
        surfaces = [
            surface
            for window in islice(spread_windows(scene.image.grid.shape, WINDOW_PX), _WINDOWS)
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
    luma = luma_of(raster.data.astype(np.float32)) * np.float32(scale)
    return edge_surface(luma, raster.valid, building, mask.valid)


def _matters(offsets: Sequence[Offset]) -> bool:
    metres = [o.px * o.gsd_m for o in offsets if o.gsd_m is not None]
    return not metres or float(np.median(metres)) >= _SEEN_M


def _length(offset: Offset) -> str:
    metres = "" if offset.gsd_m is None else f" ({offset.px * offset.gsd_m:.1f} m)"
    return f"{offset.px:.1f} px{metres}"


def _apart(one: Offset, other: Offset) -> float:
    return math.hypot(one.rows - other.rows, one.cols - other.cols)


def _together(scenes: Sequence[Offset]) -> float:
    """Return the share of the other scenes with an estimate near that of the scene with most."""
    rows, cols = (np.array([getattr(o, axis) for o in scenes]) for axis in ("rows", "cols"))
    near = np.hypot(rows[:, None] - rows, cols[:, None] - cols) <= _SCATTER_PX
    return float(near.sum(axis=1).max() - 1) / (len(scenes) - 1)


def _direction(rows: float, cols: float) -> str:
    parts = [
        f"{abs(px):.1f} px {names[px > 0]}"
        for px, names in ((rows, ("up", "down")), (cols, ("left", "right")))
        if abs(px) >= 0.5
    ]
    return " and ".join(parts)
