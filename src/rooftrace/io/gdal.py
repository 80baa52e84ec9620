"""GDAL's settings for all reads, its errors, and the files that it can read.

The settings are the block cache, threads, and what files may access. GDAL recognises the format by
the content of a file, not by its suffix; `is_raster` looks at its first bytes before it asks GDAL.
"""

import os
import shlex
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio import features
from rasterio._err import CPLE_BaseError
from rasterio.env import setenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from rooftrace.core.arrays import numbered
from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.core.parallel import core_count
from rooftrace.core.text import reason_of
from rooftrace.core.types import BoolArray, Ints, Polygons, Window
from rooftrace.io.files import export_error, is_file, read_head
from rooftrace.io.vector_formats import UNREAD, VECTOR_SUFFIXES

T = TypeVar("T")

_MIN_CACHE_BYTES = 16 * 2**20
_SHARED_CACHE_BYTES = 48 * 2**20
"""Minimum size of GDAL's block cache while windows share blocks of a file."""

MAX_CACHE_BYTES = 512 * 2**20
"""Maximum size of GDAL's block cache, even if the open files would need more."""

_VECTORS = (*VECTOR_SUFFIXES, *UNREAD)
_REMEDY = "Open it with another program to check that it is complete, or remove it."
_REMEDIES = {
    "Permission denied": "Check who may read it.",
    "Too many open files": "Raise the limit of open files: ulimit -n 1024",
}

# GDAL's thread pool does not survive a fork: a child that gives it work would wait for ever.
_FORKED: list[bool] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _FORKED.append(True))


@contextmanager
def pyogrio_options(options: Mapping[str, str]) -> Iterator[None]:
    """Set options of pyogrio's own GDAL, which holds for the whole process, and restore them."""
    import pyogrio

    before = {name: pyogrio.get_gdal_config_option(name) for name in options}
    pyogrio.set_gdal_config_options(dict(options))
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(before)


# Rasterio keeps the Python files that GDAL reads through in a context variable. The variable is set
# on import and is not found in other threads, so this context is used in every thread.
_IMPORTED_IN = copy_context()

QUIET = threading.Lock()
"""Lock held while a warning is silenced, here or inside rasterio (see `rasterize`).
Silencing changes state of the whole process, which two threads at a time would leave wrong."""


class BlockCache:
    """Size of GDAL's cache of decoded blocks for the files that are being read.

    GDAL has one cache for the process, so there is one instance. An environment with a smaller
    size would evict blocks that other files still need: always use the size from here.
    """

    def __init__(self) -> None:
        self._needs: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """The size that the cache should have now."""
        if not self._needs:
            return _MIN_CACHE_BYTES
        with self._lock:
            needed = sum(self._needs.values())
        return min(max(needed, _SHARED_CACHE_BYTES), MAX_CACHE_BYTES)

    def hold(self, file: Any, nbytes: int = 0) -> None:
        """Hold blocks of a file until `release`: `nbytes` of them, or those of a few windows."""
        with self._lock:
            self._needs[file] = nbytes

    def release(self, file: Any) -> None:
        """End the reservation of a file."""
        with self._lock:
            self._needs.pop(file, None)


CACHE = BlockCache()


class _Thread(threading.local):
    """Settings of GDAL that are in force in a thread; None outside of `environment`."""

    settings: dict[str, Any] | None = None


_THREAD = _Thread()


@contextmanager
def environment(**more: Any) -> Iterator[None]:
    """Set GDAL's settings for opening and reading images in this thread, while the block runs.

    Inside of another such block only what differs is set: entering all of them for each of
    thousands of small images takes as long as their headers.
    """
    settings = {
        # In bytes: rasterio passes a number to GDAL unchanged.
        "GDAL_CACHEMAX": CACHE.bytes,
        "GDAL_NUM_THREADS": "1" if _FORKED else str(core_count()),
        # Without these two settings the rest of a truncated JPEG or PNG is grey or black.
        "GDAL_ERROR_ON_LIBJPEG_WARNING": True,
        "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
        "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
        # A user's file may name other files, but may not run code or call a server.
        "GDAL_VRT_ENABLE_PYTHON": "NO",
        "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
        **more,
    }
    outer = _THREAD.settings
    with rasterio.Env(**settings) if outer is None else nullcontext():
        changed = {} if outer is None else dict(settings.items() - outer.items())
        if changed:
            setenv(**changed)
        _THREAD.settings = settings
        try:
            yield
        finally:
            _THREAD.settings = outer
            if outer is not None and changed:
                setenv(**{name: outer[name] for name in changed})


def open_quietly(path: Any, mode: str = "r", **options: Any) -> Any:
    """Call `rasterio.open` without the warning about images without a georeference."""
    # Of a path, `rasterio.open` makes the same object, in an environment of its own.
    is_path = mode == "r" and isinstance(path, Path) and not options
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return DatasetReader(path) if is_path else rasterio.open(path, mode, **options)


