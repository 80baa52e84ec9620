"""Decoding of uploaded images in processes with limits on time, memory and pixels.

A process is `python -m rooftrace.service.decode`. It reads requests from standard input and writes
responses to standard output until the input ends. A message is a line of JSON, followed by the
bytes that it announces. The server never executes anything from a response. Formats that can refer
to other files are not opened.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, BinaryIO

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import BusyError, DataError, RooftraceError, TooLargeError
from rooftrace.core.names import UNNAMED, upload_name
from rooftrace.core.text import reason_of
from rooftrace.core.types import UNKNOWN_PROVENANCE, BoolArray, GeoGrid, ResultProvenance
from rooftrace.io.gdal import open_quietly
from rooftrace.io.georeferenced import GeoreferencedSource
from rooftrace.io.image_header import JP2_SIGNATURE, BandInfo
from rooftrace.io.nodata import NodataRule, nodata_from_json, nodata_to_json
from rooftrace.io.raster import RasterFile
from rooftrace.io.sources import ArraySource
from rooftrace.io.web_mercator import TileGeoreference, TileName


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Args:
        upload_bytes: Maximum size of an image that is predicted at once.
        pixels: Maximum number of pixels of such an image; a small file may have very many.
        job_upload_bytes: Maximum size of the image of a job.
        job_pixels: Maximum number of pixels of the image of a job.
        running: Number of requests that run at the same time.
        waiting: Maximum number of requests that run or wait; further requests get BusyError.
        seconds: Maximum time of a request, including the time in the queue.
        decode_seconds: Maximum time to decode an image.
        decode_bytes: Maximum memory of a process that decodes uploaded images.
        jobs_waiting: Maximum number of waiting jobs; further jobs get BusyError.
    """

    upload_bytes: int = 64 * 2**20
    pixels: int = 64_000_000
    job_upload_bytes: int = 16 * 2**30
    job_pixels: int = 10_000_000_000
    running: int = 4
    waiting: int = 32
    seconds: float = 120.0
    decode_seconds: float = 20.0
    decode_bytes: int = 4 * 2**30
    jobs_waiting: int = 100


_MAX_LINE_BYTES = 2**20
"""Maximum length of a response header from a decoder process."""

_PIPE_BYTES = 2**20
"""Size of the pipes to a decoder process, on Linux."""


class DecodedImage(ArraySource):
    """An image in memory, with notes about assumptions made when it was read, and its origin."""

    notes: tuple[str, ...] = ()
    provenance: ResultProvenance = UNKNOWN_PROVENANCE

    @classmethod
    def of(
        cls, header: Mapping[str, Any], data: NDArray[Any], valid: BoolArray | None, name: str
    ) -> DecodedImage:
        """Return the image of a result of `UploadFile.header` and its pixels."""
        crs = None if header["crs"] is None else CRS.from_wkt(header["crs"])
        grid = GeoGrid(data.shape[1:], Affine(*header["transform"]), crs)
        return cls(data, grid, valid, name, [BandInfo(**info) for info in header["band_info"]])


def georeferenced_by_name(image: DecodedImage) -> DecodedImage | GeoreferencedSource:
    """Return an image without a coordinate system as the slippy map tile that its name says."""
    tile = TileName.parse(Path(image.name), folders=False) if image.grid.crs is None else None
    return image if tile is None else GeoreferencedSource(image, TileGeoreference(tile))


