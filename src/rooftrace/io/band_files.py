"""Images whose bands are files of their own, as in STAC items of Landsat and Sentinel-2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rooftrace.core.errors import BandMismatch, DataError
from rooftrace.core.text import plain_number, size_text
from rooftrace.core.types import GeoGrid, Raster, ResultProvenance, Window
from rooftrace.io.bands import band_name, parse_bands
from rooftrace.io.georeferenced import GeoreferencedSource, close_source, innermost
from rooftrace.io.image_header import BandInfo
from rooftrace.io.nodata import NodataRule
from rooftrace.io.raster import RasterFile
from rooftrace.io.remote_raster import RemoteRaster, open_image

_MAX_OFFSET_PX = 0.05
"""Maximum distance between the corners of two bands; coordinates are rounded when written."""

_OTHERS = {"nir": ("nir08",), "rededge": ("rededge1", "rededge071")}
"""Common names of STAC that stand for a band if none has the name that models use."""


@dataclass(frozen=True)
class BandFile:
    """One band of an image.

    Args:
        name: Name of the band, such as `red`; "" if the user gave the files in their order.
        location: Path or URL of the file.
    """

    name: str
    location: str


class BandFiles:
    """A `RasterSource` over files of one band each, which lie on one grid.

    It can be pickled; one thread at a time may read from it.

    Args:
        name: Name of the image in messages.
        names: Name of each band.
        files: File of each band.
    """

    def __init__(
        self, name: str, names: Sequence[str], files: Sequence[RasterFile | GeoreferencedSource]
    ) -> None:
        self.name = name
        self._names = tuple(names)
        self._files = tuple(files)

    def __repr__(self) -> str:
        return f"BandFiles({self.name!r}, {', '.join(self._names)})"

    @cached_property
    def grid(self) -> GeoGrid:
        """Grid of all bands.

        Raises:
            DataError: A file cannot be read, has several bands, or lies on another grid.
        """
        for name, file in zip(self._names, self._files):
            if file.bands != 1:
                raise DataError(
                    f"{self.name}: the file of the band {name}, {file.name}, has {file.bands} "
                    "bands; expected one.",
                    remedy="Choose the image with --asset.",
                )
            if not _is_same(file.grid, self._files[0].grid):
                raise DataError(
                    f"{self.name}: the band {name} has {_shown(file.grid)}, but "
                    f"{self._names[0]} has {_shown(self._files[0].grid)}; expected one grid.",
                    remedy="Choose files of one resolution with --asset, or resample them with "
                    "gdalbuildvrt -separate -resolution highest, and give the .vrt.",
                )
        return self._files[0].grid

    @property
    def bands(self) -> int:
        return len(self._files)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        assert self.grid is not None
        return np.result_type(*(file.dtype for file in self._files))

    @property
    def band_info(self) -> tuple[BandInfo, ...]:
        """Names of the bands."""
        return tuple(BandInfo(n, description=name) for n, name in enumerate(self._names, 1))

    @cached_property
    def provenance(self) -> ResultProvenance:
        """Name of the image, and the date in the tags of its first band."""
        first = getattr(self._files[0], "provenance", ResultProvenance())
        return ResultProvenance(first.imagery_date, self.name)

    @property
    def is_remote(self) -> bool:
        """True if a band is read from a server."""
        return any(isinstance(file, RemoteRaster) for file in self._files)

    @property
    def version(self) -> str:
        """Text that changes when one of the files changes, as far as its server shows it.

        Raises:
            DataError: A file cannot be read.
        """
        return " ".join(_version(file) for file in self._files)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of the files for the user."""
        return tuple(note for file in self._files for note in getattr(file, "notes", ()))

    def read(self, window: Window | None = None) -> Raster:
        """Return the pixels of `window`; a pixel is valid if it is so in all bands.

        Raises:
            DataError: See `grid`.
        """
        grid = self.grid if window is None else self.grid.crop(window)
        read = [file.read(window) for file in self._files]
        return _stacked(read, grid, self.dtype)

    def read_overview(self, min_px: int, max_px: int) -> Raster | None:
        """Return the whole image from overviews of its files, see `RasterFile.read_overview`.

        None if a file has none of a suitable size, or they differ in size.
        """
        read = []
        for file in self._files:
            reader = getattr(file, "read_overview", None)
            overview = None if reader is None else reader(min_px, max_px)
            if overview is None:
                return None
            read.append(overview)
        if len({one.valid.shape for one in read}) > 1:
            return None
        return _stacked(read, read[0].grid, self.dtype)

    def overview_for(self, gsd_m: float) -> BandFiles:
        """Return the image of the coarsest overviews whose pixels are at most `gsd_m`, or itself.

        See `RemoteRaster.overview_for`.
        """
        remote = [file for file in self._files if isinstance(file, RemoteRaster)]
        if len(remote) < len(self._files):
            return self
        coarser = [file.overview_for(gsd_m) for file in remote]
        grids = [file.grid for file in coarser]
        is_same = all(_is_same(grid, grids[0]) for grid in grids)
        if coarser[0] is remote[0] or not is_same:
            return self
        return BandFiles(self.name, self._names, coarser)

    def is_empty(self, window: Window) -> bool:
        return any(file.is_empty(window) for file in self._files)

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            close_source(file)


