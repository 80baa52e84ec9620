"""Planted scale factors between two sets are found, and uncertain cases are reported as such."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from rooftrace.audit.scale import ScaleEstimate, estimate_scale
from rooftrace.core.types import Scene
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels.source import SceneEntry, SceneSet
from town import generate_scene

Image = NDArray[np.uint8]


def set_of(images: Sequence[Image], gsd_m: float | None = None) -> SceneSet:
    """Return a set in memory."""

    def open_scene(entry: SceneEntry) -> Scene:
        return Scene(entry.id, ArraySource(images[entry.key]), gsd_m=gsd_m)

    entries = tuple(SceneEntry(f"{i:03}", None, key=i) for i in range(len(images)))
    return SceneSet("set", "memory", ("no", "yes"), 1, (), open_scene, unlabelled=entries)


@cache
def town(gsd_m: float, first: int = 0, count: int = 5) -> tuple[Image, ...]:
    """Return images of towns of 134 m; a seed gives the same ground at every scale."""
    side = round(134.4 / gsd_m)
    seeds = range(first, first + count)
    return tuple(generate_scene(seed, (side, side), gsd_m).image for seed in seeds)


def images_estimate(a: Sequence[Image], b: Sequence[Image]) -> ScaleEstimate:
    shift = estimate_scale(set_of(a), set_of(b))
    assert [estimate.method for estimate in shift.estimates] == ["images"]
    return shift.estimates[0]


@pytest.mark.campaign
@pytest.mark.parametrize("gsd_m", [0.2, 0.6])
def test_the_same_towns_drawn_at_another_scale(gsd_m: float) -> None:
    found = images_estimate(town(0.3), town(gsd_m))
    assert found.factor == pytest.approx(gsd_m / 0.3, rel=0.2)
    assert found.low <= gsd_m / 0.3 <= found.high


def test_a_set_of_which_some_scenes_know_no_metres_knows_none() -> None:
    images = town(0.6, count=3)
    known, unknown = set_of(images, gsd_m=0.6), set_of(images)

    def open_scene(entry: SceneEntry) -> Scene:
        return (unknown if entry.key else known).open_scene(entry)

    mixed = SceneSet("set", "memory", ("no", "yes"), 1, (), open_scene, unlabelled=known.unlabelled)
    shift = estimate_scale(set_of(images, gsd_m=0.6), mixed)
    assert (shift.gsd_a_m, shift.gsd_b_m) == (0.6, None)
    assert [each.method for each in shift.estimates] == ["images"]


# Real sets
