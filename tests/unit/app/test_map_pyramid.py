"""Tiles of pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.enums import Resampling

from raster_files import write_geotiff
from rooftrace.app.map import pyramid
from rooftrace.app.map.place import Place
from rooftrace.app.map.pyramid import Pyramid, colour_picture, overviews
from rooftrace.core.types import GeoGrid, Raster
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.picture import DisplayStretch
from rooftrace.io.raster import open_raster
from rooftrace.io.web_mercator import WORLD_M, TileName, web_mercator

ZOOM = 16
PX_M = WORLD_M / 2**ZOOM / 256
"""Pixel size of a tile, so that pixels of the scene are those of its tiles."""

FIRST = TileName(ZOOM, 2**15, 2**15)


def grid_of(height: int, width: int) -> GeoGrid:
    return GeoGrid((height, width), Affine(PX_M, 0, 0, 0, -PX_M, 0), web_mercator())


def test_a_tile_of_its_own_zoom_is_the_pixels() -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 255, (3, 400, 400), np.uint8)
    grid = grid_of(400, 400)
    made = Pyramid([ArraySource(data, grid)], Place(grid))
    tile = made.tile(FIRST, 256)
    assert tile is not None
    assert tile.valid.all()
    assert np.array_equal(tile.data, data[:, :256, :256])
    right = made.tile(TileName(ZOOM, FIRST.row, FIRST.col + 1), 256)
    assert right is not None
    assert right.valid[:, :144].all()
    assert not right.valid[:, 145:].any()


def test_from_afar_pixels_are_averaged_and_nodata_is_left_out() -> None:
    grid = grid_of(512, 512)
    data = np.full((1, 512, 512), 100, np.uint8)
    data[:, ::2] = 200
    valid = np.ones((512, 512), np.bool_)
    data[:, :, 256:], valid[:, 256:] = 0, False
    made = Pyramid([ArraySource(data, grid, valid)], Place(grid))
    tile = made.tile(TileName(ZOOM - 3, FIRST.row // 8, FIRST.col // 8), 256)
    assert tile is not None
    assert tile.valid.sum() == 64 * 32
    assert set(np.unique(tile.data[:, tile.valid])) == {150}


def write_tiff(path: Path, data: np.ndarray, **options: object) -> None:
    grid = grid_of(*data.shape[1:])
    write_geotiff(
        path, data, crs="EPSG:3857", transform=grid.transform, tiled=True, blockxsize=256,
        blockysize=256, **options,
    )  # fmt: skip


def test_overviews_are_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "_COPY_PX", 2**14)
    path = tmp_path / "a.tif"
    write_tiff(path, np.full((1, 2048, 2048), 10, np.uint8))
    with rasterio.open(path, "r+") as image:
        image.build_overviews([2, 4, 8], Resampling.nearest)
        # The overviews exist, so a view from far away does not read these pixels.
        image.write(np.full((1, 2048, 2048), 99, np.uint8))
    file = open_raster(path)
    levels = [file, *overviews(file)]
    assert [level.grid.shape for level in levels] == [(2048 // n,) * 2 for n in (1, 2, 4, 8)]
    made = Pyramid(levels, Place(file.grid))
    found = []
    for out in range(5):
        tile = made.tile(TileName(ZOOM - out, FIRST.row >> out, FIRST.col >> out), 256)
        assert tile is not None
        found.append(int(tile.data[0, 5, 5]))
    assert found == [99, 10, 10, 10, 10]


class Counted(ArraySource):
    read_px = 0

    def read(self, window=None):  # type: ignore[no-untyped-def]
        raster = super().read(window)
        self.read_px += raster.valid.size
        return raster


def test_without_overviews_an_image_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid, "_COPY_PX", 2**14)
    grid = grid_of(1024, 1024)
    rows = np.repeat(np.arange(1024) // 4, 1024).reshape(1, 1024, 1024).astype(np.uint8)
    source = Counted(rows, grid)
    made = Pyramid([source], Place(grid))
    far = TileName(ZOOM - 4, FIRST.row >> 4, FIRST.col >> 4)
    for _ in range(5):
        tile = made.tile(far, 256)
    assert source.read_px == 1024**2
    assert tile is not None
    assert tile.valid.sum() == 64**2
    assert np.abs(tile.data[0, :64, 0] - (np.arange(64) * 4 + 1.5)).max() <= 1


def test_classes_are_picked_not_mixed() -> None:
    grid = grid_of(512, 512)
    data = np.zeros((1, 512, 512), np.uint8)
    data[:, :, ::2] = 4
    made = Pyramid([ArraySource(data, grid)], Place(grid), nearest=True)
    for out in (0, 1, 3):
        tile = made.tile(TileName(ZOOM - out, FIRST.row >> out, FIRST.col >> out), 256)
        assert tile is not None
        assert set(np.unique(tile.data)) <= {0, 4}


def shown(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def test_values_are_stretched_alike_in_all_tiles() -> None:
    ramp = np.linspace(1000, 3000, 200 * 200).reshape(1, 200, 200).astype(np.uint16)
    whole = Raster(ramp, np.ones((200, 200), np.bool_), GeoGrid((200, 200)))
    stretch = DisplayStretch.of(whole.data[:, whole.valid])
    assert stretch is not None
    assert (stretch.low, stretch.high) == pytest.approx((1020, 2980), abs=2)
    dark = Raster(ramp[:, :100], whole.valid[:100], GeoGrid((100, 200)))
    picture = shown(colour_picture(dark, stretch))
    assert picture[-1, -1, 0] == pytest.approx(127, abs=4)
    assert picture[0, 0, 0] < 6
