"""Windows of a file equal those of the whole in every storage layout, also in validity."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from raster_files import PLACE, write_geotiff
from rooftrace.core.errors import DataError
from rooftrace.core.types import SparseSource, Window
from rooftrace.io import gdal
from rooftrace.io.gdal import CACHE, MAX_CACHE_BYTES
from rooftrace.io.georeferenced import in_crs, parse_crs
from rooftrace.io.nodata import NodataRule
from rooftrace.io.raster import open_raster
from rooftrace.predict.plan import SceneOptions, plan_scene
from tiny_models import with_weight

SHAPE = (1100, 1000)
TILED = {"tiled": True, "blockxsize": 256, "blockysize": 256}


# Sparse files.


def sparse(path: Path, **options: Any) -> tuple[Path, np.ndarray]:
    """Blocks of 256 px in 8 × 8 places, of which three are there; and which pixels are."""
    there = np.zeros((2048, 2048), bool)
    inside = options.pop("masked", False)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", count=options.pop("bands", 3), height=2048, width=2048,
            dtype="uint8", sparse_ok=True, compress="deflate", **(PLACE | TILED | options),
        ) as out,
    ):  # fmt: skip
        for row, col in ((256, 512), (256, 768), (1536, 0)):
            window = rasterio.windows.Window(col, row, 256, 256)
            out.write(np.full((out.count, 256, 256), 9, np.uint8), window=window)
            if inside:
                out.write_mask(np.full((256, 256), 255, np.uint8), window=window)
            there[row : row + 256, col : col + 256] = True
    return path, there


SPARSE: dict[str, dict[str, Any]] = {
    "nodata": {"nodata": 0},
    "nodata of planes": {"nodata": 255, "interleave": "band"},
    "mask": {"masked": True},
    "alpha": {"bands": 4, "photometric": "rgb", "alpha": "yes"},
}


@pytest.mark.parametrize("kind", SPARSE)
def test_what_is_said_to_be_empty_is_nodata_and_what_is_there_is_not(
    tmp_path: Path, kind: str
) -> None:
    path, there = sparse(tmp_path / "a.tif", **SPARSE[kind])
    source = open_raster(path)
    assert isinstance(source, SparseSource)
    for row in range(0, 2048, 192):
        for col in range(0, 2048, 192):
            window = Window(row, col, 200, 200).intersection(Window.whole((2048, 2048)))
            assert window is not None
            blocks = there[
                row // 256 * 256 : -(-window.row_stop // 256) * 256,
                col // 256 * 256 : -(-window.col_stop // 256) * 256,
            ]
            empty = source.is_empty(window)
            assert not (empty and source.read(window).valid.any())
            # Without decoding no more can be known than which blocks there are; a mask is read.
            certain = there[window.slices()] if kind == "mask" else blocks
            assert empty == (not certain.any())


def test_absent_blocks_are_pixels_where_nothing_says_otherwise(tmp_path: Path) -> None:
    path, _ = sparse(tmp_path / "a.tif")
    window = Window(0, 0, 200, 200)
    assert open_raster(path).read(window).valid.all()
    assert not open_raster(path).is_empty(window)
    assert open_raster(path, nodata=NodataRule(value=0)).is_empty(window)
    assert not open_raster(path, nodata=NodataRule(value=7)).is_empty(window)
    assert open_raster(path, nodata=NodataRule(colour=(0, 0, 0))).is_empty(window)


# GDAL's cache.


def test_no_strip_is_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A strip that is removed from the file after it was read can only come from the cache."""
    monkeypatch.setattr(gdal, "_MIN_CACHE_BYTES", 2**20)
    data = np.random.default_rng(0).integers(1, 255, (3, 700, 6000), dtype=np.uint8)
    path = write_geotiff(tmp_path / "wide.tif", data, compress="deflate")
    source = open_raster(path)
    source.read(Window(0, 0, 600, 600))
    with path.open("r+b") as file:
        file.seek(tenth := file.seek(0, 2) // 10)
        file.write(bytes(tenth * 7))
    for col in range(500, 5400, 500):
        window = Window(0, col, 600, 600)
        np.testing.assert_array_equal(source.read(window).data, data[:, *window.slices()])
    source.close()


def test_what_the_cache_cannot_hold_is_said(tmp_path: Path) -> None:
    path = tmp_path / "wider.tif"
    profile = {"height": 2000, "width": 100_000, "count": 3, "dtype": "uint8", **PLACE}
    tiles = {"tiled": True, "blockxsize": 1024, "blockysize": 1024}
    rasterio.open(path, "w", "GTiff", sparse_ok=True, **profile, **tiles).close()
    source = open_raster(path)
    source.read(Window(0, 0, 1100, 1100))
    assert CACHE.bytes == 48 * 2**20
    rasterio.open(path, "w", "GTiff", sparse_ok=True, **profile).close()
    source = open_raster(path)
    source.read(Window(0, 0, 2000, 10))
    (note,) = source.notes
    assert "TILED=YES" in note.partition("1 × 100000")[2]
    assert CACHE.bytes == MAX_CACHE_BYTES
    source.close()


# VRT.


def vrt(path: Path, *parts: str, size: int = 64, more: str = "") -> Path:
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="1">{part}</SourceFilename>'
        f"<SourceBand>1</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" xSize="{size}" ySize="{size}"/>'
        f'<DstRect xOff="{size * number}" yOff="0" xSize="{size}" ySize="{size}"/></SimpleSource>'
        for number, part in enumerate(parts)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{size * len(parts)}" rasterYSize="{size}">'
        "<SRS>EPSG:32737</SRS><GeoTransform>500000, 0.5, 0, 9000000, 0, -0.5</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1" {more}>{sources}</VRTRasterBand></VRTDataset>'
    )
    return path


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for name in "ab":
        write_geotiff(tmp_path / f"{name}.tif", np.full((1, 64, 64), ord(name), np.uint8))
    return tmp_path


