"""Warnings that several threads silence at a time."""

import re
from pathlib import Path

import numpy as np
import pytest
import shapely
import shapely.affinity
from rasterio import features

import rooftrace
from rooftrace.core.types import Window
from rooftrace.io.gdal import number_polygons


@pytest.mark.parametrize("steps", [1, 2, 4, 1000])
def test_polygons_are_numbered_as_gdal_draws_them(steps: int) -> None:
    rng = np.random.default_rng(steps)
    middle, half = rng.uniform(-5, 55, (200, 2)), rng.uniform(0.1, 9, (200, 2))
    corners = np.rint(np.concatenate([middle - half, middle + half], axis=1) * steps) / steps
    boxes = shapely.box(*corners.T)
    turned = [shapely.affinity.rotate(box, angle) for box, angle in zip(boxes, range(100))]
    holed = shapely.difference(boxes[100:], shapely.box(*np.roll(corners[100:], 1, axis=0).T))
    polygons = np.array([*turned, *holed], np.object_)
    polygons = polygons[~shapely.is_empty(polygons)]
    window = Window(7, 3, 40, 50)
    drawn = np.zeros(window.shape_yx, np.int32)
    moved = shapely.transform(polygons, lambda xy: xy - (window.col, window.row))
    features.rasterize(zip(moved, range(1, len(moved) + 1)), out=drawn)
    np.testing.assert_array_equal(number_polygons(polygons, window), drawn)
    assert not number_polygons(polygons[:0], window).any()


def test_no_pixel_depends_on_the_window() -> None:
    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 5000))
    radii = rng.uniform(60, 90, len(angles))
    # Rounded corners make edges that meet pixel centres exactly.
    corners = np.rint(100 + np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1) * 2)
    star = shapely.Polygon(corners / 2, [[(70, 70), (130, 90), (110, 130)]])
    polygons = np.array([star, shapely.box(20, 20, 60, 300)], np.object_)
    whole = number_polygons(polygons, Window(-20, -30, 240, 250))
    for window in (Window(40, 50, 64, 30), Window(-20, -30, 9, 250), Window(119, 80, 1, 70)):
        rows, cols = window.row + 20, window.col + 30
        part = whole[rows : rows + window.height, cols : cols + window.width]
        np.testing.assert_array_equal(number_polygons(polygons, window), part)
    assert set(np.unique(whole)) == {0, 1, 2}


def test_nothing_draws_polygons_without_the_lock() -> None:
    package = Path(rooftrace.__file__).parent
    found = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"rasterio\.features import|from rasterio import .*features", path.read_text())
    ]
    assert found == [str(Path("io", "gdal.py"))]
