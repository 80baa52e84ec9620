"""Decoding of uploaded images in processes with limits on time, memory and pixels.

A message to or from a process is JSON, followed by bytes; nothing is pickled, so that the server
executes nothing from a process that a hostile image took over. Formats that can refer to other
files are not opened.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing import BufferTooShort, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, LifoQueue
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import BusyError, DataError, ExportError, RooftraceError, TooLargeError
from rooftrace.core.system import limit_memory
from rooftrace.core.text import reason_of
from rooftrace.core.types import UNKNOWN_PROVENANCE, BoolArray, GeoGrid, ResultProvenance
from rooftrace.io.files import exporting
from rooftrace.io.gdal import conversion_of, open_quietly
from rooftrace.io.georeferenced import ArraySource, GeoreferencedSource
from rooftrace.io.image_header import BandInfo
from rooftrace.io.nodata import NodataRule, nodata_from_json, nodata_to_json
from rooftrace.io.raster import RasterFile
from rooftrace.io.web_mercator import TileName
from rooftrace.service.tiff_blocks import check_deflate_blocks_of

UNNAMED = "image"
"""Name of an uploaded image for which the client gave none."""

_MAX_CHARS = 120
"""Maximum length of the name of an upload."""


def upload_name(name: str) -> str:
    """Return a client's file name without folders and special characters, safe to show and use."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    safe = "".join(c if c.isalnum() or c in "-_. ()" else "_" for c in last).strip(" .")
    return safe[-_MAX_CHARS:] or UNNAMED


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


_START_SECONDS = 120.0
"""Maximum time of a decoder process to start; on a busy machine that is longer than to decode."""

_MAX_HEADER_BYTES = 2**20
"""Maximum length of a header from a decoder process."""


class DecodedImage(ArraySource):
    """An image in memory, with notes about assumptions made when it was read, and its origin."""

    notes: tuple[str, ...] = ()
    site_grid_note = ""
    keeps_fill = False
    provenance: ResultProvenance = UNKNOWN_PROVENANCE


def decoded_image(
    header: Mapping[str, Any], data: NDArray[Any], valid: BoolArray | None, name: str
) -> DecodedImage | GeoreferencedSource:
    """Return the image of a result of `UploadFile.header` and its pixels.

    An image without a CRS has the place of the slippy map tile that its name says.
    """
    crs = None if header["crs"] is None else CRS.from_wkt(header["crs"])
    grid = GeoGrid(data.shape[1:], Affine(*header["transform"]), crs)
    infos = [BandInfo(**info) for info in header["band_info"]]
    image = DecodedImage(data, grid, valid, name, infos)
    image.notes = tuple(header.get("notes", ()))
    image.site_grid_note = header.get("site_grid_note", "")
    image.keeps_fill = header.get("keeps_fill", False)
    known_name = None if name == UNNAMED else name
    image.provenance = ResultProvenance(header.get("imagery_date"), image=known_name)
    tile = TileName.parse(Path(name), folders=False) if crs is None else None
    return image if tile is None else GeoreferencedSource(image, tile.placed)


