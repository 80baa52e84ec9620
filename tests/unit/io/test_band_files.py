"""Test that files of one band each are read as one image."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from folder_server import serving_folder
from raster_files import write_geotiff
from rooftrace.core.errors import BandMismatch, DataError
from rooftrace.core.types import Window
from rooftrace.io.area import select_overview
from rooftrace.io.band_files import BandFile, open_bands, wanted_bands
from rooftrace.io.pixels import prepare

RGB = ("red", "green", "blue")


def write(path: Path, value: int, *, side: int = 60, px_m: float = 1, west: float = 5e5) -> str:
    data = np.full((1, side, side), value, np.uint16)
    data[:, :5] = 0
    write_geotiff(
        path, data, nodata=0, crs="EPSG:32737", transform=Affine(px_m, 0, west, 0, -px_m, 9e6)
    )
    return str(path)


def bands(folder: Path, *names: str) -> list[BandFile]:
    return [
        BandFile(name, write(folder / f"{number}.tif", 100 * number))
        for number, name in enumerate(names, 1)
    ]


def test_bands_are_found_by_name_in_the_order_of_the_model(tmp_path: Path) -> None:
    files = bands(tmp_path, "coastal", "blue", "green", "red", "nir08")
    source = pickle.loads(pickle.dumps(open_bands("scene", files, (*RGB, "nir"), None)))
    window = Window(3, 0, 4, 2)
    raster = source.read(window)
    assert raster.data[:, -1, 0].tolist() == [400, 300, 200, 500]
    assert raster.valid.tolist() == [[False] * 2] * 2 + [[True] * 2] * 2
    assert raster.grid == source.grid.crop(window)
    assert (source.bands, source.dtype) == (4, np.uint16)
    prepared = prepare(source, RGB, np.dtype(np.uint8), [(120.0, 60.0)] * 3, stretch="0,255")
    assert prepared.read(window).data[:, -1, 0].tolist() == [255, 255, 200]
    version = source.version
    write(tmp_path / "3.tif", 7, side=61)
    assert open_bands("scene", files, RGB, None).version != version


def test_files_without_names_are_the_bands_in_their_order(tmp_path: Path) -> None:
    files = bands(tmp_path, "", "", "")
    read = open_bands("scene", files, RGB, None).read()
    assert read.data[:, -1, 0].tolist() == [100, 200, 300]
    with pytest.raises(BandMismatch, match="made of 2 files, but the model reads 3 bands"):
        open_bands("scene", files[:2], RGB, None)


def test_a_missing_band_is_named(tmp_path: Path) -> None:
    files = bands(tmp_path, "red", "green")
    with pytest.raises(BandMismatch, match="no file for the band blue; its bands are red, green"):
        open_bands("scene", files, RGB, None)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"side": 30, "px_m": 2}, "band green has 30 rows × 30 columns of 2 m"),
        ({"west": 5e5 + 0.5}, "at 500000.5, 9000000"),
    ],
)
def test_bands_on_different_grids_are_refused(
    changes: dict[str, float], shown: str, tmp_path: Path
) -> None:
    files = bands(tmp_path, *RGB)
    write(tmp_path / "2.tif", 9, **changes)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=shown) as refused:
        open_bands("scene", files, RGB, None).read()
    assert "--asset" in refused.value.remedy


def test_a_file_of_several_bands_is_refused(tmp_path: Path) -> None:
    files = bands(tmp_path, *RGB)
    write_geotiff(tmp_path / "1.tif", np.zeros((3, 9, 9), np.uint8), crs=None, transform=None)
    with pytest.raises(DataError, match=r"band red, .*, has 3 bands; expected one"):
        _ = open_bands("scene", files, RGB, None).grid


def test_bands_that_the_user_names_replace_those_of_the_model() -> None:
    assert wanted_bands(RGB, None) == RGB
    assert wanted_bands(RGB, "nir, R,green") == ("nir", "red", "green")
    assert wanted_bands(RGB, "3,2,1") == RGB


def test_bands_on_a_server_are_read_from_their_overviews(tmp_path: Path) -> None:
    for band in bands(tmp_path, *RGB):
        write(Path(band.location), 900, side=640, px_m=0.25)
        with rasterio.open(band.location, "r+") as file:
            file.build_overviews([2, 4])
    with serving_folder(tmp_path) as server:
        files = [BandFile(name, f"{server.url}/{n}.tif") for n, name in enumerate(RGB, 1)]
        source = open_bands("scene", files, RGB, None)
        assert source.is_remote
        coarser, note = select_overview(source, 0.5)
        assert coarser.grid.shape == (320, 320)
        assert coarser.read().data[:, -1, -1].tolist() == [900] * 3
        assert note is not None
        assert note.startswith("scene has 0.25 m per pixel: its overview of 320 × 320 pixels")
        assert select_overview(source, 0.2) == (source, None)
