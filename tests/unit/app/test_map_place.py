"""The place of scenes on the map, and the reading of their polygons."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Geod, Transformer

from rooftrace.app.map.outlines import LayerTable, read_outlines
from rooftrace.app.map.place import Place
from rooftrace.core.types import Footprints, GeoGrid
from rooftrace.io.vector_write import write_footprints
from rooftrace.io.web_mercator import WORLD_M, TileName, unit_position

UTM = GeoGrid((200, 300), Affine(0.5, 0, 524_000, 0, -0.5, 9_318_000), CRS(32736))


def test_degrees_are_those_of_proj() -> None:
    place = Place(UTM)
    assert not place.flat
    west, south, east, north = place.bounds_degrees
    to_degrees = Transformer.from_crs(32736, 4326, always_xy=True)
    lon, lat = to_degrees.transform([524_000, 524_150], [9_317_900, 9_318_000])
    assert (west, east) == pytest.approx(lon, abs=2e-6)
    assert (south, north) == pytest.approx(lat, abs=2e-6)
    x, y = Transformer.from_crs(4326, 3857, always_xy=True).transform(33.2, -6.1)
    assert unit_position(33.2, -6.1) == pytest.approx(
        (0.5 + x / WORLD_M, 0.5 - y / WORLD_M), abs=1e-12
    )


def test_the_deepest_zoom_shows_every_pixel() -> None:
    place = Place(UTM)
    zoom = place.deepest_zoom(256)
    assert TileName(zoom, 0, 0).grid((256, 256)).transform.a <= place.pixel_m * 1.1
    assert TileName(zoom - 1, 0, 0).grid((256, 256)).transform.a > place.pixel_m


@pytest.mark.parametrize("grid", [
    GeoGrid((200, 300)),
    # Over the antimeridian, and near the pole.
    GeoGrid((200, 300), Affine(1000, 0, 600_000, 0, -1000, 200_000), CRS(32660)),
    GeoGrid((200, 300), Affine(100, 0, -15_000, 0, -100, 10_000), CRS(3031)),
])  # fmt: skip
def test_what_has_no_place_lies_flat(grid: GeoGrid) -> None:
    place = Place(grid)
    assert place.flat
    assert place.bounds_m == (-150, -100, 150, 100)
    corner = shapely.Point(grid.transform @ (300, 0)).buffer(1e-6)
    (moved,) = place.polygons(np.array([corner]), grid.crs)
    assert shapely.get_coordinates(shapely.centroid(moved))[0] == pytest.approx([150, 100], abs=0.1)


def write(path: Path, polygons: list[shapely.Geometry], crs: CRS | None, **more: object) -> None:
    n = len(polygons)
    score = np.array(more.pop("score", np.full(n, 0.5)), np.float32)
    area = np.array(more.pop("area", np.full(n, np.nan)), np.float64)
    write_footprints(path, Footprints(np.array(polygons), score, area, crs, **more))


def test_sizes_are_those_on_the_ellipsoid(tmp_path: Path) -> None:
    path = tmp_path / "a_buildings.gpkg"
    house = shapely.box(524_000, 9_317_950, 524_020, 9_317_960)
    far_north = GeoGrid((200, 300), Affine(0.5, 0, 500_000, 0, -0.5, 7_000_000), CRS(32633))
    north = shapely.box(500_000, 6_999_950, 500_020, 6_999_960)
    for grid, one in ((UTM, house), (far_north, north)):
        write(path, [one], grid.crs)
        lon_lat = shapely.transform(
            one, lambda xy, crs=grid.crs: np.stack(
                Transformer.from_crs(crs, 4326, always_xy=True).transform(*xy.T), axis=1)
        )  # fmt: skip
        expected = abs(Geod(ellps="WGS84").geometry_area_perimeter(lon_lat)[0])
        size = read_outlines(LayerTable(path).table(), Place(grid)).size[0]
        assert size / 10 == pytest.approx(expected, rel=0.01)


def test_long_edges_are_bent_and_short_ones_are_not() -> None:
    grid = GeoGrid((200, 400), Affine(1000, 0, 300_000, 0, -1000, 7_100_000), CRS(32633))
    long = shapely.box(310_000, 6_950_000, 690_000, 7_050_000)
    house = shapely.box(310_000, 6_950_000, 310_020, 6_950_010)
    made_long, made_house = Place(grid).polygons(np.array([long, house]), grid.crs)
    assert len(made_house.exterior.coords) == 5
    assert len(made_long.exterior.coords) > 50
    to_map = Transformer.from_crs(32633, 3857, always_xy=True)
    middle = shapely.Point(to_map.transform(500_000, 6_950_000))
    assert made_long.exterior.distance(middle) < 0.1
    corner = to_map.transform(310_020, 6_950_010)
    assert min(np.hypot(*(shapely.get_coordinates(made_house) - corner).T)) < 1e-3
