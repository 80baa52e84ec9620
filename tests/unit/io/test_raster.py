"""Files are read for what they hold: bands, validity and place, or a DataError with the reason."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from raster_files import png_of_rows, write_geotiff
from rooftrace.core.errors import DataError
from rooftrace.core.types import RasterSource, Window
from rooftrace.io import raster as raster_module
from rooftrace.io.gdal import is_complete_png, is_raster, reading_errors
from rooftrace.io.nodata import NodataRule, nodata_from_json, nodata_to_json
from rooftrace.io.raster import open_raster

HALF_METRE = Affine(0.5, 0, 500_000, 0, -0.5, 9_000_000)


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (3, 60, 80), dtype=np.uint8)


def test_geotiff_gives_pixels_and_place(tmp_path: Path, rgb: np.ndarray) -> None:
    source = open_raster(write_geotiff(tmp_path / "a.tif", rgb))
    assert isinstance(source, RasterSource)
    assert (source.bands, source.dtype, source.grid.shape) == (3, np.uint8, (60, 80))
    assert source.grid.crs is not None
    assert source.grid.crs.to_epsg() == 32737
    assert source.grid.gsd_m == pytest.approx(0.5, rel=2e-3)
    raster = source.read(Window(10, 20, 30, 40))
    np.testing.assert_array_equal(raster.data, rgb[:, 10:40, 20:60])
    assert raster.valid.all()
    assert raster.grid.transform == HALF_METRE @ Affine.translation(20, 10)


@pytest.mark.parametrize("size_m", [1e-5, 0.01, 1e6])
def test_a_pixel_of_any_sensible_size_keeps_its_georeference(
    tmp_path: Path, rgb: np.ndarray, size_m: float
) -> None:
    transform = Affine(size_m, 0, 600_000, 0, -size_m, 9_000_000)
    source = open_raster(write_geotiff(tmp_path / "a.tif", rgb, transform=transform))
    assert source.grid.transform == transform


def test_content_counts_not_the_ending(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "really_a_jpeg.png"
    Image.fromarray(np.moveaxis(rgb, 0, -1)).save(path, format="JPEG")
    source = open_raster(path)
    assert source.bands == 3
    assert source.grid.crs is None
    assert source.grid.transform.is_identity
    assert is_raster(path)
    text = tmp_path / "text.tif"
    text.write_text("not an image")
    assert not is_raster(text)
    assert not is_raster(Path("/proc/kmsg"))
    # One that was cut off is an image still, and is not passed over as if it were none.
    path.write_bytes(path.read_bytes()[:100])
    assert is_raster(path)


def test_alpha_is_validity_and_no_band(tmp_path: Path, rgb: np.ndarray) -> None:
    alpha = np.full((60, 80), 255, dtype=np.uint8)
    alpha[:20] = 0
    path = tmp_path / "rgba.png"
    Image.fromarray(np.dstack([*rgb, alpha])).save(path)
    source = open_raster(path)
    assert source.bands == 3
    raster = source.read()
    np.testing.assert_array_equal(raster.data, rgb)
    np.testing.assert_array_equal(raster.valid, alpha > 0)
    assert open_raster(path, nodata=NodataRule(declared=False)).read().valid.all()


def test_palette_is_looked_up_or_left(tmp_path: Path) -> None:
    indices = np.random.default_rng(1).integers(0, 4, (30, 40), dtype=np.uint8)
    image = Image.fromarray(indices).convert("P")
    colours = [(10, 20, 30), (40, 50, 60), (70, 80, 90), (0, 0, 0)]
    image.putpalette([value for colour in colours for value in colour])
    path = tmp_path / "palette.png"
    image.save(path, transparency=3)
    raster = open_raster(path).read()
    np.testing.assert_array_equal(np.moveaxis(raster.data, 0, -1), np.array(colours)[indices])
    np.testing.assert_array_equal(raster.valid, indices != 3)
    label = open_raster(path, palette="indices")
    assert label.bands == 1
    np.testing.assert_array_equal(label.read().data[0], indices)


@pytest.mark.parametrize("tags", [{}, {"NODATA_VALUES": "0 0 0"}])
def test_nodata_needs_every_band(tmp_path: Path, rgb: np.ndarray, tags: dict[str, str]) -> None:
    rgb[:, :10] = rgb[0, 10:20] = 0
    path = write_geotiff(tmp_path / "a.tif", rgb, nodata=None if tags else 0)
    with rasterio.open(path, "r+") as file:
        file.update_tags(**tags)
    rows = np.arange(60)[:, None]
    assert (open_raster(path).read().valid == (rows >= 10)).all()


def test_internal_mask(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "masked.tif"
    valid = np.zeros((60, 80), dtype=bool)
    valid[5:50, 7:70] = True
    write_geotiff(path, rgb)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
        out.write_mask(valid)
    source = open_raster(path)
    np.testing.assert_array_equal(source.read().valid, valid)
    np.testing.assert_array_equal(source.read(Window(0, 0, 10, 10)).valid, valid[:10, :10])


def test_rule_adds_nodata(tmp_path: Path, rgb: np.ndarray) -> None:
    rgb[:, :, :9] = 255
    rgb[:, :, 70:] = 7
    path = write_geotiff(tmp_path / "a.tif", rgb)
    col = np.arange(80)
    white = open_raster(path, nodata=NodataRule(colour=(255, 255, 255))).read().valid
    assert (white == (col >= 9)).all()
    both = open_raster(path, nodata=NodataRule(value=7, colour=(255, 255, 255))).read().valid
    assert (both == (col >= 9) & (col < 70)).all()
    with pytest.raises(DataError, match=r"\(1, 2\), but .* 3 bands"):
        open_raster(path, nodata=NodataRule(colour=(1, 2))).read()


@pytest.mark.parametrize(
    "rule", [None, NodataRule(), NodataRule(7), NodataRule(colour=(1, 2.5, 3), declared=False)]
)
def test_a_nodata_rule_survives_json(rule: NodataRule | None) -> None:
    assert nodata_from_json(json.loads(json.dumps(nodata_to_json(rule)))) == rule
    assert nodata_to_json(NodataRule(np.nan)) == nodata_to_json(NodataRule()) | {"value": "NaN"}


def test_absent_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.tif does not exist"):
        _ = open_raster(tmp_path / "absent.tif").grid
    with pytest.raises(DataError, match="is a folder"):
        _ = open_raster(tmp_path).grid


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_truncated_files_are_named(tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{kind.lower()}"
    Image.fromarray(pixels).save(path, format=kind)
    whole = path.read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"cut\.\w+ cannot be read as an image") as caught:
            open_raster(path).read()
        assert caught.value.remedy


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_was_cut_off_and_ended_again_is_refused(
    tmp_path: Path, progressive: bool
) -> None:
    slope = np.add.outer(np.arange(300), np.arange(300)).astype(np.uint8)
    path = tmp_path / "cut.jpg"
    Image.fromarray(slope).save(path, progressive=progressive)
    whole = path.read_bytes()
    for share in (0.3, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)] + b"\xff\xd9")
        with pytest.raises(DataError, match=r"cut\.jpg cannot be read"):
            open_raster(path).read()


def test_a_png_with_a_damaged_chunk_is_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    second = whole.index(b"IDAT", whole.index(b"IDAT") + 1)
    assert is_complete_png(path)
    # Of each, GDAL's fast path returned pixels that no file has.
    for start, damage in ((-4, b"\0\0\0\x07"), (-1, b"\xff"), (0, b"\0"), (0, b"IEND")):
        at = second + start
        path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
        assert not is_complete_png(path)
        with pytest.raises(DataError, match=r"a\.png cannot be read"):
            open_raster(path, trusted=True).read()
    path.write_bytes(whole + b"tail")
    read = open_raster(path, trusted=True).read()
    np.testing.assert_array_equal(read.data, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("rows", [0, 1, 100, 255])
def test_a_png_with_too_few_rows_is_refused(tmp_path: Path, mode: str, rows: int) -> None:
    """The checksums are right, so that GDAL's fast path showed what was left in memory."""
    (tmp_path / "a.png").write_bytes(png_of_rows(mode, 256))
    assert np.unique(open_raster(tmp_path / "a.png").read().data).tolist() == [200]
    path = tmp_path / "few.png"
    path.write_bytes(png_of_rows(mode, rows))
    assert is_complete_png(path)
    secret = [np.full(300_000, 77, dtype=np.uint8) for _ in range(20)]
    del secret
    with pytest.raises(DataError, match=r"few\.png cannot be read"):
        open_raster(path).read()


