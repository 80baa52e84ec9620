"""Image files of any format that GDAL reads, read by window; images written without loss."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Interleaving
from rasterio.windows import Window as RasterioWindow

from rooftrace.core.errors import DataError
from rooftrace.core.types import BoolArray, GeoGrid, Raster, RasterSource, ResultProvenance, Window
from rooftrace.io.companions import FolderNames, check_overlay, check_vrt, mask_file, with_sidecars
from rooftrace.io.files import check_exists, is_file, is_url, replacing
from rooftrace.io.gdal import (
    CACHE,
    MAX_CACHE_BYTES,
    conversion_of,
    environment,
    is_complete_png,
    open_quietly,
    rasterio_window,
    reading_errors,
    writing_errors,
)
from rooftrace.io.georeferenced import GeoreferencedSource
from rooftrace.io.image_header import UPRIGHT, BandInfo, Header, read_header
from rooftrace.io.nodata import NodataRule, differs, mended, speck_side_px, without_specks
from rooftrace.io.web_mercator import TileName

_SMALL_PX = 2**20
"""Maximum number of pixels of a small image, whose file is closed after its pixels were read."""

_LARGE_BLOCK_BYTES = 2**21
"""Size of a block from which those that a few windows share exceed GDAL's smallest cache."""

_MAX_OPEN = 32
"""Maximum number of files that stay open after their headers were read, and of large files that
stay open after their pixels were read."""


