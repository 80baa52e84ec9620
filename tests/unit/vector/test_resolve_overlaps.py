import contextlib

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity, box

from overlap import polygon_iou
from rooftrace.core.arrays import components
from rooftrace.io.spill_file import SpillFile
from rooftrace.metrics.boundary import polis, vertex_counts
from rooftrace.vector import resolve_overlaps as module
from rooftrace.vector.prepare import RECORD, encode_pairs
from rooftrace.vector.regularize import regularize
from rooftrace.vector.resolve_overlaps import (
    OVERLAP_PX,
    WallSharing,
    resolve_overlaps,
    resolve_scene_overlaps,
)
from rooftrace.vector.simplify import MIN_IOU, resembles
from rooftrace.vector.trace import trace


def overlaps(polygons: np.ndarray) -> np.ndarray:
    """The areas that pairs share."""
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    pairs = one < other
    one, other = polygons[one[pairs]], polygons[other[pairs]]
    # Of two that only touch, GEOS 3.14 may return one of them as their intersection, in one order.
    areas = [shapely.area(shapely.intersection(*both)) for both in ((one, other), (other, one))]
    return np.minimum(*areas)


def regions(labels: np.ndarray) -> np.ndarray:
    """The regions of each number, as pixels of a map that is cut into buildings."""
    return np.concatenate([trace(labels == number).polygons for number in np.unique(labels)[1:]])


def houses(degrees: float) -> np.ndarray:
    """Two rows of touching houses, (n,) as they are."""
    widths = [17, 14, 19, 16, 13, 18]
    stops = np.cumsum(widths)
    homes = [box(stop - w, 0, stop, 22 + w % 3) for stop, w in zip(stops, widths)]
    homes += [affinity.translate(home, 5, -60) for home in homes]
    turned = shapely.GeometryCollection(homes)
    return np.array(affinity.translate(affinity.rotate(turned, degrees), 30, 90).geoms)


def labelled(polygons: np.ndarray, size: int = 190) -> np.ndarray:
    labels = np.zeros((size, size), np.int32)
    xy = shapely.points(*np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5))
    for number, polygon in enumerate(polygons, 1):
        labels[shapely.contains_properly(polygon, xy)] = number
    return labels


