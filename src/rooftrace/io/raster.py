"""Images read by window, in whatever format GDAL finds them (content counts, not the ending)."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid, Raster, Window

__all__ = ["NodataRule", "RasterFile", "is_raster", "open_raster"]

_CACHE_BYTES = 96 * 2**20
"""GDAL's block cache: a band of strips of a wide scene, so that none is decoded twice."""

_KEEP_OPEN_PX = 2**20
"""Larger files stay open between reads (their next window is near); small ones are read once."""

_REMEDY = "Open it with another program to see whether it is whole, or leave it out."

# GDAL's pool of threads does not survive a fork: a child that hands it work waits for ever.
_THREADS = {"GDAL_NUM_THREADS": "ALL_CPUS"}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _THREADS.update(GDAL_NUM_THREADS="1"))


class _Waiting(threading.local):
    """The small file of each thread whose header was read last, and whose pixels were not yet."""

    _file: weakref.ref[RasterFile] | None = None

    def replace(self, file: RasterFile) -> None:
        """Let `file` wait, and let go of the one that did."""
        last = None if self._file is None else self._file()
        self._file = weakref.ref(file)
        if last is not None:
            last.close()


_WAITING = _Waiting()

# Held while a file is opened: silencing a warning changes state of the whole process.
_OPENING = threading.Lock()


@dataclass(frozen=True)
class NodataRule:
    """What counts as nodata besides what the file itself says.

    Args:
        value: a pixel whose every band has this value.
        colour: a pixel with exactly these values, one per band.
        alpha: whether an alpha channel's zero is nodata; the channel is never a band.
    """

    value: float | None = None
    colour: tuple[float, ...] | None = None
    alpha: bool = True

    def valid(self, data: NDArray[Any], name: str) -> NDArray[np.bool_] | None:
        """(band, y, x) to (y, x), True where the rule leaves a pixel; None where it has none."""
        found: NDArray[np.bool_] | None = None
        if self.colour is not None:
            if len(self.colour) != len(data):
                raise DataError(
                    f"The nodata colour {self.colour} has {len(self.colour)} values, "
                    f"but {name} has {len(data)} bands.",
                    remedy="Give the colour one value per band.",
                )
            found = _differs(data, self.colour)
        if self.value is not None:
            by_value = _differs(data, (self.value,) * len(data))
            found = by_value if found is None else found & by_value
        return found


@dataclass(frozen=True)
class _Info:
    """What a file's header says; enough to open it in another process without looking again."""

    grid: GeoGrid
    dtype: np.dtype[Any]
    bands: int
    indexes: tuple[int, ...]
    alpha: int | None
    palette: NDArray[np.uint8] | None
    mask: Literal["none", "nodata", "band"]
    nodata: tuple[float | None, ...]
    file_format: str


