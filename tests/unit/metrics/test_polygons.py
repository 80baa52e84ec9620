"""Outlines against measures made by hand, and as the authors of the figures take them."""

import math

import numpy as np
import pytest
import shapely
from rasterio.features import rasterize
from shapely import affinity, box

from rooftrace.metrics.boundary import PolygonCounts, max_tangent_angles, polis
from rooftrace.vector.match import PolygonOverlaps


def array(*polygons: shapely.Polygon) -> np.ndarray:
    return np.array(polygons, dtype=object)


def test_polis_by_hand() -> None:
    # Two corners of the triangle lie on the square, the third is one above its upper side.
    square = box(0, 0, 2, 2)
    triangle = shapely.Polygon([(0, 0), (2, 0), (1, 3)])
    # The square's upper corners are 2 / sqrt(10) from the triangle's sides, 3 x + y = 6 and its
    # mirror image.
    expected = ((0 + 0 + 1) / 3 + (0 + 0 + 2 * 2 / math.sqrt(10)) / 4) / 2
    assert polis(array(triangle), array(square))[0] == pytest.approx(expected)


def test_pairs_are_the_best_and_each_polygon_is_in_one() -> None:
    truth = array(box(0, 0, 10, 10), box(0, 0, 10, 9), box(50, 0, 60, 10), box(80, 0, 90, 10))
    predicted = array(box(50, 0, 60, 5), box(0, 0, 10, 10), box(80, 0, 84, 10), box(0, 0, 10, 9.5))
    pairs = PolygonOverlaps.of(truth, predicted).matches(0.5)
    assert list(zip(pairs.one, pairs.other)) == [(0, 1), (1, 3), (2, 0)]
    np.testing.assert_allclose(pairs.iou, [1, 9 / 9.5, 0.5])
    assert len(PolygonOverlaps.of(truth, predicted).matches(0.6).iou) == 2


def test_figures_are_means_over_pairs() -> None:
    truth = array(box(0, 0, 10, 10), box(20, 0, 30, 10))
    cut = shapely.Polygon([(20, 0), (30, 0), (30, 10), (25, 10), (20, 5)])
    counts = PolygonCounts.of(truth, array(affinity.translate(truth[0], 1), cut))
    figures = counts.figures()
    assert (figures["labelled"], figures["found"], figures["pairs"]) == (2, 2, 2)
    assert figures["iou"] == pytest.approx((9 / 11 + 0.875) / 2)
    assert (figures["corners"], figures["corners_labelled"]) == (4.5, 4)
    # Of the one that moved only half of the corners leave the outline.
    nearest = math.sqrt(12.5)
    assert figures["polis_px"] == pytest.approx((0.5 + nearest / 4 / 2) / 2)
    # A corner more than 4, and 1 of 9 is what the counts differ by.
    assert figures["c_iou"] == pytest.approx((9 / 11 + 0.875 * 8 / 9) / 2)
    assert figures["n_ratio"] == 9 / 8
    # All that is covered: 90 and 87.5 of 110 and 100.
    assert figures["image_c_iou"] == pytest.approx(177.5 / 210 * 16 / 17)
    # The cut edge is at 45° to both sides. From a corner that moved along its side, the first step
    # of 2 goes 1 across to the other.
    across = math.degrees(math.atan(1 / 2))
    assert figures["max_tangent_angle_deg"] == pytest.approx((45 + across) / 2)


def test_a_scale_gives_metres() -> None:
    truth = array(box(0, 0, 10, 10))
    moved = array(affinity.translate(truth[0], 1))
    pixels, metres = (PolygonCounts.of(truth, moved, scale_m=scale) for scale in (None, 0.3))
    assert metres.figures()["polis_m"] == pytest.approx(0.3 * pixels.figures()["polis_px"])
    assert "polis_px" not in metres.figures()
    with pytest.raises(ValueError, match="distances in m and px"):
        _ = metres + pixels
    # Without a pair there is no distance.
    none = PolygonCounts.of(truth, truth[:0])
    assert (PolygonCounts() + none + metres).unit == (metres + none).unit == "m"


def test_what_is_cut_takes_no_part_on_either_side() -> None:
    # A house at the edge, whose match stops short of it; a block at the edge that was found as two
    # houses; a house that only touches what was left out.
    truth = array(box(0, 0, 10, 10), box(0, 20, 20, 40), box(0, 50, 12, 60))
    predicted = array(box(1, 0, 10, 10), box(2, 20, 9, 40), box(11, 20, 20, 40), box(8, 50, 20, 60))
    usable = np.array([False, False, True])
    counts = PolygonCounts.of(truth, predicted, usable_truth=usable)
    assert (counts.labelled, counts.found, counts.pairs) == (1, 1, 0)
    assert (counts.all_corners, counts.all_corners_labelled) == (4, 4)
    assert counts.image_c_iou_sum == pytest.approx(4 / 20)
    turned = PolygonCounts.of(predicted, truth, usable_predicted=usable)
    assert (turned.found, turned.labelled, turned.pairs) == (1, 1, 0)
    every = PolygonCounts.of(truth, predicted)
    assert (every.labelled, every.found, every.pairs) == (3, 4, 1)


def homes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Whole-numbered boxes and ells in cells of 12 by 12, so that pixels are exact."""
    corner, size = rng.integers(0, 4, (count, 2)), rng.integers(4, 8, (count, 2))
    at = corner + np.column_stack([np.arange(count) % 5, np.arange(count) // 5]) * 12
    whole = shapely.box(*at.T, *(at + size).T)
    bite = shapely.box(*(at + size - rng.integers(1, 4, (count, 2))).T, *(at + size).T)
    return np.where(rng.random(count) < 0.5, whole, shapely.difference(whole, bite))


@pytest.mark.parametrize("seed", range(2))
def test_images_are_judged_as_the_authors_of_c_iou_do(seed: int) -> None:
    """Compare with their script: masks and corners of all annotations of an image."""
    rng = np.random.default_rng(seed)
    truth, predicted = homes(rng, 20), homes(rng, 17)
    masks = [rasterize(side, (60, 60)).astype(bool) for side in (truth, predicted)]
    corners = [sum(len(one.exterior.coords) - 1 for one in side) for side in (truth, predicted)]
    expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    expected *= 1 - abs(corners[0] - corners[1]) / sum(corners)
    counts = PolygonCounts.of(truth, predicted)
    assert counts.figures()["image_c_iou"] == pytest.approx(expected)
    assert 0.1 < expected < 0.9


def angle(predicted: shapely.Polygon, truth: shapely.Polygon) -> float:
    return max_tangent_angles(np.array([predicted]), np.array([truth])).item()


def test_an_outline_that_is_the_same_or_only_moved_has_no_angle() -> None:
    home = box(0, 0, 20, 12)
    assert angle(home, home) == pytest.approx(0, abs=1e-5)
    assert angle(box(-0.5, -0.5, 20.5, 12.5), home) == pytest.approx(0, abs=1e-5)
    # The direction of travel is no matter.
    assert angle(home.reverse(), home) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("degrees", [3, 10, 20])
def test_a_turned_outline_has_the_angle_of_its_turn(degrees: float) -> None:
    # Long sides, so that points beside the corners are few: those on a side stay on it.
    disc = shapely.Point(0, 0).buffer(100, quad_segs=1)
    turned = affinity.rotate(disc, degrees)
    inner = shapely.Polygon([(x * 0.5, y * 0.5) for x, y in turned.exterior.coords])
    assert angle(inner, disc) == pytest.approx(degrees, abs=1e-6)
