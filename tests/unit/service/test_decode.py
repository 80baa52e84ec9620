"""Uploaded images are decoded as open_raster does, and harmful ones only cause an error."""

import os
import shutil
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine

from raster_files import TOO_LONG, with_blocks, write_geotiff
from rooftrace.core.errors import BusyError, DataError, ExportError, TooLargeError
from rooftrace.io.nodata import NodataRule
from rooftrace.io.raster import open_raster
from rooftrace.service.decode import Decoder, Limits, _DecoderProcess, upload_name

LIMITS = Limits(pixels=1_000_000, decode_seconds=10.0)


@pytest.fixture(scope="module")
def decoder():
    made = Decoder(LIMITS, processes=2)
    made.warm()
    yield made
    made.close()


def image(seed: int = 0, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def encoded(ending: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(ending, pixels)[1].tobytes()


def geotiff(path: Path, *, dtype: str = "uint8", nodata: float | None = None) -> bytes:
    pixels = np.random.default_rng(1).integers(1, 200, (3, 50, 70)).astype(dtype)
    pixels[:, :10] = 0
    write_geotiff(
        path, pixels, nodata=nodata, crs="EPSG:32636",
        transform=Affine(0.5, 0, 500_000, 0, -0.5, 100_000),
    )  # fmt: skip
    return path.read_bytes()


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("uint16", 0), ("float32", None)])
def test_a_geotiff_keeps_its_place_its_type_and_its_nodata(
    decoder: Decoder, tmp_path: Path, dtype: str, nodata: float | None
) -> None:
    data = geotiff(tmp_path / "a.tif", dtype=dtype, nodata=nodata)
    source = decoder.decode(data, "a.tif")
    own = open_raster(tmp_path / "a.tif")
    assert source.grid.transform == own.grid.transform
    assert source.grid.crs == own.grid.crs
    assert source.dtype == np.dtype(dtype)
    assert np.array_equal(source.read().data, own.read().data)
    assert np.array_equal(source.read().valid, own.read().valid)
    assert source.read().valid.all() == (nodata is None)


def test_a_rule_and_a_tile_name_count(decoder: Decoder) -> None:
    pixels = image()
    pixels[:5] = 255
    data = encoded(".png", pixels)
    source = decoder.decode(data, "OAM-10-20-6.png", nodata=NodataRule(colour=(255, 255, 255)))
    assert source.grid.crs is not None
    assert not source.read().valid[:5].any()
    assert source.read().valid[5:].mean() > 0.99


@pytest.mark.parametrize(
    ("data", "expected_text"),
    [
        (b"", "it is empty"), (b"hello, I am text", "none of the supported image formats"),
        (b"<VRTDataset rasterXSize='1' rasterYSize='1'/>", "none of the supported image formats"),
        (b"PK\x03\x04" + bytes(100), "none of the supported image formats"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "cannot be read as an image"),
        (b"II*\0" + bytes(100), "cannot be read as an image"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_an_error(decoder: Decoder, data: bytes, expected_text: str) -> None:
    with pytest.raises(DataError, match=expected_text) as raised:
        decoder.decode(data, "x.tif")
    assert "x.tif" in raised.value.message
    assert "/" not in raised.value.message.replace("x.tif", "")
    assert raised.value.remedy


def test_a_tiff_with_a_block_that_is_too_long_shows_no_memory_of_others(
    decoder: Decoder, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 60, 60), np.uint8)
    path = write_geotiff(
        tmp_path / "a.tif", pixels, compress="deflate", interleave="band", blockysize=60
    )
    for seed in range(3):
        decoder.decode(encoded(".png", image(seed, (60, 60))), "before.png")
    with pytest.raises(DataError, match=r"long\.tif is damaged") as caught:
        decoder.decode(with_blocks(path.read_bytes(), TOO_LONG), "long.tif")
    assert "/" not in caught.value.message


def test_a_bomb_is_refused_by_its_header(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=60_000, width=60_000, count=3, dtype="uint8",
        tiled=True, compress="deflate", sparse_ok=True, crs="EPSG:32636",
        transform=Affine(1, 0, 9, 0, -1, 9),
    ):  # fmt: skip
        pass
    data = path.read_bytes()
    assert len(data) < 10_000_000
    with pytest.raises(TooLargeError, match=r"60,000 × 60,000 pixels.*1,000,000"):
        decoder.decode(data, "bomb.tif")


@pytest.mark.campaign
def test_a_decoder_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made = Decoder(LIMITS, processes=1)
    try:
        made.warm()
        child = made._idle.get()
        assert isinstance(child, _DecoderProcess)
        assert child.process.pid is not None
        os.kill(child.process.pid, signal.SIGKILL)
        made._idle.put(child)
        data = encoded(".png", image())
        with pytest.raises(DataError, match="its decoder ended with the code -9"):
            made.decode(data, "a.png")
        source = made.decode(data, "a.png")
        assert source.read().data.shape == (3, 40, 60)
        # What the disk does not take is no fault of the image.
        for folder in tmp_path.iterdir():
            shutil.rmtree(folder)
        with pytest.raises(ExportError, match=r"a.png could not be written"):
            made.decode(data, "a.png")
    finally:
        made.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_decoder_that_hangs_is_stopped() -> None:
    made = Decoder(Limits(decode_seconds=0.5), processes=1)
    try:
        # The start of the process, more than 0.5 s, does not count.
        made.decode(encoded(".png", image()), "a.png")
        child = made._idle.get()
        assert isinstance(child, _DecoderProcess)
        assert child.process.pid is not None
        os.kill(child.process.pid, signal.SIGSTOP)
        made._idle.put(child)
        with pytest.raises(DataError, match=r"a.png cannot be decoded: it took longer than 0.5 s"):
            made.decode(encoded(".png", image()), "a.png")
        assert child.process.exitcode is not None
    finally:
        made.close()


@pytest.mark.campaign
def test_memory_is_limited(tmp_path: Path) -> None:
    made = Decoder(Limits(decode_bytes=1_000_000_000, decode_seconds=60), processes=1)
    try:
        path = tmp_path / "large.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=7000, width=7000, count=8, dtype="float32",
            tiled=True, sparse_ok=True, crs="EPSG:32636", transform=Affine(1, 0, 9, 0, -1, 9),
        ):  # fmt: skip
            pass
        with pytest.raises(DataError, match=r"large.tif"):
            made.decode(path.read_bytes(), "large.tif")
        assert made.decode(encoded(".png", image()), "a.png").bands == 3
    finally:
        made.close()


def test_no_free_decoder_is_an_error() -> None:
    made = Decoder(Limits(decode_seconds=0.05), processes=1)
    made._idle.get()
    with pytest.raises(BusyError):
        made.decode(b"", "a.png")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.tif", "a.tif"), ("../../etc/passwd", "passwd"), ("C:\\Users\\me\\town.png", "town.png"),
        ("a\0b\n<img>.png", "a_b__img_.png"), ("", "image"), ("/vsicurl/http://x/y.tif", "y.tif"),
        ("Überblick (2).tif", "Überblick (2).tif"), ("x" * 500 + ".tif", "x" * 116 + ".tif"),
    ],
)  # fmt: skip
def test_names_lose_what_could_harm(name: str, shown: str) -> None:
    assert upload_name(name) == shown
