"""Images read by window, in whatever format GDAL finds them (content counts, not the ending)."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Interleaving
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid, Raster, Window
from rooftrace.io.gdal import CACHE, MOST_CACHE_BYTES, environment, explained, open_quietly
from rooftrace.io.header import Header, describe
from rooftrace.io.nodata import NodataRule, differs
from rooftrace.io.signature import has_image_signature, is_whole_png
from rooftrace.io.vrt import check_vrt

__all__ = ["NodataRule", "RasterFile", "is_raster", "open_raster"]

_KEEP_OPEN_PX = 2**20
"""Larger files stay open between reads (their next window is near); small ones are read once."""


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
        self._short_of_bytes = 0
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
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def grid(self) -> GeoGrid:
        return self._header.grid

    @property
    def bands(self) -> int:
        return self._header.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._header.dtype

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """What the file itself calls nodata, per band of colour."""
        return self._header.nodata

    @property
    def file_format(self) -> str:
        """What the file is by its content, in GDAL's words: `PNG`, `JPEG`, `GTiff`."""
        return self._header.file_format

    @property
    def has_alpha(self) -> bool:
        """Whether the file has a band of alpha."""
        return self._header.alpha is not None

    @property
    def says_all(self) -> bool:
        """Whether a copy of the file would be read alike, without a rule besides."""
        return self._rule == NodataRule() and self._palette == "colours"

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever reads all of it should know, by what has been read so far."""
        header = self._header
        told = (header.note,) if header.note else ()
        if not self._short_of_bytes:
            return told
        rows, cols = header.block_yx
        note = (
            f"{self.name} is stored in blocks of {rows} × {cols} pixels, of which a row of tiles "
            f"needs {self._short_of_bytes / 1e6:.0f} MB; {MOST_CACHE_BYTES / 1e6:.0f} MB are held, "
            "so that blocks are decoded many times. Tiled it is read many times as fast: "
            "gdal_translate -co TILED=YES -co COMPRESS=DEFLATE -co BIGTIFF=IF_SAFER IN OUT.tif"
        )
        return (*told, note)

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        with self._lock:
            CACHE.need(self, 0)
            handle, self._handle = self._handle, None
            if handle is not None and self._pid == os.getpid():
                self._let_go(handle)

    def read(self, window: Window | None = None) -> Raster:
        """The pixels of `window`, in the file's own dtype.

        Raises:
            DataError: absent, corrupt or truncated, with the window in which it was noticed.
        """
        header = self._header
        whole = Window.whole(header.grid.shape)
        window = window or whole
        if window.intersection(whole) != window:
            raise ValueError(f"{window} is not inside {self.name} with {header.grid.shape}")
        area = _area(window)
        self._hold_blocks(window)
        with self._lock, self._explained(str(window)), self._dataset() as dataset:
            data = dataset.read(header.read_indexes, window=area)
            mask = dataset.read_masks(1, window=area) if header.mask == "band" else None
        data, valid = self._interpreted(data, mask)
        return Raster(data, valid, header.grid if window == whole else header.grid.crop(window))

    def is_empty(self, window: Window) -> bool:
        """Whether it is certain, without decoding pixels, that a window holds nodata alone.

        Of a GeoTIFF with a mask the mask is read, which takes no time beside its pixels. Without
        one it is certain where none of the window's blocks is in the file, as in a sparse GeoTIFF,
        and what GDAL gives in their place is nodata.

        Raises:
            DataError: the file cannot be read.
        """
        header = self._header
        if header.file_format != "GTiff" or _is_small(header.grid):
            return False
        if header.mask != "band" and not self._absent_is_nodata:
            return False
        with self._lock, self._explained(str(window)), self._dataset() as dataset:
            if header.mask == "band":
                return not dataset.read_masks(1, window=_area(window)).any()
            return not self._has_blocks(dataset, window)

    def _has_blocks(self, dataset: Any, window: Window) -> bool:
        """Whether any block of a window is in a GeoTIFF.

        https://gdal.org/en/stable/drivers/raster/gtiff.html#metadata
        """
        rows, cols = self._header.block_yx
        together = dataset.interleaving == Interleaving.pixel
        return any(
            dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band) is not None
            for band in ([1] if together else self._header.read_indexes)
            for row in range(window.row // rows, (window.row_stop - 1) // rows + 1)
            for col in range(window.col // cols, (window.col_stop - 1) // cols + 1)
        )

    @cached_property
    def _absent_is_nodata(self) -> bool:
        """Whether the value that GDAL gives for a block that is not in the file is nodata."""
        header = self._header
        fill = header.nodata[0] or 0
        if header.palette is not None or not np.isfinite(fill):
            return False
        pixel = np.full((len(header.read_indexes), 1, 1), fill).astype(header.dtype)
        return not self._interpreted(pixel, None)[1].any()

    def _interpreted(
        self, data: NDArray[Any], mask: NDArray[np.uint8] | None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Bands as they are stored, alpha last, to bands of colour and which pixels are valid."""
        header = self._header
        valid = np.ones(data.shape[1:], dtype=bool) if mask is None else mask > 0
        if header.alpha is not None:
            if self._rule.alpha:
                valid &= data[-1] > 0
            data = data[:-1]
        if header.mask == "nodata":
            valid &= differs(data, header.nodata)
        if data.dtype.kind == "f":
            # What is no number would spread over the whole reach of a network.
            valid &= np.isfinite(data).all(axis=0)
        if header.palette is not None:
            colours = header.palette[data[0]]
            if self._rule.alpha:
                valid &= colours[..., 3] > 0
            data = np.ascontiguousarray(np.moveaxis(colours[..., :3], -1, 0))
        by_rule = self._rule.valid(data, self.name)
        if by_rule is not None:
            valid &= by_rule
        return data, valid

    def _hold_blocks(self, window: Window) -> None:
        """Have GDAL keep the blocks that a row of windows shares, so that each is decoded once."""
        header = self._header
        rows, cols = header.block_yx
        if cols <= window.width or _is_small(header.grid):
            return
        # Those of the rows that the next row of windows has in common with this one, too.
        held_rows = (-(-window.height // rows) + 2) * rows
        needed = min(held_rows, header.grid.height + rows) * header.bytes_per_px
        needed *= -(-header.grid.width // cols) * cols
        # GDAL's own account of a block, and what else is being read or written.
        CACHE.need(self, needed + needed // 16 + 2**24)
        if needed > MOST_CACHE_BYTES:
            self._short_of_bytes = max(self._short_of_bytes, needed)

    @cached_property
    def _header(self) -> Header:
        self._check_present()
        with self._lock, self._explained("header"), self._dataset(wait=True) as dataset:
            return describe(dataset, self.name, self._palette)

    def _check_present(self) -> None:
        if not self.path.exists():
            raise DataError(f"There is no image at {self.path}.", remedy="Check the path.")
        if self.path.is_dir():
            raise DataError(
                f"{self.path} is a folder; an image was expected.",
                remedy="Give the path of one image.",
            )
        if self.path.suffix.lower() == ".vrt":
            check_vrt(self.path)

    def _explained(self, where: str) -> AbstractContextManager[None]:
        return explained(self.name, where)

    def _environment(self) -> Any:
        # GDAL's quick way with a PNG takes one that was cut off for a whole one.
        quick = "YES" if is_whole_png(self.path) else "NO"
        return environment(GDAL_PNG_WHOLE_IMAGE_OPTIM=quick)

    def _open(self) -> Any:
        # Absolute, so that no file name is taken for a connection string of one of GDAL's drivers.
        return open_quietly(self.path.absolute())

    def _let_go(self, handle: Any) -> None:
        handle.close()

    @contextmanager
    def _dataset(self, *, wait: bool = False) -> Iterator[Any]:
        """The open file; with `wait` a small one stays open until another of the thread waits.

        Pixels are mostly read right after the header, and to open a small file twice takes as
        long as to decode it. One for each thread, so that thousands of headers leave none open.
        """
        with self._environment():
            # A forked child must not share the file position of its parent.
            if self._handle is None or self._pid != os.getpid():
                self._handle = self._open()
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
                    self._let_go(self._handle)
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
    """Whether the content of a file is an image, whole or damaged, as far as it can be told."""
    try:
        if has_image_signature(path):
            return True
        with environment():
            handle = open_quietly(path.absolute())
            try:
                return int(handle.count) > 0
            finally:
                handle.close()
    except (RasterioError, OSError):
        return False


def _area(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col, window.row, window.width, window.height)


def _is_small(grid: GeoGrid) -> bool:
    return grid.height * grid.width < _KEEP_OPEN_PX
