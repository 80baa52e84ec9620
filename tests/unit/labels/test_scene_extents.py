"""Parts of a split by block share no ground, and the gap between them is kept."""

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from rooftrace.core.types import GeoGrid
from rooftrace.io.web_mercator import TileName
from rooftrace.labels.scene_extents import SceneExtents, outline_of

UTM = CRS.from_epsg(32736)
GEOD = Geod(ellps="WGS84")


def square(x: float, y: float, side_m: float, crs: CRS = UTM) -> GeoGrid:
    return GeoGrid((64, 64), Affine(side_m / 64, 0, x, 0, -side_m / 64, y), crs)


def ground(grids: list[GeoGrid]) -> SceneExtents:
    outlines = [outline_of(grid) for grid in grids]
    return SceneExtents.of([outline for outline in outlines if outline is not None])


def checkerboard(rows: int, cols: int, side_m: float = 100) -> list[GeoGrid]:
    return [
        square(524_000 + col * side_m, 9_318_000 - row * side_m, side_m)
        for row in range(rows)
        for col in range(cols)
    ]


def test_an_image_without_a_place_has_no_outline() -> None:
    assert outline_of(GeoGrid((4, 4))) is None
    # Beyond the ends of the world there are no longitudes.
    assert outline_of(GeoGrid((4, 4), Affine(1e9, 0, 1e12, 0, -1e9, 1e12), UTM)) is None


def test_the_same_ground_at_other_zooms_goes_along() -> None:
    parent = TileName(19, 270_961, 319_293)
    family = [
        TileName(19 + zoom, (parent.row << zoom) + row, (parent.col << zoom) + col)
        for zoom in range(3)
        for row in range(1 << zoom)
        for col in range(1 << zoom)
    ]
    other = TileName(19, 270_961, 319_294)
    found = ground([tile.grid((256, 256)) for tile in (*family, other)])
    assert found.host.tolist() == [0] * len(family) + [len(family)]
    for block_m in (5, 20, 33, 76):
        blocks = found.blocks(block_m)
        assert len(set(blocks[:-1])) == 1
        assert blocks[-1] != blocks[0]


def test_neighbours_share_an_edge_and_no_ground() -> None:
    found = ground([*checkerboard(1, 3), square(524_050, 9_318_000, 100)])
    first = np.array([True, False, False, False])
    middle, far, shifted = (np.arange(4) == number for number in (1, 2, 3))
    assert not found.near(first, middle, 0).any()
    assert found.near(first, shifted, 0).tolist() == first.tolist()
    assert found.near(first, middle, 1).tolist() == first.tolist()
    assert not found.near(first, far, 99).any()
    assert found.near(first, far, 101).any()
    assert not found.near(first, np.zeros(4, dtype=bool), 10).any()


@pytest.mark.parametrize("latitude", [0.0, 60.0])
def test_neighbours_on_both_sides_of_longitude_180(latitude: float) -> None:
    corners = np.array([(0.0, 0), (0.001, 0), (0.001, 0.001), (0, 0.001)]).repeat(4, axis=0)
    west, across, east = (
        np.add(corners, (lon, latitude)) for lon in (179.9985, 179.9995, -179.9995)
    )
    across[across[:, 0] > 180, 0] -= 360
    found = SceneExtents.of([west, east, across])
    first, second, third = (np.arange(3) == number for number in range(3))
    gap_m = GEOD.line_length([179.9995, 180.0005], [latitude] * 2)
    assert not found.near(first, second, gap_m - 1).any()
    assert found.near(first, second, gap_m + 1).any()
    assert found.near(third, first | second, 0).tolist() == [False] * 3
    assert found.near(third, second, 0.5).any()


def least_distance_m(one: GeoGrid, other: GeoGrid) -> float:
    """Return the distance of two rectangles of one UTM zone in metres on the ellipsoid."""
    a, b = (shapely.box(*grid.bounds_xy) for grid in (one, other))
    p, q = shapely.get_coordinates(shapely.shortest_line(a, b))
    to_lonlat = Transformer.from_crs(UTM, 4326, always_xy=True)
    (lon0, lon1), (lat0, lat1) = to_lonlat.transform([p[0], q[0]], [p[1], q[1]])
    return float(GEOD.inv(lon0, lat0, lon1, lat1)[2])


@pytest.mark.campaign
@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 2000), st.integers(20, 150)),
        min_size=2, max_size=25,
    ),
    st.sampled_from([0.0, 1.0, 40.0, 200.0]),
    st.integers(0, 99),
)  # fmt: skip
def test_remaining_scenes_keep_the_gap(
    squares: list[tuple[int, int, int]], gap_m: float, seed: int
) -> None:
    grids = [square(524_000 + x, 9_318_000 + y, side) for x, y, side in squares]
    found = ground(grids)
    held_out = np.random.default_rng(seed).random(len(grids)) < 0.4
    train = ~held_out & ~found.near(~held_out, held_out, gap_m)
    for i in np.flatnonzero(train):
        for j in np.flatnonzero(held_out):
            distance_m = least_distance_m(grids[i], grids[j])
            # Not nearer; and what was left out was nearer, but for what lengths are wrong by.
            if gap_m:
                assert distance_m >= gap_m
            a, b = (shapely.box(*grids[k].bounds_xy) for k in (i, j))
            assert a.intersection(b).area <= 0.01 * min(a.area, b.area)
    for i in np.flatnonzero(~held_out & ~train):
        assert min(least_distance_m(grids[i], grids[j]) for j in np.flatnonzero(held_out)) <= (
            gap_m * 1.002
        )
