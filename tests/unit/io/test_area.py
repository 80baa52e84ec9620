"""Inside an area a scene is as it was, outside it is nodata and is not read."""

import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.core.types import GeoGrid, Raster, SparseSource, Window
from rooftrace.io.area import Area, AreaSource, read_area
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.vector_write import write_polygons

SHAPE = (700, 1100)
UTM = CRS.from_epsg(32633)
GRID = GeoGrid(SHAPE, Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000), UTM)
PIXELS = np.random.default_rng(0).integers(1, 255, (3, *SHAPE), dtype=np.uint8)

# Two that reach over several cells, one with a hole, and one that ends outside.
OUTLINES = [
    shapely.Polygon(
        [(100.3, 50.2), (900.7, 120.9), (640.1, 600.4), (90.6, 480.8)],
        [[(400.2, 200.7), (480.3, 210.1), (450.9, 300.4)]],
    ),
    shapely.box(1000.25, 600.75, 1300, 900),
]


class Watched(ArraySource):
    """Remembers what is read."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read_windows: list[Window] = []

    def read(self, window: Window | None = None) -> Raster:
        self.read_windows.append(window or Window.whole(self.grid.shape))
        return super().read(window)


def on_ground(grid: GeoGrid) -> np.ndarray:
    t = grid.transform
    return shapely.transform(
        np.array(OUTLINES),
        lambda xy: np.stack([t.a * xy[:, 0] + t.b * xy[:, 1] + t.c,
                             t.d * xy[:, 0] + t.e * xy[:, 1] + t.f], axis=1),
    )  # fmt: skip


def source_of(crs: CRS = UTM) -> AreaSource:
    outlines = on_ground(GRID)
    if crs != UTM:
        there = Transformer.from_crs(UTM, crs, always_xy=True)
        fine = shapely.segmentize(outlines, 5)
        outlines = shapely.transform(fine, lambda xy: np.stack(there.transform(*xy.T), axis=1))
    return AreaSource(Watched(PIXELS, GRID), Area(outlines, crs, "area"))


@cache
def inside() -> np.ndarray:
    """(y, x) bool, by the centres of pixels."""
    cols, rows = np.meshgrid(np.arange(SHAPE[1]) + 0.5, np.arange(SHAPE[0]) + 0.5)
    return shapely.contains_xy(shapely.union_all(OUTLINES), cols, rows)


@given(st.integers(0, 699), st.integers(0, 1099), st.integers(1, 700), st.integers(1, 1100))
def test_a_window_is_that_of_the_whole(row: int, col: int, height: int, width: int) -> None:
    window = Window(row, col, height, width).intersection(Window.whole(SHAPE))
    assert window is not None
    source = source_of()
    assert isinstance(source, SparseSource)
    raster = source.read(window)
    part = window.slices()
    known = inside()[part]
    np.testing.assert_array_equal(raster.valid, known)
    # What lies around the area is there to be seen, but is not valid.
    np.testing.assert_array_equal(raster.data, PIXELS[:, *part])
    assert raster.seen.all()
    assert raster.grid == GRID.crop(window)
    assert source.is_empty(window) == (not known.any())
    assert source.source.read_windows == [window]  # type: ignore[attr-defined]


def test_nodata_of_the_scene_stays_nodata() -> None:
    valid = np.ones(SHAPE, bool)
    valid[:300] = False
    area = AreaSource(ArraySource(PIXELS, GRID, valid), Area(on_ground(GRID), UTM, "area"))
    np.testing.assert_array_equal(area.read().valid, inside() & valid)


@pytest.mark.parametrize("epsg", [4326, 3857, 32634])
def test_an_area_in_another_coordinate_system(epsg: int) -> None:
    found = source_of(CRS.from_epsg(epsg)).read().valid
    assert (found != inside()).mean() < 1e-4


def test_a_rotated_scene() -> None:
    turned = GeoGrid(SHAPE, GRID.transform @ Affine.rotation(30), UTM)
    area = AreaSource(ArraySource(PIXELS, turned), Area(on_ground(turned), UTM, "area"))
    assert (area.read().valid != inside()).mean() < 1e-5


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
def test_an_area_from_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"area{suffix}"
    crs = CRS.from_epsg(4326)
    geometry = source_of(crs).area.geometry
    pyogrio.raw.write(
        path, shapely.to_wkb(geometry), [], [], geometry_type="Polygon", crs="EPSG:4326"
    )
    area = AreaSource(ArraySource(PIXELS, GRID), read_area(path))
    assert (area.read().valid != inside()).mean() < 1e-4
    again = pickle.loads(pickle.dumps(area))
    np.testing.assert_array_equal(again.read().valid, area.read().valid)


def test_pixels_where_the_image_lies_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, '
        f'"geometry": {shapely.to_geojson(OUTLINES[0])}}}]}}'
    )
    area = AreaSource(ArraySource(PIXELS, name="photo.png"), read_area(path))
    expected = inside().copy()
    expected[:, 950:] = False
    np.testing.assert_array_equal(area.read().valid, expected)
    assert any("pixels of photo.png" in note for note in area.notes)


def test_an_area_that_misses_names_both_extents() -> None:
    far = shapely.transform(on_ground(GRID), lambda xy: xy + 5000)
    source = AreaSource(ArraySource(PIXELS, GRID, name="a.tif"), Area(far, UTM, "ward.gpkg"))
    assert source.is_missed
    with pytest.raises(DataError, match=r"ward\.gpkg lies outside a\.tif") as caught:
        source.read(Window(0, 0, 10, 10))
    assert caught.value.message.count("longitude") == 2
    pixels = AreaSource(ArraySource(PIXELS), Area(far, None, "ward.gpkg"))
    with pytest.raises(DataError, match="columns 0 to 1100 and rows 0 to 700"):
        pixels.check()
    # Of a GeoJSON in degrees nobody knows that it is one: 0 buildings were found in it.
    town = Area(np.array([shapely.box(32.5, 0.3, 32.6, 0.4)], np.object_), None, "town.geojson")
    with pytest.raises(DataError, match="too small for array: it covers columns 32") as caught:
        AreaSource(ArraySource(PIXELS), town).read()
    assert "gdal_translate -a_srs" in caught.value.remedy


def test_what_does_not_say_where_it_lies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeoreferenceError, match=r"a\.png has no georeference"):
        AreaSource(ArraySource(PIXELS, name="a.png"), Area(on_ground(GRID), UTM, "b")).read()
    metric = np.array([shapely.box(5e5, 1e6, 6e5, 2e6)], np.object_)
    with pytest.raises(GeoreferenceError, match="area b has no coordinate system") as metres:
        AreaSource(ArraySource(PIXELS, GRID), Area(metric, None, "b")).read()
    assert "EPSG:…" in metres.value.remedy
    degrees = np.array([shapely.box(32.5, 0.3, 32.6, 0.4)], np.object_)
    with pytest.raises(GeoreferenceError, match="area b has no coordinate system") as lonlat:
        AreaSource(ArraySource(PIXELS, GRID), Area(degrees, None, "b")).read()
    assert "EPSG:4326" in lonlat.value.remedy
    pixels = tmp_path / "pixels.geojson"
    write_polygons(pixels, np.array(OUTLINES[:1], np.object_), {}, None)
    with pytest.raises(GeoreferenceError, match="is in pixels of an image") as caught:
        AreaSource(ArraySource(PIXELS, GRID), read_area(pixels)).read()
    assert "coordinates of the ground" in str(caught.value.remedy)
    with pytest.raises(DataError, match="does not exist"):
        read_area(tmp_path / "absent.geojson")
    empty = tmp_path / "empty.geojson"
    empty.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(DataError):
        read_area(empty)