def test_bands_of_a_vrt_may_differ_in_type(tmp_path: Path) -> None:
    """`gdalbuildvrt -separate` makes such files of bands of several products."""
    values = np.random.default_rng(0).integers(0, 255, (3, 20, 30))
    alpha = np.where(values[0] > 100, 255, 0)
    kinds = {"red": np.uint8, "green": np.uint16, "blue": np.int16, "alpha": np.uint8}
    for (name, kind), band in zip(kinds.items(), (*values, alpha)):
        write_geotiff(tmp_path / f"{name}.tif", band.astype(kind), crs=None, transform=None)
    bands = [
        f'<VRTRasterBand dataType="{gdal}" band="{number}"><ColorInterp>{name}</ColorInterp>'
        f'<SimpleSource><SourceFilename relativeToVRT="1">{name}.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (name, gdal) in enumerate(
            zip(kinds, ("Byte", "UInt16", "Int16", "Byte")), start=1
        )
    ]
    path = tmp_path / "bands.vrt"
    sizes = 'rasterXSize="30" rasterYSize="20"'
    path.write_text(f"<VRTDataset {sizes}>{''.join(bands)}</VRTDataset>")
    source = open_raster(path)
    raster = source.read()
    assert (raster.data == values).all()
    assert raster.data.dtype == source.dtype == np.int32
    assert (raster.valid == (alpha > 0)).all()