class Decoder:
    """A pool of processes that decode images.

    A process that crashes or takes too long is replaced, and its image is refused.

    Args:
        limits: Limits on the pixels, the time and the memory of one image.
        processes: Number of processes; they start when they are needed.
    """

    def __init__(self, limits: Limits | None = None, *, processes: int = 2) -> None:
        self._limits = limits or Limits()
        self._processes = processes
        self._idle: LifoQueue[_DecoderProcess | None] = LifoQueue()
        for _ in range(processes):
            self._idle.put(None)
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

        An image without a CRS gets its position from a name in the form of a slippy map tile.

        Args:
            data: Bytes of a GeoTIFF, PNG, JPEG, WebP or JPEG 2000 file.
            name: File name from the client, for messages.
            nodata: Nodata rule in addition to that of the file.

        Raises:
            DataError: The file is not an image or is damaged, or the decoder crashed.
            TooLargeError: The image has more pixels than the limits allow.
            BusyError: No process is free.
            ExportError: The disk has no room for the file, which GDAL reads.
        """
        safe_name = upload_name(name)
        request = {
            "name": safe_name, "pixels": self._limits.pixels, "nodata": nodata_to_json(nodata),
        }  # fmt: skip
        try:
            child = self._idle.get(timeout=self._limits.decode_seconds)
        except Empty:
            raise BusyError(
                "All decoders are busy.", remedy="Retry in a few seconds.", retry_after_s=2
            ) from None
        try:
            child = child or _DecoderProcess(self._limits)
            return child.image(child.ask(request, data), safe_name)
        except _ProcessFailedError as error:
            child = None
            raise error.explained(safe_name) from error
        finally:
            if self._closed and child is not None:
                child.stop()
                child = None
            self._idle.put(child)

    def close(self) -> None:
        """Stop the processes; a busy process stops after its image."""
        self._closed = True
        with suppress(Empty):
            for _ in range(self._processes):
                child = self._idle.get_nowait()
                if child is not None:
                    child.stop()


def read_header(path: Path, name: str, limits: Limits) -> dict[str, Any]:
    """Return the header of an image file, see `UploadFile.header`, read by a process of its own.

    Args:
        path: Path of the file.
        name: Name of the file in messages.
        limits: Limits `job_pixels`, `decode_seconds` and `decode_bytes`.

    Raises:
        DataError: The file is not an image or is damaged, or the process crashed.
        TooLargeError: The image has more pixels than the limits allow.
    """
    child = _DecoderProcess(limits)
    try:
        return child.ask({"name": name, "pixels": limits.job_pixels, "path": str(path)})
    except _ProcessFailedError as error:
        raise error.explained(name) from error
    finally:
        child.stop()


class _ProcessFailedError(Exception):
    """A decoder process crashed or took too long; the text says which."""

    def explained(self, name: str) -> DataError:
        return DataError(
            f"{name} cannot be decoded: {self}.",
            remedy="Open it with another program and save it again, or send a part of it.",
        )


class _DecoderProcess:
    """A process that decodes one image at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connection, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(
            target=_answer_requests, args=(theirs, limits.decode_bytes), daemon=True
        )
        self.process.start()
        theirs.close()
        self._has_started = False

    def ask(self, request: dict[str, Any], data: bytes = b"") -> dict[str, Any]:
        """Return the header of an image, which `image` completes."""
        with self._failing():
            if not self._has_started:
                self._wait(_START_SECONDS, "its decoder needed more than {:g} s to start")
                self._connection.recv_bytes()
                self._has_started = True
            self._connection.send_bytes(json.dumps(request).encode())
            self._connection.send_bytes(data)
            self._wait(self._limits.decode_seconds, "it took longer than {:g} s")
            header: dict[str, Any] = json.loads(self._connection.recv_bytes(_MAX_HEADER_BYTES))
        if "error" in header:
            raise RooftraceError.from_json(header["error"])
        return header

    def image(self, header: dict[str, Any], name: str) -> DecodedImage | GeoreferencedSource:
        """Receive the pixels that follow a header, and return the image."""
        shape = (header["bands"], *header["shape"])
        data = np.empty(shape, np.dtype(header["dtype"]))
        valid = None
        with self._failing():
            self._connection.recv_bytes_into(data.data.cast("B"))
            if not header["whole"]:
                bits = np.frombuffer(self._connection.recv_bytes(), np.uint8)
                count = shape[1] * shape[2]
                valid = np.unpackbits(bits, count=count).astype(np.bool_).reshape(shape[1:])
        return decoded_image(header, data, valid, name)

    def _wait(self, seconds: float, late: str) -> None:
        if not self._connection.poll(seconds):
            self.stop()
            raise _ProcessFailedError(late.format(seconds))

    def stop(self) -> None:
        """Stop the process."""
        self.process.kill()
        self.process.join()
        self._connection.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Stop the process on an error of the connection or of what came through it."""
        try:
            yield
        except (OSError, EOFError, ValueError, BufferTooShort) as error:
            self.process.join(0.1)
            code = self.process.exitcode
            self.stop()
            raise _ProcessFailedError(f"its decoder ended with the code {code}") from error


_SPAWN = get_context("spawn")

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
    b"\0\0\0\x0cjP  \r\n\x87\n": ".jp2",
    b"\xff\x4f\xff\x51": ".jp2",
}
"""Suffix by the first bytes of a file."""

_FORMATS = "Send a GeoTIFF, PNG, JPEG, WebP or JPEG 2000."
_PLACES = (".jgw", ".pgw", ".tfw", ".wld", ".prj")
"""Endings of files that place an image beside them."""

PLACED = (
    "Make one GeoTIFF of an image and its world file: gdal_translate -a_srs EPSG:… IN.jpg OUT.tif"
)
"""Remedy for a world file, which names no CRS, and a request has one file."""

_MAX_BYTES_PER_PX = 32
"""Maximum bytes per pixel of the decoded image, such as eight bands of float32."""


class UploadFile(RasterFile):
    """An uploaded file in one of the formats that cannot refer to other files.

    Call `check` before reading it.
    """

    def __init__(self, path: Path, shown: str, *, nodata: NodataRule | None = None) -> None:
        super().__init__(path, nodata=nodata, shown=shown)
        self._ending = ""

    def check(self, max_px: int) -> None:
        """Check format and size by the header of the file."""
        try:
            with self.path.open("rb") as file:
                begin = file.read(16)
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {reason_of(error)}.") from error
        ending = ending_of(begin)
        if ending is None:
            message = f"{self.name} has none of the supported image formats"
            remedy = conversion_of(self.path, self.name)
            if self.name.lower().endswith(_PLACES):
                remedy = PLACED
            if remedy is None:
                what = "is empty" if not begin else "is not an image"
                if begin.startswith(b"SQLite format"):
                    what = "is vector data or a database"
                elif begin and begin.isascii() and b"\0" not in begin:
                    what = "is a text file"
                message, remedy = f"{message}: it {what}", _FORMATS
            raise DataError(f"{message}.", remedy=remedy)
        self._ending = ending
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
            "ending": self._ending,
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

    def _open(self) -> tuple[Any, Callable[[], object]]:
        handle = open_quietly(self.path.absolute(), driver=_DRIVERS[self._ending])
        return handle, handle.close


def ending_of(begin: bytes) -> str | None:
    """Return the suffix of a file by its first bytes; None for unsupported formats."""
    for signature, ending in _ENDINGS.items():
        if begin.startswith(signature):
            return None if ending == ".webp" and begin[8:12] != b"WEBP" else ending
    return None


def _answer_requests(connection: Connection, memory_bytes: int) -> None:
    """Answer requests until the server closes the connection."""
    # The server stops its decoders on Ctrl-C; what a library prints is not output of the server.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    limit_memory(memory_bytes, "AS")
    with suppress(OSError, EOFError), TemporaryDirectory(prefix="rooftrace-") as folder:
        connection.send_bytes(b"started")
        while True:
            request = json.loads(connection.recv_bytes())
            data = connection.recv_bytes()
            upload = Path(folder) / f"upload{ending_of(data[:16]) or ''}"
            try:
                with exporting(Path(request["name"])):
                    upload.write_bytes(data)
            except ExportError as error:
                connection.send_bytes(json.dumps({"error": error.to_json()}).encode())
            else:
                del data
                _answer(connection, Path(request.get("path", upload)), request)
            finally:
                upload.unlink(missing_ok=True)


def _answer(connection: Connection, path: Path, request: dict[str, Any]) -> None:
    source = UploadFile(path, request["name"], nodata=nodata_from_json(request.get("nodata")))
    try:
        source.check(request["pixels"])
        header = source.header()
        raster = None
        if "path" not in request:
            # libtiff may return memory of this process, which has held images of other clients.
            with path.open("rb") as file:
                check_deflate_blocks_of(file, source.name)
            raster = source.read()
        origin = source.provenance
        source.close()
    except RooftraceError as error:
        header = {"error": source.without_path(error).to_json()}
    except Exception as error:  # an unexpected error of a library is still one of the image
        unread = DataError(
            f"{request['name']} cannot be read as an image: {type(error).__name__}.",
            remedy="Open it with another program to check that it is complete.",
        )
        header = {"error": unread.to_json()}
    if "error" in header or raster is None:
        connection.send_bytes(json.dumps(header).encode())
        return
    whole = bool(raster.valid.all())
    header |= {"whole": whole, "notes": source.notes, "imagery_date": origin.imagery_date}
    header |= {"keeps_fill": source.keeps_fill, "site_grid_note": source.site_grid_note}
    connection.send_bytes(json.dumps(header).encode())
    connection.send_bytes(np.ascontiguousarray(raster.data).data.cast("B"))
    if not whole:
        connection.send_bytes(np.packbits(raster.valid).tobytes())