def rasterize(shapes: Iterable[Any], *where: Any, **options: Any) -> NDArray[Any]:
    """Call `rasterio.features.rasterize`, which silences warnings, under `QUIET`."""
    with QUIET:
        return np.asarray(features.rasterize(shapes, *where, **options))


def number_polygons(polygons: Polygons, window: Window) -> NDArray[np.int32]:
    """Return the number from 1 of the polygon at each pixel centre of a window; 0 outside of all.

    Of polygons that overlap, the last one counts. Edges are cut at the centres of all rows at once:
    the pixels of `rasterize`, in a fifth of its time for many small polygons. No pixel depends on
    the window.

    Args:
        polygons: (n,) polygons and multipolygons in pixels, x right and y down.
        window: Window whose pixels are returned, (y, x).
    """
    parts, owner = shapely.get_parts(polygons, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    # Of an area with a million corners, few edges cut a row of the window.
    above, below = xy[:, 1] < window.row, xy[:, 1] > window.row_stop
    edge = np.flatnonzero(
        (ring[1:] == ring[:-1]) & ~(above[1:] & above[:-1]) & ~(below[1:] & below[:-1])
    )
    (x0, y0), (x1, y1) = xy[edge].T, xy[edge + 1].T
    height, width = window.shape_yx
    first, last = (
        np.clip(np.ceil(choose(y0, y1) - 0.5) - window.row, 0, height).astype(np.int64)
        for choose in (np.minimum, np.maximum)
    )
    cut, step = numbered(last - first)
    row = first[cut] + step
    x = x0[cut] + (row + window.row + 0.5 - y0[cut]) * ((x1 - x0)[cut] / (y1 - y0)[cut])
    col = np.clip(np.floor(x + 0.5) - window.col, 0, width).astype(np.int64)
    # Sorted by polygon and row, each two cuts bound a run of pixels inside.
    starts, stops = np.sort(
        (owner[part[ring[edge]]][cut] * height + row) * (width + 1) + col
    ).reshape(-1, 2).T  # fmt: skip
    line, col = np.divmod(starts, width + 1)
    polygon, row = np.divmod(line, height)
    run, step = numbered(stops - starts)
    number = np.zeros(window.shape_yx, np.int32)
    number.reshape(-1)[(row * width + col)[run] + step] = polygon[run] + 1
    return number


def trace_values(image: NDArray[Any], mask: BoolArray) -> tuple[Polygons, Ints]:
    """Return (n,) outlines of the 4-connected regions inside a mask (y, x), and their values.

    `rasterio.features.shapes` silences warnings, so it is called under `QUIET`.
    """
    with QUIET:
        found = list(features.shapes(image, mask, connectivity=4))
    outlines = [*(shapely.geometry.shape(one) for one, _ in found), None]
    return np.array(outlines, np.object_)[:-1], np.array([value for _, value in found], np.int64)


def rasterio_window(window: Window) -> RasterioWindow:
    """Return a window as rasterio takes it."""
    return RasterioWindow(window.col, window.row, window.width, window.height)


def with_openers(function: Callable[..., T], *given: Any, **options: Any) -> T:
    """Call a function that opens or closes a file through a rasterio opener, in any thread."""
    return _IMPORTED_IN.copy().run(function, *given, **options)


@contextmanager
def writing_errors(path: Path) -> Iterator[None]:
    """Raise what GDAL raises while it writes a file as ExportError.

    Closing a file on a full disk raises an error of GDAL that rasterio does not translate.
    """
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        raise export_error(path, error) from error


@contextmanager
def reading_errors(name: object, where: object) -> Iterator[None]:
    """Turn every error of a reader, of GDAL and of the system into a DataError.

    GDAL's errors share no public base class, and rasterio raises ValueError for messages that are
    not UTF-8. Therefore all exceptions are caught; errors of rooftrace pass unchanged.
    """
    try:
        yield
    except (RooftraceError, MemoryError):
        raise
    except Exception as error:
        reason = reason_of(error.__cause__ or error)
        remedy = next((remedy for part, remedy in _REMEDIES.items() if part in reason), _REMEDY)
        if "not recognized" in reason and str(name).lower().endswith(_VECTORS):
            remedy = (
                "It is vector data. Give an image, for which it can be the area. Of a tile index: "
                "gdalbuildvrt OUT.vrt INDEX"
            )
        raise DataError(
            f"{name} cannot be read as an image ({where}): {reason}.", remedy=remedy
        ) from error


_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LONGEST = max(map(len, _SIGNATURES))


def is_complete_png(path: Path) -> bool:
    """Return True if a file named .png is a chain of chunks from its first to its last byte.

    Of other files, GDAL's fast path returns uninitialised memory as pixels, without an error.
    Damage inside of a chunk needs no check here, since it makes GDAL's decompression fail. Content
    with too few rows is not noticed: finding it takes as long as the slow path.
    """
    if path.suffix.lower() != ".png":
        return False
    try:
        status = path.stat()
        return _is_chain(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return False


# Reading many windows of a large file asks again each time.
@lru_cache(maxsize=64)
def _is_chain(path: Path, size: int, _changed_ns: int) -> bool:
    """Return True if the chunks of a PNG fill the file, and the last one is the only IEND."""
    # Some writers make a chunk of every 8 kB.
    with path.open("rb", buffering=2**17) as file:
        if file.read(len(_SIGNATURES[0])) != _SIGNATURES[0]:
            return False
        kind = b""
        while kind != b"IEND":
            head = file.read(8)
            kind = head[4:]
            if len(head) < 8 or not kind.isalpha():
                return False
            # The checksum follows the content.
            if file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR) > size:
                return False
        return file.tell() == size


_GDAL_TRANSLATE = "Convert it with a GDAL that reads it (that of QGIS does): "
_PHOTOGRAPH = "It is the raw photograph of a camera. Make an orthophoto of the flight first."
_PROJECT = "It is a project that names layers: give the file or URL of one, or export a GeoTIFF."
_PROJECT_SUFFIXES = (".qgz", ".qgs", ".qlr", ".aprx", ".mxd", ".lyrx", ".psx", ".p4d")

_CONVERSIONS = {
    ".pdf": "Convert it with a GDAL that has a PDF driver (that of QGIS): gdal_translate {} {}.tif",
    ".ecw": _GDAL_TRANSLATE + "gdal_translate {} {}.tif",
    ".sid": _GDAL_TRANSLATE + "gdal_translate {} {}.tif",
    ".zip": "Unpack it, and give what is inside: unzip {} -d {}",
    ".7z": "Unpack it, and give what is inside: 7z x {}",
    ".rar": "Unpack it, and give what is inside: unrar x {}",
    **dict.fromkeys((".tar", ".tar.gz", ".tgz"), "Unpack it, and give what is inside: tar -xf {}"),
    ".gz": "Unpack it: gunzip -k {}",
    ".bz2": "Unpack it: bunzip2 -k {}",
    ".pmtiles": "Convert it to MBTiles: pip install pmtiles && pmtiles-convert {} {}.mbtiles",
    ".zarr": "Convert the array of the image: gdal_translate 'ZARR:\"{}\":/ARRAY' {}.tif",
    **dict.fromkeys((".avif", ".jxl", ".psd", ".svg"), "Convert it: magick {} {}.png"),
    **dict.fromkeys((".heic", ".heif"), "Convert it: heif-convert {} {}.jpg"),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw"), _PHOTOGRAPH),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "It is a video: rooftrace video {} -o OUT"),
    **dict.fromkeys((".las", ".laz"), "It is a point cloud. Give the orthophoto of the flight."),
    **dict.fromkeys(_PROJECT_SUFFIXES, _PROJECT),
    ".csv": "It is a table. Give the folder of the images that it names.",
    ".safe": "Its pixels of 10 m are too coarse for buildings. Use finer imagery.",
}
"""Ways to an image that is read, by the ending of a file or folder that is not. The GDAL of
rasterio opens a PDF, but its pixels differ from the page (rasterio 1.4.4, GDAL 3.10.3)."""

_MAP_SERVICE = (
    "It describes a map service. Give the URL of the service with the area: rooftrace predict "
    "'https://…/{z}/{x}/{y}.png' --area FILE -o OUT"
)

_CONVERTED = tuple(_CONVERSIONS)

ARCHIVES = (".zip", ".gz", ".bz2", ".tar", ".tgz", ".7z", ".rar")

_WRAPPERS = (".xml", ".til", ".kml")
"""Endings of files that describe images beside them (DIMAP, WorldView, overlays of Google Earth):
in a folder, the images themselves are found."""


def conversion_of(path: Path, shown: str = "") -> str | None:
    """Return how to convert a file of a format that is not read; None for others.

    Args:
        shown: Its name for a person who has it elsewhere; by default the path.
    """
    name = shown or str(path)
    if name.lower().endswith(".xml") and is_file(path) and b"<GDAL_WM" in read_head(path, 1024):
        return _MAP_SERVICE
    if not name.lower().endswith(_CONVERTED) or not path.exists():
        return None
    ending = next(one for one in _CONVERSIONS if name.lower().endswith(one))
    given, stem = (shlex.quote(text) for text in (name, name[: -len(ending)]))
    return _CONVERSIONS[ending].format(given, stem)


def is_raster(path: Path) -> bool:
    """Return True if the content of a file is an image, complete or damaged, as far as known."""
    if conversion_of(path) or path.suffix.lower() in _WRAPPERS:
        return False
    try:
        with reading_errors(path, "header"):
            if not path.stat().st_size:
                return False
            # Much faster than GDAL, for PNG, JPEG, TIFF and BigTIFF.
            with path.open("rb") as file:
                if file.read(_LONGEST).startswith(_SIGNATURES):
                    return True
            with environment(), open_quietly(path.absolute()) as handle:
                return int(handle.count) > 0
    except DataError:
        return False
