"""GeoTIFFs on a web server, of which only what is needed is fetched.

GDAL reads them through a file of ours, so that requests and bytes can be counted, failures told
with their status, and what may pass be asked again. https://cogeo.org says how such files are laid
out; any tiled GeoTIFF can be read.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from rasterio.abc import MultiByteRangeResourceContainer

from rooftrace.core.errors import DataError
from rooftrace.core.types import RasterSource, Window
from rooftrace.io.area import AreaSource
from rooftrace.io.gdal import environment, explained, open_quietly, with_openers
from rooftrace.io.nodata import NodataRule
from rooftrace.io.objects import is_object_url
from rooftrace.io.ranges import RangeError, RangeReader, Retry, Traffic, without_query
from rooftrace.io.raster import RasterFile

__all__ = ["RemoteRaster", "coarsened", "is_url", "open_source", "url_stem"]

_GDAL_NAME = "/scene.tif"


def is_url(text: str) -> bool:
    """Whether an input is an address and no path."""
    return "://" in text


def url_stem(url: str) -> str:
    """The name of the file that an address leads to, without its ending."""
    return PurePosixPath(unquote(urlsplit(url).path)).stem or "scene"


def open_source(path_or_url: str | Path, *, nodata: NodataRule | None = None) -> RasterFile:
    """An image on disk or on a web server; opened when it is first asked for something.

    Args:
        path_or_url: of any image on disk, or of a GeoTIFF: `https://…/scene.tif`, `s3://…`.
        nodata: what counts as nodata besides what the file says.

    Raises:
        DataError: an address that is neither http, https nor s3, or asks for a password.
        MissingExtraError: s3 without its extra.
    """
    if isinstance(path_or_url, Path) or not is_url(path_or_url):
        return RasterFile(Path(path_or_url), nodata=nodata)
    if is_object_url(path_or_url):
        return RemoteRaster(path_or_url, nodata=nodata)
    parts = urlsplit(path_or_url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise DataError(
            f"{without_query(path_or_url)} cannot be read: an address begins with https://, "
            "http:// or s3://, and then a server without a user's name.",
            remedy="Download the file, and name that.",
        )
    return RemoteRaster(path_or_url, nodata=nodata)


class RemoteRaster(RasterFile):
    """A `RasterFile` of which blocks are fetched as they are needed.

    Args:
        url: http, https or s3, of a GeoTIFF.
        nodata: what counts as nodata besides what the file says.
        level: of its overviews, 0 being the finest; None for the image itself.
        retry: how failures that may pass are met.
    """

    def __init__(
        self,
        url: str,
        *,
        nodata: NodataRule | None = None,
        level: int | None = None,
        retry: Retry | None = None,
    ) -> None:
        super().__init__(Path(url_stem(url)), nodata=nodata)
        self.url = url
        self._ranges = RangeReader(url, retry)
        self._level = level
        self._failure: RangeError | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_close_handle", None)
        return state | {"_failure": None}

    @property
    def name(self) -> str:
        return without_query(self.url)

    @property
    def says_all(self) -> bool:
        """False: there is no file to copy."""
        return False

    @property
    def traffic(self) -> Traffic:
        """What has been asked of the server so far."""
        return self._ranges.traffic

    @property
    def version(self) -> str:
        """What changes when the file on the server does, as far as the server tells.

        Raises:
            DataError: as `grid`.
        """
        assert self.grid is not None
        return self._ranges.version

    @property
    def notes(self) -> tuple[str, ...]:
        """What has been fetched, besides what a file would note."""
        traffic = self.traffic
        repeated = f", {traffic.repeated} of them again" if traffic.repeated else ""
        fetched = (
            f"{self.name}: {traffic.requests} requests{repeated}, "
            f"{traffic.nbytes / 1e6:.1f} MB fetched."
        )
        return (*super().notes, fetched)

    @cached_property
    def level_shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each overview, the finest first."""
        _ = self._header
        with self._lock, self._explained("overviews"), self._dataset() as dataset:
            factors = dataset.overviews(1)
        height, width = self.grid.shape
        return tuple((-(-height // factor), -(-width // factor)) for factor in factors)

    def at_least(self, gsd_m: float) -> Self:
        """The coarsest overview whose pixels are no larger than `gsd_m`; itself if there is none.

        What it and the image itself fetch is counted together.
        """
        own_m = self.grid.gsd_yx_m
        if own_m is None or self._level is not None:
            return self
        height, width = self.grid.shape
        # Levels are nominal: 0.0742 m is half of 0.15 m.
        able = [
            number
            for number, (rows, cols) in enumerate(self.level_shapes)
            if max(own_m[0] * height / rows, own_m[1] * width / cols) <= gsd_m * 1.01
        ]
        if not able:
            return self
        coarser = type(self)(self.url, nodata=self._rule, level=able[-1])
        coarser._ranges = self._ranges
        return coarser

    def is_empty(self, window: Window) -> bool:
        # GDAL tells of an overview's blocks under other names than of the image's.
        return self._level is None and super().is_empty(window)

    def _check_present(self) -> None:
        """The server is asked when the file is opened."""

    def _environment(self) -> Any:
        return environment(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")

    def _open(self) -> Any:
        _ = self._ranges.size
        options: dict[str, Any] = {} if self._level is None else {"overview_level": self._level}
        container = _Container(self._ranges, self)
        handle = with_openers(open_quietly, _GDAL_NAME, driver="GTiff", opener=container, **options)
        # GDAL must not be left to close a file in Python when there is no Python any more.
        self._close_handle = weakref.finalize(self, with_openers, handle.close)
        return handle

    def _let_go(self, handle: Any) -> None:
        self._close_handle()

    @contextmanager
    def _explaining(self, where: str) -> Iterator[None]:
        self._failure = None
        try:
            with explained(self.name, where):
                yield
        except (DataError, RangeError) as error:
            failure = error if isinstance(error, RangeError) else self._failure
            if failure is None:
                raise
            raise DataError(
                f"{self.name} cannot be read ({where}): {failure.reason}.", remedy=failure.remedy
            ) from error

    def _explained(self, where: str) -> AbstractContextManager[None]:
        return self._explaining(where)

    def failed(self, error: RangeError) -> None:
        """Remember why a read came back short: GDAL does not hand on what its files raise."""
        self._failure = error


def coarsened(source: RasterSource, model_gsd_m: float | None) -> tuple[RasterSource, str | None]:
    """A remote image at the overview that still has all that a model sees, and what to say of it.

    Anything else, and a remote image without metres or without such an overview, is given back as
    it is, with None. Where a person says the metres or the scale the image itself has to be read.

    Args:
        source: a `RemoteRaster`, or an area of one.
        model_gsd_m: metres per pixel that the model was trained at, if it knows any.

    Raises:
        DataError: the image cannot be read.
    """
    image = source.source if isinstance(source, AreaSource) else source
    if not isinstance(image, RemoteRaster) or model_gsd_m is None:
        return source, None
    coarser = image.at_least(model_gsd_m)
    if coarser is image:
        return source, None
    rows, cols = coarser.grid.shape
    note = (
        f"{image.name} has {image.grid.gsd_m:.3g} m per pixel: its overview of {rows} × {cols} "
        f"pixels with {coarser.grid.gsd_m:.3g} m is read, and results lie on that grid; the model "
        f"was trained at {model_gsd_m:g} m."
    )
    image.close()
    return (AreaSource(coarser, source.area) if isinstance(source, AreaSource) else coarser), note


class _RemoteFile:
    """What GDAL takes for an open file."""

    def __init__(self, ranges: RangeReader, owner: RemoteRaster) -> None:
        self._ranges = ranges
        self._owner = owner
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """There is nothing to let go of."""

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._ranges.size}[whence]
        self._at = origin + offset
        return self._at

    def read(self, count: int = -1) -> bytes:
        stop = self._ranges.size if count < 0 else self._at + count
        try:
            data = self._ranges.read(self._at, stop)
        except RangeError as error:
            self._owner.failed(error)
            return b""
        self._at += len(data)
        return data

    def get_byte_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """The bytes of several blocks at a time."""
        spans = [(offset, offset + size) for offset, size in zip(offsets, sizes)]
        try:
            return self._ranges.read_many(spans)
        except RangeError as error:
            self._owner.failed(error)
            return [b""] * len(spans)


class _Container(MultiByteRangeResourceContainer):  # type: ignore[misc]
    """A folder that holds one file."""

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
