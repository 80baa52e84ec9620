"""Samples with the numbers of their buildings."""

import numpy as np
import pytest
import shapely

from memory_sets import set_of
from rooftrace.core.types import GeoGrid, Sample, Scene
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels.shapes import ShapesLabel
from rooftrace.samples.augment import AugmentConfig, warp
from rooftrace.samples.dataset import EvalTiles, TrainSamples

GRID = GeoGrid((20, 30))


def row_of_houses(*boxes: tuple[int, int, int, int], classes: tuple[int, ...] = ()) -> ShapesLabel:
    geometry = np.array([shapely.box(*box) for box in boxes], dtype=object)
    return ShapesLabel(geometry, classes or (1,) * len(boxes), GRID)


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
