"""Masks appear whole, on the grid of their image, or not at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from PIL import Image
from pyproj import CRS

from rooftrace.core.errors import ExportError
from rooftrace.core.types import GeoGrid, Window
from rooftrace.io import gdal
from rooftrace.io.legend import NODATA, Legend
from rooftrace.io.masks import mask_sink
from rooftrace.io.raster import open_raster
from rooftrace.tiling.plan import plan_blocks

SHAPE = (1100, 1300)
GRID = GeoGrid(SHAPE, Affine(0.4, 0, 500_000, 0, -0.4, 9_000_000), CRS.from_epsg(32737))


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.random.default_rng(0).integers(0, 3, SHAPE, dtype=np.uint8)
    mask[:100, :200] = NODATA
    return mask


def write(path: Path, grid: GeoGrid, mask: np.ndarray, blocks: list[Window]) -> None:
    with mask_sink(path, grid) as sink:
        for block in blocks:
            sink.write(block, mask[block.slices()])


def test_geotiff_lies_where_the_image_lies(tmp_path: Path, mask: np.ndarray) -> None:
    path = tmp_path / "new" / "a_mask.tif"
    write(path, GRID, mask, plan_blocks(SHAPE, block_px=512))
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
        assert dataset.transform == GRID.transform
        assert CRS.from_user_input(dataset.crs.to_wkt()).equals(GRID.crs)
        assert dataset.nodata == NODATA
        assert dataset.block_shapes == [(512, 512)]
        assert len(set(dataset.colormap(1).values())) > 8
        assert dataset.colormap(1)[0] != dataset.colormap(1)[1]


def test_png_holds_the_indices(tmp_path: Path, mask: np.ndarray) -> None:
    path = tmp_path / "a_mask.png"
    blocks = [Window(0, 0, 600, 1000), Window(0, 1000, 600, 300), Window(600, 0, 500, 1300)]
    write(path, GeoGrid(SHAPE), mask, blocks)
    with Image.open(path) as image:
        image.load()
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), mask)
    colours = open_raster(path).read()
    assert colours.data.shape == (3, *SHAPE)
    np.testing.assert_array_equal(colours.valid, mask != NODATA)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_nothing_is_left_of_a_failure(tmp_path: Path, mask: np.ndarray, name: str) -> None:
    path = tmp_path / name
    path.write_text("what was here before")

    def fail_midway() -> None:
        with mask_sink(path, GRID) as sink:
            sink.write(Window(0, 0, 512, 1300), mask[:512])
            raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="the network failed"):
        fail_midway()
    assert path.read_text() == "what was here before"
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


LEGEND = Legend(("land", "roof & wall", "road"), ("#8429F6", "#3C1098", "#6EC1E4"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_gdal_finds_the_names_and_colours_of_classes(
    tmp_path: Path, mask: np.ndarray, name: str
) -> None:
    path = tmp_path / name
    with mask_sink(path, GRID, LEGEND) as sink:
        sink.write(Window.whole(SHAPE), mask)
    with rasterio.open(path) as dataset:
        colours = dataset.colormap(1)
        np.testing.assert_array_equal(dataset.read(1), mask)
    assert [colours[i][:3] for i in range(3)] == [
        (0x84, 0x29, 0xF6), (0x3C, 0x10, 0x98), (0x6E, 0xC1, 0xE4),
    ]  # fmt: skip
    # A virtual raster shows what GDAL knows about its source.
    rasterio.shutil.copy(path, tmp_path / "a.vrt", driver="VRT")
    xml = (tmp_path / "a.vrt").read_text()
    for category in ("land", "roof &amp; wall", "road"):
        assert f"<Category>{category}</Category>" in xml


def test_names_of_an_earlier_mask_are_removed(tmp_path: Path, mask: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    panels, houses = (Legend(("ground", name)) for name in ("solar_panel", "building"))
    for legend in (LEGEND, None, panels, houses):
        with mask_sink(path, GRID, legend) as sink:
            sink.write(Window.whole(SHAPE), mask)
        assert path.with_name("a.tif.aux.xml").exists() == (legend in (LEGEND, panels))


def _strict_errors(path: Path) -> tuple[bool, list[str], list[str]]:
    cogeo = pytest.importorskip("rio_cogeo.cogeo")
    valid, errors, warnings = cogeo.cog_validate(path, strict=True)
    return valid, list(errors), list(warnings)


def test_a_mask_is_a_cloud_optimised_geotiff(tmp_path: Path, mask: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    mask[512:, :512] = NODATA
    with mask_sink(path, GRID, LEGEND, {"ROOFTRACE": '{"a": "é"}'}) as sink:
        for block in plan_blocks(SHAPE, block_px=512):
            sink.write(block, mask[block.slices()])
    assert _strict_errors(path) == (True, [], [])
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
        assert dataset.overviews(1) == [2, 4]
        assert dataset.tags()["ROOFTRACE"] == '{"a": "é"}'
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        # Tiles of nodata are not stored.
        assert dataset.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1) is None
    for level in range(2):
        with rasterio.open(path, overview_level=level) as overview:
            values = overview.read(1)
            assert len(overview.colormap(1)) == 256
        height, width = values.shape
        assert (height, width) == (-(-mask.shape[0] // 2), -(-mask.shape[1] // 2))
        square = np.full((2 * height, 2 * width), NODATA, np.uint8)
        square[: mask.shape[0], : mask.shape[1]] = mask
        pixels = square.reshape(height, 2, width, 2)
        assert (values[:, None, :, None] == pixels).any((1, 3)).all()
        mask = values
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.qml", "a.tif", "a.tif.aux.xml"]


def test_the_bytes_of_a_mask_depend_on_its_pixels_alone(
    tmp_path: Path, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = set()
    for side, threads in ((512, 4), (600, 1), (1100, 3)):
        monkeypatch.setattr(gdal, "core_count", lambda threads=threads: threads)
        write(tmp_path / "a.tif", GRID, mask, plan_blocks(SHAPE, block_px=side))
        written.add((tmp_path / "a.tif").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("side", [500, 1300])
def test_a_full_disk_is_an_error(tmp_path: Path, side: int) -> None:
    resource = pytest.importorskip("resource")
    mask = np.random.default_rng(0).integers(0, 3, (side, side), np.uint8)
    # Nothing is stored of the last tiles.
    mask[1024:] = NODATA
    grid = replace(GRID, shape=mask.shape)
    write(tmp_path / "a.tif", grid, mask, [Window.whole(mask.shape)])
    size = (tmp_path / "a.tif").stat().st_size
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (size - 1, size - 9_000, size // 2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, usual[1]))
        try:
            with pytest.raises(ExportError, match=r"b\.tif could not be written"):
                write(tmp_path / "b.tif", grid, mask, [Window.whole(mask.shape)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]


def test_a_png_mask_has_tags(tmp_path: Path, mask: np.ndarray) -> None:
    path = tmp_path / "a.png"
    with mask_sink(path, GeoGrid(SHAPE), None, {"ROOFTRACE": '{"a": "é"}'}) as sink:
        sink.write(Window.whole(SHAPE), mask)
    with Image.open(path) as image:
        assert image.info["ROOFTRACE"] == '{"a": "é"}'
        np.testing.assert_array_equal(np.asarray(image), mask)