class RasterFile:
    """A `RasterSource` over a file.

    Nothing is opened until it is asked for; it can be pickled and forked, and one thread at a time
    reads from it. Bands are colours: alpha is validity, a palette is looked up.
    """

    def __init__(
        self,
        path: Path,
        *,
        nodata: NodataRule | None = None,
        palette: Literal["colours", "indices"] = "colours",
    ) -> None:
        self.path = Path(path)
        self._rule = nodata or NodataRule()
        self._palette = palette
        self._handle: Any = None
        self._pid = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.update(_handle=None, _pid=0)
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RasterFile({str(self.path)!r})"

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def grid(self) -> GeoGrid:
        return self._info.grid

    @property
    def bands(self) -> int:
        return self._info.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._info.dtype

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """What the file itself calls nodata, per band of colour."""
        return self._info.nodata

    @property
    def file_format(self) -> str:
        """What the file is by its content, in GDAL's words: `PNG`, `JPEG`, `GTiff`."""
        return self._info.file_format

    @property
    def has_alpha(self) -> bool:
        """Whether the file has a band of alpha."""
        return self._info.alpha is not None

    @property
    def says_all(self) -> bool:
        """Whether a copy of the file would be read alike, without a rule besides."""
        return self._rule == NodataRule() and self._palette == "colours"

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None and self._pid == os.getpid():
                handle.close()

    def read(self, window: Window | None = None) -> Raster:
        """The pixels of `window`, in the file's own dtype.

        Raises:
            DataError: absent, corrupt or truncated, with the window in which it was noticed.
        """
        info = self._info
        whole = Window.whole(info.grid.shape)
        window = window or whole
        if window.intersection(whole) != window:
            raise ValueError(f"{window} is not inside {self.name} with {info.grid.shape}")
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        indexes = [*info.indexes] if info.alpha is None else [*info.indexes, info.alpha]
        with self._lock, _explained(self.path, str(window)), self._dataset() as dataset:
            data = dataset.read(indexes, window=area)
            mask = dataset.read_masks(1, window=area) if info.mask == "band" else None
        valid = np.ones(window.shape_yx, dtype=bool)
        if info.alpha is not None:
            if self._rule.alpha:
                valid &= data[-1] > 0
            data = data[:-1]
        if mask is not None:
            valid &= mask > 0
        if info.mask == "nodata":
            valid &= _differs(data, info.nodata)
        if data.dtype.kind == "f":
            # What is no number would spread over the whole reach of a network.
            valid &= np.isfinite(data).all(axis=0)
        if info.palette is not None:
            colours = info.palette[data[0]]
            if self._rule.alpha:
                valid &= colours[..., 3] > 0
            data = np.ascontiguousarray(np.moveaxis(colours[..., :3], -1, 0))
        by_rule = self._rule.valid(data, self.name)
        if by_rule is not None:
            valid &= by_rule
        return Raster(data, valid, info.grid if window == whole else info.grid.crop(window))

    @cached_property
    def _info(self) -> _Info:
        if not self.path.exists():
            raise DataError(f"There is no image at {self.path}.", remedy="Check the path.")
        if self.path.is_dir():
            raise DataError(
                f"{self.path} is a folder; an image was expected.",
                remedy="Give the path of one image.",
            )
        with self._lock, _explained(self.path, "header"), self._dataset(wait=True) as dataset:
            return _describe(dataset, self.path, self._palette)

    @contextmanager
    def _dataset(self, *, wait: bool = False) -> Iterator[Any]:
        """The open file; with `wait` a small one stays open until another of the thread waits.

        Pixels are mostly read right after the header, and to open a small file twice takes as
        long as to decode it. One for each thread, so that thousands of headers leave none open.
        """
        # GDAL_CACHEMAX is in bytes here: rasterio hands it on as a number.
        with rasterio.Env(
            GDAL_CACHEMAX=_CACHE_BYTES,
            **_THREADS,
            # Without these two a truncated JPEG or PNG is read as if its rest were grey or black.
            GDAL_ERROR_ON_LIBJPEG_WARNING=True,
            GDAL_PNG_WHOLE_IMAGE_OPTIM="NO",
            GDAL_DISABLE_READDIR_ON_OPEN="TRUE",
        ):
            # A forked child must not share the file position of its parent.
            if self._handle is None or self._pid != os.getpid():
                self._handle = _open_quietly(self.path)
                self._pid = os.getpid()
            try:
                yield self._handle
            except BaseException:
                wait = False
                raise
            finally:
                small = self._handle.width * self._handle.height < _KEEP_OPEN_PX
                if small and wait:
                    _WAITING.replace(self)
                elif small:
                    self._handle.close()
                    self._handle = None


def open_raster(
    path: str | Path,
    *,
    nodata: NodataRule | None = None,
    palette: Literal["colours", "indices"] = "colours",
) -> RasterFile:
    """An image on disk as a `RasterSource`; opened when it is first asked for something.

    Args:
        path: of anything GDAL reads, known by its content.
        nodata: what counts as nodata besides the file's own alpha, mask or nodata value.
        palette: whether a palette image gives its colours (3 bands) or its indices (1 band, as a
            label is stored).
    """
    return RasterFile(Path(path), nodata=nodata, palette=palette)


