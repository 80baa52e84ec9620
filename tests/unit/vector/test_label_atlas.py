"""Many regions are packed into one raster without contact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.vector import watershed as sheets
from rooftrace.vector.trace import trace
from rooftrace.vector.watershed import LabelAtlas, batches, pack_rectangles


def noise(seed: int, shape_yx: tuple[int, int] = (50, 70)) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape_yx) < 0.45).astype(np.uint8)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=60))
def test_rectangles_do_not_touch(sizes: list[tuple[int, int]]) -> None:
    size = np.array(sizes, np.int64).reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "_SIDE_PX", 64)
        origin, shape = pack_rectangles(size)
    taken = np.zeros(shape, np.int64)
    for (row, col), (height, width) in zip(origin.tolist(), size.tolist()):
        # Two of these overlap if less than one pixel separates the rectangles.
        taken[row : row + height + 1, col : col + width + 1] += 1
    assert taken.max(initial=0) <= 1
    assert taken.sum() == ((size[:, 0] + 1) * (size[:, 1] + 1)).sum(), "inside of the atlas"
    assert not taken[0].any()
    assert not taken[:, 0].any()


def test_batches_are_all_in_their_order() -> None:
    area = np.array([3, 3, 3, 50, 1, 1, 8])
    parts = [part.tolist() for part in batches(area, 9)]
    assert parts == [[0, 1, 2], [3], [4, 5], [6]]
    assert list(batches(area[:0], 9)) == []


@pytest.mark.parametrize("step_px", [1, 3])
def test_an_atlas_has_the_pixels_of_its_regions(step_px: int) -> None:
    mask = noise(1)
    regions = trace(mask)
    regions = regions.of(regions.area_px > 3)
    atlas = LabelAtlas.of(regions.polygons, step_px)
    row, col = np.nonzero(atlas.number)
    number = atlas.number[row, col]
    assert np.bincount(number, minlength=len(regions) + 1)[1:].tolist() == regions.area_px.tolist()
    at = np.stack([row, col], axis=1) + atlas.origin_yx[number - 1]
    assert mask[tuple(at.T)].all()
    assert len(np.unique(at, axis=0)) == len(at)
    first = regions.first_pixel_yx - atlas.origin_yx
    assert atlas.number[tuple(first.T)].tolist() == list(range(1, len(regions) + 1))
    left_top = np.array([polygon.bounds[1::-1] for polygon in regions.polygons])
    assert not ((left_top - atlas.origin_yx) % step_px).any()