class _OpenFiles:
    """The files that stay open between reads, those that were used last; all threads share it.

    Files of which only the header was read are counted separately, so that reading the headers of
    a folder does not close the scene that is being read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._headers: weakref.WeakKeyDictionary[RasterFile, None] = weakref.WeakKeyDictionary()
        self._pixels: weakref.WeakKeyDictionary[RasterFile, None] = weakref.WeakKeyDictionary()

    def keep(self, file: RasterFile, *, header: bool) -> None:
        """Keep a file open that was read, and close the one that was read longest ago.

        The caller holds the lock of no file. A file that another thread reads stays open; that
        thread calls this method when it has read it.
        """
        with self._lock:
            self._headers.pop(file, None)
            files = self._headers if header and file not in self._pixels else self._pixels
            files.pop(file, None)
            files[file] = None
            if len(files) <= _MAX_OPEN:
                return
            oldest = next(iter(files))
            del files[oldest]
        oldest.close(wait=False)


_OPEN_FILES = _OpenFiles()
if hasattr(os, "register_at_fork"):
    # A child opens its own files, and another thread may have held the lock: it is made anew.
    os.register_at_fork(after_in_child=_OPEN_FILES.__init__)  # type: ignore[misc]


class RasterFile:
    """A `RasterSource` over a file.

    The file is opened on first use. The object can be pickled and forked; one thread at a time may
    read from it. Bands are colours: alpha becomes validity, and a palette is looked up.

    Args:
        nodata: Rule for pixels that count as nodata; default: those that the file declares.
        palette: Whether a palette is looked up, or its indices are read.
        trusted: No stranger made the file, see `open_raster`.
        shown: Name of the image, which may name its sensor; default the path.
    """

    _is_alone = False
    """Whether files beside the image are not read."""

    def __init__(
        self,
        path: Path,
        *,
        nodata: NodataRule | None = None,
        palette: Literal["colours", "indices"] = "colours",
        trusted: bool = False,
        shown: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.names: FolderNames | None = None
        """Names in its folder, if that was listed; None to ask the file system."""

        self._shown = shown
        self._trusted = trusted
        self._rule = nodata or NodataRule()
        self._palette = palette
        self._handle: Any = None
        self._close_handle: Callable[[], object] = _do_nothing
        self._pid = 0
        self._short_of_bytes = 0
        self.speck_px = 0
        """Number of pixels read so far that are valid as specks of a value that the file declares,
        see `without_specks`."""

        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.update(_handle=None, _close_handle=_do_nothing, _pid=0, names=None)
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        return str(self.path) if self._shown is None else self._shown

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
        """Nodata value of each colour band according to the file, or None."""
        return self._header.nodata

    @property
    def band_info(self) -> tuple[BandInfo, ...]:
        """Description of each colour band."""
        return self._header.infos

    @property
    def is_sequential(self) -> bool:
        """True if reading a row above the last one decodes the image from its first row again."""
        return self.file_format in ("PNG", "JPEG")

    @property
    def file_format(self) -> str:
        """Format of the file by its content, as GDAL names it: `PNG`, `JPEG`, `GTiff`."""
        return self._header.file_format

    @property
    def is_self_describing(self) -> bool:
        """True if a copy of the file would give the same pixels without further rules."""
        return self._rule == NodataRule() and self._palette == "colours"

    @property
    def keeps_fill(self) -> bool:
        """True if the user says that the image has no nodata."""
        return not self._rule.declared

    @property
    def provenance(self) -> ResultProvenance:
        """Name of the file or URL of the image, and the date in its tags."""
        return ResultProvenance(self._header.imagery_date, image=Path(self.name).name)

    @property
    def position_note(self) -> str:
        """Note on why the grid has no CRS although the file states a position; "" without one."""
        return self._header.note

    @property
    def site_grid_note(self) -> str:
        """Note on a CRS that is not of the Earth, which the grid leaves out; "" without one."""
        # An image whose position is not used for another reason has the identity as transform.
        return "" if self.grid.transform.is_identity else self._header.note

    @property
    def notes(self) -> tuple[str, ...]:
        """Information for the user about the image and how it is stored."""
        header = self._header
        notes: tuple[str, ...] = ()
        if header.note and not self.site_grid_note:
            notes = (f"Results are in pixels: {header.note}",)
        if header.is_alpha_infrared:
            infrared = (
                f"{self.name}: band 4 is marked as alpha, but holds a picture: it is taken as "
                "near infrared, and marks no pixel as nodata."
            )
            notes = (*notes, infrared)
        if not self._short_of_bytes:
            return notes
        rows, cols = header.block_yx
        note = (
            f"{self.name} is stored in blocks of {rows} × {cols} pixels. A row of tiles needs "
            f"{self._short_of_bytes / 1e6:.0f} MB of them, but the cache holds "
            f"{MAX_CACHE_BYTES / 1e6:.0f} MB, so that blocks are decoded many times. A tiled copy "
            "is much faster to read: "
            "gdal_translate -co TILED=YES -co COMPRESS=DEFLATE -co BIGTIFF=IF_SAFER IN OUT.tif"
        )
        return (*notes, note)

    def close(self, *, wait: bool = True) -> None:
        """Close the file; the next read opens it again.

        Args:
            wait: Whether to wait for a thread that reads; otherwise the file then stays open.
        """
        if not self._lock.acquire(blocking=wait):
            return
        try:
            CACHE.release(self)
            handle, self._handle = self._handle, None
            if handle is not None and self._pid == os.getpid():
                self._close_handle()
        finally:
            self._lock.release()

    def read(self, window: Window | None = None) -> Raster:
        """Return the pixels of `window` in the dtype of the file.

        Raises:
            DataError: the file is missing, corrupt or truncated; the message names the window.
        """
        header = self._header
        whole = Window.whole(header.grid.shape)
        window = window or whole
        if window.intersection(whole) != window:
            raise ValueError(f"{window} is not inside {self.name} with {header.grid.shape}")
        self._hold_blocks(window)
        data, valid = self._read_turned(window)
        if self._may_have_specks:
            by_value = valid
            valid = mended(
                window, data, valid, self._read_turned, self._colours(data), header.grid,
                is_lossy=header.is_lossy,
            )  # fmt: skip
            self._count_specks(valid, by_value)
        return Raster(data, valid, header.grid if window == whole else header.grid.crop(window))

    def _colours(self, data: NDArray[Any]) -> list[tuple[float | None, ...]]:
        """Return the colours that count as nodata."""
        by_rule = self._rule.colours(data, self.name)
        return [*by_rule, self._header.nodata] if self._header.mask == "nodata" else [*by_rule]

    def _count_specks(self, valid: BoolArray, by_value: BoolArray) -> None:
        if self._rule == NodataRule():
            self.speck_px += int(np.count_nonzero(valid & ~by_value))

    def _read_turned(self, window: Window) -> tuple[NDArray[Any], BoolArray]:
        """Return the colour bands and the validity of a window of the picture."""
        header = self._header
        area = rasterio_window(header.orientation.stored(window, header.grid.shape))
        with self._dataset(window) as dataset:
            data = _read_bands(dataset, header, window=area)
            mask = self._read_mask(dataset, area, window) if header.mask == "band" else None
        data, valid = self._interpreted(data, mask)
        if header.orientation != UPRIGHT:
            data, valid = header.orientation.turned(data), header.orientation.turned(valid)
        return data, valid

    @property
    def _may_have_specks(self) -> bool:
        """True if only a value says what is nodata, and pictures have that value, too."""
        header, rule = self._header, self._rule
        if header.dtype.kind != "u" or header.palette is not None or self._palette == "indices":
            return False
        is_by_value = header.mask == "nodata" or (rule.value, rule.colour) != (None, None)
        return is_by_value and header.alpha is None and header.mask != "band"

    def read_overview(self, min_px: int, max_px: int) -> Raster | None:
        """Return the whole image from its smallest overview of at least `min_px` pixels.

        Returns:
            The overview; None if there is none of at most `max_px` pixels, or it is damaged.
        """
        header = self._header
        rows, cols = header.grid.shape
        try:
            with self._dataset("overviews") as dataset:
                stored = header.orientation.shape((rows, cols))
                shapes = [(-(-stored[0] // n), -(-stored[1] // n)) for n in dataset.overviews(1)]
                suitable = [shape for shape in shapes if min_px <= shape[0] * shape[1] <= max_px]
                if not suitable:
                    return None
                # GDAL reads the overview of exactly this shape.
                shape = min(suitable)
                data = _read_bands(dataset, header, out_shape=shape)
                mask = None
                if header.mask == "band":
                    mask = dataset.read_masks(header.mask_band, out_shape=shape)
        except DataError:
            return None
        data, valid = map(header.orientation.turned, self._interpreted(data, mask))
        scale_yx = rows / valid.shape[0], cols / valid.shape[1]
        grid = header.grid.resampled(valid.shape, scale_yx)
        if self._may_have_specks:
            by_value = valid
            valid = without_specks(valid, speck_side_px(grid.gsd_m))
            self._count_specks(valid, by_value)
        return Raster(data, valid, grid)

    def _read_mask(self, dataset: Any, area: RasterioWindow, window: Window) -> NDArray[np.uint8]:
        """Return the mask of a window; an error names the file that holds it."""
        with reading_errors(mask_file(self.path) or self.name, window):
            mask: NDArray[np.uint8] = dataset.read_masks(self._header.mask_band, window=area)
        return mask

    def is_empty(self, window: Window) -> bool:
        """Return True if a window certainly holds nodata alone, without decoding its pixels.

        If a GeoTIFF has a mask, only the mask is read, which is fast. Without a mask a window is
        empty if the file stores none of its blocks (a sparse GeoTIFF) and the value that GDAL
        returns for absent blocks is nodata.
        """
        header = self._header
        if header.file_format != "GTiff" or is_small(header.grid.shape):
            return False
        if header.mask != "band" and not self._absent_is_nodata:
            return False
        with self._dataset(window) as dataset:
            if header.mask == "band":
                return not self._read_mask(dataset, rasterio_window(window), window).any()
            # https://gdal.org/en/stable/drivers/raster/gtiff.html#metadata
            rows, cols = header.block_yx
            together = dataset.interleaving == Interleaving.pixel
            return not any(
                dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band) is not None
                for band in ([1] if together else header.read_indexes)
                for row in range(window.row // rows, (window.row_stop - 1) // rows + 1)
                for col in range(window.col // cols, (window.col_stop - 1) // cols + 1)
            )

    @cached_property
    def _absent_is_nodata(self) -> bool:
        """True if the value that GDAL returns for absent blocks is nodata."""
        header = self._header
        fill = header.nodata[0] or 0
        if header.black and header.nodata[0] is not None:
            fill = header.black - fill
        if header.palette is not None or not np.isfinite(fill):
            return False
        pixel = np.full((len(header.read_indexes), 1, 1), fill).astype(header.dtype)
        return not self._interpreted(pixel, None)[1].any()

    def _interpreted(
        self, data: NDArray[Any], mask: NDArray[np.uint8] | None
    ) -> tuple[NDArray[Any], BoolArray]:
        """Return colour bands and valid pixels from bands as they are stored, alpha last."""
        header = self._header
        valid = np.ones(data.shape[1:], dtype=bool) if mask is None else mask > 0
        if header.alpha is not None:
            if self._rule.declared:
                valid &= data[-1] > 0
            data = data[:-1]
        if header.black:
            data = header.black - data
        if header.mask == "nodata":
            valid &= differs(data, header.nodata)
        if data.dtype.kind == "f":
            # NaN and infinity would spread over the receptive field of a network.
            valid &= np.isfinite(data).all(axis=0)
        if header.palette is not None:
            colours = header.palette[data[0]]
            if self._rule.declared:
                valid &= colours[..., 3] > 0
            data = np.ascontiguousarray(np.moveaxis(colours[..., :3], -1, 0))
        if header.is_cmyk:
            data = _without_ink(data)
        for colour in self._rule.colours(data, self.name):
            valid &= differs(data, colour)
        return data, valid

    def _hold_blocks(self, window: Window) -> None:
        """Make GDAL keep the blocks that a row of windows shares, so that each is decoded once."""
        header = self._header
        rows, cols = header.block_yx
        if header.orientation.transpose:
            # Every row of windows needs all stored rows.
            CACHE.hold(self, header.grid.height * header.grid.width * header.bytes_per_px)
            return
        if is_small(header.grid.shape):
            return
        if cols <= window.width:
            # Four such tiles meet in a window; those of the files of a VRT are not known.
            is_large = rows * cols * header.bytes_per_px > _LARGE_BLOCK_BYTES
            if is_large or self.path.suffix.lower() == ".vrt":
                CACHE.hold(self)
            return
        # Also the blocks that the next row of windows shares with this one.
        held_rows = (-(-window.height // rows) + 2) * rows
        needed = min(held_rows, header.grid.height + rows) * header.bytes_per_px
        needed *= -(-header.grid.width // cols) * cols
        # GDAL's overhead for each block, and what else is being read or written.
        CACHE.hold(self, needed + needed // 16 + 2**24)
        if needed > MAX_CACHE_BYTES:
            self._short_of_bytes = max(self._short_of_bytes, needed)

    @cached_property
    def _header(self) -> Header:
        with self._dataset("header", header=True) as dataset:
            # GDAL calls an overlay of one picture a VRT, too.
            is_checked = self.path.suffix.lower() in (".vrt", ".kml", ".kmz")
            if dataset.driver == "VRT" and not (self._is_alone or is_checked):
                check_vrt(self.path)
            header = read_header(dataset, self.name, self._palette)
            if not (self._is_alone or self._is_listed_alone):
                header = with_sidecars(self.path, header, self.names)
            return header if self._rule.declared else replace(header, mask="none")

    def _open(self) -> tuple[Any, Callable[[], object]]:
        """Return the open file and the function that closes it."""
        if remedy := conversion_of(self.path):
            raise DataError(
                f"{self.path} is of a format that is not read as an image.", remedy=remedy
            )
        # Of most images, a single look at the disk.
        if not is_file(self.path):
            if self.path.is_dir():
                raise DataError(
                    f"{self.path} is a folder; an image was expected.",
                    remedy="Give the path of one image.",
                )
            check_exists(self.path)
        if self.path.suffix.lower() == ".vrt":
            check_vrt(self.path)
        elif self.path.suffix.lower() in (".kml", ".kmz"):
            check_overlay(self.path)
        # Absolute, so that GDAL does not read a file name as a connection string of a driver.
        handle = open_quietly(self.path.absolute())
        return handle, handle.close

    @cached_property
    def _is_fast(self) -> bool:
        # GDAL's fast path for PNG accepts a file that was cut off, or was made with too few rows:
        # what other images left in memory would become pixels.
        return self._trusted and is_complete_png(self.path)

    @property
    def _is_listed_alone(self) -> bool:
        """True if the names in the folder say that no file beside the image belongs to it."""
        return self.names is not None and self.names.is_alone(self.path.name)

    @contextmanager
    def _reading(self, where: object) -> Iterator[None]:
        """Set GDAL's options while the block runs, and name the image and `where` in errors."""
        more = {}
        if where != "header":
            more["GDAL_PNG_WHOLE_IMAGE_OPTIM"] = "YES" if self._is_fast else "NO"
        elif self._is_listed_alone and self.path.suffix.lower() == ".png":
            # GDAL looks for sixteen files beside a PNG.
            more["GDAL_DISABLE_READDIR_ON_OPEN"] = "EMPTY_DIR"
        with reading_errors(self.name, where), environment(**more):
            yield

    @contextmanager
    def _dataset(self, where: object, *, header: bool = False) -> Iterator[Any]:
        """Lock and open the file while the block runs; errors name `where`, a part of the image.

        A large file stays open for the next read. After its header a small file stays open, too:
        pixels are mostly read right after the header, and opening a small file takes as long as
        decoding it. `_OPEN_FILES` bounds the number of open files.
        """
        with self._lock, self._reading(where):
            # A forked child must not share the file position of its parent.
            if self._handle is None or self._pid != os.getpid():
                self._handle, self._close_handle = self._open()
                self._pid = os.getpid()
            keep_open = False
            try:
                yield self._handle
                keep_open = header or not is_small(self._handle.shape)
            finally:
                if not keep_open:
                    self._close_handle()
                    self._handle = None
        if keep_open:
            _OPEN_FILES.keep(self, header=header)