def wanted_bands(model: Sequence[str], given: str | None) -> tuple[str, ...]:
    """Return the names of the bands that are read: those that the user named, or the model's.

    Args:
        model: Names of the model's bands.
        given: Bands that the user chose, see `parse_bands`. Numbers count the model's bands.

    Raises:
        ConfigError: The bands cannot be read.
    """
    chosen = parse_bands(given) or ()
    names = [one for one in chosen if isinstance(one, str)]
    wanted = names if names and len(names) == len(chosen) else model
    return tuple(dict.fromkeys(band_name(one) for one in wanted))


def open_bands(
    name: str, files: Sequence[BandFile], wanted: Sequence[str], nodata: NodataRule | None
) -> BandFiles:
    """Open the files of the bands that a model reads.

    Args:
        name: Name of the image in messages.
        files: Files of the bands. Files without names are the wanted bands in their order.
        wanted: Names of the bands to read, see `wanted_bands`.
        nodata: Rule for nodata pixels in addition to that of the files.

    Raises:
        BandMismatch: A wanted band has no file.
    """
    if not any(file.name for file in files):
        if len(files) != len(wanted):
            raise BandMismatch(
                f"{name} is made of {len(files)} files, but the model reads {len(wanted)} bands: "
                f"{', '.join(wanted)}.",
                remedy="Name one asset for each band with --asset, in this order.",
            )
        chosen = [file.location for file in files]
    else:
        known: dict[str, str] = {}
        for file in files:
            known.setdefault(file.name, file.location)
        found = {
            band: next((known[one] for one in (band, *_OTHERS.get(band, ())) if one in known), None)
            for band in wanted
        }
        missing = [band for band, location in found.items() if location is None]
        if missing:
            raise BandMismatch(
                f"{name} has no file for the band {', '.join(missing)}; its bands are "
                f"{', '.join(known)}.",
                remedy="Name one asset for each band of the model with --asset, such as "
                "--asset B04,B03,B02.",
            )
        chosen = [location for location in found.values() if location is not None]
    return BandFiles(name, wanted, [open_image(one, nodata=nodata) for one in chosen])


def _stacked(read: Sequence[Raster], grid: GeoGrid, dtype: np.dtype[Any]) -> Raster:
    data = np.concatenate([one.data.astype(dtype, copy=False) for one in read])
    valid = np.logical_and.reduce([one.valid for one in read])
    return Raster(data, valid, grid)


def _is_same(grid: GeoGrid, other: GeoGrid) -> bool:
    """Return True if the pixels of two grids lie in the same places."""
    if grid.shape != other.shape or grid.crs != other.crs:
        return False
    rows, cols = grid.shape
    corners = np.array([0, cols, 0, cols], float), np.array([0, 0, rows, rows], float)
    moved = other.to_pixels(np.stack(grid.to_world(*corners), axis=1)) - np.stack(corners, axis=1)
    return bool(np.abs(moved).max() <= _MAX_OFFSET_PX)


def _shown(grid: GeoGrid) -> str:
    size = size_text(grid.shape)
    if grid.crs is None:
        return size
    gsd = "" if grid.gsd_m is None else f" of {plain_number(grid.gsd_m)} m"
    return f"{size}{gsd} at {grid.transform.c:.10g}, {grid.transform.f:.10g} in {grid.crs.name}"


def _version(file: RasterFile | GeoreferencedSource) -> str:
    image = innermost(file)
    if isinstance(image, RemoteRaster):
        return f"{image.name} {image.version}"
    assert isinstance(image, RasterFile)
    status = image.path.stat() if image.path.exists() else None
    changed = "" if status is None else f"{status.st_size} {status.st_mtime_ns}"
    return f"{image.path.resolve()} {changed}"
