"""Windows are sets of pixels; grids know their metres in every kind of coordinate system."""

import math
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from rooftrace.core.types import Footprints, GeoGrid, Window

SIDE = 24
SMALL = st.integers(0, SIDE - 1)
WINDOWS = st.builds(
    lambda r, c, h, w: Window(r, c, min(h, SIDE - r), min(w, SIDE - c)),
    SMALL, SMALL, st.integers(1, SIDE), st.integers(1, SIDE),
)  # fmt: skip


def pixels(window: Window | None) -> np.ndarray:
    """(y, x) bool, True inside the window."""
    found = np.zeros((SIDE, SIDE), dtype=bool)
    if window is not None:
        found[window.slices()] = True
    return found


@given(WINDOWS, WINDOWS)
def test_intersection_is_that_of_the_pixels(a: Window, b: Window) -> None:
    both = a.intersection(b)
    np.testing.assert_array_equal(pixels(both), pixels(a) & pixels(b))
    assert both == b.intersection(a)
    assert a.intersection(a) == a


@given(WINDOWS, st.integers(0, 40))
def test_padding_and_back(window: Window, px: int) -> None:
    grown = window.padded(px)
    assert grown.shape_yx == (window.height + 2 * px, window.width + 2 * px)
    assert grown.padded(-px) == window
    assert grown.intersection(window) == window


WGS84_A, WGS84_E2 = 6378137.0, 0.00669437999014


def radii_m(lat_deg: float) -> tuple[float, float]:
    """Radii of curvature of the ellipsoid: along the meridian, and across it."""
    root = math.sqrt(1 - WGS84_E2 * math.sin(math.radians(lat_deg)) ** 2)
    return WGS84_A * (1 - WGS84_E2) / root**3, WGS84_A / root


def mercator_y(lat_deg: float) -> float:
    return WGS84_A * math.log(math.tan(math.pi / 4 + math.radians(lat_deg) / 2))


def centred(lon: float, lat: float, step_x: float, step_y: float, crs: str) -> GeoGrid:
    """A grid of 100 × 100 pixels whose centre lies at (lon, lat) in the units of its CRS."""
    transform = Affine.translation(lon, lat) @ Affine.scale(step_x, -step_y)
    return GeoGrid((100, 100), transform @ Affine.translation(-50, -50), CRS(crs))


def test_utm_on_the_central_meridian() -> None:
    grid = centred(500_000, 5_000_000, 0.5, 0.25, "EPSG:32633")
    # There the projection shrinks by 0.9996, so a metre of the map is a little more on the ground.
    assert grid.gsd_yx_m == pytest.approx((0.25 / 0.9996, 0.5 / 0.9996), rel=1e-6)
    assert grid.gsd_m == pytest.approx(math.sqrt(0.125) / 0.9996, rel=1e-6)


@pytest.mark.parametrize("lat", [-60.0, 0.0, 6.1, 42.0, 70.0])
def test_web_mercator_is_not_taken_for_metres(lat: float) -> None:
    grid = centred(4_000_000, mercator_y(lat), 0.6, 0.6, "EPSG:3857")
    meridian, across = radii_m(lat)
    cos = math.cos(math.radians(lat))
    assert grid.gsd_yx_m == pytest.approx(
        (0.6 * cos * meridian / WGS84_A, 0.6 * cos * across / WGS84_A), rel=1e-5
    )
    assert grid.gsd_m == pytest.approx(0.6 * cos, rel=7e-3)


@pytest.mark.parametrize("lat", [-60.0, 0.0, 27.6, 70.0])
def test_degrees_are_not_taken_for_metres(lat: float) -> None:
    step = 1e-6
    grid = centred(85.5, lat, step, 2 * step, "EPSG:4326")
    meridian, across = radii_m(lat)
    assert grid.gsd_yx_m == pytest.approx(
        (
            math.radians(2 * step) * meridian,
            math.radians(step) * across * math.cos(math.radians(lat)),
        ),
        rel=1e-5,
    )
    # A turned pixel keeps its area on the ground, where its sides are not at right angles.
    turn = Affine.rotation(40, pivot=(50, 50))
    assert replace(grid, transform=grid.transform @ turn).gsd_m == pytest.approx(grid.gsd_m)


