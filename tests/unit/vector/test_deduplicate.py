"""Each building occurs once, for any number and order of the scenes that show it."""

import itertools
import math
import random

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.vector import deduplicate
from rooftrace.vector.deduplicate import CandidateDetections, DetectionAccumulator

GSD_M = 0.5
LAT, LON = 60.0, 25.0
LAT_M = 111_412.0
LON_M = 111_320.0 * math.cos(math.radians(LAT))


def placed(x: float, y: float, width: float, height: float) -> shapely.Polygon:
    """A rectangle of metres to the east and the north of a place in the north."""
    return shapely.box(
        LON + x / LON_M, LAT + y / LAT_M, LON + (x + width) / LON_M, LAT + (y + height) / LAT_M
    )


def detections(
    scene: int, polygons: list[shapely.Polygon], score: float = 0.5
) -> CandidateDetections:
    count = len(polygons)
    nan = np.full(count, np.nan)
    geometry = np.empty(count, np.object_)
    geometry[:] = polygons
    return CandidateDetections(
        geometry, np.full(count, scene), np.arange(count), np.full(count, score, np.float32),
        np.ones(count, np.uint8), shapely.area(geometry) * LON_M * LAT_M, nan, nan, nan,
        np.zeros(count, np.bool_), nan, np.full(count, GSD_M), np.ones(count, np.int64),
    )  # fmt: skip


def accumulated(
    outlines: list[shapely.Polygon], found: list[list[shapely.Polygon]],
    order: list[int] | None = None,
) -> CandidateDetections:  # fmt: skip
    accumulator = DetectionAccumulator(outlines, [GSD_M] * len(outlines))
    parts = []
    for scene in order or range(len(outlines)):
        parts += accumulator.add(scene, detections(scene, found[scene], 0.1 * (scene + 1)))
    parts += accumulator.finish()
    if not parts:
        return detections(0, [])
    whole = CandidateDetections.joined(parts)
    return whole.of(np.lexsort((whole.number, whole.scene)))


def areas_m2(layer: CandidateDetections) -> list[float]:
    return [float(area) for area in shapely.area(layer.geometry) * LON_M * LAT_M]


WEST, EAST = placed(0, 0, 120, 100), placed(80, 0, 120, 100)


def test_a_building_of_two_scenes_occurs_once() -> None:
    inside = placed(95, 40, 10, 10)
    drawn_otherwise = placed(95.5, 40.2, 10, 10)
    layer = accumulated([WEST, EAST], [[inside], [drawn_otherwise]])
    assert len(layer) == 1
    assert layer.seen.tolist() == [2]
    # It lies farther from the edge of the western scene, which ends at 120.
    assert layer.scene.tolist() == [1] or layer.scene.tolist() == [0]
    west_edge, east_edge = 120 - 105, 95.5 - 80
    assert layer.scene.tolist() == [0 if west_edge > east_edge else 1]


def test_a_whole_polygon_ranks_before_a_cut_one() -> None:
    # The western scene ends in the middle of it.
    cut, whole = placed(105, 40, 15, 10), placed(105, 40, 30, 10)
    layer = accumulated([WEST, EAST], [[cut], [whole]])
    assert areas_m2(layer) == pytest.approx([300], rel=1e-3)
    assert layer.scene.tolist() == [1]


def test_one_that_merges_two_gives_way_to_both() -> None:
    """The ends of a chain are kept: a polygon is dropped only for a polygon that is kept itself."""
    left, right = placed(96, 40, 5, 10), placed(101.5, 40, 5, 10)
    both = placed(96, 40, 10.5, 10)
    third = placed(90, 0, 110, 100)
    # The merged polygon lies nearer to the edge of its scene.
    layer = accumulated([WEST, EAST, third], [[left, right], [both], []])
    assert len(layer) in (1, 2)
    total = sum(areas_m2(layer))
    assert total == pytest.approx(100, rel=0.06)


@pytest.mark.parametrize(("south", "cut"), [(40, False), (88, True), (0.2, True), (87, False)])
def test_pieces_on_both_sides_of_a_seam_are_one(south: float, cut: bool) -> None:
    west, east = placed(0, 0, 100, 100), placed(100, 0, 100, 100)
    pieces = [placed(90, south, 10, 12), placed(100.3, south, 14.7, 12)]
    layer = accumulated([west, east], [[pieces[0]], [pieces[1]]])
    assert layer.cut.tolist() == [cut]
    assert areas_m2(layer) == pytest.approx([25 * 12], rel=2e-3)
    assert layer.area_m2 == pytest.approx([25 * 12], rel=5e-3)
    assert layer.rectangularity[0] > 0.99
    # The mean is weighted by area.
    assert layer.score[0] == pytest.approx((0.1 * 120 + 0.2 * 14.7 * 12) / (120 + 14.7 * 12))
    assert layer.seen.tolist() == [2]


