"""Named bands of figures as a cloud-optimised GeoTIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS

from rooftrace.core.types import GeoGrid
from rooftrace.density.files import write_cog


@pytest.mark.parametrize("crs", [CRS.from_epsg(32737), None])
def test_what_is_read_is_what_was_written(crs: CRS | None, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((600, 530))
    values[:9] = np.nan
    grid = GeoGrid(values.shape, Affine(100, 0, 5e5, 0, -100, 9e6), crs)
    write_cog(tmp_path / "a.tif", {"one": values, "two": 2 * values}, grid)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.descriptions == ("one", "two")
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1)
        assert np.isnan(file.nodata)
        assert (file.crs is None) == (crs is None)
        assert file.transform == grid.transform
        np.testing.assert_array_equal(file.read(2), (2 * values).astype(np.float32))
    cogeo = pytest.importorskip("rio_cogeo.cogeo")
    valid, errors, warnings = cogeo.cog_validate(tmp_path / "a.tif", strict=True)
    assert (valid, list(errors), list(warnings)) == (True, [], [])
