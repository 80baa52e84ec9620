"""Uploads of every kind that goes wrong: cut off, altered, absurd, or no image at all; seeded."""

from __future__ import annotations

import io
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rasterio
from affine import Affine
from PIL import Image


@dataclass(frozen=True)
class Upload:
    """A request to the service.

    Args:
        name: File name, which may be a path.
        data: Bytes of the file.
        kind: Content type.
        query: Further parameters.
    """

    name: str
    data: bytes
    kind: str = "application/octet-stream"
    query: str = ""


def valid() -> list[Upload]:
    """Small images of all formats, kinds of pixels and georeferences, that can be answered."""
    return [Upload(name, data) for name, data in _bases().items()]


def malformed(count: int, seed: int = 0) -> Iterator[Upload]:
    """Yield `count` uploads: first those that are absurd by design, then randomly altered images.

    Args:
        count: Number of uploads.
        seed: Seed of the random alterations.
    """
    made = [*_bombs(), *_tiffs(), *_references(), *_strangers(), *_names(), *_places()]
    assert len(made) <= count // 2
    yield from made
    rng = np.random.default_rng(seed)
    bases = list(_bases().items())
    for number in range(count - len(made)):
        name, data = bases[number % len(bases)]
        yield Upload(name, _altered(rng, data, number), query="&format=png" if number % 2 else "")