needs_descriptors = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux does"
)
LARGE = np.zeros((1, 1100, 1100), np.uint8)


def times_open(path: Path) -> int:
    opened = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    return sum(link.resolve() == path.resolve() for link in opened)


def limit_open_files(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(raster_module, "_MAX_OPEN", most)
    # Other tests may have left files open.
    monkeypatch.setattr(raster_module, "_OPEN_FILES", raster_module._OpenFiles())


@needs_descriptors
def test_headers_of_many_files_leave_few_open(
    tmp_path: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_open_files(monkeypatch, 3)
    for name, data, most_open in (("small.tif", rgb, 0), ("large.tif", LARGE, 3)):
        path = write_geotiff(tmp_path / name, data)
        kept = [open_raster(path) for _ in range(20)]
        for source in kept:
            assert source.grid.shape == data.shape[1:]
        assert times_open(path) <= 3
        for source in kept:
            np.testing.assert_array_equal(source.read().data, data)
        assert times_open(path) <= most_open
        for source in kept:
            source.close()
        assert times_open(path) == 0


def test_a_nodata_value_counts_beside_alpha(tmp_path: Path) -> None:
    """A black pixel is nodata by its value, even if alpha calls it valid."""
    data = np.full((4, 2, 3), 9, np.uint8)
    data[:3, 0, 0] = 0
    data[3, 1, 2] = 0
    path = write_geotiff(tmp_path / "a.tif", data, nodata=0, photometric="rgb", alpha="yes")
    valid = np.ones((2, 3), np.bool_)
    valid[0, 0] = valid[1, 2] = False
    assert (open_raster(path).read().valid == valid).all()


def test_an_image_that_may_not_be_read_is_not_called_damaged() -> None:
    with (
        pytest.raises(DataError, match=r"^a\.tif .* \(header\): Permission denied\.") as caught,
        reading_errors("a.tif", "header"),
    ):
        raise PermissionError(13, "Permission denied", "a.tif")
    assert caught.value.remedy == "Check who may read it."
