"""Each row of the table of images in docs/formats.md: what is read gives its pixels and place."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.shutil import copy

from raster_files import write_geotiff
from rooftrace.io.raster import open_raster

DOCS = Path(__file__).parents[3] / "docs/formats.md"
MERCATOR = {"crs": "EPSG:3857", "transform": Affine(0.25, 0, 9519926, 0, -0.25, 3202940)}
PLACES: dict[str, dict[str, Any]] = {
    "UTM": {"crs": "EPSG:32645", "transform": Affine(0.25, 0, 335000, 0, -0.25, 3055000)},
    "EPSG:4326": {"crs": "EPSG:4326", "transform": Affine(2e-6, 0, 85.5, 0, -2e-6, 27.6)},
    "State Plane, feet": {"crs": "EPSG:2263", "transform": Affine(1, 0, 9e5, 0, -1, 2e5)},
    "compound CRS": {"crs": "EPSG:7415", "transform": Affine(0.25, 0, 9e4, 0, -0.25, 4e5)},
    "south-up": {"crs": "EPSG:32645", "transform": Affine(0.25, 0, 335000, 0, 0.25, 3055000)},
    "rotated": {
        "crs": "EPSG:32645",
        "transform": Affine(0.25, 0, 335000, 0, -0.25, 3055000) @ Affine.rotation(30),
    },
}

Pixels = NDArray[np.uint8]
Write = Callable[[Path, Pixels], Path]


def tiff(**options: Any) -> Write:
    return lambda folder, data: write_geotiff(folder / "a.tif", data, **{**MERCATOR, **options})


def converted(driver: str, name: str, **options: Any) -> Write:
    def write(folder: Path, data: Pixels) -> Path:
        copy(tiff()(folder, data), folder / name, driver=driver, **options)
        return folder / name

    return write


def vrt(folder: Path, data: Pixels) -> Path:
    left = write_geotiff(folder / "left.tif", data, **MERCATOR)
    copy(left, folder / "a.vrt", driver="VRT")
    return folder / "a.vrt"


def beside(suffix: str, world: str, **options: Any) -> Write:
    def write(folder: Path, data: Pixels) -> Path:
        path, transform = folder / f"a.{suffix}", MERCATOR["transform"]
        Image.fromarray(np.moveaxis(data, 0, -1)).save(path, **options)
        centre = transform @ Affine.translation(0.5, 0.5)
        numbers = (transform.a, transform.d, transform.b, transform.e, centre.c, centre.f)
        (folder / f"a.{world}").write_text("\n".join(map(str, numbers)))
        (folder / "a.prj").write_text(CRS(3857).to_wkt("WKT1_ESRI"))
        return path

    return write


READ: dict[str, tuple[Write, float]] = {
    "GeoTIFF: BigTIFF": (tiff(BIGTIFF="YES"), 0), "GeoTIFF: ZSTD": (tiff(compress="zstd"), 0),
    "GeoTIFF: LZMA": (tiff(compress="lzma"), 0), "GeoTIFF: LERC": (tiff(compress="lerc"), 0),
    "GeoTIFF: WebP": (tiff(compress="webp", WEBP_LOSSLESS=True), 0),
    "GeoTIFF: JPEG in YCbCr": (tiff(compress="jpeg", photometric="ycbcr"), 12),
    "GeoTIFF: bands apart": (tiff(interleave="band"), 0), "COG": (converted("COG", "cog.tif"), 0),
    "JPEG 2000": (converted("JP2OpenJPEG", "a.jp2", QUALITY=100, REVERSIBLE=True), 0),
    "GeoPackage raster": (converted("GPKG", "a.gpkg", TILE_FORMAT="PNG"), 0), "VRT": (vrt, 0),
    "ENVI": (converted("ENVI", "a.dat"), 0), "ERDAS Imagine": (converted("HFA", "a.img"), 0),
    "MRF": (converted("MRF", "a.mrf"), 0),
    "JPEG, world file, .prj": (beside("jpg", "jgw", quality=95), 12),
    "PNG, world file, .prj": (beside("png", "pgw"), 0),
    "TIFF, world file in capitals, .prj": (beside("tif", "TFW"), 0),
    "BMP, world file, .prj": (beside("bmp", "bpw"), 0),
    "WebP, world file, .prj": (beside("webp", "wld", lossless=True), 0),
    **{f"GeoTIFF: {name}": (tiff(**place), 0) for name, place in PLACES.items()},
}  # fmt: skip
"""Function that writes a row's sample, and the largest mean error of its pixels."""


