"""How many times coarser the images of one set are than those of another.

Three ways, in the order in which they are believed: metres per pixel, where both sets know them;
the size of labelled buildings; the structure of the images themselves (`data.audit.scalespace`),
which needs neither labels nor a georeference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import Mask, Raster, Scene, Window
from rooftrace.data.audit.components import SPECK_PX
from rooftrace.data.audit.flat import flat_area
from rooftrace.data.audit.scalespace import ALIKE, Match, match_curves, moments_of
from rooftrace.data.glance import LUMA
from rooftrace.data.source import SceneSet

__all__ = ["ScaleEstimate", "ScaleShift", "estimate_scale"]

Method = Literal["georeference", "labels", "images"]

_SCENES = 200
_WINDOWS = 40
"""Sets of fewer scenes are looked at in several windows a scene, up to so many in all."""

_WINDOW_PX = 512
_LEAST_VALID = 0.5

_LEAST_BUILDINGS = 30
"""Whole buildings that each set must show before their sizes are compared."""

_MOST_CUT = 2.0
"""Cut buildings for each whole one; with more, images are too small to show how large they are."""

_TOWNS_OCTAVES = 0.7
"""Between the labels of two towns, the standard deviation of log2 of the ratio of median sides:
measured on the nine places of docs/audit.md, 5.7 to 16.6 m."""

_LABELLING_OCTAVES = 0.15
"""The same for two samples of one kind of ground: hands draw differently."""

_SURE_RATIO = 2.0
"""An interval whose ends are further apart tells too little to act on."""

_REPLICATES = 200
_NINETY = 1.645

_LUMA = np.array(LUMA, np.float32)[:, None, None]

_SOURCES: dict[Method, str] = {
    "georeference": "metres per pixel, as georeferences or the configuration say",
    "labels": "median side of whole buildings, those near an edge weighted by the share of places "
    "at which they would be cut (Miles 1974; Lantuéjoul 1980)",
    "images": "statistics of gradients and bands in scale space (Lindeberg 1994; Torralba and "
    "Oliva 2003), interval by Bayesian bootstrap (Rubin 1981)",
}


@dataclass(frozen=True)
class ScaleEstimate:
    """The factor between two sets, found in one way.

    Args:
        method: which.
        factor: metres per pixel of the second set over those of the first; above 1 where the
            second is coarser.
        low, high: a 90 % interval of it.
        sure: whether it can be acted on; else the evidence is weak, and the interval says how.
        detail: what it rests on, for people.
        source: of the method.
    """

    method: Method
    factor: float
    low: float
    high: float
    sure: bool
    detail: str
    source: str


@dataclass(frozen=True)
class ScaleShift:
    """All that can be said of the factor between two sets.

    Args:
        estimates: one for each way that was possible, the most trustworthy first.
        gsd_a_m, gsd_b_m: median metres per pixel, where the set knows them.
    """

    estimates: tuple[ScaleEstimate, ...] = ()
    gsd_a_m: float | None = None
    gsd_b_m: float | None = None

    @property
    def best(self) -> ScaleEstimate | None:
        """The first that is sure; None where nothing is: one cannot tell."""
        return next((estimate for estimate in self.estimates if estimate.sure), None)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `best` is the name of the method, or None."""
        return asdict(self) | {"best": None if self.best is None else self.best.method}


@dataclass
class _Sample:
    """What some windows of a set show."""

    moments: list[NDArray[np.float64]] = field(default_factory=list)
    gsds_m: list[float | None] = field(default_factory=list)
    buildings: list[NDArray[np.float64]] = field(default_factory=list)
    cut: int = 0


