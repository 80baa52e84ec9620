import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Geod, Transformer

from rooftrace.core.types import GeoGrid, Window
from rooftrace.vector.footprints import ValidOutline, make_footprints, minimum_rectangles
from rooftrace.vector.trace import trace

SHAPE = (4000, 6000)
GRIDS = {
    "utm": GeoGrid(SHAPE, Affine(0.5, 0, 600_000, 0, -0.5, 5_400_000), CRS(32633)),
    "utm, far from its meridian, turned": GeoGrid(
        SHAPE,
        Affine.translation(900_000, 7_000_000) @ Affine.rotation(30) @ Affine.scale(2),
        CRS(32633),
    ),
    "web mercator in the north": GeoGrid(
        SHAPE, Affine(0.6, 0, 1_000_000, 0, -0.6, 8_800_000), CRS(3857)
    ),
    "degrees": GeoGrid(SHAPE, Affine(5e-6, 0, 15, 0, -3e-6, 48), CRS(4326)),
    "coarse degrees, over the antimeridian": GeoGrid(
        SHAPE, Affine(1e-4, 0, 179.7, 0, -1e-4, -40), CRS(4326)
    ),
}


def buildings() -> np.ndarray:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5900, 50), rng.integers(0, 3900, 50)
    w, h = rng.integers(5, 90, (2, 50))
    boxes = shapely.box(x, y, x + w, y + h)
    boxes[0] = boxes[0].difference(shapely.box(x[0] + 1, y[0] + 1, x[0] + 3, y[0] + 3))
    return boxes


def geodesic_m2(polygons: np.ndarray, crs: CRS) -> np.ndarray:
    to_lonlat = Transformer.from_crs(crs, 4326, always_xy=True)
    geod = Geod(ellps="WGS84")
    # Edges in short pieces: a straight line of the CRS is not a geodesic.
    pieces = shapely.segmentize(polygons, shapely.length(polygons) / 100)
    lonlat = shapely.transform(pieces, lambda xy: np.stack(to_lonlat.transform(*xy.T), axis=1))
    return np.array([abs(geod.geometry_area_perimeter(shapely.normalize(p))[0]) for p in lonlat])


@pytest.mark.parametrize("name", GRIDS)
def test_area_is_geodesic(name: str) -> None:
    grid, polygons = GRIDS[name], buildings()
    made = make_footprints(polygons, np.ones(len(polygons), np.float32), grid)
    np.testing.assert_allclose(made.area_m2, geodesic_m2(made.geometry, grid.crs), rtol=1e-4)


@pytest.mark.parametrize("name", GRIDS)
def test_perimeter_is_geodesic(name: str) -> None:
    grid, polygons = GRIDS[name], buildings()
    made = make_footprints(polygons, np.ones(len(polygons), np.float32), grid)
    to_lonlat = Transformer.from_crs(grid.crs, 4326, always_xy=True)
    geod = Geod(ellps="WGS84")
    expected = [
        sum(
            geod.line_length(*to_lonlat.transform(*ring.coords.xy))
            for ring in [p.exterior, *p.interiors]
        )
        for p in made.geometry
    ]
    np.testing.assert_allclose(made.perimeter_m, expected, rtol=2e-4)


@pytest.mark.parametrize("name", GRIDS)
def test_orientation_is_the_bearing_of_the_longer_side(name: str) -> None:
    grid, polygons = GRIDS[name], buildings()
    made = make_footprints(polygons, np.ones(len(polygons), np.float32), grid)
    to_lonlat = Transformer.from_crs(grid.crs, 4326, always_xy=True)
    expected = []
    for polygon in made.geometry:
        lon, lat = to_lonlat.transform(*np.array(polygon.exterior.coords).T)
        bearing, _, metres = Geod(ellps="WGS84").inv(lon[:-1], lat[:-1], lon[1:], lat[1:])
        expected.append(np.array(bearing)[np.argmax(metres)])
    apart = (made.orientation_deg - expected + 90) % 180 - 90
    assert np.abs(apart).max() < 0.05
    assert ((made.orientation_deg >= 0) & (made.orientation_deg < 180)).all()
    holes = shapely.get_num_interior_rings(polygons) > 0
    np.testing.assert_allclose(made.rectangularity[~holes], 1, atol=1e-3)
    assert (made.rectangularity[holes] < 1).all()