def is_raster(path: Path) -> bool:
    """Whether the content of a file is an image that can be opened."""
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"):
            handle = _open_quietly(path)
            try:
                return int(handle.count) > 0
            finally:
                handle.close()
    except (RasterioError, OSError):
        return False


def _open_quietly(path: Path) -> Any:
    # Absolute, so that no file name is taken for a connection string of one of GDAL's drivers.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path.absolute())


@contextmanager
def _explained(path: Path, where: str) -> Iterator[None]:
    try:
        yield
    except (RasterioError, OSError, MemoryError) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split()).removesuffix(".") or type(cause).__name__
        raise DataError(
            f"{path} cannot be read as an image ({where}): {reason}.", remedy=_REMEDY
        ) from error


def _describe(dataset: Any, path: Path, palette: Literal["colours", "indices"]) -> _Info:
    colours = list(dataset.colorinterp)
    alpha = next((i + 1 for i, c in enumerate(colours) if c is ColorInterp.alpha), None)
    indexes = tuple(i + 1 for i in range(dataset.count) if i + 1 != alpha)
    if not indexes:
        raise DataError(
            f"{path} has no band of colour: {len(dataset.subdatasets)} subdatasets, "
            f"{dataset.count} bands.",
            remedy="Export the layer that you want as a GeoTIFF of its own.",
        )
    lookup = None
    if palette == "colours" and colours[0] is ColorInterp.palette and len(indexes) == 1:
        lookup = np.zeros((256, 4), dtype=np.uint8)
        for index, rgba in dataset.colormap(1).items():
            if index < len(lookup):
                lookup[index] = rgba
    flags = {flag for band in indexes for flag in dataset.mask_flag_enums[band - 1]}
    mask: Literal["none", "nodata", "band"] = "none"
    if MaskFlags.nodata in flags:
        mask = "nodata"
    elif MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        mask = "band"
    dtype = np.result_type(*(np.dtype(dataset.dtypes[i - 1]) for i in indexes))
    return _Info(
        grid=_grid_of(dataset, path),
        dtype=np.dtype(np.uint8) if lookup is not None else dtype,
        bands=len(indexes) if lookup is None else 3,
        indexes=indexes,
        alpha=alpha,
        palette=lookup,
        mask=mask,
        nodata=tuple(dataset.nodatavals[i - 1] for i in indexes),
        file_format=str(dataset.driver),
    )


def _grid_of(dataset: Any, path: Path) -> GeoGrid:
    crs = None
    if dataset.crs:
        try:
            epsg = dataset.crs.to_epsg()
            crs = CRS.from_epsg(epsg) if epsg else CRS.from_wkt(dataset.crs.to_wkt())
        except (CRSError, RasterioError) as error:
            raise DataError(
                f"{path} has a coordinate system that is not understood: {error}.",
                remedy="Assign one with gdal_edit -a_srs, or remove it.",
            ) from error
    transform = Affine(*tuple(dataset.transform)[:6])
    if crs is None or transform.is_identity:
        # A CRS over pixel coordinates places the image at the origin of the map: it is not known.
        crs = None
    return GeoGrid((dataset.height, dataset.width), transform, crs)


def _differs(data: NDArray[Any], colour: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """(band, y, x) to (y, x), True where any band differs from its value in `colour`."""
    compare: Callable[[NDArray[Any], float], NDArray[np.bool_]] = np.not_equal
    found = np.zeros(data.shape[1:], dtype=bool)
    for band, value in zip(data, colour):
        if value is None:
            found[:] = True
        elif np.isnan(value):
            found |= ~np.isnan(band)
        elif data.dtype.kind in "ui" and not _fits(value, data.dtype):
            found[:] = True
        else:
            found |= compare(band, data.dtype.type(value))
    return found


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max
