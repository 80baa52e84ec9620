"""Touching buildings are divided at their necks."""

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.core.arrays import components
from rooftrace.core.types import Window
from rooftrace.vector import watershed as module
from rooftrace.vector import watershed as sheets
from rooftrace.vector.prepare import owners
from rooftrace.vector.trace import TracedPolygons, trace
from rooftrace.vector.trace_blocks import BlockPolygonizer
from rooftrace.vector.watershed import (
    Cores,
    LabelAtlas,
    Peaks,
    WatershedOptions,
    batches,
    merge_basins,
    pack_rectangles,
    separate_by_watershed,
)


def traced(mask: np.ndarray) -> TracedPolygons:
    return trace(mask, prob=np.full(mask.shape, 0.5, np.float32))


def two(neck: int, second: int = 20) -> np.ndarray:
    """A square of 20 px, a neck of 3 px length, and another square."""
    mask = np.zeros((30, 60), np.uint8)
    mask[5:25, 5:25] = 1
    low = 15 - neck // 2
    mask[low : low + neck, 25:28] = 1
    top = 15 - second // 2
    mask[top : top + second, 28 : 28 + second] = 1
    return mask


def test_a_narrow_neck_is_cut_and_a_wide_one_is_not() -> None:
    pieces = separate_by_watershed(traced(two(6)), WatershedOptions(ratio=0.5))
    assert len(pieces) == 2
    cut = [piece.bounds for piece in pieces.polygons]
    assert cut[0][0] == 5
    assert 25 <= cut[0][2] <= 28, "the cut lies in the neck"
    assert cut[0][2] == cut[1][0]
    assert pieces.score.tolist() == [0.5, 0.5]
    assert len(separate_by_watershed(traced(two(14)), WatershedOptions(ratio=0.5))) == 1
    assert len(separate_by_watershed(traced(two(14)), WatershedOptions(ratio=0.9))) == 2


def test_the_neck_is_measured_by_the_narrower_of_the_two() -> None:
    mask = two(4, second=8)
    assert len(separate_by_watershed(traced(mask), WatershedOptions(0.7, smallest_depth_px=3))) == 2
    assert len(separate_by_watershed(traced(mask), WatershedOptions(0.3, smallest_depth_px=3))) == 1
    assert len(separate_by_watershed(traced(mask), WatershedOptions(0.7, smallest_depth_px=5))) == 1


def cores_of(mask: np.ndarray, buildings: TracedPolygons) -> Cores:
    found = traced(mask)
    return found.polygons, owners(buildings, found)


def test_a_gap_between_cores_divides_what_has_no_neck() -> None:
    """Two houses without a gap in the mask, and less certain pixels where they meet."""
    mask, core = np.zeros((2, 30, 60), np.uint8)
    mask[5:25, 5:55] = 1
    core[7:23, 7:28] = core[7:23, 32:53] = 1
    buildings, options = traced(mask), WatershedOptions()
    assert len(separate_by_watershed(buildings, options)) == 1
    pieces = separate_by_watershed(buildings, options, cores_of(core, buildings))
    assert [piece.bounds[::2] for piece in pieces.polygons] == [(5, 30), (30, 55)]
    # One core, or none, changes nothing.
    for narrower in (core * (np.arange(60) < 30), np.zeros_like(core)):
        cores = cores_of(narrower.astype(np.uint8), buildings)
        assert len(separate_by_watershed(buildings, options, cores)) == 1


def test_cores_begin_between_the_threshold_and_certainty() -> None:
    options = WatershedOptions.at_threshold(0.4)
    assert options.core_probability == pytest.approx(0.8)
    assert WatershedOptions.at_threshold(None).core_probability == pytest.approx(5 / 6)
    building = np.array([[True, True, True, False]])
    in_255ths = np.array([[203, 204, 255, 255]], np.uint8)
    for probability in (in_255ths, (in_255ths / 255).astype(np.float32)):
        found = options.scaled(3).cores(building, probability)
        assert found is not None
        assert found.tolist() == [[0, 1, 1, 0]]
    assert WatershedOptions().cores(building, in_255ths) is None


def test_what_has_no_neck_stays_whole() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[5:55, 5:20] = mask[40:55, 5:55] = 1  # an L
    mask[5:25, 30:50] = 1
    mask[10:20, 35:45] = 0  # a court
    buildings = traced(mask)
    assert shapely.equals_exact(
        separate_by_watershed(buildings, WatershedOptions()).polygons, buildings.polygons
    ).all()
    assert len(separate_by_watershed(traced(np.zeros((5, 5), np.uint8)), WatershedOptions())) == 0


def blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((90, 110), np.uint8)
    row, col = np.indices(mask.shape)
    for _ in range(18):
        at = rng.random(2) * mask.shape
        radius = rng.uniform(4, 13)
        mask[np.hypot(row - at[0], col - at[1]) < radius] = 1
    for _ in range(6):
        top, left = rng.integers(0, 80, 2)
        mask[top : top + rng.integers(2, 20), left : left + rng.integers(2, 20)] = 0
    return mask


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.2, 1))
def test_pieces_tile_their_buildings(seed: int, ratio: float) -> None:
    buildings = traced(blobs(seed))
    pieces = separate_by_watershed(buildings, WatershedOptions(ratio, smallest_depth_px=2))
    assert pieces.area_px.sum() == buildings.area_px.sum()
    np.testing.assert_array_equal(pieces.area_px, shapely.area(pieces.polygons))
    assert shapely.union_all(pieces.polygons).equals(shapely.union_all(buildings.polygons))
    assert shapely.is_valid(pieces.polygons).all()
    assert shapely.is_ccw(shapely.get_exterior_ring(pieces.polygons)).all()


@pytest.mark.parametrize("seed", range(3))
def test_blocks_and_place_do_not_matter(seed: int) -> None:
    mask = blobs(seed)
    options = WatershedOptions(0.8, smallest_depth_px=2)
    whole = separate_by_watershed(traced(mask), options)
    assert len(whole) > len(traced(mask))
    polygonizer = BlockPolygonizer((100, 130))
    shifted = np.zeros((100, 130), np.uint8)
    shifted[7:97, 11:121] = mask
    for row in range(0, 100, 25):
        window = Window(row, 0, 25, 130)
        polygonizer.feed(window, shifted[window.slices()], None)
    moved = separate_by_watershed(polygonizer.finish(), options)
    back = shapely.transform(moved.polygons, lambda xy: xy - [11, 7])
    assert shapely.equals_exact(back, whole.polygons).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_finer_mask_is_cut_where_the_coarse_one_is(seed: int) -> None:
    mask = blobs(seed)
    options = WatershedOptions(0.6, smallest_depth_px=2)
    coarse = separate_by_watershed(traced(mask), options)
    fine = separate_by_watershed(
        traced(mask.repeat(3, axis=0).repeat(3, axis=1)), options.scaled(3)
    )
    assert len(coarse) > len(traced(mask))
    assert abs(len(fine) - len(coarse)) <= 2


def test_what_is_too_large_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SIDE_PX", 40)
    assert len(separate_by_watershed(traced(two(6)), WatershedOptions())) == 1


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("with_cores", [False, True])
def test_each_region_is_divided_as_if_alone(
    scale: int, with_cores: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((300, 400), np.uint8)
    for seed in range(6):
        row, col = divmod(seed, 3)
        mask[100 * row : 100 * row + 90, 120 * col : 120 * col + 110] = blobs(seed)
    buildings = traced(mask.repeat(scale, axis=0).repeat(scale, axis=1))
    options = WatershedOptions(0.8, smallest_depth_px=2).scaled(scale)
    cores = None
    if with_cores:
        holes = np.random.default_rng(0).random(mask.shape) < 0.02
        core = np.where(holes, np.uint8(0), mask)
        cores = cores_of(core.repeat(scale, axis=0).repeat(scale, axis=1), buildings)
    alone = []
    for number in range(len(buildings)):
        own = None
        if cores is not None:
            inside = cores[0][cores[1] == number]
            own = inside, np.zeros(len(inside), np.int64)
        building = buildings.of(np.array([number]))
        alone.append(separate_by_watershed(building, options, own))
    expected = TracedPolygons.joined(alone)
    assert len(expected) > len(buildings)
    assert (len(expected) != len(separate_by_watershed(buildings, options))) == with_cores
    for most in (1, 30_000, 1 << 21):
        monkeypatch.setattr(module, "ATLAS_PX", most)
        together = separate_by_watershed(buildings, options, cores)
        assert shapely.equals_exact(together.polygons, expected.polygons).all()
        np.testing.assert_array_equal(together.first_pixel_yx, expected.first_pixel_yx)


def test_the_levels_of_a_hall_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = two(6).repeat(12, axis=0).repeat(12, axis=1)
    house = np.pad(two(6), ((0, 0), (0, hall.shape[1] - 60)))
    buildings = traced(np.concatenate([hall, house]))
    fine = separate_by_watershed(buildings, WatershedOptions(0.5))
    assert len(fine) == 4
    monkeypatch.setattr(module, "_MAX_LEVELS", 20)
    coarse = separate_by_watershed(buildings, WatershedOptions(0.5))
    assert len(coarse) == 4
    assert shapely.equals_exact(coarse.polygons[2:], fine.polygons[2:]).all()


def test_a_thread_between_coarse_cells_is_a_neck() -> None:
    mask = np.zeros((70, 160), np.uint8)
    mask[5:65, 5:65] = mask[5:65, 90:150] = 1
    mask[30, 65:90] = 1  # between two rows of the cells' middles
    pieces = separate_by_watershed(traced(mask), WatershedOptions().scaled(3))
    assert len(pieces) == 2
    assert pieces.area_px.sum() == mask.sum()


def test_two_peaks_and_the_saddle_between_them() -> None:
    height = np.array(
        [
            [0, 0, 0, 0, 0, 0, 0],
            [0, 5, 3, 2, 4, 0, 0],
            [0, 1, 1, 3, 1, 0, 0],
            [0, 0, 0, 0, 0, 7, 0],
            [0, 0, 0, 0, 0, 0, 0],
        ],
        np.uint8,
    )
    peaks = Peaks.of(height)
    assert peaks.pixel.tolist() == [8, 11, 17, 26], "the 3 below stands by itself"
    assert peaks.land.tolist() == [8, 9, 10, 11, 15, 16, 17, 18, 26]
    assert peaks.of_land.tolist() == [0, 0, 1, 1, 0, 0, 2, 1, 3]
    saddles = zip(peaks.one.tolist(), peaks.other.tolist(), peaks.height.tolist())
    assert sorted(saddles) == [(0, 1, 2), (0, 2, 1), (1, 2, 2)], "corners are no way"


@pytest.mark.campaign
@pytest.mark.parametrize("blur", [0, 2])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), highest=st.integers(1, 255))
def test_islands_above_any_height_are_those_that_passes_join(
    seed: int, highest: int, blur: int
) -> None:
    generator = np.random.default_rng(seed)
    rows, cols = generator.integers(3, 40, 2)
    values = generator.random((rows, cols))
    if blur:
        values = cv2.GaussianBlur(values, (0, 0), blur)
        values = (values - values.min()) / np.ptp(values)
    height = np.rint(values * highest).astype(np.uint8)
    height[[0, -1]] = height[:, [0, -1]] = 0
    peaks, flat = Peaks.of(height), height.reshape(-1)
    assert (peaks.land == np.flatnonzero(flat)).all()
    assert (flat[peaks.pixel[peaks.of_land]] >= flat[peaks.land]).all()
    assert len(np.unique(np.stack([peaks.one, peaks.other]), axis=1).T) == len(peaks.one)
    for level in range(highest):
        island = cv2.connectedComponents((height > level).view(np.uint8), connectivity=4)[1]
        island = island.reshape(-1)
        high = flat[peaks.land] > level
        assert (island[peaks.land[high]] == island[peaks.pixel[peaks.of_land[high]]]).all()
        joins = peaks.height > level
        group = components(len(peaks.pixel), peaks.one[joins], peaks.other[joins])
        above = flat[peaks.pixel] > level
        pairs = np.stack([group[above], island[peaks.pixel[above]]])
        count = len(np.unique(pairs, axis=1).T)
        assert count == len(np.unique(pairs[0])) == len(np.unique(pairs[1])), level


