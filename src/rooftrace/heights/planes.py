"""Planes fitted to the samples of many buildings at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, Floats, Ints
from rooftrace.heights.samples import Samples

MAX_PLANES = 5
"""Maximum number of roof planes of a building that are looked for."""

NO_PLANE = -1
"""Number of the plane of a sample that lies on none."""

_CHOSEN = 64
"""Maximum number of samples of a building on which planes are tried."""

_TRIES = 40
"""Number of planes that are tried for each plane found. With four equal planes, one triple of
samples in 16 lies on one plane, so 40 tries miss all with a probability of 8 %, and the next
search finds what was missed."""

_STEEPEST = 2.0
"""Maximum slope of a roof plane, as a ratio; what is steeper is a wall or noise."""

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


def roof_planes(samples: Samples, count: int, tolerance_m: Floats) -> tuple[Floats, Floats, Ints]:
    """Find the planes on which the samples of each roof lie, the largest first.

    Random triples of samples define planes, of which the one with most samples near it is kept and
    fitted again; then the next is looked for among the rest (RANSAC, Fischler & Bolles 1981,
    doi:10.1145/358669.358692, with the score of Torr & Zisserman 2000). The triples follow from a
    fixed sequence and from the number of samples, so a building gets the same planes wherever it
    is computed.

    Args:
        samples: Samples inside the outlines.
        count: Number of buildings.
        tolerance_m: (count,) maximum distance in metres of a sample from its plane.

    Returns:
        (count, MAX_PLANES, 3) a, b and c of z = a x + b y + c, NaN where there is no plane;
        (count, MAX_PLANES) shares of the building's samples that lie on them; (n,) number of the
        plane of each sample, or `NO_PLANE`.
    """
    within = tolerance_m[samples.owner]
    number = np.full(len(samples.owner), NO_PLANE, np.int64)
    planes = np.full((count, MAX_PLANES, 3), np.nan)
    size = np.bincount(samples.owner, minlength=count)
    # Up to `_CHOSEN` samples of each building, evenly over their order: (building, sample).
    step, taken = np.arange(_CHOSEN), np.minimum(size, _CHOSEN)[:, None]
    present = step < taken
    position = step * np.maximum(size, 1)[:, None] // np.maximum(taken, 1)
    index = np.where(present, (np.cumsum(size) - size)[:, None] + position, 0)
    sequence = np.random.default_rng(20).random((MAX_PLANES, _TRIES, 3))
    for k in range(MAX_PLANES if len(samples) else 0):
        left = present & (number[index] == NO_PLANE)
        active = np.flatnonzero(left.sum(axis=1) >= np.maximum(3, taken[:, 0] * _LEAST_SHARE))
        if not len(active):
            break
        fitted = np.full((count, 3), np.nan)
        fitted[active] = _best(
            samples, index[active], left[active], sequence[k], tolerance_m[active]
        )
        free = number == NO_PLANE
        for _ in range(2):
            near = free & (np.abs(samples.z - heights_on(fitted, samples)) <= within)
            fitted, _ = fit_planes(samples, near.astype(np.float64), count)
        near = free & (np.abs(samples.z - heights_on(fitted, samples)) <= within)
        enough = samples.sums(near, count) >= np.maximum(3, size * _LEAST_SHARE)
        fitted[~enough] = np.nan
        planes[:, k] = fitted
        number[near & enough[samples.owner]] = k
        # A building whose samples lie on no further plane is finished.
        present &= enough[:, None]
    # Each sample belongs to its nearest plane, and the planes are fitted once more.
    for _ in range(2):
        apart = np.stack(
            [np.abs(samples.z - heights_on(planes[:, k], samples)) for k in range(MAX_PLANES)]
        )
        apart[np.isnan(apart)] = np.inf
        number = np.argmin(apart, axis=0).astype(np.int64)
        number[apart.min(axis=0) > within] = NO_PLANE
        again = [fit_planes(samples, (number == k) * 1.0, count)[0] for k in range(MAX_PLANES)]
        planes = np.stack(again, axis=1)
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
    samples: Samples, index: Ints, left: BoolArray, sequence: Floats, tolerance_m: Floats
) -> Floats:
    """Return the plane (row, 3) near which most samples are, of those that triples define.

    Args:
        samples: All samples.
        index, left: (row, sample) some samples of each building, and those that may count.
        sequence: (tries, 3) places of the triples among the samples that are left, 0 to 1.
        tolerance_m: (row,) see `roof_planes`.
    """
    x, y = samples.x[index], samples.y[index]
    # Heights relative to the building keep their digits.
    base = samples.z[index[:, 0]]
    z = samples.z[index] - base[:, None]
    order = np.argsort(~left, axis=1, kind="stable")
    amount = left.sum(axis=1)
    best = np.full(len(index), -1.0)
    found = np.full((len(index), 3), np.nan)
    row = np.arange(len(index))
    for triple in sequence:
        pick = order[row[:, None], (triple[None] * amount[:, None]).astype(np.int64)]
        plane = _through(*(values[row[:, None], pick] for values in (x, y, z)))
        apart = z - (plane[:, :1] * x + plane[:, 1:2] * y + plane[:, 2:])
        near = np.maximum(0.0, 1 - (apart / tolerance_m[:, None]) ** 2)
        score = np.where(left, near, 0.0).sum(axis=1)
        score[np.hypot(plane[:, 0], plane[:, 1]) > _STEEPEST] = -1.0
        better = score > best
        best[better], found[better] = score[better], plane[better]
    found[:, 2] += base
    return found


def _through(x: Floats, y: Floats, z: Floats) -> NDArray[np.float64]:
    """Return the plane (row, 3) through three points (row, 3); level where they are in line."""
    ux, uy, uz = (values[:, 1] - values[:, 0] for values in (x, y, z))
    vx, vy, vz = (values[:, 2] - values[:, 0] for values in (x, y, z))
    across = ux * vy - uy * vx
    sound = np.abs(across) > 1e-3
    across = np.where(sound, across, 1.0)
    a = np.where(sound, (uz * vy - uy * vz) / across, 0.0)
    b = np.where(sound, (ux * vz - uz * vx) / across, 0.0)
    return np.stack([a, b, z[:, 0] - a * x[:, 0] - b * y[:, 0]], axis=1)
