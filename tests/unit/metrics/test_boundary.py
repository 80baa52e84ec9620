"""Outlines by hand and against a plain loop; edges of what is known are none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rooftrace.metrics import boundary
from rooftrace.metrics.boundary import BoundaryCounts

of = BoundaryCounts.of


def box(rows: slice, cols: slice, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, cols] = True
    return mask


SQUARE = box(slice(10, 20), slice(10, 20))


def test_bands_by_hand() -> None:
    same = of(SQUARE, SQUARE)
    # A ring of 10 × 10 less its inside; the square moved along the row by one overlaps it thus.
    band, moved_band = 100 - 16, 6 * 9 + 4 * 4
    assert same.band.tolist() == [band, band]
    moved = of(SQUARE, np.roll(SQUARE, 1, axis=1))
    both = moved.band[0]
    assert moved.band.tolist() == [both, 2 * band - both]
    assert both == moved_band


def test_nothing_on_one_side_or_on_both() -> None:
    nothing = np.zeros_like(SQUARE)
    assert of(SQUARE, nothing).figures() == dict.fromkeys(of(SQUARE, SQUARE).figures(), 0.0)
    for empty in (of(nothing, nothing), BoundaryCounts.zero()):
        assert all(math.isnan(value) for value in empty.figures().values())
    # Where all is the class there is no outline to find.
    assert math.isnan(of(~nothing, ~nothing).iou)


def test_the_edge_of_an_image_is_no_outline() -> None:
    """A building that leaves the image has an outline only inside the image."""
    leaving = box(slice(10, 20), slice(0, 20))
    counts = of(leaving, leaving)
    # Its contour has two rows and a column; 2 px of each row are too near to the edge.
    assert counts.contours[0].tolist() == [2 * 18 + 8] * 2 + [2 * 18 + 8] * 2
    everywhere = np.ones((40, 40), bool)
    cut = box(slice(0, 40), slice(0, 25))
    # The invalid part neither has nor ends an outline, for any values of the arrays there.
    assert math.isnan(of(everywhere, cut, cut).iou)
    assert of(SQUARE, SQUARE | ~cut, cut).figures() == of(SQUARE, SQUARE).figures()


def plain(
    truth: np.ndarray, guess: np.ndarray, valid: np.ndarray, band_px: int = 3
) -> BoundaryCounts:
    """The definitions, pixel by pixel."""
    height, width = truth.shape

    def near(row: int, col: int, px: int) -> list[tuple[int, int]]:
        span = range(-px, px + 1)
        return [(row + y, col + x) for y in span for x in span if y * y + x * x <= px * px]

    def known(place: tuple[int, int]) -> bool:
        return 0 <= place[0] < height and 0 <= place[1] < width and bool(valid[place])

    def in_band(side: np.ndarray, place: tuple[int, int], px: int) -> bool:
        return (
            known(place)
            and bool(side[place])
            and any(known(p) and not side[p] for p in near(*place, px))
        )

    band, contours = np.zeros(2, np.int64), np.zeros((3, 4), np.int64)
    for place in np.ndindex(height, width):
        if all(known(p) for p in near(*place, band_px)):
            inside = [in_band(side, place, band_px) for side in (truth, guess)]
            band += [all(inside), any(inside)]
        for index, px in enumerate((1, 2, 3)):
            if not all(known(p) for p in near(*place, px + 1)):
                continue
            for first, (side, other) in ((0, (truth, guess)), (2, (guess, truth))):
                if in_band(side, place, 1):
                    found = any(in_band(other, p, 1) for p in near(*place, px))
                    contours[index, first : first + 2] += [found, 1]
    return BoundaryCounts(band, contours)


maps = hnp.arrays(bool, (13, 12), elements=st.booleans())


@given(maps, maps, st.sets(st.tuples(st.integers(0, 12), st.integers(0, 11)), max_size=3))
def test_against_a_plain_loop(
    truth: np.ndarray, guess: np.ndarray, holes: set[tuple[int, int]]
) -> None:
    valid = np.ones(truth.shape, bool)
    for hole in holes:
        valid[hole] = False
    counts, expected = of(truth, guess, valid), plain(truth, guess, valid)
    np.testing.assert_array_equal(counts.band, expected.band)
    np.testing.assert_array_equal(counts.contours, expected.contours)


def test_a_part_is_judged_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into strips that see their surroundings, the counts are the same."""
    rng = np.random.default_rng(0)
    sides = [np.kron(rng.random((25, 10)) < 0.4, np.ones((4, 5), bool)) for _ in range(2)]
    valid = rng.random(sides[0].shape) < 0.995
    whole = of(*sides, valid)
    assert min(whole.band.min(), whole.contours.min()) > 0
    for rows in (1, 7, 30):
        monkeypatch.setattr(boundary, "_ROWS", rows)
        strips = of(*sides, valid)
        np.testing.assert_array_equal(strips.band, whole.band)
        np.testing.assert_array_equal(strips.contours, whole.contours)
