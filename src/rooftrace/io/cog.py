"""Bands of figures as a cloud-optimised GeoTIFF."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from rooftrace.core.types import GeoGrid
from rooftrace.io.atomic import export_error, replacing

__all__ = ["write_cog"]


def write_cog(path: Path, bands: Mapping[str, NDArray[Any]], grid: GeoGrid) -> None:
    """Writes named bands as float32 with overviews, in tiles, compressed; NaN is nodata.

    https://gdal.org/en/stable/drivers/raster/cog.html

    Args:
        path: made anew, with its folder.
        bands: (y, x) each, by name.
        grid: where their pixels lie.

    Raises:
        ExportError: the file cannot be written.
    """
    try:
        with replacing(path) as partial, warnings.catch_warnings():
            # A plane in metres that lies nowhere is meant to.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                partial, "w", driver="COG", dtype="float32", count=len(bands), nodata=np.nan,
                height=grid.height, width=grid.width, transform=grid.transform,
                crs=None if grid.crs is None else grid.crs.to_wkt(),
                compress="deflate", predictor="yes", overview_resampling="average",
            ) as out:  # fmt: skip
                for number, (name, values) in enumerate(bands.items(), 1):
                    out.write(values.astype(np.float32), number)
                    out.set_band_description(number, name)
    except RasterioError as error:
        raise export_error(path, error) from error
