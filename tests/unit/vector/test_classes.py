"""The polygons of all classes cover each of their pixels once, for any division of the scene."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.core.types import Window
from rooftrace.tiling.plan import plan_blocks
from rooftrace.vector.trace import trace
from rooftrace.vector.trace_blocks import ClassPolygonizer


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_each_class_is_traced_as_if_alone(
    shape: tuple[int, int], classes: int, coarse: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, classes, (-(-shape[0] // coarse), -(-shape[1] // coarse)), np.uint8)
    mask = small.repeat(coarse, axis=0).repeat(coarse, axis=1)[: shape[0], : shape[1]]
    score = rng.integers(0, 256, shape, dtype=np.uint8)
    polygonizer = ClassPolygonizer(shape, range(1, classes + 1))
    for window in plan_blocks(shape, block_px=16):
        part = mask[window.slices()]
        polygonizer.feed(window, part, score[window.slices()], np.unique(part).tolist())
    found = polygonizer.finish()
    assert list(found) == list(range(1, classes + 1))
    for index, traced in found.items():
        alone = trace(mask == index, prob=score)
        assert shapely.to_wkb(traced.polygons).tolist() == shapely.to_wkb(alone.polygons).tolist()
        np.testing.assert_array_equal(traced.score, alone.score)
    every = np.concatenate([traced.polygons for traced in found.values()])
    assert shapely.area(every).sum() == (mask > 0).sum()
    assert shapely.union_all(every).area == (mask > 0).sum()


def test_what_is_left_out_leaves_a_hole() -> None:
    polygonizer = ClassPolygonizer((4, 4), [1])
    polygonizer.feed(Window(0, 0, 2, 4), np.ones((2, 4), np.uint8), np.ones((2, 4), np.uint8), [1])
    with pytest.raises(ValueError, match="cover 8 of the scene's 16 pixels"):
        polygonizer.finish()