def with_points(folder: Path, data: Pixels) -> Path:
    path = write_geotiff(folder / "a.tif", data, crs=None, transform=None)
    with rasterio.open(path, "r+") as file:
        points = [(0, 0), (0, 64), (48, 0), (48, 64)]
        file.gcps = [GroundControlPoint(r, c, 5e5 + c, 3e6 - r) for r, c in points], 32645
    return path


def with_qgis_points(folder: Path, data: Pixels) -> Path:
    (folder / "a.tif.points").write_text("mapX,mapY,sourceX,sourceY,enable\n85,27,0,0,1\n")
    return write_geotiff(folder / "a.tif", data, crs=None, transform=None)


def with_camera(folder: Path, data: Pixels) -> Path:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (27.0, 37.0, 12.0), 3: "E", 4: (85.0, 31.0, 1.0)})
    Image.fromarray(np.moveaxis(data, 0, -1)).save(folder / "a.jpg", exif=exif)
    return folder / "a.jpg"


def with_infrared(folder: Path, data: Pixels) -> Path:
    wide = np.concatenate([data, data[:1] // 2 + 60]).repeat(4, 1).repeat(4, 2)
    path = write_geotiff(folder / "a.tif", wide, photometric="rgb", alpha="yes", **MERCATOR)
    with rasterio.open(path) as file:
        assert file.colorinterp[3] is ColorInterp.alpha
    return path


NOTED: dict[str, tuple[Write, str]] = {
    "GeoTIFF: ground control points": (with_points, "-tps -dstalpha -t_srs EPSG:32645 IN"),
    "ground control points of QGIS": (with_qgis_points, "a.tif.points beside it"),
    "drone photograph with GPS": (with_camera, "not an orthophoto"),
    "GeoTIFF: infrared marked as alpha": (with_infrared, "is taken as near infrared"),
}


@pytest.fixture
def pixels() -> Pixels:
    ramp = np.add.outer(np.arange(48), np.arange(64)) % 200
    return np.stack([ramp + 1, ramp // 2 + 20, 250 - ramp]).astype(np.uint8)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("row", READ)
def test_what_is_read_has_its_pixels_and_place(row: str, tmp_path: Path, pixels: Pixels) -> None:
    write, most = READ[row]
    source = open_raster(write(tmp_path, pixels))
    place = PLACES.get(row.removeprefix("GeoTIFF: "), MERCATOR)
    expected = CRS.from_user_input(place["crs"])
    grid, raster = source.grid, source.read()
    assert grid.crs is not None
    assert grid.crs.to_2d().equals(expected.to_2d(), ignore_axis_order=True)
    # A raster table may hold whole tiles around the image.
    corner = ~grid.transform @ (place["transform"].c, place["transform"].f)
    col, row_ = (round(value) for value in corner)
    assert corner == pytest.approx((col, row_), abs=1e-3)
    part = np.s_[row_ : row_ + 48, col : col + 64]
    assert raster.valid[part].all()
    error = np.abs(raster.data[:3, *part].astype(int) - pixels)
    assert error.mean() <= most
    assert source.notes == ()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("row", NOTED)
def test_what_needs_a_word_has_a_note(row: str, tmp_path: Path, pixels: Pixels) -> None:
    write, note = NOTED[row]
    assert note in " ".join(open_raster(write(tmp_path, pixels)).notes)


def test_the_table_names_each_row() -> None:
    text = DOCS.read_text(encoding="utf-8").partition("## Images")[2]
    named = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    assert {*READ, *NOTED} <= {name for names in named for name in names.split("; ")}
