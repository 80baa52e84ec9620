"""Roofs of buildings: their planes, fitted for many buildings at once; top, eaves and shape."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import shapely

from rooftrace.core.types import BoolArray, Floats, Ints, Polygons
from rooftrace.heights.surface import Samples, quantiles
from rooftrace.vector.footprints import minimum_rectangles

MAX_PLANES = 8
"""Maximum number of roof planes of a building that are looked for: two hipped wings have eight."""

NO_PLANE = -1
"""Number of the plane of a sample that lies on none."""

_CHOSEN, _TRIES = 64, 16
"""Maximum number of samples of a building on which planes are tried, and of planes tried for each
plane found."""

_EXPLAINED, _STRIP = 0.8, 0.25
"""Minimum share of a plane's samples that lie on others, too, and maximum share of the roof's, for
which it is left out."""

_STEEPEST = 2.0
"""Maximum slope of a roof plane, as a ratio; what is steeper is a wall or noise."""

_SLOPE_TOLERANCE = 0.35
"""Maximum difference, as a ratio, between the slope of a plane and that of the surface at a sample
on it: samples beside a ridge show the mean of two planes."""

_CELL_M, _CELLS = 0.5, 600
"""Minimum side in metres, and about the maximum number, of the cells by which slopes are found."""

_LEAST_SHARE = 0.08
"""Minimum share of a roof's samples on a plane."""


def fit_planes(
    samples: Samples, weight: Floats, count: int, *, stiffness_m: float = 0.05
) -> tuple[Floats, Floats]:
    """Fit z = a x + b y + c to the samples of each building by weighted least squares.

    Args:
        samples: Samples.
        weight: (n,) weights, 0 to leave a sample out.
        count: Number of buildings.
        stiffness_m: Spread of samples in metres below which the plane stays level (ridge
            regression on the slopes).

    Returns:
        (count, 3) a, b and c; NaN where no sample counts. (count,) variance of c for samples of
        variance 1.
    """
    x, y, owner = samples.x, samples.y, samples.owner
    # Heights near 0 keep their digits, so that adding a constant changes nothing.
    base = np.zeros(count)
    base[owner[::-1]] = samples.z[::-1]
    high = samples.z - base[owner]
    wx, wy = weight * x, weight * y
    xx, xy, xz, yy, yz, sx, sy, sz, total = (
        samples.sums(values, count)
        for values in (wx * x, wx * y, wx * high, wy * y, wy * high, wx, wy, weight * high, weight)
    )
    moments = np.stack([xx, xy, sx, xy, yy, sy, sx, sy, total], axis=1).reshape(count, 3, 3)
    empty = total <= 0
    moments[empty] = np.eye(3)
    moments[:, [0, 1], [0, 1]] += (np.where(empty, 0.0, total) * stiffness_m**2)[:, None]
    inverse = np.linalg.inv(moments)
    planes = np.einsum("nij,nj->ni", inverse, np.stack([xz, yz, sz], axis=1))
    planes[:, 2] += base
    planes[empty] = np.nan
    return planes, np.asarray(inverse[:, 2, 2])


def heights_on(planes: Floats, samples: Samples) -> Floats:
    """Return (n,) heights of each building's plane (count, 3) at its samples."""
    a, b, c = (column[samples.owner] for column in planes.T)
    return np.asarray(a * samples.x + b * samples.y + c)


