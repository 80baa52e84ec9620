"""How the structure of images changes from scale to scale, and by how much two sets are shifted.

An image is smoothed by Gaussians of growing width (scale space: Lindeberg 1994, Journal of Applied
Statistics 21), and at every width a few figures without a unit are taken of what is left: how
steeply the energy rises from band to band, and how sparse and how skewed structure is there. As
functions of the width these figures are curves. Images of natural scenes follow a power law
(Field 1987, JOSA A 4; Ruderman and Bialek 1994, Physical Review Letters 73) and would show no
scale at all; places with buildings do not follow it, since houses, streets and trees have sizes
(Torralba and Oliva 2003, Network 14, use the same to tell how large a scene is). The same kind of
ground at another scale shows the same curves, moved along the logarithm of the width; the move
that fits best is the ratio of scales.

Widths start at 2 px, where the sensor's blur, JPEG blocks and sharpening hardly reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["ALIKE", "Match", "match_curves", "moments_of"]

ALIKE = 0.5
"""A residual below this is the same kind of ground."""

_STEP = 0.25
"""Octaves from one width to the next."""

_FIRST_PX = 2.0
_WIDTHS = 24
_SIDE_IN_WIDTHS = 9.0
"""A width is used in images at least so many times as large."""

_MARGIN_IN_WIDTHS = 2.0
"""So far from an edge or nodata, what is smoothed is not of the image."""

_LEAST_PX = 256
"""Pixels of the (reduced) image that must be left inside of the margins."""

_BAND = 2
"""A band lies between a width and the one so many steps wider (half an octave)."""

_SLOPE = 4
"""The energy's slope is taken over so many steps."""

_LEAST_OVERLAP = 5
"""Steps that the moved curves must share: what fits in fewer, fits by chance."""

_LAGS_PER_STEP = 4
_REPLICATES = 100
_FLOOR = 0.1
"""What the curves of the same ground differ by at least: resampling, JPEG, another part of town."""

_PER_RESIDUAL = 0.7
_LEAST_ERROR = 0.1
"""The standard error in octaves is, besides what draws of scenes explain, at least `_LEAST_ERROR`,
and `_PER_RESIDUAL` times the squared residual: set on pairs of real sets whose scales are known, so
that the interval holds the truth in nine of ten (docs/audit.md)."""

_NINETY = 1.645
_MOST_OCTAVES = 3.0
"""Half an interval that says nothing; a wider one would say no more."""

Curves = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """How the curves of a second set are moved against those of a first.

    Args:
        octaves: log2 of the factor by which structure is smaller (in pixels) in the second.
        low, high: a 90 % interval of it.
        residual: how far apart the curves stay where they fit best, in the spread that draws of
            scenes explain; below `ALIKE` for the same kind of ground.
        at_end: whether they fit best at the end of the range that was searched.
        widths: how many widths both sets allow.
    """

    octaves: float
    low: float
    high: float
    residual: float
    at_end: bool
    widths: int


