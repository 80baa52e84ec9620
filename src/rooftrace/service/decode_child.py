"""The process that decodes strangers' images: `python -m rooftrace.service.decode_child`.

It reads requests from its standard input and answers on its standard output, until the input ends.
What goes either way is a line of JSON, and the bytes that it announces; nothing that comes from
here is ever executed. A format that could name other files is not opened.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rooftrace.core.errors import DataError, RooftraceError, TooLargeError
from rooftrace.io.gdal import open_quietly
from rooftrace.io.nodata import NodataRule
from rooftrace.io.raster import RasterFile

__all__ = ["UploadFile", "limit_memory", "main"]

_DRIVERS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".tif": "GTiff",
    ".webp": "WEBP",
    ".jp2": "JP2OpenJPEG",
}
"""GDAL's, by ending: of formats that are all in one file, and name no others."""

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

MOST_BYTES_PER_PX = 32
"""Of the decoded image: eight bands of float32, say."""


class UploadFile(RasterFile):
    """A file that a stranger has sent, as one of the formats that name no other files.

    It is to be checked before it is read.

    Args:
        shown: what messages call it.
    """

    def __init__(self, path: Path, shown: str, *, nodata: NodataRule | None = None) -> None:
        super().__init__(path, nodata=nodata)
        self._shown = shown
        self._driver = ""

    @property
    def name(self) -> str:
        return self._shown

    def check(self, most_px: int) -> None:
        """Refuse what is no image, or too large a one, by its header.

        Raises:
            DataError: none of the formats.
            TooLargeError: more pixels, or bytes in them, than that.
        """
        try:
            with self.path.open("rb") as file:
                begin = file.read(16)
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error.strerror}.") from error
        ending = ending_of(begin)
        if ending is None:
            raise DataError(
                f"{self.name} is none of the image formats that are taken: it begins with "
                f"{begin[:8]!r}.",
                remedy="Send a GeoTIFF, PNG, JPEG, WebP or JPEG 2000.",
            )
        self._driver = _DRIVERS[ending]
        rows, cols = self.grid.shape
        per_px = self._header.bytes_per_px
        if rows * cols > most_px or per_px > MOST_BYTES_PER_PX:
            raise TooLargeError(
                f"{self.name} has {rows:,} × {cols:,} pixels of {per_px} bytes; at most "
                f"{most_px:,} pixels of {MOST_BYTES_PER_PX} bytes are taken.",
                remedy="Send a part of it, or start a job for large scenes.",
            )

    def _open(self) -> Any:
        return open_quietly(self.path.absolute(), driver=self._driver)


def ending_of(begin: bytes) -> str | None:
    """What a file is called that begins so; None where it is no image that is taken."""
    for signature, ending in _ENDINGS.items():
        if begin.startswith(signature):
            return None if ending == ".webp" and begin[8:12] != b"WEBP" else ending
    return None


def main() -> None:
    """Serve until the input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a library prints must not be taken for an answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    limit_memory(int(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="rooftrace-") as folder:
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
    rule = request["nodata"]
    source = UploadFile(path, request["name"], nodata=None if rule is None else NodataRule(**rule))
    try:
        source.check(request["pixels"])
        raster = source.read()
        source.close()
    except RooftraceError as error:
        # GDAL says where the file lies here, which is nobody's business.
        told = {key: text.replace(str(path), source.name) for key, text in error.to_json().items()}
        _say(answers, {"error": told})
        return
    except Exception as error:  # what no library should raise is still of the image
        known = DataError(
            f"{request['name']} cannot be read as an image: {type(error).__name__}.",
            remedy="Open it with another program to see whether it is whole.",
        )
        _say(answers, {"error": known.to_json()})
        return
    crs = raster.grid.crs
    header = {
        "shape": raster.data.shape,
        "dtype": raster.data.dtype.str,
        "transform": [*raster.grid.transform][:6],
        "crs": None if crs is None else crs.to_wkt(),
        "whole": bool(raster.valid.all()),
        "notes": source.notes,
    }
    _say(answers, header, np.ascontiguousarray(raster.data))
    if not header["whole"]:
        answers.write(np.packbits(raster.valid).tobytes())
        answers.flush()


def _say(answers: BinaryIO, header: dict[str, Any], data: Any = b"") -> None:
    answers.write(json.dumps(header).encode() + b"\n")
    answers.write(data)
    answers.flush()


def limit_memory(nbytes: int) -> None:
    """Let this process have so much address space, and leave no core behind, where that can be."""
    try:
        import resource
    except ImportError:
        # Windows has no such limit.
        return
    resource.setrlimit(resource.RLIMIT_AS, (nbytes, nbytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
