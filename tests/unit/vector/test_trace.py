import cv2
import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rooftrace.vector.trace import trace

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
binary = hnp.arrays(np.uint8, shapes, elements=st.integers(0, 1))


def noise(shape: tuple[int, int], density: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < density).astype(np.uint8)


def canonical(polygons) -> list[bytes]:
    return sorted(shapely.to_wkb(shapely.normalize(np.asarray(polygons, dtype=object))).tolist())


def assert_traced(mask: np.ndarray) -> None:
    traced = trace(mask)
    polygons = traced.polygons
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).tolist() == traced.area_px.tolist()
    assert traced.area_px.sum() == np.count_nonzero(mask)
    if len(polygons):
        drawn = rasterio.features.rasterize(
            ((p, i) for i, p in enumerate(polygons, 1)), out_shape=mask.shape, dtype="int32"
        )
        np.testing.assert_array_equal(drawn > 0, mask > 0)
    # One polygon for each 4-connected region, and none over two of them.
    count, labels = cv2.connectedComponents((mask > 0).astype(np.uint8), connectivity=4)
    assert len(polygons) == count - 1
    rows, cols = traced.first_pixel_yx.T
    assert len(np.unique(labels[rows, cols])) == len(polygons)
    values, first = np.unique(labels.ravel(), return_index=True)
    expected = sorted(first[values > 0])
    assert (rows * mask.shape[1] + cols).tolist() == expected
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            steps = np.diff(np.asarray(ring.coords), axis=0)
            assert (np.count_nonzero(steps, axis=1) == 1).all(), "along pixel edges"
            turns = steps[:, 0] != 0
            assert (turns != np.roll(turns, 1)).all(), "vertices only where it turns"


@settings(deadline=None)
@given(binary)
def test_polygons_are_the_mask(mask: np.ndarray) -> None:
    assert_traced(mask)


@pytest.mark.parametrize("density", [0.02, 0.3, 0.6, 0.9])
def test_polygons_of_noise_are_the_mask(density: float) -> None:
    assert_traced(noise((97, 61), density))


@pytest.mark.campaign
@pytest.mark.parametrize("density", [0.05, 0.4, 0.6, 0.95])
def test_equals_gdal_with_four_neighbours(density: float) -> None:
    # The mask is taller than the strips in which corners are found at this width.
    mask = noise((600, 1200), density, seed=1)
    shapes = rasterio.features.shapes(mask, mask=mask.astype(bool), connectivity=4)
    expected = [shapely.geometry.shape(geometry) for geometry, _ in shapes]
    assert canonical(trace(mask).polygons) == canonical(expected)


@pytest.mark.campaign
def test_wider_than_sixteen_bits() -> None:
    mask = noise((3, 70_000), 0.5)
    assert trace(mask).area_px.sum() == mask.sum()
    turned = trace(np.ascontiguousarray(mask.T)).polygons
    back = shapely.transform(turned, lambda xy: xy[:, ::-1])
    assert canonical(back) == canonical(trace(mask).polygons)


def test_a_view_is_traced_like_its_copy_and_all_but_zero_is_foreground() -> None:
    mask, prob = noise((40, 30), 0.5), np.random.default_rng(1).random((40, 30), np.float32)
    for same in (mask > 0, mask * np.uint8(255)):
        assert canonical(trace(same).polygons) == canonical(trace(mask).polygons)
    view, prob_view = mask[::-2, ::3], prob[::-2, ::3]
    seen, copied = trace(view, prob=prob_view), trace(view.copy(), prob=prob_view.copy())
    assert canonical(seen.polygons) == canonical(copied.polygons)
    np.testing.assert_array_equal(seen.score, copied.score)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_a_mask_without_pixels(shape: tuple[int, int]) -> None:
    traced = trace(np.zeros(shape, np.uint8), prob=np.zeros(shape, np.float32))
    assert (len(traced), traced.score.shape, traced.first_pixel_yx.shape) == (0, (0,), (0, 2))


@settings(deadline=None)
@given(binary, st.sampled_from([1.0, 255.0]), st.integers(0, 2**32 - 1))
def test_score_is_the_mean_of_the_regions_pixels(mask, scale: float, seed: int) -> None:
    prob = np.random.default_rng(seed).random(mask.shape, np.float32)
    prob = prob if scale == 1 else (prob * 255).astype(np.uint8)
    traced = trace(mask, prob=prob)
    _, labels = cv2.connectedComponents(mask, connectivity=4)
    for (row, col), score in zip(traced.first_pixel_yx, traced.score, strict=True):
        expected = prob[labels == labels[row, col]].mean(dtype=np.float64) / scale
        assert score == pytest.approx(expected, abs=2e-7)


def test_probabilities_outside_the_foreground_do_not_matter() -> None:
    mask = noise((20, 20), 0.5)
    prob = np.random.default_rng(1).random(mask.shape, np.float32)
    hidden = np.where(mask > 0, prob, np.nan).astype(np.float32)
    np.testing.assert_array_equal(trace(mask, prob=hidden).score, trace(mask, prob=prob).score)


def test_unknown_probabilities_do_not_count() -> None:
    mask = np.array([[1, 1, 0, 1], [1, 1, 0, 1]], np.uint8)
    prob = np.array([[0.5, np.nan, 1, np.nan], [0.25, np.nan, 1, np.nan]], np.float32)
    np.testing.assert_array_equal(trace(mask, prob=prob).score, [0.375, np.nan])