def local_slopes(samples: Samples, side_m: Floats) -> tuple[Floats, Floats]:
    """Return (n, 2) slopes of the surface to the east and north at samples, as ratios.

    They are those of the plane through the samples of the building in the square of three by three
    cells around (least squares); NaN where these are few or in line. And (n,) standard deviations
    in metres of these samples from this plane.

    Args:
        samples: Samples inside the outlines.
        side_m: (count,) side in metres of the cells of each building.
    """
    if not len(samples):
        return np.zeros((0, 2)), np.zeros(0)
    side, x, y, z = side_m[samples.owner], samples.x, samples.y, samples.z
    col, row = (np.floor(values / side).astype(np.int64) for values in (x, y))
    col, row = col - col.min() + 1, row - row.min() + 1
    # Cells have a free column and row beside them, so that neighbours are of one building.
    width, height = col.max() + 2, row.max() + 2
    cell, of = np.unique((samples.owner * height + row) * width + col, return_inverse=True)
    # The last row stands for cells without samples.
    sums = np.zeros((len(cell) + 1, 10))
    for k, v in enumerate((np.ones(len(x)), x, y, z, x * x, x * y, y * y, x * z, y * z, z * z)):
        sums[:-1, k] = np.bincount(of, v)
    around = np.zeros_like(sums[:-1])
    for step in np.add.outer((-width, 0, width), (-1, 0, 1)).ravel():
        place = np.minimum(np.searchsorted(cell, cell + step), len(cell) - 1)
        place[cell[place] != cell + step] = -1
        around += sums[place]
    n, sx, sy, sz, xx, xy, yy, xz, yz, zz = around.T
    xx, xy, yy = xx - sx * sx / n, xy - sx * sy / n, yy - sy * sy / n
    xz, yz, zz = xz - sx * sz / n, yz - sy * sz / n, zz - sz * sz / n
    across = xx * yy - xy**2
    across[across < (0.1 * n * side_m[cell // (height * width)] ** 2) ** 2] = np.nan
    slopes = np.stack([yy * xz - xy * yz, xx * yz - xy * xz], axis=1) / across[:, None]
    left = zz - slopes[:, 0] * xz - slopes[:, 1] * yz
    deviation = np.sqrt(np.maximum(left, 0) / np.maximum(n - 3, 1))
    return np.asarray(slopes[of]), np.asarray(deviation[of])


def roof_planes(
    samples: Samples, slopes: Floats, count: int, tolerance_m: Floats
) -> tuple[Floats, Floats, Ints]:
    """Find the planes on which the samples of each roof lie, the largest first.

    The plane through a sample by the slope of the surface there is tried for several samples; that
    with most samples near it is kept and fitted again; then the next is looked for among the rest
    (RANSAC by normals, Schnabel et al. 2007, doi:10.1111/j.1467-8659.2007.01016.x, with the score
    of Torr & Zisserman 2000). Without slopes, level slices through a hipped roof hold as many
    samples as its sides. Samples at fixed places are tried, so a building gets the same planes
    wherever it is computed.

    Args:
        samples: Samples inside the outlines.
        slopes: (n, 2) slopes of the surface at them, see `local_slopes`.
        count: Number of buildings.
        tolerance_m: (count,) maximum distance in metres of a sample from its plane.

    Returns:
        (count, MAX_PLANES, 3) a, b and c of z = a x + b y + c, NaN where there is no plane;
        (count, MAX_PLANES) shares of the building's samples that lie on them; (n,) number of the
        plane of each sample, or `NO_PLANE`.
    """
    within = tolerance_m[samples.owner]

    def misfits(plane: Floats, at: Ints | slice = slice(None)) -> tuple[Floats, Floats]:
        """Return squared misfits of samples by distance alone, and by slope, too."""
        some = samples.of(at)
        apart = ((some.z - heights_on(plane, some)) / within[at]) ** 2
        turn = ((slopes[at] - plane[some.owner, :2]) ** 2).sum(axis=1) / _SLOPE_TOLERANCE**2
        return apart, apart + np.nan_to_num(turn)

    number = np.full(len(samples.owner), NO_PLANE, np.int64)
    planes = np.full((count, MAX_PLANES, 3), np.nan)
    size = np.bincount(samples.owner, minlength=count)
    # Up to `_CHOSEN` samples of each building, evenly over their order: (building, sample).
    step, taken = np.arange(_CHOSEN), np.minimum(size, _CHOSEN)[:, None]
    present = step < taken
    position = step * np.maximum(size, 1)[:, None] // np.maximum(taken, 1)
    index = np.where(present, (np.cumsum(size) - size)[:, None] + position, 0)
    used = 0
    while used < MAX_PLANES and len(samples):
        left = present & (number[index] == NO_PLANE)
        active = np.flatnonzero(left.sum(axis=1) >= np.maximum(3, taken[:, 0] * _LEAST_SHARE))
        if not len(active):
            break
        fitted = np.full((count, 3), np.nan)
        fitted[active] = _best(samples, slopes, index[active], left[active], tolerance_m[active])
        free = np.flatnonzero((number == NO_PLANE) & np.isfinite(fitted[samples.owner, 0]))
        rest = samples.of(free)
        for _ in range(2):
            near = misfits(fitted, free)[1] <= 1
            fitted, _ = fit_planes(rest, near.astype(np.float64), count)
        near = misfits(fitted, free)[1] <= 1
        enough = rest.sums(near, count) >= np.maximum(3, size * _LEAST_SHARE)
        fitted[~enough] = np.nan
        planes[:, used] = fitted
        number[free[near & enough[rest.owner]]] = used
        # A building whose samples lie on no further plane is finished.
        present &= enough[:, None]
        used += 1
    # Beside a ridge, coarse pixels show a strip by its mean slope, which other planes explain.
    for k in range(used if used > 1 else 0):
        own = number == k
        held = samples.sums(own, count)
        at = np.flatnonzero(own & (held < _STRIP * size)[samples.owner])
        others = [misfits(planes[:, j], at)[0] for j in range(used) if j != k]
        explained = samples.of(at).sums(np.fmin.reduce(others) <= 1, count)
        vain = (explained >= _EXPLAINED * held) & (held < _STRIP * size)
        planes[vain, k], number[own & vain[samples.owner]] = np.nan, NO_PLANE
    # Each sample belongs to the plane that fits best, and the planes are fitted once more.
    for _ in range(2):
        number[:], best = NO_PLANE, np.full(len(number), np.inf)
        for k in range(used):
            at = np.flatnonzero(np.isfinite(planes[samples.owner, k, 0]))
            apart, misfit = misfits(planes[:, k], at)
            better = (apart <= 1) & (misfit < best[at])
            best[at[better]], number[at[better]] = misfit[better], k
        for k in range(used):
            at = np.flatnonzero(number == k)
            planes[:, k], _ = fit_planes(samples.of(at), np.ones(len(at)), count)
    on = [samples.sums(number == k, count) for k in range(MAX_PLANES)]
    share = np.stack(on, axis=1) / np.maximum(size, 1)[:, None]
    order = np.argsort(-share, axis=1, kind="stable")
    place = np.argsort(order, axis=1)
    return (
        np.take_along_axis(planes, order[:, :, None], axis=1),
        np.take_along_axis(share, order, axis=1),
        np.where(number == NO_PLANE, NO_PLANE, place[samples.owner, number]),
    )


def _best(
    samples: Samples, slopes: Floats, index: Ints, left: BoolArray, tolerance_m: Floats
) -> Floats:
    """Return the plane (row, 3) near which most samples are, of those through one by its slope.

    Args:
        samples, slopes: See `roof_planes`.
        index, left: (row, sample) some samples of each building, and those that may count.
        tolerance_m: (row,) see `roof_planes`.
    """
    x, y, slope = samples.x[index], samples.y[index], slopes[index]
    # Heights relative to the building keep their digits.
    base = samples.z[index[:, 0]]
    z = samples.z[index] - base[:, None]
    can = left & np.isfinite(slope[:, :, 0])
    order, amount = np.argsort(~can, axis=1, kind="stable"), can.sum(axis=1)
    best = np.zeros(len(index))
    found = np.full((len(index), 3), np.nan)
    row = np.arange(len(index))
    for number in range(_TRIES):
        pick = order[row, number * amount // _TRIES]
        a, b = slope[row, pick].T
        c = z[row, pick] - a * x[row, pick] - b * y[row, pick]
        apart = (z - (a[:, None] * x + b[:, None] * y + c[:, None])) / tolerance_m[:, None]
        turn = ((slope - slope[row, pick][:, None]) ** 2).sum(axis=2) / _SLOPE_TOLERANCE**2
        near = np.maximum(0.0, 1 - apart**2 - np.nan_to_num(turn))
        score = np.where(left, near, 0.0).sum(axis=1)
        score[np.hypot(a, b) > _STEEPEST] = 0.0
        better = score > best
        best[better], found[better] = score[better], np.stack([a, b, c], axis=1)[better]
    found[:, 2] += base
    return found


SHAPES = ("flat", "skillion", "gabled", "hipped", "complex")
"""Roof shapes, with their names in Overture and OpenStreetMap."""

_UNDECIDED = -1
_FLAT, _SKILLION, _GABLED, _HIPPED, _COMPLEX = range(len(SHAPES))

LEAST_SAMPLES = 4
"""Minimum number of samples of a roof."""

LEAST_FOR_SHAPE = 16
"""Minimum number of samples of a roof whose shape and slopes are told."""

_LEAST_FIT = 0.5
"""Minimum share of samples on planes of a roof whose shape is told."""

_FLAT_SLOPE = 0.12
"""Maximum slope of a flat roof, as a ratio: 7 degrees, more than a gabled roof of any country has
less than."""

_MAIN = 0.8
"""Minimum share of the samples on planes that a shape explains."""

_PAIR_DEG = 25.0
"""Maximum angle in degrees by which two sides of a roof deviate from opposite or across."""

_HIGH, _LOW = 0.97, 0.10
"""Quantiles of the samples on planes that are top and eaves of a complex roof."""

_RISE_M = 0.5
"""Minimum rise in metres of a roof that is looked at again, see `_hips`, and of samples that planes
leave out."""

_HIP_SAMPLES, _HIP_MISFIT, _TOLERATED_M = 64, 0.5, 0.25
"""Maximum number of samples of it; maximum misfit of a hipped roof as a share of that of the next
form, and in metres."""

_MOST_WRONG = 0.08
_LEVEL_M = 2.0
"""Minimum difference in metres between two levels of a roof."""


@dataclass(frozen=True)
class Roofs:
    """Roofs of `count` buildings; NaN where a figure is not known.

    Args:
        top: (count,) float64 height of the highest part in metres: the ridge, or the level of a
            flat roof; chimneys, antennas and trees do not count.
        eaves: (count,) float64 height in metres where the roof begins; that of a flat roof is its
            top.
        median: (count,) float64 median height of all samples inside.
        shape: (count,) int64 index in `SHAPES`, or -1 where it is undecided.
        direction: (count,) float64 bearing of the ridge in degrees, 0 to 180.
        fit: (count,) float64 share of the samples that lie on planes.
        spread: (count,) float64 root mean square distance of these from their planes in metres.
        lower: (count,) float64 height of the lower of two clear levels; NaN without.
        planes: (count, MAX_PLANES, 3) see `roof_planes`.
        share: (count, MAX_PLANES) shares of the samples on them, descending.
        number: Number of the plane of each sample, see `roof_planes`.
        rough: (count,) float64 median of the deviations of `local_slopes` in metres.
        most_above: (count,) True where most samples lie above all planes.
    """

    top: Floats
    eaves: Floats
    median: Floats
    shape: Ints
    direction: Floats
    fit: Floats
    spread: Floats
    lower: Floats
    planes: Floats
    share: Floats
    number: Ints
    rough: Floats
    most_above: BoolArray


def measure_roofs(
    roof: Samples, outlines_m: Polygons, resolution_m: float, tolerance_m: Floats
) -> Roofs:
    """Return the roofs of buildings.

    A gabled or hipped roof is the lowest of its planes at each place, so its ridge is where two
    opposite planes meet, which is exact between pixels, and its eaves are where they reach the
    outline.

    Args:
        roof: Samples inside the outlines.
        outlines_m: (count,) outlines in metres from their centres, see `Samples`.
        resolution_m: Distance in metres between samples.
        tolerance_m: (count,) maximum distance in metres of a sample from its plane.
    """
    count = len(outlines_m)
    size = np.bincount(roof.owner, minlength=count)
    area = shapely.area(outlines_m)
    side_m = np.maximum(max(resolution_m, _CELL_M), np.sqrt(area / _CELLS))
    slopes, deviation = local_slopes(roof, side_m)
    can = np.isfinite(deviation)
    (rough,) = quantiles(deviation[can], roof.owner[can], count, 0.5)
    # Among few samples, a wall beside the roof decides the slopes.
    slopes[(size < LEAST_FOR_SHAPE)[roof.owner]] = 0.0
    planes, share, number = roof_planes(roof, slopes, count, tolerance_m)
    shape, pair, direction = _shapes(planes, share, size)
    on = number != NO_PLANE
    own = planes[roof.owner, number]
    apart = np.where(on, roof.z - (own[:, 0] * roof.x + own[:, 1] * roof.y + own[:, 2]), 0.0)
    held = roof.sums(on, count)
    counts = on | (held == 0)[roof.owner]
    least, low, high, most = quantiles(
        roof.z[counts], roof.owner[counts], count, 0.0, _LOW, _HIGH, 1.0
    )
    held_by = np.maximum(share * size[:, None], 1e-9)
    totals = [roof.sums(np.where(number == k, roof.z, 0.0), count) for k in range(MAX_PLANES)]
    level, lower = _levels(np.stack(totals, axis=1) / held_by, share)
    # An outline may lie beside its roof, where its planes say nothing.
    slope = np.nan_to_num(np.hypot(planes[:, 0, 0], planes[:, 0, 1]))
    reach = slope * max(resolution_m, 0.5) * 1.5
    row = np.arange(count)
    sides = [planes[row, pair[:, k]] for k in range(2)]
    flat, is_skillion = shape == _FLAT, shape == _SKILLION
    ridge = np.where(is_skillion, _at_outline(sides[0], outlines_m, np.fmax), _ridge(*sides))
    edge = np.mean([_at_outline(side, outlines_m, np.fmin) for side in sides], axis=0)
    with np.errstate(invalid="ignore"):
        pitched = is_skillion | (shape == _GABLED) | (shape == _HIPPED)
        top = np.where(pitched, np.clip(ridge, high, most + reach), np.where(flat, level, high))
        eaves = np.where(pitched, np.clip(edge, least - reach, low), np.where(flat, level, low))
    doubtful = (shape != _HIPPED) & ~is_skillion & (size >= LEAST_FOR_SHAPE)
    hipped, *figures = _hips(roof, outlines_m, np.flatnonzero(doubtful & (high - low >= _RISE_M)))
    shape[hipped] = _HIPPED
    top[hipped], eaves[hipped], direction[hipped] = figures
    median, highest = quantiles(roof.z, roof.owner, count, 0.5, _HIGH)
    # Where planes hold low parts alone, samples say how high the others are.
    most_above = top < median - _RISE_M
    top = np.where(most_above, highest, top)
    return Roofs(
        top, np.minimum(eaves, top), median, shape, direction, share.sum(axis=1),
        np.sqrt(roof.sums(apart**2, count) / np.maximum(held, 1)),
        np.where((shape == _FLAT) | (shape == _COMPLEX), lower, np.nan), planes, share, number,
        rough, most_above,
    )  # fmt: skip


def _shapes(planes: Floats, share: Floats, size: Ints) -> tuple[Ints, Ints, Floats]:
    """Return the shape, two opposite planes (the same where there is one), and the ridge's bearing.

    A roof is flat, skillion, gabled or hipped where such planes hold most of its samples, and
    complex otherwise.
    """
    count = len(planes)
    fit = share.sum(axis=1)
    part = share / np.where(fit > 0, fit, 1)[:, None]
    slope = np.nan_to_num(np.hypot(planes[:, :, 0], planes[:, :, 1]))
    flat = (part * (slope < _FLAT_SLOPE)).sum(axis=1)
    # Bearing of steepest descent.
    fall = np.degrees(np.arctan2(-planes[:, :, 0], -planes[:, :, 1]))
    steep = slope >= _FLAT_SLOPE
    first = np.where(steep.any(axis=1), np.argmax(steep, axis=1), 0)
    row = np.arange(count)
    turn = np.abs((fall - fall[row, first][:, None] + 180) % 360 - 180)
    opposite = steep & (turn > 180 - _PAIR_DEG)
    across = steep & (np.abs(turn - 90) < _PAIR_DEG)
    pair = np.where(opposite.any(axis=1), np.argmax(part * opposite, axis=1), first)
    main = part[row, first]
    second = np.where(pair != first, part[row, pair], 0.0)
    sides = (part * across).sum(axis=1)
    same = (part * (steep & (turn < _PAIR_DEG))).sum(axis=1)
    shape = np.full(count, _COMPLEX)
    shape[(sides > 0.08) & (second >= 0.12) & (main + second + sides >= _MAIN)] = _HIPPED
    shape[(second >= 0.2) & (same + (part * opposite).sum(axis=1) >= _MAIN) & (sides < 0.1)] = (
        _GABLED
    )
    shape[(same >= _MAIN) & (second < 0.12)] = _SKILLION
    shape[flat >= _MAIN] = _FLAT
    shape[(size < LEAST_FOR_SHAPE) | (fit < _LEAST_FIT)] = _UNDECIDED
    ridged = np.isin(shape, [_SKILLION, _GABLED, _HIPPED])
    # The longer ridge of a hipped roof lies between its two largest planes.
    direction = np.where(ridged, (fall[row, first] + 90) % 180, np.nan)
    pair = np.where(shape == _SKILLION, first, pair)
    return shape, np.stack([first, pair], axis=1), direction


def _hips(roof: Samples, outlines: Polygons, rows: Ints) -> tuple[Ints, Floats, Floats, Floats]:
    """Return the index, top, eaves and bearing of those of some roofs that samples show as hipped.

    Small end planes hold few samples. Such a roof rises from all sides of its outline's rectangle
    by one slope, and must fit the samples far better than slanted and gabled roofs do.
    """
    count = len(rows)
    length, width, angle = minimum_rectangles(outlines[rows])
    index = np.full(len(outlines), -1)
    index[rows] = np.arange(count)
    some = roof.of(index[roof.owner] >= 0)
    some = replace(some, owner=index[some.owner]).thinned(count, _HIP_SAMPLES)
    turn = angle[some.owner]
    u = some.x * np.cos(turn) + some.y * np.sin(turn)
    v = some.y * np.cos(turn) - some.x * np.sin(turn)
    along, across = (length / 2)[some.owner] - np.abs(u), (width / 2)[some.owner] - np.abs(v)
    fits = [_form_fit(some, form, count) for form in (u, v, along, across)]
    form, misfit = _form_fit(some, np.minimum(along, across), count)
    others = np.min([apart for _, apart in fits], axis=0)
    good = (misfit < _HIP_MISFIT * others) & (misfit < _TOLERATED_M)
    good &= (form[:, 0] > _FLAT_SLOPE) & (shapely.area(outlines[rows]) > _MAIN * length * width)
    top = form[:, 2] + form[:, 0] * width / 2
    return rows[good], top[good], form[good, 2], (90 - np.degrees(angle[good])) % 180


def _form_fit(samples: Samples, form: Floats, count: int) -> tuple[Floats, Floats]:
    """Fit z = a form + c to the samples of each roof, without outliers.

    Returns:
        (count, 3) a, 0 and c; (count,) median distances of the samples.
    """
    line = replace(samples, x=form, y=np.zeros(len(form)))
    weight = np.ones(len(form))
    for _ in range(2):
        fitted, _ = fit_planes(line, weight, count)
        apart = np.abs(line.z - heights_on(fitted, line))
        (middle,) = quantiles(apart, line.owner, count, 0.5)
        weight = (apart <= 3 * middle[line.owner]).astype(np.float64)
    return fitted, middle


def _ridge(one: Floats, other: Floats) -> Floats:
    """Return the height at which planes (count, 3) meet, nearest to the building's centre."""
    apart = one - other
    slope = apart[:, 0] ** 2 + apart[:, 1] ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = -apart[:, 0] * apart[:, 2] / slope, -apart[:, 1] * apart[:, 2] / slope
        return np.asarray(one[:, 0] * x + one[:, 1] * y + one[:, 2])


def _at_outline(plane: Floats, outlines: Polygons, choose: np.ufunc) -> Floats:
    """Return the highest or lowest height (by fmax or fmin) of a plane at the outline's corners."""
    xy, owner = shapely.get_coordinates(outlines, return_index=True)
    z = (plane[owner, :2] * xy).sum(axis=1) + plane[owner, 2]
    found = np.full(len(outlines), np.nan)
    choose.at(found, owner, z)
    return found


def _levels(level: Floats, share: Floats) -> tuple[Floats, Floats]:
    """Return the higher and the lower of two clear levels of each roof.

    The first is the highest level of a tenth of the roof; the second is known where the planes lie
    in two groups, 2 m and more apart, each with a fifth of the roof.

    Args:
        level: (count, MAX_PLANES) mean heights of the samples of each plane in metres.
        share: (count, MAX_PLANES) shares of the samples on them.
    """
    counts = share >= 0.1
    counts[:, 0] = share[:, 0] > 0
    level = np.where(counts, level, np.nan)
    upper = np.fmax.reduce(level, axis=1)
    order = np.argsort(level, axis=1)
    ordered = np.take_along_axis(level, order, axis=1)
    held = np.take_along_axis(np.where(counts, share, 0.0), order, axis=1)
    gap = np.nan_to_num(np.diff(ordered, axis=1))
    at = np.argmax(gap, axis=1)
    row = np.arange(len(level))
    below = np.cumsum(held, axis=1)[row, at]
    clear = (gap[row, at] >= _LEVEL_M) & (below >= 0.2) & (held.sum(axis=1) - below >= 0.2)
    under = np.arange(MAX_PLANES)[None] <= at[:, None]
    mean = np.where(under, np.nan_to_num(ordered) * held, 0).sum(axis=1) / np.maximum(below, 1e-9)
    return upper, np.where(clear, mean, np.nan)


def level_line(roof: Samples, outlines_m: Polygons, roofs: Roofs) -> Floats:
    """Return the straight line that parts the two clear levels of each roof.

    It runs along a side of the outline's rectangle, where it leaves the fewest samples on the wrong
    side: at most 8 %.

    Args:
        roof: Samples inside the outlines.
        outlines_m: (count,) outlines in metres from their centres.
        roofs: Their roofs.

    Returns:
        (count, 3) east and north of the direction towards the upper level, and metres along it at
        which that begins; NaN where there is no such line.
    """
    lines = np.full((len(outlines_m), 3), np.nan)
    edges = np.searchsorted(roof.owner, np.arange(len(outlines_m) + 1))
    two = np.flatnonzero(np.isfinite(roofs.lower))
    turns = minimum_rectangles(outlines_m[two])[2]
    for index, angle in zip(two.tolist(), turns.tolist()):
        some = slice(edges[index], edges[index + 1])
        high = roof.z[some] > (roofs.lower[index] + roofs.top[index]) / 2
        wrong = np.inf
        for quarter in range(4):
            east, north = np.cos(angle + quarter * np.pi / 2), np.sin(angle + quarter * np.pi / 2)
            along = roof.x[some] * east + roof.y[some] * north
            order = np.argsort(along, kind="stable")
            up = high[order]
            # Samples on the wrong side of a line before each sample, the last one excepted.
            mistakes = np.cumsum(up) + (~up).sum() - np.cumsum(~up)
            at = int(np.argmin(mistakes[:-1]))
            if mistakes[at] < wrong:
                wrong = mistakes[at]
                place = (along[order[at]] + along[order[at + 1]]) / 2
                lines[index] = east, north, place
        if wrong > _MOST_WRONG * len(high):
            lines[index] = np.nan
    return lines
