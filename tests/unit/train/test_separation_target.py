"""Targets of the second head, from labels with and without building numbers."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memory_sets import set_of
from rooftrace.core.types import GeoGrid, Sample, Scene
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels.shapes import ShapesLabel
from rooftrace.samples.augment import AugmentConfig, warp
from rooftrace.samples.dataset import EvalTiles, TrainSamples
from rooftrace.train.datamodule import BorderTarget, DistanceTarget

GRID = GeoGrid((20, 30))

ROW = np.array([[0, 1, 1, 1, 1, 2, 2, 2, 2, 0]] * 6, np.int32)
"""Two houses that touch."""

maps = arrays(np.int32, (9, 12), elements=st.integers(0, 3))


def row_of_houses(*boxes: tuple[int, int, int, int], classes: tuple[int, ...] = ()) -> ShapesLabel:
    geometry = np.array([shapely.box(*box) for box in boxes], dtype=object)
    return ShapesLabel(geometry, classes or (1,) * len(boxes), GRID)


def test_the_border_lies_on_both_sides_of_a_shared_wall() -> None:
    expected = np.array([[0, 0, 0, 1, 1, 1, 1, 0, 0, 0]] * 6, np.float32)
    np.testing.assert_array_equal(BorderTarget(2)(ROW), expected)


def test_the_border_fills_a_narrow_gap_and_leaves_a_wide_one() -> None:
    gap = np.array([[1, 1, 0, 0, 2, 2, 0, 0, 0, 3, 3]], np.int32)
    np.testing.assert_array_equal(BorderTarget(1)(np.array([[1, 0, 2]], np.int32)), [[0, 1, 0]])
    assert not BorderTarget(1)(gap).any()
    np.testing.assert_array_equal(BorderTarget(2)(gap), [[0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0]])


def test_the_distance_is_zero_on_an_outline_and_one_in_the_middle() -> None:
    house = np.zeros((9, 9), np.int32)
    house[1:8, 1:8] = 7
    depth = DistanceTarget(2)(house)
    np.testing.assert_array_equal(depth[4], [0, 0, 0.5, 1, 1, 1, 0.5, 0, 0])
    np.testing.assert_array_equal(depth, depth.T)


def test_the_distance_is_zero_between_houses_that_touch_and_not_at_the_edge_of_the_crop() -> None:
    depth = DistanceTarget(2)(ROW)
    np.testing.assert_array_equal(depth[0], [0, 0, 0.5, 0.5, 0, 0, 0.5, 0.5, 0, 0])
    assert DistanceTarget(3)(np.ones((5, 5), np.int32)).min() == 1


@given(maps)
def test_a_border_has_two_buildings_near_and_nothing_else_has(instances) -> None:
    border = BorderTarget(1)(instances)
    for (row, col), value in np.ndenumerate(border):
        around = instances[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2]
        assert (len(set(around[around > 0].tolist())) > 1) == value


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.6])
def test_numbers_go_where_their_pixels_go(scale: float) -> None:
    rng = np.random.default_rng(0)
    target = (rng.random((90, 90)) < 0.5).astype(np.uint8)
    ids = np.where(target, 7 * target.astype(np.int32), 0)
    sample = Sample(np.zeros((1, 90, 90), np.uint8), target, np.ones((90, 90), bool), ids)
    turned = np.array([[0.8, -0.6, 20.0], [0.6, 0.8, 3.0]])
    turned[:, :2] *= scale
    crop = warp(sample, turned, 24)
    np.testing.assert_array_equal(crop.instances, crop.target * 7)
    assert crop.target.any()


def houses() -> Scene:
    label = row_of_houses((2, 2, 8, 10), (8, 2, 14, 10), (16, 2, 22, 10), classes=(1, 1, 2))
    return Scene("a", ArraySource(np.zeros((1, 20, 30), np.uint8)), label)


def test_samples_have_the_buildings_of_their_class_if_asked_for() -> None:
    source = set_of(houses(), classes=3)
    options = {"crop_px": 32, "cache_bytes": 2**20}
    (tile,) = EvalTiles(source, **options, scales=None, instances=True)
    assert set(np.unique(tile.instances)) == {0, 1, 2}
    np.testing.assert_array_equal(tile.instances > 0, tile.target == 1)
    (plain,) = EvalTiles(source, **options, scales=None)
    assert plain.instances is None
    for limit in (2**20, 0):  # a scene is read by window where it is too large to keep
        samples = TrainSamples(
            [source], **(options | {"cache_bytes": limit}), gsd_m=None, augment=AugmentConfig(),
            samples=1, seed=0, instances=True,
        )  # fmt: skip
        sample = samples[0]
        np.testing.assert_array_equal(sample.instances > 0, sample.target == 1)
        assert set(np.unique(sample.instances)) == {0, 1, 2}