class OpenDataset(RasterFile):
    """A `RasterFile` over a dataset of rasterio: of a file, in memory, an overview, or warped."""

    _is_alone = True

    def __init__(self, dataset: Any) -> None:
        super().__init__(Path(dataset.name), shown=dataset.name)
        self._opened = dataset

    def _open(self) -> tuple[Any, Callable[[], object]]:
        return self._opened, _do_nothing


def _do_nothing() -> None:
    """Close no file."""


def _read_bands(dataset: Any, header: Header, **part: Any) -> NDArray[Any]:
    """Return the bands as they are stored, alpha last; those of several types in a common one."""
    indexes = header.read_indexes
    if header.has_one_type:
        return np.asarray(dataset.read(indexes, **part))
    bands = [dataset.read(index, **part) for index in indexes]
    if header.alpha is not None:
        # Values of alpha may not fit into the type of the colours.
        bands[-1] = bands[-1] > 0
    common = np.result_type(*bands[: len(header.indexes)])
    return np.stack([band.astype(common) for band in bands])


def _without_ink(data: NDArray[Any]) -> NDArray[Any]:
    """Return red, green and blue (3, y, x) of the inks cyan, magenta, yellow and black."""
    full = np.iinfo(data.dtype).max if data.dtype.kind in "ui" else 1
    paper = full - data.astype(np.float64)
    return np.asarray(paper[:3] * paper[3] / full).astype(data.dtype)