def moments_of(luma: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """What one image shows at every width that it is large enough for.

    Args:
        luma: (y, x) brightness in any unit.
        valid: (y, x), False where nodata.

    Returns:
        (width, 6) sums over pixels: of 1, of the band's magnitude, square and cube, of the
        gradient's magnitude and its square; NaN where the image is too small. None for an image
        that is constant or too small for any width.
    """
    sums = np.full((_WIDTHS, 6), np.nan)
    if not valid.any() or not np.ptp(luma[valid]):
        return None
    # Brightness is no structure, and would cost digits.
    smooth: NDArray[Any] = np.where(valid, luma - luma[valid].mean(), 0).astype(np.float32)
    distance = _distance(valid)
    side = min(luma.shape)
    reduced, width = 1, 0.0
    levels: list[tuple[NDArray[Any], NDArray[Any], int]] = []
    for step in range(_WIDTHS):
        wanted = _FIRST_PX * 2 ** (_STEP * step)
        if side < _SIDE_IN_WIDTHS * wanted:
            break
        if width >= 4.0 * reduced:
            smooth, distance, reduced = smooth[::2, ::2], distance[::2, ::2], reduced * 2
        smooth = _blurred(smooth, np.sqrt(wanted**2 - width**2) / reduced)
        width = wanted
        levels.append((smooth, distance, reduced))
    for step in range(len(levels) - _BAND):
        fine, distance, reduced = levels[step]
        coarse, _, coarse_reduced = levels[step + _BAND]
        wanted = _FIRST_PX * 2 ** (_STEP * step)
        if coarse_reduced > reduced:
            # The band lives on the coarser grid; its fine side is smooth enough to be thinned out.
            fine, distance = fine[::2, ::2], distance[::2, ::2]
        inside = distance > _MARGIN_IN_WIDTHS * wanted
        if np.count_nonzero(inside) < _LEAST_PX:
            break
        across = cv2.Sobel(fine, cv2.CV_32F, 1, 0, scale=1 / 8)
        down = cv2.Sobel(fine, cv2.CV_32F, 0, 1, scale=1 / 8)
        # Per width of smoothing, so that it has the unit of the band.
        gradient = cv2.magnitude(across, down)[inside] * np.float32(wanted / coarse_reduced)
        band = (fine - coarse)[inside]
        square = band * band
        values = (np.abs(band), square, square * band, gradient, gradient * gradient)
        area = wanted**-2 * coarse_reduced**2
        sums[step] = (
            inside.sum() * area,
            *(float(value.sum(dtype=np.float64)) * area for value in values),
        )
    return sums if np.isfinite(sums[0, 0]) else None


def _distance(valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Pixels from each pixel to the nearest edge or nodata."""
    framed = np.pad(valid, 1).astype(np.uint8)
    found: NDArray[Any] = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return found


def _blurred(image: NDArray[Any], sigma: float) -> NDArray[Any]:
    blurred: NDArray[Any] = cv2.GaussianBlur(
        np.ascontiguousarray(image), (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101
    )
    return blurred


def match_curves(
    a: NDArray[np.float64], b: NDArray[np.float64], rng: np.random.Generator
) -> Match | None:
    """By how much the curves of set B are moved against those of set A.

    Scenes are drawn anew with the weights of a Bayesian bootstrap (Rubin 1981, Annals of
    Statistics 9), which gives the interval and the spread that differences are measured in.

    Args:
        a, b: (scene, width, 6), of `moments_of`.

    Returns:
        None where the two have too few widths in common to be moved at all.
    """
    widths = min(_widths(a), _widths(b))
    if widths < _LEAST_OVERLAP + 2:
        return None
    curves_a, curves_b = _replicates(a, widths, rng), _replicates(b, widths, rng)
    spread = curves_a.var(axis=0) + curves_b.var(axis=0) + _FLOOR**2
    steps = widths - _LEAST_OVERLAP
    lags = np.arange(-steps * _LAGS_PER_STEP, steps * _LAGS_PER_STEP + 1) / _LAGS_PER_STEP
    costs = np.stack([_cost(curves_a, curves_b, spread, lag) for lag in lags], axis=1)
    best = costs[0].argmin()
    moved = np.array([_least(lags, cost) for cost in costs])
    octaves = float(moved[0] * _STEP)
    residual = float(np.sqrt(costs[0, best]))
    drawn = float(moved[1:].std() * _STEP)
    error = float(np.hypot(np.hypot(drawn, _LEAST_ERROR), _PER_RESIDUAL * residual**2))
    half = min(_NINETY * error, _MOST_OCTAVES)
    return Match(
        octaves=octaves,
        low=octaves - half,
        high=octaves + half,
        residual=residual,
        at_end=bool(best in (0, len(lags) - 1)),
        widths=widths,
    )


def _widths(sums: NDArray[np.float64]) -> int:
    """How many widths at least half of the scenes are large enough for."""
    return int((np.isfinite(sums[..., 0]).mean(axis=0) >= 0.5).sum()) if len(sums) else 0


def _replicates(sums: NDArray[np.float64], widths: int, rng: np.random.Generator) -> Curves:
    """(1 + replicates, curve, width): all scenes alike first, then with random weights."""
    weights = rng.dirichlet(np.ones(len(sums)), _REPLICATES)
    weights = np.concatenate([np.full((1, len(sums)), 1 / len(sums)), weights])
    pooled = np.einsum("rs,swm->rwm", weights, np.nan_to_num(sums[:, :widths]))
    area, magnitude, square, cube, gradient, gradient_square = np.moveaxis(pooled, -1, 0)
    energy = np.log(square / area)
    slope = np.full_like(energy, np.nan)
    slope[:, :-_SLOPE] = energy[:, _SLOPE:] - energy[:, :-_SLOPE]
    return np.stack(
        [
            slope,
            np.log(gradient_square / square),
            np.log(square * area / magnitude**2),
            np.log(gradient_square * area / gradient**2),
            (cube / area) / (square / area) ** 1.5,
        ],
        axis=1,
    )


def _cost(a: Curves, b: Curves, spread: NDArray[np.float64], lag: float) -> NDArray[np.float64]:
    """(replicate,) mean squared difference in units of the spread, B moved by `lag` steps."""
    last = a.shape[-1] - 1
    here = np.arange(0.0, last - abs(lag) + 1e-9)
    at_a, at_b = here + max(lag, 0.0), here + max(-lag, 0.0)
    difference = _at(a, at_a) - _at(b, at_b)
    expected = (_at(spread, at_a) + _at(spread, at_b)) / 2
    cost: NDArray[np.float64] = np.nanmean(difference**2 / expected, axis=(1, 2))
    return cost


def _at(curves: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Curves between their points, along the last axis."""
    below = np.minimum(steps.astype(int), curves.shape[-1] - 2)
    share = steps - below
    between: NDArray[np.float64] = curves[..., below] * (1 - share) + curves[..., below + 1] * share
    return between


def _least(lags: NDArray[np.float64], cost: NDArray[np.float64]) -> float:
    """Where a cost is least, between the lags that it was computed for."""
    at = int(cost.argmin())
    if at in (0, len(lags) - 1):
        return float(lags[at])
    before, here, after = cost[at - 1 : at + 2]
    bend = before - 2 * here + after
    shift = 0.0 if bend <= 0 else 0.5 * (before - after) / bend
    return float(lags[at] + shift * (lags[1] - lags[0]))