class Decoder:
    """A pool of processes that decode images.

    A process that crashes or takes too long is replaced, and its image is refused.

    Args:
        limits: Limits on the pixels, the time and the memory of one image.
        processes: Number of processes.
    """

    def __init__(self, limits: Limits | None = None, *, processes: int = 2) -> None:
        self._limits = limits or Limits()
        self._idle: LifoQueue[_DecoderProcess | None] = LifoQueue()
        for _ in range(processes):
            self._idle.put(None)
        self._processes = processes
        self._closed = False

    def warm(self) -> None:
        """Start all processes, so that the first images do not wait for it."""
        _, image = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
        with ThreadPoolExecutor(self._processes) as pool:
            for _ in pool.map(lambda _: self.decode(image.tobytes(), "warm.png"), range(8)):
                pass

    def decode(
        self, data: bytes, name: str, *, nodata: NodataRule | None = None
    ) -> DecodedImage | GeoreferencedSource:
        """Decode an image file in memory.

        An image without a coordinate system gets its position from a name in the form of a slippy
        map tile.

        Args:
            data: Bytes of a GeoTIFF, PNG, JPEG, WebP or JPEG 2000 file.
            name: File name from the client, for messages.
            nodata: Nodata rule in addition to that of the file.

        Raises:
            DataError: The file is not an image or is damaged, or the decoder crashed.
            TooLargeError: The image has more pixels than the limits allow.
            BusyError: No process is free.
        """
        shown = upload_name(name)
        try:
            child = self._idle.get(timeout=self._limits.decode_seconds)
        except Empty:
            raise BusyError(
                "All decoders are busy.", remedy="Retry in a few seconds.", retry_after_s=2
            ) from None
        try:
            if child is None or not child.alive:
                child = _DecoderProcess(self._limits)
            source = child.decode(data, shown, nodata)
        except RooftraceError:
            raise
        except Exception as error:  # an error of a pipe or of JSON is a fault of the process
            reason = child.stop() if child is not None else repr(error)
            child = None
            raise DataError(
                f"{shown} cannot be decoded: {reason}.",
                remedy="Open it with another program and save it again, or send a part of it.",
            ) from error
        finally:
            if self._closed and child is not None:
                child.stop()
                child = None
            self._idle.put(child)
        return georeferenced_by_name(source)

    def close(self) -> None:
        """Stop the processes; a busy process stops after its image."""
        self._closed = True
        with suppress(Empty):
            for _ in range(self._processes):
                child = self._idle.get_nowait()
                if child is not None:
                    child.stop()