def is_small(shape: tuple[int, int]) -> bool:
    """Return True if an image of this many rows and columns is better read whole than in parts."""
    return shape[0] * shape[1] <= _SMALL_PX


def open_raster(
    path: str | Path,
    *,
    nodata: NodataRule | None = None,
    palette: Literal["colours", "indices"] = "colours",
    trusted: bool = False,
) -> RasterFile:
    """Return an image on disk as a `RasterSource`; it is opened on first use.

    Args:
        path: Image of any format that GDAL reads.
        nodata: Rule for pixels that count as nodata; default: the file's alpha, mask or value.
        palette: "colours" to look up a palette (3 bands), "indices" to read its numbers (1 band,
            as labels are stored).
        trusted: No stranger made the file. A whole PNG is then decoded in half the time, and one
            that was made with too few rows is not noticed.
    """
    return RasterFile(Path(path), nodata=nodata, palette=palette, trusted=trusted)


def open_image(
    path_or_url: str | Path,
    *,
    nodata: NodataRule | None = None,
    tile: TileName | None = None,
    trusted: bool = False,
    shown: str | None = None,
) -> RasterFile | GeoreferencedSource:
    """Open an image on disk, on a web server or in object storage.

    Args:
        path_or_url: Path of any image, or URL of a GeoTIFF or JPEG 2000: `https://…/scene.tif`,
            `s3://…`.
        nodata: Rule for pixels that count as nodata besides those that the file marks.
        tile: Tile that a file shows if it has no georeference; default from a name such as
            `OAM-x-y-z.png`.
        trusted: No stranger made the file, see `open_raster`.
        shown: Name of the image if its file has another one; default the path.

    Raises:
        DataError: the URL does not begin with http, https or s3, or holds a user name.
    """
    if isinstance(path_or_url, str) and is_url(path_or_url):
        # Most images are files, which need no client of a server.
        from rooftrace.io.remote_raster import RemoteRaster

        return RemoteRaster(path_or_url, nodata=nodata)
    path = Path(path_or_url)
    source = RasterFile(path, nodata=nodata, trusted=trusted, shown=shown)
    tile = tile or TileName.parse(Path(source.name), folders=False)
    return source if tile is None else GeoreferencedSource(source, tile.placed)


