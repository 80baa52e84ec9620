"""Polygons of touching buildings are separated by markers."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.vector import prepare as module
from rooftrace.vector.prepare import owners, separate_by_owner
from rooftrace.vector.trace import TracedPolygons, trace

ROW = np.zeros((30, 70), np.uint8)
ROW[5:25, 5:65] = 1


def separate(buildings: TracedPolygons, markers: TracedPolygons) -> TracedPolygons:
    return separate_by_owner(buildings, markers, owners(buildings, markers))


def cut_at(mask: np.ndarray, *cols: int, width: int = 4) -> np.ndarray:
    """A mask without strips: what the model takes for the insides."""
    markers = mask.copy()
    for col in cols:
        markers[:, col - width // 2 : col + width // 2] = 0
    return markers


def traced(mask: np.ndarray, score: float = 1.0) -> TracedPolygons:
    return trace(mask, prob=np.full(mask.shape, score, np.float32))


def random_town(seed: int, shape_yx: tuple[int, int] = (60, 80)) -> tuple[np.ndarray, np.ndarray]:
    """A mask of anything, and markers in it."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape_yx, np.uint8)
    markers = np.zeros(shape_yx, np.uint8)
    for _ in range(25):
        row, col = (int(rng.integers(0, side)) for side in shape_yx)
        height, width = rng.integers(3, 16, 2).tolist()
        mask[row : row + height, col : col + width] = 1
        markers[row + 1 : row + height - 2, col + 1 : col + width - 2] = 1
        markers[:, rng.integers(0, shape_yx[1])] = 0
    return mask, markers & mask


def same(one: TracedPolygons, other: TracedPolygons) -> None:
    assert len(one) == len(other)
    assert shapely.equals(one.polygons, other.polygons).all()
    for name in ("score", "area_px", "first_pixel_yx"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_row_is_cut_in_the_middle_of_its_borders() -> None:
    pieces = separate(traced(ROW, 0.9), traced(cut_at(ROW, 25, 45), 0.8))
    assert [piece.bounds for piece in pieces.polygons] == [
        (5, 5, 25, 25), (25, 5, 45, 25), (45, 5, 65, 25)
    ]  # fmt: skip
    assert pieces.area_px.tolist() == [400, 400, 400]
    assert pieces.first_pixel_yx.tolist() == [[5, 5], [5, 25], [5, 45]]
    np.testing.assert_allclose(pieces.score, 0.8, atol=1e-6)


def test_one_marker_or_none_leaves_a_building_as_it_is() -> None:
    mask = ROW.copy()
    mask[27:29, 2:6] = 1
    buildings = traced(mask)
    nothing = traced(np.zeros_like(mask))
    same(separate(buildings, nothing), buildings)
    same(separate(buildings, traced(cut_at(mask, 6, 64))), buildings)
    same(separate(nothing, nothing), nothing)


@pytest.mark.campaign
@given(st.integers(0, 10_000))
def test_pieces_tile_their_buildings(seed: int) -> None:
    mask, markers = random_town(seed)
    buildings, parts = traced(mask), traced(markers)
    pieces = separate(buildings, parts)
    held = np.bincount(
        shapely.STRtree(buildings.polygons).query(
            shapely.point_on_surface(parts.polygons), predicate="within"
        )[1],
        minlength=len(buildings),
    )  # fmt: skip
    assert len(pieces) == np.maximum(held, 1).sum()
    assert shapely.is_valid(pieces.polygons).all()
    assert shapely.is_ccw(shapely.get_exterior_ring(pieces.polygons)).all()
    assert pieces.area_px.sum() == mask.sum()
    assert shapely.union_all(pieces.polygons).equals(shapely.union_all(buildings.polygons))
    np.testing.assert_array_equal(pieces.area_px, shapely.area(pieces.polygons))
    again = traced(mask).first_pixel_yx.tolist()
    assert set(map(tuple, again)) <= set(map(tuple, pieces.first_pixel_yx.tolist()))


def test_a_region_that_is_too_large_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    house = ROW[:, :30]
    mask, markers = np.hstack([ROW, house]), np.hstack([cut_at(ROW, 25), cut_at(house, 12)])
    mask[:, 68:73] = 0
    assert len(separate(traced(mask), traced(markers))) == 4
    monkeypatch.setattr(module, "MAX_SIDE_PX", 40)
    assert len(separate(traced(mask), traced(markers))) == 3
