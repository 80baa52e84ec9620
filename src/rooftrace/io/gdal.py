"""How GDAL is set up wherever pixels are read: its cache, its threads, what it may touch."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from rooftrace.core.errors import DataError

__all__ = [
    "CACHE",
    "MOST_CACHE_BYTES",
    "environment",
    "explained",
    "limit_gdal_threads",
    "open_quietly",
    "with_openers",
]

T = TypeVar("T")

_LEAST_CACHE_BYTES = 96 * 2**20

MOST_CACHE_BYTES = 512 * 2**20
"""Of GDAL's block cache, whatever the files that are open would need."""

_REMEDY = "Open it with another program to see whether it is whole, or leave it out."

# GDAL's pool of threads does not survive a fork: a child that hands it work waits for ever.
_THREADS = {"GDAL_NUM_THREADS": "ALL_CPUS"}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _THREADS.update(GDAL_NUM_THREADS="1"))


def limit_gdal_threads(count: int) -> None:
    """Let GDAL decode with so many threads, where a process has but a part of the machine."""
    _THREADS.update(GDAL_NUM_THREADS=str(count))


# Where rasterio keeps the files in Python that GDAL reads through: it is set when that is imported,
# and does not find them in other threads.
_IMPORTED_IN = copy_context()

QUIET = threading.Lock()
"""Held while a warning is silenced, by us or inside rasterio (`rasterio.features` does so): that
changes state of the whole process, and two threads would leave it as neither found it."""


class BlockCache:
    """How large GDAL's cache of decoded blocks has to be for the files that are being read.

    GDAL has one for the process, so there is one of these, too. Whoever enters an environment
    with a smaller figure throws out what others still need: take it from here.
    """

    def __init__(self) -> None:
        self._needs: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What it should be now."""
        if not self._needs:
            return _LEAST_CACHE_BYTES
        with self._lock:
            needed = sum(self._needs.values())
        return min(max(needed, _LEAST_CACHE_BYTES), MOST_CACHE_BYTES)

    def need(self, file: Any, nbytes: int) -> None:
        """Remember that a file needs so much for as long as it is read; 0 when it is done."""
        if not nbytes and not self._needs:
            return
        with self._lock:
            if nbytes:
                self._needs[file] = nbytes
            else:
                self._needs.pop(file, None)


CACHE = BlockCache()


def environment(**more: Any) -> Any:
    """The settings under which an image is opened and read, to be entered by `with`.

    Args:
        more: settings of GDAL besides, or instead.
    """
    return rasterio.Env(
        **{
            # In bytes here: rasterio hands a number on as it is.
            "GDAL_CACHEMAX": CACHE.bytes,
            **_THREADS,
            # Without these two a truncated JPEG or PNG is read as if its rest were grey or black.
            "GDAL_ERROR_ON_LIBJPEG_WARNING": True,
            "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
            "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
            # A file of the person's may name others, but runs no code and calls no server.
            "GDAL_VRT_ENABLE_PYTHON": "NO",
            "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
            **more,
        }
    )


def open_quietly(path: Any, mode: str = "r", **options: Any) -> Any:
    """`rasterio.open`, without a word about images that lie nowhere."""
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, mode, **options)


def with_openers(function: Callable[..., T], *given: Any, **options: Any) -> T:
    """A call that opens or closes a file through an opener of rasterio's, in whatever thread."""
    return _IMPORTED_IN.copy().run(function, *given, **options)


@contextmanager
def explained(name: object, where: str) -> Iterator[None]:
    """What GDAL and the system raise inside as a DataError.

    Args:
        name: of the image.
        where: what of it was being read.
    """
    try:
        yield
    except (RasterioError, OSError, MemoryError) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split()).removesuffix(".") or type(cause).__name__
        raise DataError(
            f"{name} cannot be read as an image ({where}): {reason}.", remedy=_REMEDY
        ) from error
