"""What the header of an image says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError as RasterioCRSError
from rasterio.errors import RasterioError

from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid
from rooftrace.io.vrt import check_vrt

__all__ = ["Header", "describe"]


@dataclass(frozen=True)
class Header:
    """Enough of a file to open it in another process without looking again.

    Args:
        grid: where its pixels lie.
        dtype: of its colours.
        bands: of colour, those of its palette where that is looked up.
        indexes: GDAL's numbers of the bands of colour, from 1.
        alpha: likewise, of the alpha channel.
        palette: (256, 4) red, green, blue and alpha of each index; None where it has none, or its
            indices are wanted.
        mask: how it says which pixels are nodata, besides alpha.
        nodata: per band of colour.
        file_format: GDAL's name of its driver.
        block_yx: rows and columns of pixels that are decoded at a time.
        note: what was left aside, for the person to see; else empty.
    """

    grid: GeoGrid
    dtype: np.dtype[Any]
    bands: int
    indexes: tuple[int, ...]
    alpha: int | None
    palette: NDArray[np.uint8] | None
    mask: Literal["none", "nodata", "band"]
    nodata: tuple[float | None, ...]
    file_format: str
    block_yx: tuple[int, int]
    note: str

    @property
    def read_indexes(self) -> list[int]:
        """The bands that are read: of colour, and alpha last."""
        return [*self.indexes] if self.alpha is None else [*self.indexes, self.alpha]

    @property
    def bytes_per_px(self) -> int:
        """Decoded, with alpha or mask."""
        own = self.dtype.itemsize if self.palette is None else 1
        return own * len(self.read_indexes) + (self.mask == "band")


def describe(dataset: Any, name: str, palette: Literal["colours", "indices"]) -> Header:
    """The header of an open dataset of rasterio.

    Args:
        dataset: open for reading.
        name: of the image, for messages.
        palette: whether colours are wanted of a palette image, or its indices.

    Raises:
        DataError: it has no band of colour, a coordinate system that is not understood, or is a
            VRT of which a part is missing.
    """
    if dataset.driver == "VRT" and not name.lower().endswith(".vrt"):
        check_vrt(Path(name))
    colours = dataset.colorinterp
    alpha = next((i + 1 for i, c in enumerate(colours) if c is ColorInterp.alpha), None)
    indexes = tuple(i + 1 for i in range(dataset.count) if i + 1 != alpha)
    if not indexes:
        raise DataError(
            f"{name} has no band of colour: {len(dataset.subdatasets)} subdatasets, "
            f"{dataset.count} bands.",
            remedy="Export the layer that you want as a GeoTIFF of its own.",
        )
    lookup = None
    if palette == "colours" and colours[0] is ColorInterp.palette and len(indexes) == 1:
        lookup = np.zeros((256, 4), dtype=np.uint8)
        for index, rgba in dataset.colormap(1).items():
            if index < len(lookup):
                lookup[index] = rgba
    per_band = dataset.mask_flag_enums
    flags = {flag for band in indexes for flag in per_band[band - 1]}
    mask: Literal["none", "nodata", "band"] = "none"
    if MaskFlags.nodata in flags:
        mask = "nodata"
    elif MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        mask = "band"
    dtypes, nodata = dataset.dtypes, dataset.nodatavals
    dtype = np.result_type(*{dtypes[i - 1] for i in indexes})
    rows, cols = dataset.block_shapes[0]
    grid, note = _grid_of(dataset, name)
    return Header(
        grid=grid,
        dtype=np.dtype(np.uint8) if lookup is not None else dtype,
        bands=len(indexes) if lookup is None else 3,
        indexes=indexes,
        alpha=alpha,
        palette=lookup,
        mask=mask,
        nodata=tuple(nodata[i - 1] for i in indexes),
        file_format=str(dataset.driver),
        block_yx=(int(rows), int(cols)),
        note=note,
    )


def _grid_of(dataset: Any, name: str) -> tuple[GeoGrid, str]:
    """Where its pixels lie, and what to say of that."""
    shape = (dataset.height, dataset.width)
    transform = Affine(*tuple(dataset.transform)[:6])
    # A CRS over pixel coordinates places the image at the origin of the map: it is not known.
    if transform.is_identity or not all(map(isfinite, transform)) or transform.is_degenerate:
        return GeoGrid(shape), ""
    crs = _crs_of(dataset, name)
    if crs is not None and not _is_of_earth(crs):
        note = (
            f"{name} is in {crs.name!r}, a system of its own that says no place on the Earth: its "
            "results are in pixels."
        )
        return GeoGrid(shape), note
    return GeoGrid(shape, transform, crs), ""


def _crs_of(dataset: Any, name: str) -> CRS | None:
    try:
        if not dataset.crs:
            return None
        epsg = dataset.crs.to_epsg()
        return _from_epsg(epsg) if epsg else CRS.from_wkt(dataset.crs.to_wkt())
    except (CRSError, RasterioCRSError, RasterioError) as error:
        raise DataError(
            f"{name} has a coordinate system that is not understood: {error}.",
            remedy="Assign one with gdal_edit -a_srs, or remove it.",
        ) from error


@lru_cache(maxsize=64)
def _from_epsg(code: int) -> CRS:
    return CRS.from_epsg(code)


@lru_cache(maxsize=64)
def _is_of_earth(crs: CRS) -> bool:
    """Whether longitude and latitude can be told of its coordinates."""
    if crs.is_engineering:
        return False
    try:
        Transformer.from_crs(crs, 4326, always_xy=True)
    except ProjError:
        return False
    return True