def test_houses_that_two_scenes_of_one_ground_cut_stay_separate() -> None:
    """Each scene sees the neighbour, and draws it separately."""
    houses = [placed(20, 0, 8, 6), placed(28, 0, 8, 6), placed(36, 0, 8, 6)]
    drawn_again = [placed(20.2, 0, 8, 6.3), placed(28.2, 0, 8, 6.3), placed(36.2, 0, 8, 6.3)]
    for shift in (0.0, 0.5, 60.0):
        again = drawn_again if shift < 60 else []
        later = [WEST, placed(shift, shift / 100, 120, 100)]
        layer = accumulated(later, [houses, again])
        assert len(layer) == 3
        assert areas_m2(layer) == pytest.approx([48, 48, 48], rel=0.1)


def test_a_piece_inside_of_the_other_scene_that_goes_on_beyond_it_is_one_building() -> None:
    # The eastern scene's piece covers more than half of the western one's, and both are cut.
    layer = accumulated([WEST, EAST], [[placed(85, 0, 35, 10)], [placed(85, 0, 55, 10)]])
    assert areas_m2(layer) == pytest.approx([550], rel=2e-3)


def test_corners_that_touch_across_a_seam_are_two_buildings() -> None:
    west, east = placed(0, 0, 100, 100), placed(100, 0, 100, 100)
    layer = accumulated([west, east], [[placed(90, 40, 10, 10)], [placed(100, 50, 10, 10)]])
    assert len(layer) == 2


def test_a_building_over_a_corner_of_four_scenes_is_one() -> None:
    corners = list(itertools.product((0, 100), (0, 100)))
    scenes = [placed(x, y, 100, 100) for x, y in corners]
    whole = placed(80, 70, 45, 55)
    found = [[shapely.intersection(scene, whole)] for scene in scenes]
    layer = accumulated(scenes, found)
    assert len(layer) == 1
    assert areas_m2(layer) == pytest.approx([45 * 55], rel=2e-3)
    assert (layer.seen.tolist(), layer.cut.tolist()) == ([4], [False])


def test_no_ground_counts_twice() -> None:
    one, other = placed(90, 40, 10, 10), placed(98, 40, 10, 10)
    layer = accumulated([WEST, EAST], [[one], [other]])
    assert len(layer) == 2
    assert sum(areas_m2(layer)) == pytest.approx(180, rel=1e-3)
    assert shapely.area(shapely.intersection(*layer.geometry)) == pytest.approx(0, abs=1e-18)
    assert float(layer.area_m2.sum()) == pytest.approx(180, rel=5e-3)


def test_a_missing_scene_does_not_block_the_others() -> None:
    accumulator = DetectionAccumulator([WEST, EAST, None], [GSD_M] * 3)
    assert accumulator.add(0, detections(0, [placed(95, 40, 10, 10)])) == []
    assert len(CandidateDetections.joined(accumulator.finish())) == 1


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 30))
def test_a_town_cut_into_scenes_is_the_town(seed: int, across: int, overlap: int) -> None:
    """Scenes overlap by less than a house or more, in any order; 1.5 px of it may be missing."""
    rng = random.Random(seed)
    houses = [
        placed(x * 25 + rng.uniform(0, 5), y * 25 + rng.uniform(0, 5), rng.uniform(8, 18), 14)
        for x, y in itertools.product(range(8), range(4))
    ]
    step = 200 / across
    scenes = [placed(i * step - overlap, -20, step + 2 * overlap, 160) for i in range(across)]
    found = []
    for scene in scenes:
        seen = [shapely.intersection(scene, house) for house in houses]
        found.append([one for one in seen if one.area * LON_M * LAT_M > 0.5])
    order = rng.sample(range(across), across)
    layer = accumulated(scenes, found, order)
    again = accumulated(scenes, found)
    assert shapely.to_wkb(layer.geometry).tolist() == shapely.to_wkb(again.geometry).tolist()
    tree = shapely.STRtree(layer.geometry)
    for house in houses:
        hits = [
            at for at in tree.query(house)
            if shapely.intersection(layer.geometry[at], house).area > 0.02 * house.area
        ]  # fmt: skip
        assert len(hits) == 1
        missing_m2 = abs(house.area - layer.geometry[hits[0]].area) * LON_M * LAT_M
        assert missing_m2 <= 14 * 1.5 * GSD_M


def test_little_is_held_where_scenes_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplicate, "_MIN_HELD", 10)
    count = 60
    scenes = [placed(i * 100, 0, 120, 100) for i in range(count)]
    found = [
        [placed(i * 100 + x, y, 8, 8) for x in (2, 10, 50, 104, 110) for y in range(10, 90, 20)]
        for i in range(count)
    ]
    accumulator = DetectionAccumulator(scenes, [GSD_M] * count)
    parts = []
    for scene in range(count):
        parts += accumulator.add(scene, detections(scene, found[scene]))
    parts += accumulator.finish()
    assert accumulator.most_held < 60
    # Coordinates 2 and 10 of a scene are 102 and 110 of the previous one.
    assert 60 * 4 * 3 <= sum(map(len, parts)) < 60 * 4 * 5
