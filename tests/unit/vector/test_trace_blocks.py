import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rooftrace.core.types import Window
from rooftrace.vector.trace import TracedPolygons, trace
from rooftrace.vector.trace_blocks import BlockPolygonizer

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Noise at some density: saddles, holes, islands in holes."""
    shape = draw(shapes)
    density = draw(st.floats(0.1, 0.9))
    seed = draw(st.integers(0, 2**32 - 1))
    if draw(st.booleans()):
        return draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    return (np.random.default_rng(seed).random(shape) < density).astype(np.uint8)


@st.composite
def partitions(draw: st.DrawFn, shape_yx: tuple[int, int]) -> list[Window]:
    """Guillotine cuts, so that the edges of neighbours need not be aligned; shuffled."""
    todo, done = [Window.whole(shape_yx)], []
    while todo:
        w = todo.pop()
        cut = draw(st.sampled_from(["none", "rows", "cols"])) if len(todo) + len(done) < 12 else ""
        if cut == "rows" and w.height > 1:
            at = draw(st.integers(1, w.height - 1))
            todo += [
                Window(w.row, w.col, at, w.width),
                Window(w.row + at, w.col, w.height - at, w.width),
            ]
        elif cut == "cols" and w.width > 1:
            at = draw(st.integers(1, w.width - 1))
            todo += [
                Window(w.row, w.col, w.height, at),
                Window(w.row, w.col + at, w.height, w.width - at),
            ]
        else:
            done.append(w)
    return draw(st.permutations(done))


def by_blocks(mask: np.ndarray, prob: np.ndarray, blocks: list[Window]):
    polygonizer = BlockPolygonizer(mask.shape)
    for window in blocks:
        polygonizer.feed(window, mask[window.slices()], prob[window.slices()])
    return polygonizer.finish()


def assert_same(a, b) -> None:
    # Ring by ring and vertex by vertex: stricter than the sets of normalised polygons.
    assert shapely.to_wkb(a.polygons).tolist() == shapely.to_wkb(b.polygons).tolist()
    np.testing.assert_array_equal(a.score, b.score)
    np.testing.assert_array_equal(a.area_px, b.area_px)
    np.testing.assert_array_equal(a.first_pixel_yx, b.first_pixel_yx)


@settings(deadline=None)
@given(st.data(), masks(), st.integers(1, 9))
def test_small_regions_are_left_out(data: st.DataObject, mask: np.ndarray, smallest: int) -> None:
    polygonizer = BlockPolygonizer(mask.shape, smallest)
    for window in data.draw(partitions(mask.shape)):
        polygonizer.feed(window, mask[window.slices()], None)
    whole = trace(mask, prob=np.zeros(mask.shape, np.uint8))
    large = whole.area_px >= smallest
    assert_same(polygonizer.finish(), whole.of(large))


@settings(deadline=None)
@given(st.data(), masks(), st.sampled_from([np.float32, np.uint8]))
def test_blocks_equal_the_whole(data: st.DataObject, mask: np.ndarray, dtype: type) -> None:
    rng = np.random.default_rng(0)
    prob = rng.random(mask.shape, np.float32)
    unknown = prob < data.draw(st.sampled_from([0, 0.2]))
    prob = (
        np.where(unknown, np.float32("nan"), prob)
        if dtype == np.float32
        else (prob * 255).astype(np.uint8)
    )
    blocks = data.draw(partitions(mask.shape))
    assert_same(by_blocks(mask, prob, blocks), trace(mask, prob=prob))


@settings(deadline=None)
@given(st.data(), masks())
def test_regions_taken_early_add_up_to_the_whole(data: st.DataObject, mask: np.ndarray) -> None:
    prob = np.random.default_rng(0).random(mask.shape, np.float32)
    polygonizer, taken = BlockPolygonizer(mask.shape), []
    seen = np.zeros(mask.shape, np.bool_)
    for window in data.draw(partitions(mask.shape)):
        polygonizer.feed(window, mask[window.slices()], prob[window.slices()])
        seen[window.slices()] = True
        if data.draw(st.booleans()):
            before = {tuple(first) for part in taken for first in part.first_pixel_yx.tolist()}
            taken.append(polygonizer.take(join=True))
            assert before | set(map(tuple, taken[-1].first_pixel_yx.tolist())) == complete(
                mask, seen
            )
    taken.append(polygonizer.finish())
    assert_same(TracedPolygons.joined(taken), trace(mask, prob=prob))


def complete(mask: np.ndarray, seen: np.ndarray) -> set[tuple[int, int]]:
    """First pixels of the regions that meet no pixel that was not seen."""
    regions = trace((mask != 0) & seen)
    unseen = trace(~seen).polygons
    open_ = shapely.STRtree(unseen).query(regions.polygons, predicate="intersects")[0]
    # Pixels that meet at a corner alone do not touch.
    shared = [
        i for i in set(open_.tolist())
        if any(shapely.intersection(regions.polygons[i], part).length > 0 for part in unseen)
    ]  # fmt: skip
    firsts = np.delete(regions.first_pixel_yx, shared, axis=0)
    return set(map(tuple, firsts.tolist()))


def test_row_by_row_only_open_regions_are_held() -> None:
    """Houses on a raster, and one road from top to bottom."""
    side, block = 30 * 64, 64
    mask = np.zeros((side, block * 2), np.uint8)
    mask[::6, ::6] = mask[1::6, ::6] = 1
    mask[:, 61:68] = 0
    mask[:, 64] = 1
    polygonizer, held, taken = BlockPolygonizer(mask.shape), [], 0
    for row in range(0, side, block):
        for col in (0, block):
            window = Window(row, col, block, block)
            polygonizer.feed(window, mask[window.slices()], None)
        taken += len(polygonizer.take(join=True))
        held.append(sum(len(pieces.corners) for pieces in polygonizer._open._held))
    road = 8 * side // block  # a few corners for each block that it crosses
    assert max(held) <= road + 4 * mask.shape[1] / 6
    assert taken + len(polygonizer.finish()) == len(trace(mask))


@pytest.mark.campaign
def test_many_blocks_in_any_order() -> None:
    """The work for each of ten thousand blocks does not grow with the number of earlier blocks."""
    side, block = 800, 8
    mask = (np.random.default_rng(1).random((side, side)) < 0.02).astype(np.uint8)
    windows = [Window(r, c, block, block) for r in range(0, side, 8) for c in range(0, side, 8)]
    polygonizer, taken, joins = BlockPolygonizer(mask.shape), [], 0
    for number in np.random.default_rng(2).permutation(len(windows)):
        window = windows[number]
        part = mask[window.slices()]
        if part.any():
            polygonizer.feed(window, part, None)
        else:
            polygonizer.add(window, None)
        joins += polygonizer._open.is_due
        taken.append(polygonizer.take())
    taken.append(polygonizer.finish())
    assert joins < 12
    found, whole = TracedPolygons.joined(taken), trace(mask)
    assert shapely.to_wkb(found.polygons).tolist() == shapely.to_wkb(whole.polygons).tolist()


@pytest.mark.parametrize(("second", "px"), [(None, 16), (Window(0, 3, 4, 5), 36)])
def test_blocks_that_do_not_partition_the_scene_are_an_error(
    second: Window | None, px: int
) -> None:
    polygonizer = BlockPolygonizer((4, 8))
    polygonizer.feed(Window(0, 0, 4, 4), np.ones((4, 4), np.uint8), np.ones((4, 4), np.float32))
    if second is not None:
        polygonizer.add(second, None)
    with pytest.raises(ValueError, match=f"cover {px} of the scene's 32 pixels"):
        polygonizer.finish()