@pytest.mark.parametrize("degrees", [0, 10, 60, 90, 135, 179])
def test_without_a_crs_the_upper_side_is_north(degrees: float) -> None:
    house = shapely.affinity.rotate(shapely.box(40, 20, 46, 60), degrees)
    tall = np.array([house, shapely.Polygon([(0, 0), (30, 0), (0, 10)])])
    score = np.ones(2, np.float32)
    made = make_footprints(tall, score, GeoGrid((99, 99)))
    # Rows increase downwards, so this rotation is clockwise.
    assert (made.orientation_deg[0] - degrees + 90) % 180 == pytest.approx(90)
    np.testing.assert_allclose(made.rectangularity, [1, 0.5])
    assert np.isnan(made.perimeter_m).all()
    by_gsd = make_footprints(tall, score, GeoGrid((99, 99)), gsd_m=0.5)
    assert by_gsd.perimeter_m[0] == pytest.approx(46)
    np.testing.assert_array_equal(by_gsd.orientation_deg, made.orientation_deg)


@pytest.mark.parametrize("name", GRIDS)
def test_polygons_lie_where_the_grid_says(name: str) -> None:
    grid, mask = GRIDS[name], np.zeros((6, 8), np.uint8)
    mask[1:5, 1:7] = 1
    mask[2, 3] = 0
    (polygon,) = make_footprints(trace(mask).polygons, np.ones(1, np.float32), grid).geometry
    assert polygon.is_valid
    assert polygon.exterior.is_ccw
    assert not polygon.interiors[0].is_ccw
    corners = {grid.transform @ xy for xy in [(1, 1), (7, 1), (7, 5), (1, 5)]}
    np.testing.assert_allclose(
        sorted(polygon.exterior.coords[:-1]), sorted(corners), rtol=0, atol=1e-9
    )


def test_without_a_crs_polygons_stay_in_pixels() -> None:
    grid = GeoGrid((10, 10), Affine(2, 0, 50, 0, -2, 50))
    polygons = np.array([shapely.box(1, 2, 3, 4)])
    made = make_footprints(polygons, np.array([0.5], np.float32), grid)
    assert made.crs is None
    assert made.geometry[0].bounds == (1, 2, 3, 4)
    assert np.isnan(made.area_m2).all()


def test_the_smallest_rectangle_is_no_larger_than_that_of_any_direction() -> None:
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(rng.integers(3, 30), 2)) * [9, 4] + 1e5 for _ in range(60)]
    polygons = shapely.convex_hull(np.array([shapely.multipoints(cloud) for cloud in clouds]))
    lengths, widths, angles = minimum_rectangles(polygons)
    assert (lengths >= widths).all()
    for polygon, area, angle, length in zip(polygons, lengths * widths, angles, lengths):
        turned = shapely.affinity.rotate(polygon, -angle, use_radians=True)
        left, top, right, bottom = turned.bounds
        assert (right - left, (right - left) * (bottom - top)) == pytest.approx((length, area))
        others = [
            shapely.box(*shapely.affinity.rotate(polygon, degrees).bounds).area
            for degrees in range(0, 90, 3)
        ]
        assert area <= min(others) * (1 + 1e-9)


def test_what_the_edge_of_the_valid_data_cuts() -> None:
    grid = GRIDS["degrees"]
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 4000:] = mask[1000:1100, 1000:1100] = 255
    mask[2000:2020, 2000:2020] = 255  # too small a hole to cut a building
    mask[2500:3900:9, 100:3900:7] = 255  # many specks
    outline = ValidOutline(grid)
    for window in Window.whole(SHAPE).strips(1500):
        outline.feed(window, mask[window.slices()])
    # At the image's edge, just inside, at nodata, in its hole's corner, at the small hole, whole.
    corners = [(0, 500), (2, 500), (3959, 3000), (960, 1060), (1970, 2000), (1500, 3000)]
    boxes = np.array([shapely.box(x, y, x + 40, y + 40) for x, y in corners])
    placed = shapely.transform(boxes, lambda xy: np.stack(grid.to_world(*xy.T), axis=1))
    assert outline.cuts(placed).tolist() == [True, False, True, True, False, False]
    assert outline.finish().area == pytest.approx((4000 * 4000 - 100**2) * 15e-12, rel=1e-6)


def test_a_rectangle_around_corners_that_are_straight_but_for_rounding() -> None:
    """GEOS 3.14.1 alone returns a line, whose shorter side is 0."""
    x, y = np.array([(0, 0), (0, 3), (0, 11), (0, 16), (3, 16), (12, 16), (12, 0)], float).T
    turned = shapely.polygons(np.stack([x - 5e-5 * y, 5e-5 * x + y], axis=1))
    sides = minimum_rectangles(np.array([turned], np.object_))[:2]
    assert np.ravel(sides) == pytest.approx([16, 12], abs=1e-6)