def _altered(rng: np.random.Generator, data: bytes, number: int) -> bytes:
    way = (number // 7) % 5
    if way == 0:
        return data[: int(rng.integers(1, len(data)))]
    altered = bytearray(data)
    if way == 1:
        # Headers are what decoders believe.
        for at in rng.integers(0, min(len(data), 200), 3):
            altered[at] = int(rng.integers(0, 256))
    elif way == 2:
        for at in rng.integers(0, len(data), max(len(data) // 100, 4)):
            altered[at] = int(rng.integers(0, 256))
    elif way == 3:
        start, stop = sorted(int(at) for at in rng.integers(0, len(data), 2))
        del altered[start:stop]
    else:
        at = int(rng.integers(0, len(data)))
        altered[at : at + 16] = rng.choice([b"\0", b"\xff"]) * 16
    return bytes(altered)


def _bases() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    colour = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    made = {
        "a.png": cv2.imencode(".png", colour)[1].tobytes(),
        "a.jpg": cv2.imencode(".jpg", colour)[1].tobytes(),
        "a.webp": cv2.imencode(".webp", colour)[1].tobytes(),
        "a.jp2": cv2.imencode(".jp2", colour)[1].tobytes(),
        "alpha.png": cv2.imencode(".png", np.dstack([colour, colour[..., 0]]))[1].tobytes(),
        "deep.png": cv2.imencode(".png", colour.astype(np.uint16) * 257)[1].tobytes(),
    }
    picture = Image.fromarray(colour)
    palette, progressive = io.BytesIO(), io.BytesIO()
    picture.quantize(16).save(palette, "PNG")
    picture.save(progressive, "JPEG", progressive=True, quality=40)
    made["palette.png"], made["progressive.jpg"] = palette.getvalue(), progressive.getvalue()
    for name, options in {
        "strips.tif": {},
        "tiles.tif": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
        "jpeg.tif": {"compress": "jpeg", "photometric": "ycbcr"},
        "lzw.tif": {"compress": "lzw", "predictor": 2},
        "big.tif": {"bigtiff": "yes"},
        "nodata.tif": {"nodata": 0},
    }.items():
        made[name] = _geotiff(np.moveaxis(colour, -1, 0), **options)
    return made


def _geotiff(pixels: np.ndarray, **options: object) -> bytes:
    profile = {
        "driver": "GTiff", "count": len(pixels), "height": pixels.shape[1],
        "width": pixels.shape[2], "dtype": pixels.dtype.name, "crs": "EPSG:32636",
        "transform": Affine(0.4, 0, 500_000, 0, -0.4, 100_000), **options,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "a.tif")
        with rasterio.open(path, "w", **profile) as file:
            file.write(pixels)
        return path.read_bytes()


def _png(width: int, height: int, data: bytes, depth: int = 8, kind: int = 2) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(
            ">I", zlib.crc32(name + body)
        )  # fmt: skip

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _bombs() -> Iterator[Upload]:
    """Small files that say, some of them truly, that they hold very much."""
    little = zlib.compress(bytes(1000))
    for width, height in ((100_000, 100_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1, 10**9)):
        yield Upload("bomb.png", _png(width, height, little))
        yield Upload("bomb.png", _png(width, height, little, depth=16, kind=6))
    # All of its 81 million pixels are there.
    yield Upload("true.png", _png(9000, 9000, zlib.compress(bytes(9000 * 1126), 9), 1, 0))
    yield Upload("zero.png", _png(0, 0, b""))
    yield Upload("depth.png", _png(8, 8, little, depth=77, kind=9))
    jpeg = bytearray(_bases()["a.jpg"])
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    yield Upload("bomb.jpg", bytes(jpeg))
    jpeg[at + 9] = 255
    yield Upload("bands.jpg", bytes(jpeg))
    for size in (20_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "sparse.tif")
            with rasterio.open(
                path, "w", driver="GTiff", count=3, height=size, width=size, dtype="uint8",
                tiled=True, sparse_ok=True, bigtiff="yes", blockxsize=4096, blockysize=4096,
                transform=Affine.scale(2), compress="deflate",
            ):  # fmt: skip
                pass
            yield Upload("sparse.tif", path.read_bytes())
    yield Upload("one.tif", _geotiff(np.zeros((1, 1, 1), np.uint8)))
    yield Upload("long.tif", _geotiff(np.zeros((3, 1, 9000), np.uint8)))
    yield Upload("scaled.png", _bases()["a.png"], query="&scale=4&gsd=1000")


def _tiffs() -> Iterator[Upload]:
    """TIFF by hand: tags with values that make no sense."""
    sound = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64}
    absurd = [
        {256: 0}, {257: 0}, {256: 2**32 - 1, 257: 2**32 - 1}, {256: 100_000, 257: 100_000},
        {258: 0}, {258: 65535}, {259: 65535}, {259: 7}, {259: 34712}, {259: 50001}, {262: 65535},
        {273: 2**32 - 1}, {273: 0}, {277: 0}, {277: 65535}, {278: 0}, {278: 2**32 - 1},
        {279: 0}, {279: 2**32 - 1}, {284: 99}, {317: 9}, {322: 0, 323: 0, 324: 8, 325: 64},
        {322: 2**31, 323: 2**31, 324: 8, 325: 2**31}, {339: 99}, {339: 6}, {330: 8},
        {33550: 2**32 - 1}, {33922: 0}, {34735: 65535}, {42112: 8}, {42113: 8}, {347: 8},
    ]  # fmt: skip
    for change in absurd:
        yield Upload("absurd.tif", _tiff({**sound, **change}))
    for missing in (256, 257, 258, 273, 277, 279):
        yield Upload("less.tif", _tiff({tag: at for tag, at in sound.items() if tag != missing}))
    yield Upload("loop.tif", _tiff(sound, following=72))
    yield Upload("many.tif", b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(60))
    yield Upload("beyond.tif", b"II*\0" + struct.pack("<I", 2**32 - 1))
    yield Upload("self.tif", b"MM\0*" + struct.pack(">I", 0))
    for dtype in ("float32", "float64", "complex64", "int16", "uint32"):
        pixels = np.full((3, 16, 16), 7).astype(dtype)
        if dtype.startswith("float"):
            pixels[:, :8] = np.nan
            pixels[:, 8] = np.inf
            pixels[:, 9] = np.finfo(dtype).max
        yield Upload(f"{dtype}.tif", _geotiff(pixels))
    for bands in (1, 2, 4, 5, 300):
        yield Upload(f"{bands}.tif", _geotiff(np.ones((bands, 8, 8), np.uint8)))


def _tiff(tags: dict[int, int], following: int = 0) -> bytes:
    """A directory after 64 bytes of pixels, each tag one number of 32 bits."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, at) for tag, at in sorted(tags.items()))
    return (
        b"II*\0" + struct.pack("<I", 72) + bytes(range(64)) + struct.pack("<H", len(tags))
        + entries + struct.pack("<I", following)
    )  # fmt: skip


def _references() -> Iterator[Upload]:
    """Files that name others, on the server's disk or in its network."""
    for target in (
        "/etc/passwd", "/proc/self/environ", "http://127.0.0.1:1/a.tif",
        "/vsicurl/http://169.254.169.254/latest/meta-data", "/vsizip//etc/a.zip/b",
        "../../../../etc/hostname",
    ):  # fmt: skip
        yield Upload(
            "a.vrt",
            '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1" '
            'subClass="VRTRawRasterBand"><SourceFilename relativetoVRT="0">'
            f"{target}</SourceFilename></VRTRasterBand></VRTDataset>".encode(),
        )
        yield Upload("a.tif", target.encode())
        yield Upload(
            "a.xml",
            f'<GDAL_WMS><Service name="TMS"><ServerUrl>{target}</ServerUrl></Service></GDAL_WMS>'
            .encode(),
        )  # fmt: skip
        yield Upload(
            "a.svg",
            f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{target}">]><svg>&e;</svg>'.encode(),
            "image/svg+xml",
        )
    yield Upload("a.ovr", b"P5 8 8 255\n" + bytes(64))


def _strangers() -> Iterator[Upload]:
    """Files of other kinds, and none."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", _bases()["a.png"])
    rng = np.random.default_rng(2)
    for name, data in {
        "empty": b"", "space": b" ", "nul": bytes(5000), "a.zip": archive.getvalue(),
        "a.gif": b"GIF89a\x08\0\x08\0\x80\0\0", "a.bmp": b"BM" + bytes(60),
        "a.pdf": b"%PDF-1.7\n1 0 obj", "a.h5": b"\x89HDF\r\n\x1a\n" + bytes(90),
        "a.nc": b"CDF\x01" + bytes(90), "a.gpkg": b"SQLite format 3\0" + bytes(90),
        "a.json": b'{"type": "FeatureCollection"}', "a.html": b"<html>", "a.exe": b"MZ" + bytes(90),
        "a.gz": b"\x1f\x8b\x08" + bytes(20), "a.pickle": b"\x80\x04\x95" + bytes(20),
        "a.ico": b"\0\0\x01\0" + bytes(30), "riff": b"RIFF\xff\xff\xff\xffWEBPVP8L" + bytes(20),
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64), "j2k": b"\xff\x4f\xff\x51" + bytes(64),
        "both.png": _bases()["a.png"][:33] + _bases()["a.jpg"],
        "trailing.png": _bases()["a.png"] + bytes(5000),
    }.items():  # fmt: skip
        yield Upload(name, data)
    for size in (1, 10, 100, 1000, 100_000):
        yield Upload("noise", rng.bytes(size), "image/png")
    whole = _bases()["a.png"]
    for kind in ("text/plain", "application/json", "image/nothing", "multipart/form-data",
                 "multipart/form-data; boundary=", "multipart/mixed; boundary=x", "x",
                 "application/x-www-form-urlencoded", ";;;"):  # fmt: skip
        yield Upload("a.png", whole, kind)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="'
    for rest in (b"", b'a"\r\n', b'a"\r\n\r\n', b'a"\r\n\r\n\r\n--x--', b"\0" * 9000,
                 b'a"\r\nA: ' + b"b" * 90_000, b'a"\r\n\r\n' + whole):  # fmt: skip
        yield Upload("form", head + rest, "multipart/form-data; boundary=x")
    yield Upload("form", b"--x\r\n" * 5000, "multipart/form-data; boundary=x")


def _names() -> Iterator[Upload]:
    """A whole image, and names that lead elsewhere."""
    for name in ("../../etc/cron.d/a", "/etc/passwd", "..\\..\\a.png", "a\0.png", "a\r\nX-A: b",
                 "/vsicurl/http://127.0.0.1:1/", "CON", ".", "..", "", " ", "%2e%2e%2f", "a" * 255,
                 "é" * 200, "\u202egnp.exe", "~root/.ssh/a", "$(id)", "a;b|c&d", "😀.png",
                 "1-2-3.png", "99/99999999/99999999.png", "OAM-1-1-60.png"):  # fmt: skip
        yield Upload(name, _bases()["a.png"], query="&format=png")


def _places() -> Iterator[Upload]:
    """Images that lie where there is nothing."""
    pixels = np.zeros((3, 32, 32), np.uint8)
    pixels[:, 8:24, 8:24] = 255
    for crs, transform in (
        ("EPSG:27700", Affine(0.4, 0, 1e8, 0, -0.4, 1e8)),
        ("EPSG:32636", Affine(0.4, 0, 1e12, 0, -0.4, 1e12)),
        ("EPSG:4326", Affine(1e-6, 0, 500, 0, -1e-6, 200)),
        ("EPSG:4326", Affine(1, 0, -180, 0, -1, 90)),
        ("EPSG:32636", Affine(1e300, 0, 0, 0, -1e300, 0)),
        ("EPSG:32636", Affine(0, 0.4, 5e5, 0.4, 0, 1e5)),
        ('LOCAL_CS["nowhere",UNIT["metre",1]]', Affine.scale(0.4)),
    ):
        for form in ("geojson", "png"):
            data = _geotiff(pixels, crs=crs, transform=transform)
            yield Upload("place.tif", data, "image/tiff", f"&format={form}&gsd=0.4")
