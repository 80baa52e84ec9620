"""Polygons that wait outside of memory until all are known."""

from __future__ import annotations

import io
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import ExportError

__all__ = ["Spool"]

Ints = NDArray[np.int64]

_IN_MEMORY_BYTES = 16 * 2**20

_GAP_BYTES = 1 << 12
"""So much that nobody asked for is read rather than jumped over."""


class Spool:
    """Polygons as WKB, in memory while they are few, then in a file that has no name.

    The file is gone with the process, however that ends. One thread at a time.

    Args:
        folder: for the file; default that of the system for temporary files.
        in_memory_bytes: beyond so much there is a file.
    """

    def __init__(
        self, folder: Path | None = None, *, in_memory_bytes: int = _IN_MEMORY_BYTES
    ) -> None:
        self._folder = folder
        self._in_memory_bytes = in_memory_bytes
        self._file: IO[bytes] = io.BytesIO()
        self._size = 0

    def append(self, polygons: NDArray[np.object_]) -> Ints:
        """Takes polygons (n,); returns (n + 1,) where each begins, and where the last one ends.

        Raises:
            ExportError: the folder has no room, or cannot be written to.
        """
        encoded: Sequence[bytes] = shapely.to_wkb(polygons).tolist()
        offsets = np.cumsum([self._size, *map(len, encoded)])
        with self._explained():
            if self._size <= self._in_memory_bytes < offsets[-1]:
                self._roll_over()
            self._file.seek(self._size)
            self._file.write(b"".join(encoded))
        self._size = int(offsets[-1])
        return offsets

    def read(self, start: Ints, stop: Ints) -> NDArray[np.object_]:
        """(n,) the polygons that lie from `start` (n,) to `stop` (n,)."""
        encoded = np.empty(len(start), np.object_)
        order = np.argsort(start, kind="stable")
        low, high = start[order], stop[order]
        # What lies together is asked for together: each by itself takes several times as long.
        first = np.flatnonzero(np.append(True, low[1:] - high[:-1] > _GAP_BYTES)[: len(low)])
        last = np.append(first[1:], len(low))
        starts, stops = low.tolist(), high.tolist()
        cut: list[bytes] = []
        with self._explained():
            for one, end in zip(first.tolist(), last.tolist()):
                begin = starts[one]
                data = self._part(begin, stops[end - 1])
                places = zip(starts[one:end], stops[one:end])
                cut += [data[at - begin : to - begin] for at, to in places]
        encoded[order] = cut
        return np.asarray(shapely.from_wkb(encoded), np.object_)

    def _part(self, start: int, stop: int) -> bytes:
        self._file.seek(start)
        return self._file.read(stop - start)

    def _roll_over(self) -> None:
        held = self._file
        self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        # Whoever forgets to close it gives it back all the same.
        weakref.finalize(self, self._file.close)
        held.seek(0)
        shutil.copyfileobj(held, self._file)

    def close(self) -> None:
        """Gives back the memory and the room on disk; to do so twice does no harm."""
        self._file.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = self._folder or tempfile.gettempdir()
            raise ExportError(
                f"The polygons of the scene cannot be kept in {where} until all are known: "
                f"{error.strerror or error}.",
                remedy="Free some room there, or write to another disk.",
            ) from error
