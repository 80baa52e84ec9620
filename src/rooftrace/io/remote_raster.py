"""GeoTIFFs and JPEG 2000 on a web server or in object storage, read by window.

GDAL reads through a `RangeReader`, so that only the needed parts are fetched and errors name the
HTTP status. https://cogeo.org describes files that are made for this; any tiled GeoTIFF can be
read.
"""

import io
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from rasterio.abc import MultiByteRangeResourceContainer

from rooftrace.core.errors import DataError
from rooftrace.core.types import ResultProvenance, Window
from rooftrace.io.gdal import environment, open_quietly, reading_errors, with_openers
from rooftrace.io.nodata import NodataRule
from rooftrace.io.raster import RasterFile
from rooftrace.io.remote import RangeReader, RemoteError, url_stem, without_query


class RemoteRaster(RasterFile):
    """A `RasterFile` whose blocks are fetched when they are needed.

    Args:
        url: URL of a GeoTIFF or JPEG 2000 that begins with http, https or s3.
        nodata: Rule for pixels that count as nodata besides those that the file marks.
        level: Overview to read, 0 being the finest; None for the image itself.
    """

    def __init__(
        self, url: str, *, nodata: NodataRule | None = None, level: int | None = None
    ) -> None:
        super().__init__(Path(url_stem(url)), nodata=nodata)
        self.url = url
        self.ranges = RangeReader(url)
        """Reader of the file, which counts the requests to the server."""

        self._level = level
        self._failure: RemoteError | None = None

    _is_alone = True

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_failure": None}

    @property
    def name(self) -> str:
        return without_query(self.url)

    @cached_property
    def provenance(self) -> ResultProvenance:
        """URL of the image, and the date in its tags."""
        return replace(super().provenance, image=self.name)

    @property
    def is_self_describing(self) -> bool:
        """False: there is no local file to copy."""
        return False

    @property
    def version(self) -> str:
        """Text that changes when the file on the server changes, as far as the server shows it."""
        assert self.grid is not None
        return self.ranges.version

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of a file, and how much has been fetched."""
        return (*super().notes, f"{self.name}: {self.ranges.summary}.")

    def overview_for(self, gsd_m: float) -> Self:
        """Return the coarsest overview whose pixels are at most `gsd_m`, or the image itself.

        The overview and the image share one counter of requests.
        """
        own_m = self.grid.gsd_yx_m
        if own_m is None or self._level is not None:
            return self
        with self._dataset("overviews") as dataset:
            factors = dataset.overviews(1)
        height, width = self.grid.shape
        # Levels are nominal: 0.0742 m is half of 0.15 m.
        fine_enough = [
            number
            for number, factor in enumerate(factors)
            if max(own_m[0] * height / -(-height // factor), own_m[1] * width / -(-width // factor))
            <= gsd_m * 1.01
        ]
        if not fine_enough:
            return self
        coarser = type(self)(self.url, nodata=self._rule, level=fine_enough[-1])
        coarser.ranges = self.ranges
        return coarser

    def is_empty(self, window: Window) -> bool:
        # GDAL lists the blocks of an overview under other names than those of the image.
        return self._level is None and super().is_empty(window)

    def _open(self) -> tuple[Any, Callable[[], object]]:
        head = self.ranges.read(0, 8) if self.ranges.size >= 8 else b""
        driver = next((name for name, first in _DRIVERS.items() if head.startswith(first)), None)
        if driver is None:
            raise DataError(
                f"{self.name} is not a GeoTIFF or JPEG 2000; others are not read from a server.",
                remedy="Download it, and give the path of the file.",
            )
        options: dict[str, Any] = {} if self._level is None else {"overview_level": self._level}
        container = _Container(self.ranges, self)
        handle = with_openers(open_quietly, _GDAL_NAME, driver=driver, opener=container, **options)
        # GDAL must not close a file in Python after the interpreter has shut down.
        return handle, weakref.finalize(self, with_openers, handle.close)

    @contextmanager
    def _reading(self, where: object) -> Iterator[None]:
        self._failure = None
        try:
            with (
                reading_errors(self.name, where),
                environment(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            ):
                try:
                    yield
                except RemoteError as error:
                    self._failure = error
                    raise
        except DataError as error:
            failure = self._failure
            if failure is None:
                raise
            raise DataError(
                f"{self.name} cannot be read ({where}): {failure.reason}.", remedy=failure.remedy
            ) from error

    def failed(self, error: RemoteError) -> None:
        """Record why a read failed: GDAL does not pass on exceptions of its files."""
        self._failure = error


_GDAL_NAME = "/scene.tif"

_DRIVERS = {
    "GTiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JP2OpenJPEG": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
}
"""First bytes of the formats that are read from a server, by GDAL's name of the driver. Others
could name further files and servers."""


class _RemoteFile(io.RawIOBase):
    """The open file from which GDAL reads."""

    def __init__(self, ranges: RangeReader, owner: RemoteRaster) -> None:
        self._ranges = ranges
        self._owner = owner
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._ranges.size}[whence]
        self._at = origin + offset
        return self._at

    def read(self, count: int = -1) -> bytes:
        stop = self._ranges.size if count < 0 else self._at + count
        try:
            data = self._ranges.read(self._at, stop)
        except RemoteError as error:
            self._owner.failed(error)
            return b""
        self._at += len(data)
        return data

    def get_byte_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Return the bytes of several blocks."""
        spans = [(offset, offset + size) for offset, size in zip(offsets, sizes)]
        try:
            return self._ranges.read_many(spans)
        except RemoteError as error:
            self._owner.failed(error)
            return [b""] * len(spans)


class _Container(MultiByteRangeResourceContainer):  # type: ignore[misc]
    """A folder that holds one file, as GDAL sees it."""

    def __init__(self, ranges: RangeReader, owner: RemoteRaster) -> None:
        self._ranges = ranges
        self._owner = owner

    def open(self, path: str, mode: str = "rb", **_: Any) -> _RemoteFile:
        return _RemoteFile(self._ranges, self._owner)

    def isfile(self, path: str) -> bool:
        return path.endswith(_GDAL_NAME)

    def isdir(self, path: str) -> bool:
        return False

    def ls(self, path: str) -> list[str]:
        return []

    def mtime(self, path: str) -> int:
        return 0

    def rm(self, path: str) -> None:
        raise PermissionError(path)

    def size(self, path: str) -> int:
        return self._ranges.size