class _DecoderProcess:
    """A process that decodes one image at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._timed_out = False
        self._process = subprocess.Popen(  # noqa: S603  # ourselves
            [sys.executable, "-m", "rooftrace.service.decode", str(limits.decode_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # With the usual 64 KB, both sides wait for each other dozens of times per image.
            # Systems other than Linux ignore this setting.
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
            "nodata": nodata_to_json(nodata),
        }
        timer = threading.Timer(self._limits.decode_seconds, self._time_out)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.write(data)
            self._process.stdin.flush()
            answer = json.loads(self._read_line())
            if "error" in answer:
                raise RooftraceError.from_json(answer["error"])
            return self._source(answer, name)
        finally:
            timer.cancel()

    def stop(self) -> str:
        """Stop the process and return the reason why it failed."""
        if self._process.poll() is None and not self._timed_out:
            self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self._timed_out:
            return f"it took longer than {self._limits.decode_seconds:g} s"
        return f"its decoder ended with the code {code}"

    def _time_out(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _source(self, answer: dict[str, Any], name: str) -> DecodedImage:
        shape = (answer["bands"], *answer["shape"])
        dtype = np.dtype(answer["dtype"])
        data = self._read(int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
        valid = None
        if not answer["whole"]:
            count = shape[1] * shape[2]
            bits = self._read(-(-count // 8))
            valid = np.unpackbits(bits, count=count).astype(np.bool_).reshape(shape[1:])
        image = DecodedImage.of(answer, data, valid, name)
        image.notes = tuple(answer["notes"])
        image.provenance = ResultProvenance(
            answer["imagery_date"], None if name == UNNAMED else name
        )
        return image

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline(_MAX_LINE_BYTES)

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


_DRIVERS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".tif": "GTiff",
    ".webp": "WEBP",
    ".jp2": "JP2OpenJPEG",
}
"""GDAL driver by suffix, for formats that consist of one file and cannot refer to others."""

_ENDINGS = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
    b"RIFF": ".webp",
    JP2_SIGNATURE: ".jp2",
    b"\xff\x4f\xff\x51": ".jp2",
}
"""Suffix by the first bytes of a file."""

_MAX_BYTES_PER_PX = 32
"""Maximum bytes per pixel of the decoded image, such as eight bands of float32."""


class UploadFile(RasterFile):
    """An uploaded file in one of the formats that cannot refer to other files.

    Call `check` before reading it.

    Args:
        path: Path of the file.
        shown: Name of the file in messages.
        nodata: Nodata rule in addition to that of the file.
    """

    # Also large ones: the memory of this process has held images of other clients.
    _max_checked_px = math.inf

    def __init__(self, path: Path, shown: str, *, nodata: NodataRule | None = None) -> None:
        super().__init__(path, nodata=nodata, shown=shown)
        self._driver = ""

    def check(self, max_px: int) -> None:
        """Check format and size by the header of the file.

        Raises:
            DataError: The file has none of the formats.
            TooLargeError: The image has more than `max_px` pixels, or too many bytes per pixel.
        """
        try:
            with self.path.open("rb") as file:
                begin = file.read(16)
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {reason_of(error)}.") from error
        ending = ending_of(begin)
        if ending is None:
            raise DataError(
                f"{self.name} has none of the supported image formats: "
                + (f"it begins with the bytes {begin[:8].hex(' ')}." if begin else "it is empty."),
                remedy="Send a GeoTIFF, PNG, JPEG, WebP or JPEG 2000.",
            )
        self._driver = _DRIVERS[ending]
        rows, cols = self.grid.shape
        per_px = self._header.bytes_per_px
        if rows * cols > max_px or per_px > _MAX_BYTES_PER_PX:
            raise TooLargeError(
                f"{self.name} has {cols:,} × {rows:,} pixels of {per_px} bytes; at most "
                f"{max_px:,} pixels of {_MAX_BYTES_PER_PX} bytes are accepted.",
                remedy="Send a part of it, or start a job for a large scene.",
            )

    def header(self) -> dict[str, Any]:
        """Return the header as plain data."""
        grid = self.grid
        return {
            "bands": self.bands,
            "dtype": self.dtype.str,
            "band_info": [asdict(info) for info in self.band_info],
            "shape": grid.shape,
            "transform": [*grid.transform][:6],
            "crs": None if grid.crs is None else grid.crs.to_wkt(),
        }

    def without_path(self, error: RooftraceError) -> RooftraceError:
        """Return an error for clients, who must not see the path that messages of GDAL contain."""
        message, remedy = (
            text.replace(str(self.path), self.name) for text in (error.message, error.remedy)
        )
        return type(error)(message, remedy=remedy)

    def _open(self) -> Any:
        return open_quietly(self.path.absolute(), driver=self._driver)


def ending_of(begin: bytes) -> str | None:
    """Return the suffix of a file by its first bytes; None for unsupported formats."""
    for signature, ending in _ENDINGS.items():
        if begin.startswith(signature):
            return None if ending == ".webp" and begin[8:12] != b"WEBP" else ending
    return None


def main() -> None:
    """Answer requests until the input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a library prints must not reach the pipe of the responses.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    limit_memory(int(sys.argv[1]))
    # A server that was killed reads no response.
    with (
        suppress(BrokenPipeError), answers,
        tempfile.TemporaryDirectory(prefix="rooftrace-") as folder,
    ):  # fmt: skip
        while line := requests.readline():
            request = json.loads(line)
            data = requests.read(request["bytes"])
            if len(data) < request["bytes"]:
                return
            path = Path(folder) / f"upload{ending_of(data[:16]) or ''}"
            path.write_bytes(data)
            del data
            try:
                _answer(answers, path, request)
            finally:
                path.unlink()


def _answer(answers: BinaryIO, path: Path, request: dict[str, Any]) -> None:
    source = UploadFile(path, request["name"], nodata=nodata_from_json(request["nodata"]))
    try:
        source.check(request["pixels"])
        raster = source.read()
        origin = source.provenance
        source.close()
    except RooftraceError as error:
        _send(answers, {"error": source.without_path(error).to_json()})
        return
    except Exception as error:  # an unexpected error of a library is still one of the image
        known = DataError(
            f"{request['name']} cannot be read as an image: {type(error).__name__}.",
            remedy="Open it with another program to check that it is complete.",
        )
        _send(answers, {"error": known.to_json()})
        return
    header = {
        **source.header(),
        "whole": bool(raster.valid.all()),
        "notes": source.notes,
        "imagery_date": origin.imagery_date,
    }
    _send(answers, header, np.ascontiguousarray(raster.data))
    if not header["whole"]:
        answers.write(np.packbits(raster.valid).tobytes())
        answers.flush()


def _send(answers: BinaryIO, header: dict[str, Any], data: Any = b"") -> None:
    answers.write(json.dumps(header).encode() + b"\n")
    answers.write(data)
    answers.flush()


def limit_memory(nbytes: int) -> None:
    """Limit the address space of this process and disable core dumps, if the system can."""
    try:
        import resource
    except ImportError:
        # Windows has no such limits.
        return
    resource.setrlimit(resource.RLIMIT_AS, (nbytes, nbytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