def test_feet_are_not_taken_for_metres() -> None:
    grid = centred(984_250, 200_000, 1, 1, "EPSG:2263")
    assert grid.gsd_m == pytest.approx(0.3048, rel=1e-3)


@given(st.floats(0, 360), st.floats(0.05, 10))
def test_rotation_does_not_change_the_metres(angle: float, gsd: float) -> None:
    turned = (
        Affine.translation(500_000, 5_000_000)
        @ Affine.rotation(angle)
        @ Affine.scale(gsd, -2 * gsd)
    )
    found = GeoGrid((100, 100), turned, CRS("EPSG:32633")).gsd_yx_m
    assert found == pytest.approx((2 * gsd / 0.9996, gsd / 0.9996), rel=1e-4)


def test_without_a_place_there_are_no_metres() -> None:
    assert GeoGrid((10, 10)).gsd_m is None
    beyond = CRS.from_proj4("+proj=ortho +lat_0=0 +lon_0=0 +datum=WGS84")
    assert GeoGrid((10, 10), Affine.translation(1e8, 1e8), beyond).gsd_m is None


AFFINES = st.builds(
    lambda x, y, angle, sx, sy: (
        Affine.translation(x, y) @ Affine.rotation(angle) @ Affine.scale(sx, -sy)
    ),
    st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0, 360),
    st.floats(0.01, 10), st.floats(0.01, 10),
)  # fmt: skip


@given(AFFINES, WINDOWS, st.floats(0, SIDE), st.floats(0, SIDE))
def test_a_crop_keeps_every_pixel_in_its_place(
    transform: Affine, window: Window, col: float, row: float
) -> None:
    grid = GeoGrid((SIDE, SIDE), transform, CRS("EPSG:32633"))
    cropped = grid.crop(window)
    assert cropped.shape == window.shape_yx
    assert cropped.crs == grid.crs
    before = grid.to_world(np.array([col + window.col]), np.array([row + window.row]))
    after = cropped.to_world(np.array([col]), np.array([row]))
    np.testing.assert_allclose(after, before, atol=1e-6)
    inside = Window(0, 0, 1, 1)
    np.testing.assert_allclose(
        cropped.crop(inside).transform,
        grid.crop(Window(window.row, window.col, 1, 1)).transform,
        atol=1e-6,
    )


@given(AFFINES, st.integers(1, 9), st.integers(1, 9))
def test_resampling_covers_the_same_ground(transform: Affine, by_y: int, by_x: int) -> None:
    grid = GeoGrid((SIDE * by_y, SIDE * by_x), transform, CRS("EPSG:32633"))
    coarse = grid.resampled((SIDE, SIDE), (by_y, by_x))
    assert (coarse.height, coarse.width) == (SIDE, SIDE)
    np.testing.assert_allclose(coarse.bounds_xy, grid.bounds_xy, rtol=1e-12, atol=1e-6)


def test_footprints_are_chosen_and_joined_with_all_they_have() -> None:
    from shapely import box

    geometry = np.array([box(k, 0, k + 1, k + 1) for k in range(3)], dtype=object)
    footprints = Footprints(
        geometry, np.ones(3, np.float32), np.arange(3.0), None,
        np.array([1, 2, 1], np.uint8), ("land", "building", "road"),
        perimeter_m=np.array([4.0, 6.0, 8.0]), orientation_deg=np.array([0.0, 90.0, 90.0]),
        rectangularity=np.ones(3),
    )  # fmt: skip
    table = footprints.columns()
    shape = ["perimeter_m", "orientation_deg", "rectangularity"]
    assert list(table) == ["id", "class", "class_id", "score", "area_m2", *shape]
    assert list(table["class"]) == ["building", "road", "building"]
    assert footprints.of_class(1).columns()["perimeter_m"].tolist() == [4, 8]
    assert len(footprints.of_class(0)) == 0
    parts = [footprints.take(np.array([2])), footprints.take(np.array([0, 1]))]
    again = Footprints.joined(parts)
    assert again.classes == footprints.classes
    for name in ("class_id", "area_m2", *shape):
        values = getattr(footprints, name)
        np.testing.assert_array_equal(getattr(again, name), values[[2, 0, 1]])