_ROWS = 1024
"""Number of rows in memory at a time: two rows of the file's own tiles."""


def write_raster(folder: Path, name: str, source: RasterSource) -> Path:
    """Write an image without loss, as PNG if possible, else as a tiled GeoTIFF.

    PNG can hold 8-bit images of one or three bands without georeference and nodata. A GeoTIFF
    stores nodata as an internal mask, so that every pixel value can be used.

    Args:
        folder: Output folder; it is created if necessary.
        name: File name without a suffix; it may hold folders.

    Returns:
        Path of the file.
    """
    height, width = source.grid.shape
    small = height <= _ROWS
    first = source.read(Window(0, 0, min(_ROWS, height), width))
    as_png = (
        small
        and source.grid.crs is None
        and source.dtype == np.uint8
        and source.bands in (1, 3)
        and bool(first.valid.all())
    )
    path = folder / f"{name}{'.png' if as_png else '.tif'}"
    with (
        writing_errors(path),
        replacing(path) as partial,
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_PAM_ENABLED=False),
        _create(partial, source) as out,
    ):
        for row in range(0, height, _ROWS):
            window = Window(row, 0, min(_ROWS, height - row), width)
            raster = first if row == 0 else source.read(window)
            area = RasterioWindow(0, row, width, window.height)
            out.write(raster.data, window=area)
            if not as_png:
                out.write_mask(raster.valid, window=area)
    return path


def _create(path: Path, source: RasterSource) -> Any:
    """Create a file for the pixels of `source`; the suffix selects the format."""
    height, width = source.grid.shape
    options: dict[str, Any] = {"driver": "PNG"}
    if path.suffix == ".tif":
        options = {
            "driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512,
            "compress": "deflate", "bigtiff": "if_safer",
            # By default GDAL treats a fourth 8-bit band as alpha.
            "photometric": "rgb" if source.bands == 3 else "minisblack",
        }  # fmt: skip
        if source.grid.crs is not None:
            options |= {"transform": source.grid.transform, "crs": source.grid.crs.to_wkt()}
    return open_quietly(
        path, "w", dtype=source.dtype.name, count=source.bands, height=height, width=width,
        **options,
    )  # fmt: skip
