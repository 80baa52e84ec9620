"""Targets of the second head, from labels with and without building numbers."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memory_sets import ArrayLabel, scene_of, set_of
from rooftrace.core.types import GeoGrid, InstanceReader, Sample, Scene, Window
from rooftrace.io.georeferenced import WindowLabel
from rooftrace.io.sources import ArraySource
from rooftrace.labels.ground_truth import building_instances
from rooftrace.labels.kinds import ShiftedLabel
from rooftrace.labels.mask_values import IGNORED
from rooftrace.labels.shapes import ShapesLabel
from rooftrace.samples.augment import AugmentConfig, warp
from rooftrace.samples.dataset import EvalTiles, TrainSamples
from rooftrace.train.datamodule import BorderTarget, DistanceTarget, separation_target

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
@pytest.mark.parametrize("kind", ["border", "distance"])
def test_a_target_knows_no_numbers_and_no_direction(kind, instances) -> None:
    target = separation_target(kind, 2)
    made = target(instances)
    assert made.dtype == np.float32
    assert made.min() >= 0
    assert made.max() <= 1
    renumbered = np.array([0, 90, 4, 17], np.int32)[instances]
    np.testing.assert_array_equal(target(renumbered), made)
    np.testing.assert_allclose(target(instances[::-1].copy()), made[::-1], atol=1e-6)
    np.testing.assert_allclose(target(instances.T.copy()), made.T, atol=1e-6)


@given(maps)
def test_a_border_has_two_buildings_near_and_nothing_else_has(instances) -> None:
    border = BorderTarget(1)(instances)
    for (row, col), value in np.ndenumerate(border):
        around = instances[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2]
        assert (len(set(around[around > 0].tolist())) > 1) == value


def test_polygons_separate_houses_that_touch() -> None:
    label = row_of_houses((2, 2, 8, 10), (8, 2, 14, 10))
    ids = label.read_instances()
    assert isinstance(label, InstanceReader)
    np.testing.assert_array_equal(ids > 0, label.read().data == 1)
    assert ids[5, 7:9].tolist() == [1, 2]


def test_numbers_do_not_depend_on_the_window() -> None:
    label = row_of_houses((2, 2, 8, 10), (8, 2, 14, 10), (20, 12, 28, 18))
    whole = label.read_instances()
    for window in (Window(0, 6, 9, 9), Window(11, 15, 9, 15), Window(0, 20, 5, 5)):
        np.testing.assert_array_equal(label.read_instances(window), whole[window.slices()])


def test_what_lies_on_top_hides_a_shape_and_what_is_no_object_has_no_number() -> None:
    label = row_of_houses(
        (0, 0, 10, 10), (4, 0, 14, 10), (6, 0, 7, 10), (20, 0, 25, 5), classes=(1, 1, IGNORED, 0)
    )
    ids = label.read_instances()
    np.testing.assert_array_equal(ids[3, :15], [1] * 4 + [2] * 2 + [0] + [2] * 7 + [0])
    assert not ids[:5, 20:25].any()


def test_moved_and_cut_labels_number_as_their_scene_does() -> None:
    label = row_of_houses((2, 2, 8, 10), (8, 2, 14, 10))
    moved = ShiftedLabel(label, GRID, 3, -2).read_instances(Window(4, 0, 10, 20))
    expected = np.zeros((20, 30), np.int32)
    expected[3:, :28] = label.read_instances()[:17, 2:]
    np.testing.assert_array_equal(moved, expected[4:14, :20])
    assert not ShiftedLabel(label, GRID, 30, 0).read_instances().any()
    chip = WindowLabel(label, Window(1, 5, 8, 8))
    np.testing.assert_array_equal(chip.read_instances(), label.read_instances()[1:9, 5:13])


def test_a_mask_has_no_instances() -> None:
    mask = ArrayLabel(np.zeros((20, 30), np.uint8), np.ones((20, 30), bool))
    assert not isinstance(mask, InstanceReader)
    assert WindowLabel(mask, Window(0, 0, 5, 5)).read_instances() is None
    assert ShiftedLabel(mask, GRID, 1, 1).read_instances() is None


def test_components_replace_missing_instances() -> None:
    is_building = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(building_instances(is_building, None) > 0, is_building)
    assert len(np.unique(building_instances(is_building, None))) == 3  # two and the ground
    numbers = np.arange(1, 13, dtype=np.int32).reshape(3, 4)
    np.testing.assert_array_equal(
        building_instances(is_building, numbers), np.where(is_building, numbers, 0)
    )


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


def test_samples_of_masks_have_components() -> None:
    data = np.zeros((20, 30), np.uint8)
    data[2:8, 2:8] = data[12:18, 12:18] = 1
    (tile,) = EvalTiles(
        set_of(scene_of("a", data)), crop_px=32, scales=None, cache_bytes=2**20, instances=True
    )
    assert len(np.unique(tile.instances)) == 3
