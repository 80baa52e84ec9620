"""Estimate how many times coarser the images of one set are than those of another.

There are two ways, in order of trust: metres per pixel, if both sets know them, and the structure
of the images, which needs no georeference.

For the second way, an image is smoothed with Gaussians of increasing width (scale space: Lindeberg
1994, Journal of Applied Statistics 21). At every width a few figures without a unit are computed:
how steeply the energy rises from band to band, and how sparse and how skewed the structure is. As
functions of the width these figures are curves. Images of natural scenes follow a power law (Field
1987, JOSA A 4; Ruderman and Bialek 1994, Physical Review Letters 73) and would show no scale at
all. Places with buildings do not follow it, because houses, streets and trees have typical sizes
(Torralba and Oliva 2003, Network 14, estimate the size of a scene in the same way). The same kind
of ground at another scale has the same curves, shifted along the logarithm of the width. The shift
that fits best is the ratio of the scales.

Widths start at 2 px, where the sensor's blur, JPEG blocks and sharpening have little effect.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.audit.duplicates import luma_of
from rooftrace.audit.measure import spread_windows
from rooftrace.audit.offset import parabola_peak
from rooftrace.core.errors import RooftraceError
from rooftrace.core.text import plain_number
from rooftrace.core.types import Raster, Scene
from rooftrace.io.nodata import fill_at_edges
from rooftrace.labels.source import SceneSet

ALIKE = 0.5
"""Residual below which two sets show the same kind of ground."""

_STEP = 0.25
"""Octaves from one width to the next."""

_FIRST_PX = 2.0
"""First width in pixels."""

_WIDTHS = 24
"""Maximum number of widths."""

_SIDE_IN_WIDTHS = 9.0
"""Least side of an image for a width, as a multiple of the width."""

_MARGIN_IN_WIDTHS = 2.0
"""Distance from an edge or nodata within which the smoothed image is not used, in widths."""

_LEAST_PX = 256
"""Least number of pixels of the (reduced) image inside the margins."""

_BAND = 2
"""Steps between the two widths whose difference is a band (half an octave)."""

_SLOPE = 4
"""Steps over which the slope of the energy is computed."""

_LEAST_OVERLAP = 5
"""Least number of steps that shifted curves share; fewer fit by chance."""

_LAGS_PER_STEP = 4
"""Number of shifts that are tried per step."""

_REPLICATES = 100
"""Number of bootstrap replicates of the curves."""

_FLOOR = 0.1
"""Least spread between curves of the same ground, from resampling, JPEG or another part of town."""

_PER_RESIDUAL = 0.7
_LEAST_ERROR = 0.1
"""Parts of the standard error in octaves, besides the spread over draws of scenes: at least
`_LEAST_ERROR`, and `_PER_RESIDUAL` times the squared residual. They were set on pairs of real sets
of known scale, so that the interval contains the truth in nine of ten cases (docs/audit.md)."""

_NINETY = 1.645
"""Half the width of a 90 % interval in standard errors."""

_MOST_OCTAVES = 3.0
"""Maximum half width of an interval in octaves; at this width it says nothing."""

Curves = NDArray[np.float64]
"""(replicate, curve, width) values."""


Method = Literal["georeference", "images"]

_SURE_RATIO = 2.0
"""Ratio of the ends of an interval above which an estimate is too uncertain to act on."""


@dataclass(frozen=True)
class ScaleEstimate:
    """Factor between the scales of two sets, estimated in one way.

    Args:
        method: Way of the estimate.
        factor: Metres per pixel of the second set divided by those of the first; above 1 if the
            second set is coarser.
        low, high: 90 % interval of `factor`.
        sure: True if the evidence is strong enough to act on.
        detail: Sentences on the evidence.
    """

    method: Method
    factor: float
    low: float
    high: float
    sure: bool
    detail: str


def moments_of(luma: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Return sums over one image at every width that it is large enough for.

    Args:
        luma: (y, x) brightness in any unit.
        valid: (y, x), False where nodata.

    Returns:
        (width, 6) sums over pixels: the count, the band's magnitude, square and cube, the
        gradient's magnitude and its square; NaN for widths that are too large for the image. None
        for an image that is constant or too small for any width.
    """
    sums = np.full((_WIDTHS, 6), np.nan)
    if not valid.any() or not np.ptp(luma[valid]):
        return None
    # The mean brightness is not structure, and would cost digits.
    smooth: NDArray[Any] = np.where(valid, luma - luma[valid].mean(), 0).astype(np.float32)
    # The distance of each pixel to the nearest edge or nodata.
    framed = np.pad(valid, 1).astype(np.uint8)
    distance: NDArray[Any] = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    side = min(luma.shape)
    reduced, width = 1, 0.0
    levels: list[tuple[NDArray[Any], NDArray[Any], int]] = []
    for step in range(_WIDTHS):
        wanted = _FIRST_PX * 2 ** (_STEP * step)
        if side < _SIDE_IN_WIDTHS * wanted:
            break
        if width >= 4.0 * reduced:
            smooth, distance, reduced = smooth[::2, ::2], distance[::2, ::2], reduced * 2
        sigma = np.sqrt(wanted**2 - width**2) / reduced
        smooth = cv2.GaussianBlur(
            np.ascontiguousarray(smooth), (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101
        )
        width = wanted
        levels.append((smooth, distance, reduced))
    for step in range(len(levels) - _BAND):
        fine, distance, reduced = levels[step]
        coarse, _, coarse_reduced = levels[step + _BAND]
        wanted = _FIRST_PX * 2 ** (_STEP * step)
        if coarse_reduced > reduced:
            # The band lies on the coarser grid; its fine side is smooth enough to subsample.
            fine, distance = fine[::2, ::2], distance[::2, ::2]
        inside = distance > _MARGIN_IN_WIDTHS * wanted
        if np.count_nonzero(inside) < _LEAST_PX:
            break
        across = cv2.Sobel(fine, cv2.CV_32F, 1, 0, scale=1 / 8)
        down = cv2.Sobel(fine, cv2.CV_32F, 0, 1, scale=1 / 8)
        # Scale by the width of smoothing, so that the gradient has the unit of the band.
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


def match_curves(
    a: NDArray[np.float64], b: NDArray[np.float64], rng: np.random.Generator
) -> ScaleEstimate | None:
    """Return the factor by which the curves of set B are shifted against those of set A.

    Scenes are weighted with a Bayesian bootstrap (Rubin 1981, Annals of Statistics 9). It gives
    the interval, and the spread in which differences are measured.

    Args:
        a, b: (scene, width, 6) results of `moments_of`.
        rng: Source of the bootstrap weights.

    Returns:
        None if the two sets have too few widths in common.
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
    # Where each cost is least, between the computed lags.
    least = [(int(cost.argmin()), cost) for cost in costs]
    shifts = np.array([lags[at] + parabola_peak(-cost, at) / _LAGS_PER_STEP for at, cost in least])
    octaves = float(shifts[0] * _STEP)
    residual = float(np.sqrt(costs[0, best]))
    drawn = float(shifts[1:].std() * _STEP)
    error = float(np.hypot(np.hypot(drawn, _LEAST_ERROR), _PER_RESIDUAL * residual**2))
    half = min(_NINETY * error, _MOST_OCTAVES)
    alike = (
        "The sets show the same kind of ground."
        if residual <= ALIKE
        else "The sets show different kinds of ground, which makes the estimate less certain."
    )
    detail = (
        f"Compared were {len(a)} and {len(b)} windows at {widths} widths of smoothing. "
        f"The remaining difference is {residual:.2f} of the expected spread. {alike} "
        "The sizes of things in pixels are compared, so towns whose houses differ in size change "
        "the estimate."
    )
    at_end = best in (0, len(lags) - 1)
    if at_end:
        detail += " The images are too small for a wider search; the factor may be larger."
    factor, low, high = (2.0**one for one in (octaves, octaves - half, octaves + half))
    sure = not at_end and high / low <= _SURE_RATIO
    return ScaleEstimate("images", factor, low, high, sure, detail)


def _widths(sums: NDArray[np.float64]) -> int:
    """Return the number of widths that at least half of the scenes are large enough for."""
    return int((np.isfinite(sums[..., 0]).mean(axis=0) >= 0.5).sum()) if len(sums) else 0


def _replicates(sums: NDArray[np.float64], widths: int, rng: np.random.Generator) -> Curves:
    """Return the curves: first with equal weights of all scenes, then with random weights."""
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
    """Return (replicate,) mean squared differences over the spread, B shifted by `lag` steps."""
    last = a.shape[-1] - 1
    here = np.arange(0.0, last - abs(lag) + 1e-9)
    at_a, at_b = here + max(lag, 0.0), here + max(-lag, 0.0)
    difference = _at(a, at_a) - _at(b, at_b)
    expected = (_at(spread, at_a) + _at(spread, at_b)) / 2
    cost: NDArray[np.float64] = np.nanmean(difference**2 / expected, axis=(1, 2))
    return cost


def _at(curves: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate curves between their points along the last axis."""
    below = np.minimum(steps.astype(int), curves.shape[-1] - 2)
    share = steps - below
    between: NDArray[np.float64] = curves[..., below] * (1 - share) + curves[..., below + 1] * share
    return between


_SCENES = 200
"""Maximum number of scenes that are read from a set."""

_WINDOWS = 40
"""Number of windows that are read from a set with fewer scenes, several windows per scene."""

_WINDOW_PX = 512
"""Side of a window in pixels."""

_LEAST_VALID = 0.5
"""Least share of valid pixels in a window."""


@dataclass(frozen=True)
class ScaleShift:
    """All estimates of the factor between the scales of two sets.

    Args:
        estimates: One estimate for each way that was possible, the most trustworthy first.
        gsd_a_m, gsd_b_m: Median metres per pixel of each set, None if unknown.
    """

    estimates: tuple[ScaleEstimate, ...] = ()
    gsd_a_m: float | None = None
    gsd_b_m: float | None = None

    @property
    def best(self) -> ScaleEstimate | None:
        """The first estimate that is sure; None if no estimate is."""
        return next((estimate for estimate in self.estimates if estimate.sure), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `best` is the method of the best estimate, or None."""
        return asdict(self) | {"best": None if self.best is None else self.best.method}


def estimate_scale(a: SceneSet, b: SceneSet) -> ScaleShift:
    """Estimate the factor between the scales of two sets in every way that is possible.

    At most 200 scenes of each set are read, and windows of large scenes. Scenes that cannot be read
    are left out. The same sets give the same figures.

    Args:
        a: First set, usually the training data.
        b: Second set, usually the images that the model is for. It needs no georeference.
    """
    rng = np.random.default_rng(0)
    (moments_a, gsds_a), (moments_b, gsds_b) = _sampled(a, rng), _sampled(b, rng)
    estimates = []
    if gsds_a and gsds_b:
        (low_a, a_m, high_a), (low_b, b_m, high_b) = (
            np.quantile(gsds_m, [0.05, 0.5, 0.95]).tolist() for gsds_m in (gsds_a, gsds_b)
        )
        detail = f"{plain_number(a_m)} m per pixel against {plain_number(b_m)} m."
        factor, low, high = b_m / a_m, low_b / high_a, high_b / low_a
        estimates.append(ScaleEstimate("georeference", factor, low, high, True, detail))
    if moments_a and moments_b:
        match = match_curves(np.stack(moments_a), np.stack(moments_b), rng)
        if match is not None:
            estimates.append(match)
    medians = (float(np.median(gsds)) if gsds else None for gsds in (gsds_a, gsds_b))
    return ScaleShift(tuple(estimates), *medians)


def _sampled(
    source: SceneSet, rng: np.random.Generator
) -> tuple[list[NDArray[np.float64]], list[float]]:
    """Return the moments of some windows of a set, and the metres per pixel of its scenes.

    The metres are empty if they are unknown for any of these scenes.
    """
    whole = source.with_unlabelled()
    count = min(_SCENES, len(whole))
    chosen = sorted(rng.choice(len(whole), count, replace=False).tolist()) if count else []
    moments: list[NDArray[np.float64]] = []
    gsds_m: list[float | None] = []
    for entry in (whole.entries[index] for index in chosen):
        # Another finding reports scenes that cannot be read.
        with suppress(RooftraceError):
            scene = whole.open_scene(entry)
            for raster in _windows(scene, -(-_WINDOWS // count)):
                luma = luma_of(raster.data.astype(np.float32))
                if (sums := moments_of(luma.astype(np.float32), raster.valid)) is not None:
                    moments.append(sums)
            gsds_m.append(scene.gsd_m)
    known = [gsd_m for gsd_m in gsds_m if gsd_m is not None]
    return moments, known if len(known) == len(gsds_m) else []


def _windows(scene: Scene, count: int) -> Iterator[Raster]:
    """Yield up to `count` windows that are valid to one half or more."""
    for window in islice(spread_windows(scene.image.grid.shape, _WINDOW_PX), 4 * count):
        raster = scene.image.read(window)
        _, fill = fill_at_edges(raster.data, raster.valid)
        if fill is not None:
            raster = replace(raster, valid=raster.valid & ~fill)
        if raster.valid.mean() >= _LEAST_VALID:
            yield raster
            count -= 1
        if not count:
            return
