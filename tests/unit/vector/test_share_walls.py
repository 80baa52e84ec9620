import numpy as np
import pytest
import shapely
from shapely import affinity, box

from overlap import polygon_iou
from rooftrace.core.types import GeoGrid, Window
from rooftrace.metrics.boundary import vertex_counts
from rooftrace.vector.assemble import FootprintAssembler
from rooftrace.vector.prepare import VectorOptions
from rooftrace.vector.regularize import regularize
from rooftrace.vector.resolve_overlaps import WallSharing
from rooftrace.vector.simplify import unit_of
from rooftrace.vector.trace import trace

SIZE = 120
TOLERANCE_PX = 1.6
"""Pixels of the mask are finer than those of the model, so a gap of one is no alley."""
SHARING = WallSharing(unit_of(TOLERANCE_PX), (SIZE, SIZE))


def placed(houses: list[shapely.Polygon], degrees: float) -> list[shapely.Polygon]:
    """Return houses around the origin in the middle of the raster."""
    return [
        affinity.translate(affinity.rotate(house, degrees, origin=(0, 0)), SIZE / 2, SIZE / 2)
        for house in houses
    ]


def pixels(houses: list[shapely.Polygon]) -> np.ndarray:
    row, col = np.mgrid[:SIZE, :SIZE] + 0.5
    points = shapely.points(col, row)
    return np.concatenate([trace(shapely.contains(house, points)).polygons for house in houses])


def row_of_houses(gap: float) -> list[shapely.Polygon]:
    return [box(x, -14, x + 18 - gap, 14) for x in (-36, -18, 0, 18)]


@pytest.mark.parametrize("degrees", [0, 25, 70])
@pytest.mark.parametrize("gap", [0, 1])
def test_a_row_shares_walls_and_corners_also_across_a_cut(degrees: float, gap: float) -> None:
    raw = pixels(placed(row_of_houses(gap), degrees))
    alone = regularize(raw, TOLERANCE_PX, np.zeros(len(raw), np.int64)).polygons
    shared = SHARING.shared(raw, alone)
    assert shapely.coverage_is_valid(shared)
    assert vertex_counts(shared).max() <= 6
    assert polygon_iou(shared, raw).min() > 0.9
    whole = shapely.union_all(shared)
    assert whole.geom_type == "Polygon"
    assert not whole.interiors


def test_an_alley_and_a_wedge_stay() -> None:
    alley = [box(-20, -14, 0, 14), box(3, -14, 23, 14)]
    wedge = [box(-20, 20, 0, 40), affinity.rotate(box(1, 20, 21, 40), -20, origin=(1, 20))]
    raw = pixels(placed(alley + wedge, 0))
    made = regularize(raw, TOLERANCE_PX).polygons
    shared = SHARING.shared(raw, made)
    assert shapely.distance(shared[0], shared[1]) == pytest.approx(3, abs=0.2)
    open_px = shapely.area(shapely.convex_hull(shapely.union_all(shared[2:])))
    assert open_px - shapely.area(shared[2:]).sum() > 40


def test_a_long_wall_gets_the_corners_of_the_houses_behind_it_and_stays_straight() -> None:
    behind = [box(-30, 1, -12, 20), box(14, 1, 30, 20)]
    raw = pixels(placed([box(-40, -20, 40, 0), *behind], 0))
    long, *others = SHARING.shared(raw, regularize(raw, TOLERANCE_PX).polygons)
    assert shapely.get_num_coordinates(long) == 4 + 4 + 1
    ends = [shapely.Point(x, y) for house in others for x, y in house.exterior.coords]
    corners = shapely.MultiPoint(long.exterior.coords)
    assert sum(corners.distance(end) == 0 for end in set(ends)) == 4
    # The long wall moves less than the short ones.
    front = max(shapely.get_coordinates(long)[:, 1]) - SIZE / 2
    assert 0 < front < 0.4
    straight = box(20, 40, 100, SIZE / 2 + front)
    assert shapely.simplify(long, 0.1).equals_exact(straight, 0.01, normalize=True)


def test_a_building_that_would_not_be_like_its_pixels_stays() -> None:
    raw = np.array([box(2, 10, 10, 30), box(10, 10, 30, 30), box(30, 10, 33, 30)])
    proposed = np.array([box(2, 10, 9.5, 30), box(10, 10, 31.6, 30), raw[2]])
    shared = WallSharing(1.0, (SIZE, SIZE)).shared(raw, proposed)
    # Between the two at the right, the narrow one would lose a quarter.
    assert shared[2] is proposed[2]
    assert shared[1].bounds[2] == pytest.approx(31.6, abs=0.001)
    assert 9.5 < shared[0].bounds[2] == shared[1].bounds[0] < 10


def test_corners_stay_inside_the_image() -> None:
    raw = np.array([box(0, 0, 20, 15), box(20, 0, 40, 15)])
    slanted = [
        shapely.Polygon([(0, 0), (19.4, 0), (20.2, 15), (0, 15)]),
        shapely.Polygon([(20.2, 0), (40, 0), (40, 15), (21, 15)]),
    ]
    shared = WallSharing(1.0, (15, 40)).shared(raw, np.array(slanted))
    assert shapely.coverage_is_valid(shared)
    assert tuple(shapely.total_bounds(shared)) == (0, 0, 40, 15)


@pytest.mark.parametrize("side", [7, 31, 64])
def test_shared_walls_do_not_depend_on_blocks(side: int) -> None:
    """Two rows, cut by a pixel or divided by markers, in one piece and by blocks."""
    street = row_of_houses(1) + [affinity.translate(one, 0, -32) for one in row_of_houses(0)]
    row, col = np.mgrid[:SIZE, :SIZE] + 0.5
    points = shapely.points(col, row)
    inside = [shapely.contains(house, points) for house in placed(street, 12)]
    mask = np.any(inside, axis=0).astype(np.uint8)
    cores = [shapely.contains(house.buffer(-4), points) for house in placed(street, 12)]
    markers, score = np.any(cores, axis=0).astype(np.uint8), np.full(mask.shape, 255, np.uint8)

    options = VectorOptions(simplify_px=TOLERANCE_PX)

    def outlines(step: int) -> np.ndarray:
        with FootprintAssembler(GeoGrid(mask.shape), (1,), 1, options) as assembler:
            for top in range(0, SIZE, step):
                for left in range(0, SIZE, step):
                    window = Window(top, left, min(step, SIZE - top), min(step, SIZE - left))
                    own = window.slices()
                    assembler.feed(window, mask[own], score[own], {0, 1}, markers[own])
            with assembler.finish() as footprints:
                return footprints.whole().geometry

    whole = outlines(SIZE)
    assert len(whole) == len(street)
    one, other = shapely.STRtree(whole).query(whole, "touches")
    common = shapely.length(shapely.intersection(whole[one], whole[other]))
    assert (common[one < other] > 20).sum() == 6
    assert shapely.to_wkb(outlines(side)).tolist() == shapely.to_wkb(whole).tolist()