def estimate_scale(a: SceneSet, b: SceneSet, *, seed: int = 0) -> ScaleShift:
    """The factor between the ground scales of two sets, in every way that is possible.

    At most 200 scenes of each are read, of large ones a part. Scenes that cannot be read are left
    out. The same sets and seed give the same figures.

    Args:
        a: usually what is trained on.
        b: usually what the model is for; needs neither labels nor a georeference.
        seed: of what is drawn.
    """
    rng = np.random.default_rng(seed)
    one, other = _sampled(a, rng), _sampled(b, rng)
    gsd_a, gsd_b = _gsd(one), _gsd(other)
    match = None
    if one.moments and other.moments:
        match = match_curves(np.stack(one.moments), np.stack(other.moments), rng)
    estimates = []
    if gsd_a is not None and gsd_b is not None:
        estimates.append(_by_gsd(one, other))
    if (found := _by_labels(one, other, match, rng)) is not None:
        estimates.append(found)
    if match is not None:
        estimates.append(_by_images(match, len(one.moments), len(other.moments)))
    return ScaleShift(tuple(estimates), gsd_a, gsd_b)


def _sampled(source: SceneSet, rng: np.random.Generator) -> _Sample:
    whole = source.with_unlabelled()
    count = min(_SCENES, len(whole))
    chosen = sorted(rng.choice(len(whole), count, replace=False).tolist()) if count else []
    sample = _Sample()
    for entry in (whole.entries[index] for index in chosen):
        try:
            scene = whole.open_scene(entry)
            gsd_m = scene.gsd_m
            for raster, window in _windows(scene, -(-_WINDOWS // count), rng):
                _look(raster, sample)
                if scene.label is not None:
                    mask = _label(scene, window)
                    if mask is not None:
                        sides, cut = _sides(mask, source.building_class)
                        sample.buildings.append(sides)
                        sample.cut += cut
        except RooftraceError:
            # A finding of its own, and not this one's.
            continue
        sample.gsds_m.append(gsd_m)
    return sample


def _windows(scene: Scene, count: int, rng: np.random.Generator) -> Iterator[tuple[Raster, Window]]:
    """Up to `count` windows, side by side at most, of which half or more is valid."""
    height, width = scene.image.grid.shape
    side_y, side_x = min(height, _WINDOW_PX), min(width, _WINDOW_PX)
    rows, cols = height // side_y, width // side_x
    found = 0
    for cell in rng.permutation(rows * cols)[: 4 * count]:
        window = Window(
            (height - rows * side_y) // 2 + int(cell // cols) * side_y,
            (width - cols * side_x) // 2 + int(cell % cols) * side_x,
            side_y,
            side_x,
        )
        raster = scene.image.read(window)
        colour, area = flat_area(raster.data, raster.valid)
        if area:
            fill = np.asarray(colour, raster.data.dtype)[:, None, None]
            raster = replace(raster, valid=raster.valid & (raster.data != fill).any(axis=0))
        if raster.valid.mean() >= _LEAST_VALID:
            yield raster, window
            found += 1
        if found == count:
            return


def _look(raster: Raster, sample: _Sample) -> None:
    pixels = raster.data[:3].astype(np.float32)
    luma = (pixels * _LUMA).sum(axis=0) if len(pixels) == 3 else pixels[0]
    moments = moments_of(luma, raster.valid)
    if moments is not None:
        sample.moments.append(moments)


def _label(scene: Scene, window: Window) -> Mask | None:
    """A label that cannot be read tells nothing of sizes; the image is looked at all the same."""
    assert scene.label is not None
    try:
        return scene.label.read(window)
    except RooftraceError:
        return None


def _sides(mask: Mask, building_class: int) -> tuple[NDArray[np.float64], int]:
    """(building, 2): log2 of the side of every whole building in pixels, and its weight.

    The second figure is how many are cut.

    A building is whole in a window only at some places of the window: the larger, the fewer. The
    weight makes up for those that are cut (Miles-Lantuéjoul).
    """
    buildings = ((mask.data == building_class) & mask.valid).astype(np.uint8)
    height, width = buildings.shape
    _, _, stats, _ = cv2.connectedComponentsWithStats(buildings, connectivity=8)
    left, top, wide, high, area = stats[1:].astype(float).T
    whole = (left > 0) & (top > 0) & (left + wide < width) & (top + high < height)
    large = area >= SPECK_PX
    cut = int((large & ~whole).sum())
    whole &= large
    weight = height * width / np.maximum((height - high) * (width - wide), 1.0)
    return np.stack([np.log2(area[whole]) / 2, weight[whole]], axis=1), cut


def _gsd(sample: _Sample) -> float | None:
    """Median metres per pixel, where all scenes know theirs."""
    known = [gsd_m for gsd_m in sample.gsds_m if gsd_m is not None]
    return float(np.median(known)) if known and len(known) == len(sample.gsds_m) else None


def _by_gsd(one: _Sample, other: _Sample) -> ScaleEstimate:
    a, b = np.asarray(one.gsds_m, float), np.asarray(other.gsds_m, float)
    (low_a, a_m, high_a), (low_b, b_m, high_b) = (np.quantile(x, [0.05, 0.5, 0.95]) for x in (a, b))
    return _estimate(
        "georeference",
        (b_m / a_m, low_b / high_a, high_b / low_a),
        f"{a_m:.3g} m per pixel against {b_m:.3g} m.",
        sure=True,
    )


def _by_labels(
    one: _Sample, other: _Sample, match: Match | None, rng: np.random.Generator
) -> ScaleEstimate | None:
    medians = []
    counts = []
    for sample in (one, other):
        counts.append(sum(len(sides) for sides in sample.buildings))
        if counts[-1] < max(_LEAST_BUILDINGS, sample.cut / _MOST_CUT):
            return None
        medians.append(_medians(sample.buildings, rng))
    octaves = medians[0][0] - medians[1][0]
    drawn = float((medians[0][1:] - medians[1][1:]).std())
    alike = match is not None and match.residual <= ALIKE
    half = _NINETY * float(np.hypot(drawn, _LABELLING_OCTAVES if alike else _TOWNS_OCTAVES))
    sides = [2.0 ** median[0] for median in medians]
    detail = (
        f"The median side of {counts[0]} and {counts[1]} whole buildings is {sides[0]:.1f} px "
        f"against {sides[1]:.1f} px; "
        + (
            "the images show the same kind of ground."
            if alike
            else "the interval allows for towns whose houses differ in size, since the images do "
            "not show the same kind of ground."
        )
    )
    return _estimate("labels", _powers(octaves, octaves - half, octaves + half), detail)


def _medians(buildings: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> Any:
    """(1 + replicates,) weighted medians of log2 sides, the first of all windows alike."""
    found = [sides for sides in buildings if len(sides)]
    window = np.repeat(np.arange(len(found)), [len(sides) for sides in found])
    values, weights = np.concatenate(found).T
    order = np.argsort(values)
    draws = rng.dirichlet(np.ones(len(found)), _REPLICATES) * len(found)
    draws = np.concatenate([np.ones((1, len(found))), draws])
    below = np.cumsum((draws[:, window] * weights)[:, order], axis=1)
    middle = (below < below[:, -1:] / 2).sum(axis=1)
    return values[order][middle]


def _by_images(match: Match, windows_a: int, windows_b: int) -> ScaleEstimate:
    alike = (
        "They show the same kind of ground."
        if match.residual <= ALIKE
        else "They show ground of another kind, which costs certainty."
    )
    detail = (
        f"From {windows_a} and {windows_b} windows at {match.widths} widths of smoothing; what "
        f"is left between the curves is {match.residual:.2f} of the expected spread. {alike} "
        "What is compared is the size of things in pixels: towns whose houses differ in size "
        "shift it."
    )
    if match.at_end:
        detail += " The images are too small to look further; the factor may be larger."
    return _estimate(
        "images",
        _powers(match.octaves, match.low, match.high),
        detail,
        sure=None if not match.at_end else False,
    )


def _powers(*octaves: float) -> tuple[float, float, float]:
    factor, low, high = (2.0**value for value in octaves)
    return factor, low, high


def _estimate(
    method: Method,
    factor_low_high: tuple[float, float, float],
    detail: str,
    *,
    sure: bool | None = None,
) -> ScaleEstimate:
    factor, low, high = (float(value) for value in factor_low_high)
    if sure is None:
        sure = high / low <= _SURE_RATIO
    return ScaleEstimate(method, factor, low, high, sure, detail, _SOURCES[method])