def test_islands_are_separated_where_the_saddle_is_low() -> None:
    # Peaks 0 and 1 separate at 5. Peak 2 merges at 9 and peak 3 at 2. Peak 4 has no saddle.
    rank, limit = np.array([20, 10, 12, 4, 8]), np.array([11, 6, 7, -1, 5])
    one, other, height = np.array([[0, 2, 9], [2, 1, 5], [3, 1, 2]]).T
    level, owner, fell = merge_basins(rank, limit, one, other, height)
    assert level.tolist() == [5, 5, -1, -1, -1]
    assert owner[[0, 1, 2, 4]].tolist() == [0, 1, 0, 4]
    assert fell[2] == 9, "of the island above 5"
    assert owner[3] in (0, 1)
    assert fell[3] == 2, "of none"


def test_a_part_of_a_plateau_is_no_peak() -> None:
    one, other, height = np.array([[0, 1, 3], [1, 2, 2]]).T
    level, owner, _ = merge_basins(np.array([3, 3, 3]), np.array([2, 2, 2]), one, other, height)
    assert level.tolist() == [2, -1, 2]
    assert owner.tolist() == [0, 0, 2]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_separated_peaks_share_no_island(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 12))
    rank = generator.integers(1, 9, count)
    limit = np.minimum(rank - 1, generator.integers(-1, 8))
    one, other = np.triu_indices(count, 1)
    kept = generator.random(len(one)) < 0.4
    one, other = one[kept], other[kept]
    height = np.minimum(np.minimum(rank[one], rank[other]), generator.integers(1, 9, len(one)))
    level, owner, fell = merge_basins(rank, limit, one, other, height)
    islands = {
        bound: components(count, one[height > bound], other[height > bound])
        for bound in range(-1, 9)
    }
    for peak in np.flatnonzero(level >= 0).tolist():
        above, below = (islands[level[peak] - down] for down in (0, 1))
        alone = np.flatnonzero((above == above[peak]) & (level >= 0))
        assert alone.tolist() == [peak]
        assert ((below == below[peak]) & (level >= 0)).sum() > 1, "but parts the next lower"
        reached = (owner == peak) & (fell > level[peak])
        assert (reached == (above == above[peak])).all()


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
