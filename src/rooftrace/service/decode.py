"""Images of strangers, decoded where they can do no harm: in processes with limits."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import BusyError, DataError, RooftraceError
from rooftrace.core.types import GeoGrid
from rooftrace.data.tilenames import PlaceTile, TileName
from rooftrace.io.memory import ArraySource
from rooftrace.io.nodata import NodataRule
from rooftrace.io.placed import PlacedSource
from rooftrace.service.limits import Limits

__all__ = ["DecodedImage", "Decoder", "shown_name"]

_LONGEST_NAME = 120

_PIPE_BYTES = 2**20


class DecodedImage(ArraySource):
    """An image in memory, with what is to be said of how it was read."""

    notes: tuple[str, ...] = ()


class Decoder:
    """Some processes that decode images, each one at a time.

    One that dies of an image, or takes too long over it, is replaced; its image is refused.

    Args:
        limits: on the pixels, the time and the memory of one image.
        processes: that decode at the same time.
    """

    def __init__(self, limits: Limits | None = None, *, processes: int = 2) -> None:
        self._limits = limits or Limits()
        self._idle: LifoQueue[_Child | None] = LifoQueue()
        for _ in range(processes):
            self._idle.put(None)
        self._processes = processes
        self._closed = False

    def warm(self) -> None:
        """Start all processes, so that the first images need not wait for that."""
        _, image = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
        with ThreadPoolExecutor(self._processes) as pool:
            for _ in pool.map(lambda _: self.decode(image.tobytes(), "warm.png"), range(8)):
                pass

    def decode(
        self, data: bytes, name: str, *, nodata: NodataRule | None = None
    ) -> DecodedImage | PlacedSource:
        """The image of a file in memory. One that is called as a slippy tile lies where that is.

        Args:
            data: GeoTIFF, PNG, JPEG, WebP or JPEG 2000, by its content.
            name: what the stranger calls it; only shown.
            nodata: what is nodata besides what the file says.

        Raises:
            DataError: it is no image, or damaged, or its decoder died of it.
            TooLargeError: more pixels than the limits allow.
            BusyError: no process is free.
        """
        shown = shown_name(name)
        try:
            child = self._idle.get(timeout=self._limits.decode_seconds)
        except Empty:
            raise BusyError(
                "All decoders are busy.", remedy="Ask again.", retry_after_s=2
            ) from None
        try:
            if child is None or not child.alive:
                child = _Child(self._limits)
            source = child.decode(data, shown, nodata)
        except RooftraceError:
            raise
        except Exception as error:  # whatever pipes and JSON raise: the child is at fault
            reason = child.ended() if child is not None else repr(error)
            child = None
            raise DataError(
                f"{shown} cannot be decoded: {reason}.",
                remedy="Open it with another program and save it anew, or send a part of it.",
            ) from error
        finally:
            if self._closed and child is not None:
                child.ended()
                child = None
            self._idle.put(child)
        tile = TileName.parse(Path(shown), folders=False) if source.grid.crs is None else None
        return source if tile is None else PlacedSource(source, PlaceTile(tile))

    def close(self) -> None:
        """End the processes; one that is busy ends with its image."""
        self._closed = True
        with suppress(Empty):
            for _ in range(self._processes):
                child = self._idle.get_nowait()
                if child is not None:
                    child.ended()


class _Child:
    """A process that decodes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._late = False
        self._process = subprocess.Popen(  # noqa: S603  # ourselves
            [sys.executable, "-m", "rooftrace.service.decode_child", str(limits.decode_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # On Linux; elsewhere it is not heeded. Of the usual 64 KB, either side waits for its
            # turn on a busy processor some dozen times for each image.
            pipesize=_PIPE_BYTES,
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, data: bytes, name: str, nodata: NodataRule | None) -> DecodedImage:
        assert self._process.stdin is not None
        request = {
            "bytes": len(data),
            "name": name,
            "pixels": self._limits.pixels,
            "nodata": None if nodata is None else asdict(nodata),
        }
        late = threading.Timer(self._limits.decode_seconds, self._stop)
        late.start()
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.write(data)
            self._process.stdin.flush()
            answer = json.loads(self._read_line())
            if "error" in answer:
                raise RooftraceError.from_json(answer["error"])
            return self._source(answer, name)
        finally:
            late.cancel()

    def ended(self) -> str:
        """End it; why it was of no use."""
        if self._process.poll() is None and not self._late:
            self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self._late:
            return f"it took longer than {self._limits.decode_seconds:g} s"
        return f"its decoder ended with the code {code}"

    def _stop(self) -> None:
        self._late = True
        self._process.kill()

    def _source(self, answer: dict[str, Any], name: str) -> DecodedImage:
        shape = tuple(answer["shape"])
        dtype = np.dtype(answer["dtype"])
        data = self._read(int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
        valid = None
        if not answer["whole"]:
            count = shape[1] * shape[2]
            bits = self._read(-(-count // 8))
            valid = np.unpackbits(bits, count=count).astype(np.bool_).reshape(shape[1:])
        crs = None if answer["crs"] is None else CRS.from_wkt(answer["crs"])
        grid = GeoGrid(shape[1:], Affine(*answer["transform"]), crs)
        image = DecodedImage(data, grid, valid, name)
        image.notes = tuple(answer["notes"])
        return image

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline(_LONGEST_LINE)

    def _read(self, nbytes: int) -> NDArray[np.uint8]:
        assert self._process.stdout is not None
        buffer = np.empty(nbytes, dtype=np.uint8)
        view = memoryview(buffer)  # type: ignore[arg-type]
        done = 0
        while done < nbytes:
            count = self._process.stdout.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                raise EOFError("the decoder ended within an image")
            done += count
        return buffer


_LONGEST_LINE = 2**20


def shown_name(name: str) -> str:
    """A stranger's file name as it may be shown and be part of a name: no folder, nothing odd."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c if c.isalnum() or c in "-_. ()" else "_" for c in last).strip(" .")
    return kept[-_LONGEST_NAME:] or "image"
