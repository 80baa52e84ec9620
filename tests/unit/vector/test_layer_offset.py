"""Systematic offsets that were put into a layer are found again, and only those."""

import numpy as np
import pytest
import shapely

from rooftrace.vector.compare import compare_layers
from rooftrace.vector.layer_offset import estimate_offset
from rooftrace.vector.match import PackedPolygons


def town(side: int = 20, spacing: float = 22.0, seed: int = 0) -> np.ndarray:
    """Return houses of different sizes on a grid that is not regular."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * spacing
    corner = grid + rng.uniform(0, 6, grid.shape)
    size = rng.uniform(6, 14, grid.shape)
    return np.asarray(shapely.box(*corner.T, *(corner + size).T), np.object_)


def packed(houses: np.ndarray, shift: np.ndarray, noise: float = 0.3) -> PackedPolygons:
    layer = PackedPolygons.of(houses)
    jitter = np.random.default_rng(1).normal(0, noise, (len(layer), 2))
    return layer.shifted(np.broadcast_to(shift, (len(layer), 2)) + jitter)


@pytest.mark.parametrize("shift", [(0, 0), (1.5, -0.8), (6, 4), (-11, 9), (70, -110)])
def test_an_offset_is_found_also_where_no_house_meets_its_own(shift: tuple[float, float]) -> None:
    old = PackedPolygons.of(town())
    found = estimate_offset(packed(town(), np.array(shift)), old)
    assert found is not None
    np.testing.assert_allclose(found.xy, shift, atol=0.1)
    assert found.cells is None
    assert found.spread == pytest.approx(0.3 * 0.67, abs=0.05)
    moved = np.random.default_rng(3).random((len(old), 1)) < 0.3
    found = estimate_offset(packed(town(), np.array(shift)).shifted(moved * (6.0, 0.0)), old)
    np.testing.assert_allclose(found.xy if found else np.nan, shift, atol=0.3)


def test_an_offset_that_varies_is_found_cell_by_cell_and_removed() -> None:
    houses = town(side=100)
    old = PackedPolygons.of(houses)
    # From 0 in the west to 5 m in the east.
    shift = old.centre[:, :1] / 2200 * (5.0, 0.0)
    new = packed(houses, shift)
    found = estimate_offset(new, old)
    assert found is not None
    assert found.cells is not None
    np.testing.assert_allclose(np.median(found.at(new.centre) - shift, axis=0), 0, atol=0.2)
    assert np.abs(found.at(new.centre) - shift).max() < 1.2
    before = compare_layers(new, old).new.counts()
    after = compare_layers(new.shifted(-found.at(new.centre)), old).new.counts()
    assert before["same"] < 0.7 * len(old) < 0.99 * len(old) < after["same"]


def test_few_houses_need_to_agree_and_other_houses_give_no_offset() -> None:
    few = PackedPolygons.of(town(4))
    found = estimate_offset(packed(town(4), np.array([-4.0, 3.0])), few)
    np.testing.assert_allclose(found.xy if found else np.nan, [-4, 3], atol=0.3)
    assert estimate_offset(packed(town(4), np.zeros(2), noise=2), few) is None
    for other in (town()[:0], town()[:4], *(town(4, seed=seed) for seed in range(1, 20))):
        assert estimate_offset(PackedPolygons.of(other), few) is None
        assert estimate_offset(few, PackedPolygons.of(other)) is None