def test_a_vrt_is_its_parts_side_by_side(parts: Path) -> None:
    vrt(parts / "inner.vrt", "a.tif", "b.tif")
    source = open_raster(vrt(parts / "outer.vrt", "inner.vrt", "inner.vrt"))
    assert source.file_format == "VRT"
    row = source.read(Window(3, 0, 1, 128)).data[0, 0]
    assert (row[:64] == ord("a")).all()
    assert not source.is_empty(Window(0, 0, 5, 5))


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (("a.tif", "gone.tif"), r"names 1 file that does not exist: .*gone\.tif"),
        (("self.vrt",), r"self\.vrt cannot be read"),
        (("other.vrt",), r"self\.vrt cannot be read"),
        (("/vsicurl/http://127.0.0.1:9/a.tif",), "which is not a local file"),
        (("http://127.0.0.1:9/a.tif",), "which is not a local file"),
        (("NETCDF:a.nc:data",), r"file that does not exist: .*NETCDF:a\.nc:data"),
    ],
)
def test_a_vrt_of_what_is_not_there_is_refused_before_it_is_read(
    parts: Path, names: tuple[str, ...], pattern: str
) -> None:
    vrt(parts / "other.vrt", "self.vrt")
    with pytest.raises(DataError, match=pattern) as caught:
        open_raster(vrt(parts / "self.vrt", *names)).read()
    assert caught.value.remedy


def test_a_vrt_shows_no_bytes_of_other_files(parts: Path) -> None:
    (parts / "secret").write_bytes(bytes(64 * 64))
    path = vrt(parts / "raw.vrt", "secret", more='subClass="VRTRawRasterBand"')
    raw = re.sub("<SimpleSource>(<SourceFilename.*?</SourceFilename>).*</SimpleSource>", r"\1",
                 path.read_text())  # fmt: skip
    path.write_text(raw)
    with rasterio.open(path) as shown:
        assert not shown.read().any()
    for suffix in (".vrt", ".tif"):
        path = path.rename(path.with_suffix(suffix))
        with pytest.raises(DataError, match="VRTRawRasterBand"):
            open_raster(path).read()


def test_code_in_a_vrt_is_not_run(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    ran = parts / "ran"
    code = f"def f(*given, **more):\n    open({str(ran)!r}, 'w').close()\n"
    path = vrt(parts / "code.vrt", "a.tif", more='subClass="VRTDerivedRasterBand"')
    functions = (
        "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python"
        f"</PixelFunctionLanguage><PixelFunctionCode><![CDATA[{code}]]></PixelFunctionCode>"
    )
    path.write_text(path.read_text().replace("<SimpleSource>", functions + "<SimpleSource>"))
    with pytest.raises(DataError, match="Python"):
        open_raster(path).read()
    assert not ran.exists()


@pytest.mark.parametrize(
    "system",
    [
        'LOCAL_CS["site grid",UNIT["metre",1]]',
        (
            'ENGCRS["site grid",EDATUM["peg"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
            'LENGTHUNIT["metre",1]]'
        ),
        (
            'GEOGCS["site grid",DATUM["Mars",SPHEROID["Mars",3396190,169]],PRIMEM["x",0],'
            'UNIT["degree",0.0174532925]]'
        ),
    ],
)
def test_a_system_that_is_not_of_the_earth_is_left_aside_and_said(parts: Path, system: str) -> None:
    path = vrt(parts / "site.vrt", "a.tif")
    path.write_text(path.read_text().replace("EPSG:32737", system.replace('"', "&quot;")))
    source = open_raster(path)
    assert (source.grid.crs, source.grid.gsd_yx_m) == (None, None)
    assert source.grid.transform == open_raster(parts / "a.tif").grid.transform
    notes = plan_scene(source, with_weight(1).spec, SceneOptions(gsd_m=0.3)).notes
    assert "'site grid'" in notes[0]
    assert "+proj=tmerc" in notes[0]
    assert not any("coordinate system" in note for note in notes[1:])
    placed = in_crs(source, parse_crs("+proj=tmerc +lat_0=1 +lon_0=32"))
    assert "tmerc" not in "".join(plan_scene(placed, with_weight(1).spec).notes)


# Files that are damaged, or go away.


@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_a_file_that_is_cut_off_while_it_is_read(tmp_path: Path, compress: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, *SHAPE), dtype=np.uint8)
    path = write_geotiff(tmp_path / "a.tif", pixels, compress=compress, **TILED)
    source = open_raster(path)
    source.read(Window(0, 0, 100, 100))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"a\.tif cannot be read .*rows 900:1000, columns 700:800"):
        source.read(Window(900, 700, 100, 100))
