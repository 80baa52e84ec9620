"""Pixels are converted for display; written images are read again without loss."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import CRS

from rooftrace.core.errors import DataError, ExportError
from rooftrace.core.types import GeoGrid, Raster, Window
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.picture import as_rgb
from rooftrace.io.raster import open_raster, write_raster

UTM = Affine(0.3, 0, 500_000, 0, -0.3, 5_000_000), CRS.from_epsg(32633)


def written(folder: Path, source: ArraySource) -> Path:
    path = write_raster(folder, "a b/ä", source)
    assert path.parent == folder / "a b"
    read, given_ = open_raster(path).read(), source.read()
    np.testing.assert_array_equal(read.valid, given_.valid)
    np.testing.assert_array_equal(read.data[:, read.valid], given_.data[:, given_.valid])
    assert read.data.dtype == source.dtype
    assert read.grid.crs == source.grid.crs
    if source.grid.crs is not None:
        assert read.grid == source.grid
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return path


@pytest.mark.campaign
@given(st.data())
def test_an_image_is_read_again_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(["uint8", "uint16", "int16", "float32"])))
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    array = data.draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, **finite)))
    valid = data.draw(st.none() | hnp.arrays(np.bool_, shape[1:]))
    grid = GeoGrid(shape[1:], *UTM) if data.draw(st.booleans()) else None
    path = written(tmp_path_factory.mktemp("x"), ArraySource(array, grid, valid))
    plain = dtype == np.uint8 and shape[0] in (1, 3) and grid is None
    assert path.suffix == (".png" if plain and (valid is None or valid.all()) else ".tif")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_tall_image_is_written_by_blocks_of_rows(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 255, (3, 2100, 40)).astype(dtype)
    valid = np.ones((2100, 40), np.bool_)
    valid[1500:1700, 3:9] = False

    class Watched(ArraySource):
        rows = 0

        def read(self, window: Window | None = None) -> Raster:
            if window is not None:
                self.rows = max(self.rows, window.height)
            return super().read(window)

    for gaps in (None, valid):
        source = Watched(array, None, gaps)
        assert written(tmp_path, source).suffix == ".tif"
        assert 0 < source.rows <= 1024
        assert source.rows < 2100


def test_four_bands_are_four_bands_and_not_a_colour_with_alpha(tmp_path: Path) -> None:
    array = np.zeros((4, 3, 3), np.uint8)
    array[3, 1] = 9
    written(tmp_path, ArraySource(array))


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    class Broken(ArraySource):
        def read(self, window: Window | None = None) -> Raster:
            if window is not None and window.row > 0:
                raise DataError("the scene is torn")
            return super().read(window)

    with pytest.raises(DataError, match="torn"):
        write_raster(tmp_path / "out", "a", Broken(np.zeros((1, 1500, 4), np.uint8)))
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="could not be written"):
        write_raster(tmp_path / "file", "a", ArraySource(np.zeros((1, 4, 4), np.uint8)))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_others_are_stretched_over_what_is_valid(dtype: type) -> None:
    data = np.linspace(200, 900, 300).reshape(3, 10, 10).astype(dtype)
    valid = np.ones((10, 10), dtype=bool)
    valid[0] = False
    data[:, 0] = 60000
    shown = as_rgb(data, valid)
    assert shown.dtype == np.uint8
    assert (shown[0] == 255).all()
    assert (shown[1:].min(), shown[1:].max()) == (0, 255)
    assert as_rgb(data)[1:].max() < 10  # without it