@pytest.fixture(scope="module", params=[0, 4, 27, 45, 80])
def row(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of houses: as they are, as pixels and as outlines that were drawn one by one."""
    truth = houses(request.param)
    raw = regions(labelled(truth))
    assert len(raw) == len(truth)
    return truth, raw, regularize(raw, 1.25).polygons


def test_houses_of_a_row_share_walls_and_stay_what_they_are(
    row: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    truth, raw, proposed = row
    settled = resolve_overlaps(raw, proposed)
    assert shapely.is_valid(settled).all()
    assert overlaps(settled).max() <= OVERLAP_PX
    assert polygon_iou(settled, raw).min() >= MIN_IOU
    assert vertex_counts(settled).mean() < 5.6
    assert not any(
        one is other for one, other in zip(settled, raw) if len(other.exterior.coords) > 7
    )
    assert polis(settled, truth).mean() <= polis(proposed, truth).mean() + 0.02
    assert polygon_iou(settled, truth).mean() >= polygon_iou(proposed, truth).mean() - 0.002


def test_the_order_does_not_matter(row: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, raw, proposed = row
    order = np.random.default_rng(0).permutation(len(raw))
    settled = resolve_overlaps(raw, proposed)
    assert shapely.equals_exact(
        resolve_overlaps(raw[order], proposed[order]), settled[order], 0
    ).all()


def test_groups_are_resolved_independently(row: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, raw, proposed = row
    both = shapely.union(raw, proposed)
    label = components(len(raw), *shapely.STRtree(both).query(both))
    settled = resolve_overlaps(raw, proposed)
    for one in np.unique(label):
        here = label == one
        assert shapely.equals_exact(
            resolve_overlaps(raw[here], proposed[here]), settled[here], 0
        ).all()


def scene_outlines(
    raw: np.ndarray, proposed: np.ndarray, order: np.ndarray, sharing: WallSharing | None = None
) -> dict[int, bytes]:
    """Return the outlines of a scene by their places, if its records come in this order."""
    records = np.zeros(len(order), RECORD)
    records["first"] = order
    with contextlib.closing(SpillFile()) as spill:
        spill.append_bytes([encode_pairs(records, raw[order], proposed[order])])
        every = np.ones(len(order), np.bool_)
        found = resolve_scene_overlaps(records, every, spill, shapely.area, sharing=sharing)
        polygons = spill.read(found["proposed"], found["stop"])
    return dict(zip(found["first"].tolist(), shapely.to_wkb(polygons).tolist(), strict=True))


def wavy(left: float, rng: np.random.Generator) -> shapely.Polygon:
    """Return a house of 20 px whose walls cross those of its neighbours several times."""
    ys = np.linspace(0, 25, 9)
    walls = [
        np.stack([x + rng.uniform(-1.5, 1.5, len(ys)), way], axis=1)
        for x, way in ((left, ys), (left + 20, ys[::-1]))
    ]
    return affinity.rotate(shapely.Polygon(np.concatenate(walls)), rng.uniform(-2, 2))


def test_outlines_of_a_scene_do_not_depend_on_the_order_of_its_records() -> None:
    """Blocks of another size bring the records in another order: the bytes stay the same."""
    places = np.arange(12)
    raw = np.array([box(20 * at, 0, 20 * at + 20, 25) for at in places], object)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        proposed = np.array([wavy(20.0 * at, rng) for at in places], object)
        expected = scene_outlines(raw, proposed, places)
        assert scene_outlines(raw, proposed, places[::-1].copy()) == expected


class _Wider(WallSharing):
    def shared(self, raw: np.ndarray, proposed: np.ndarray) -> np.ndarray:
        return shapely.transform(proposed, lambda xy: xy * (1.07, 1))


def test_a_shared_wall_that_moves_over_a_third_building_is_cut() -> None:
    raw = np.array([box(0, 0, 10, 10), box(10, 0, 20, 10), box(21.2, 0, 30, 10)], object)
    encoded = scene_outlines(raw, raw, np.arange(3), _Wider(1.0, (10, 40)))
    _, one, other = shapely.from_wkb([*encoded.values()])
    assert shapely.area(one & other) <= OVERLAP_PX


def test_rows_overlap_before() -> None:
    raw = regions(labelled(houses(27)))
    assert overlaps(regularize(raw, 1.25).polygons).sum() > 1


def test_outlines_without_overlap_stay_as_proposed() -> None:
    raw = np.array([box(0, 0, 10, 10), box(10, 0, 20, 10), box(40, 0, 50, 10)])
    proposed = np.array([box(0, 0, 9.9, 10), box(10.1, 0, 20, 10), box(40.2, 0, 50, 10)])
    for one, other in zip(resolve_overlaps(raw, proposed), proposed):
        assert one is other
    assert len(resolve_overlaps(raw[:0], proposed[:0])) == 0


def test_a_wall_is_drawn_in_the_middle_of_what_two_share() -> None:
    raw = np.array([box(0, 0, 20, 10), box(20, 0, 40, 10)])
    proposed = np.array([box(0, 0, 20.4, 10), box(19.8, 0, 40, 10)])
    settled = resolve_overlaps(raw, proposed)
    assert shapely.equals(settled, np.array([box(0, 0, 20.1, 10), box(20.1, 0, 40, 10)])).all()


def test_a_cut_is_straight_where_fronts_do_not_line_up() -> None:
    raw = np.array([box(0, 0, 20, 10), box(20, 1, 40, 11)])
    proposed = np.array([box(0, 0, 20.3, 10.2), box(19.7, 0.8, 40, 11)])
    settled = resolve_overlaps(raw, proposed)
    assert overlaps(settled).max() <= OVERLAP_PX
    # A protruding front keeps the rest of its side wall, and no step results.
    np.testing.assert_array_equal(vertex_counts(settled), [5, 5])
    assert polygon_iou(settled, proposed).min() > 0.98


def test_outlines_that_no_line_separates_revert_to_pixels() -> None:
    court = box(0, 0, 30, 30).difference(box(10, 10, 20, 20))
    raw = np.array([court, box(11, 11, 19, 19), box(60, 0, 70, 10)])
    proposed = np.array([box(0, 0, 30, 30).difference(box(11.5, 11.5, 18.5, 18.5)), *raw[1:]])
    moved = proposed.copy()
    moved[2] = box(60, 0, 70.5, 10)
    settled = resolve_overlaps(raw, moved)
    assert settled[0] is raw[0]
    assert settled[1] is raw[1]
    assert settled[2] is moved[2]


def test_neighbours_give_way_to_reverted_outlines() -> None:
    court = box(0, 0, 30, 30).difference(box(10, 10, 20, 20))
    raw = np.array([court, box(11, 11, 19, 19), box(30, 0, 60, 30)])
    narrow = box(0, 0, 29, 30).difference(box(11.5, 11.5, 18.5, 18.5))
    settled = resolve_overlaps(raw, np.array([narrow, raw[1], box(29.5, 0, 60, 30)]))
    assert settled[0] is raw[0]
    assert settled[2].equals(raw[2])
    assert settled[2] is not raw[2]


def noise(seed: int, blur: float, seeds: int) -> np.ndarray:
    """Return the regions of blurred noise, divided by the nearest of some random places."""
    rng = np.random.default_rng(seed)
    values = cv2.GaussianBlur(rng.random((60, 60), np.float32), (0, 0), blur)
    places = rng.integers(0, 60, (seeds, 2))
    y, x = np.mgrid[:60, :60]
    nearest = np.argmin([np.hypot(y - row, x - col) for row, col in places], axis=0)
    return regions(np.where(values > np.quantile(values, 0.3), nearest + 1, 0))


def check_settled(raw: np.ndarray, tolerance_px: float) -> None:
    settled = resolve_overlaps(raw, regularize(raw, tolerance_px).polygons)
    assert shapely.is_valid(settled).all()
    # Also on a map, where fewer digits follow the point.
    assert shapely.is_valid(shapely.transform(settled, lambda xy: xy / 7 + 9e6)).all()
    assert (shapely.get_type_id(settled) == shapely.GeometryType.POLYGON).all()
    assert resembles(settled, raw, tolerance_px / 1.25).all()
    assert overlaps(settled).max(initial=0) <= OVERLAP_PX


@pytest.mark.parametrize(
    ("seed", "blur", "seeds", "tolerance_px"),
    [(511780587, 1.76, 14, 1.25), (1438945199, 2.87, 7, 3), (108201395, 1.75, 16, 3)],
)
def test_an_outline_that_a_cut_takes_whole_is_that_of_its_pixels(
    seed: int, blur: float, seeds: int, tolerance_px: float
) -> None:
    check_settled(noise(seed, blur, seeds), tolerance_px)


@pytest.mark.campaign
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 3), st.integers(5, 20), st.sampled_from([1.25, 3]))
def test_nothing_overlaps_and_all_stay_what_they_are(
    seed: int, blur: float, seeds: int, tolerance_px: float
) -> None:
    check_settled(noise(seed, blur, seeds), tolerance_px)


def test_slivers_that_a_cut_leaves_are_removed() -> None:
    thread = shapely.Polygon([(0, 0), (0, 9), (1e-8, 9)])
    speck = box(20, 20, 20 + 1e-5, 20 + 1e-5)
    house = shapely.Polygon(
        box(1, 1, 9, 9).exterior, [[(2, 2), (2, 8), (2 + 1e-9, 8)], box(4, 4, 6, 6).exterior]
    )
    shapes = np.array([shapely.MultiPolygon([speck, house]), thread, speck, house], np.object_)
    everything = np.full(4, box(-1, -1, 30, 30), np.object_)
    cuts = module._Cuts(np.arange(4), everything, np.ones(4, np.bool_))
    assert module._apply(cuts, shapes).tolist() == [0, 1, 2, 3]
    expected = shapely.Polygon(house.exterior, [house.interiors[1]])
    assert shapely.equals(shapes[[0, 3]], expected).all()
    assert shapely.is_empty(shapes[1:3]).all()
