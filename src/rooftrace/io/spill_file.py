"""Temporary files for the polygons of many buildings.

They have a module of their own because the command line imports `io.files` before it knows whether
numpy and shapely are needed.
"""

import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Lock

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import Ints, Polygons
from rooftrace.io.files import exporting

_IN_MEMORY_BYTES = 16 * 2**20

_GAP_BYTES = 1 << 12
"""Maximum gap in bytes between two requested records that is read rather than skipped."""


class SpillFile:
    """Records of bytes, in memory while they are few, then in an unnamed temporary file.

    Polygons are stored as WKB. The file disappears with the process, however that ends. Threads may
    read at the same time, once everything is appended.

    Args:
        folder: Folder of the file; default the system's folder for temporary files.
        in_memory_bytes: Size beyond which the records go to a file.
    """

    def __init__(
        self, folder: Path | None = None, *, in_memory_bytes: int = _IN_MEMORY_BYTES
    ) -> None:
        self.folder = folder
        # The size 0 would mean that it stays in memory.
        self._file = SpooledTemporaryFile(  # noqa: SIM115
            max(in_memory_bytes, 1), dir=None if folder is None else str(folder)
        )
        # The file is closed even if `close` is never called.
        weakref.finalize(self, self._file.close)
        self.size = 0
        """Number of bytes of all records."""

        self._reading = Lock()

    def append(self, polygons: Polygons) -> Ints:
        """Add polygons (n,); return offsets as `append_bytes`."""
        return self.append_bytes(shapely.to_wkb(polygons).tolist())

    def append_bytes(self, records: Sequence[bytes]) -> Ints:
        """Add n records; return (n + 1,) offsets: the start of each, and the end of the last."""
        offsets = np.cumsum([self.size, *map(len, records)])
        with exporting(self.folder or Path(tempfile.gettempdir())):
            self._file.seek(self.size)
            self._file.write(b"".join(records))
            self._file.flush()
        self.size = int(offsets[-1])
        return offsets

    def read(self, start: Ints, stop: Ints) -> Polygons:
        """Return (n,) the polygons from offset `start` (n,) to offset `stop` (n,)."""
        return np.asarray(shapely.from_wkb(self.read_bytes(start, stop)), np.object_)

    def read_bytes(self, start: Ints, stop: Ints) -> NDArray[np.object_]:
        """Return (n,) the records from offset `start` (n,) to offset `stop` (n,)."""
        records = np.empty(len(start), np.object_)
        order = np.argsort(start, kind="stable")
        low, high = start[order], stop[order]
        # Neighbouring records are read together; single reads take several times as long.
        first = np.flatnonzero(np.append(True, low[1:] - high[:-1] > _GAP_BYTES)[: len(low)])
        last = np.append(first[1:], len(low))
        starts, stops = low.tolist(), high.tolist()
        cut: list[bytes] = []
        for index, end in zip(first.tolist(), last.tolist()):
            begin = starts[index]
            with self._reading:
                self._file.seek(begin)
                data = self._file.read(stops[end - 1] - begin)
            places = zip(starts[index:end], stops[index:end])
            cut += [data[at - begin : to - begin] for at, to in places]
        records[order] = cut
        return records

    def close(self) -> None:
        """Free the memory and the disk space; may be called twice."""
        self._file.close()
