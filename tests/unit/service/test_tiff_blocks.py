"""Blocks of a TIFF that libtiff fills only in part are refused, and no others."""

import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from raster_files import with_blocks, write_geotiff
from rooftrace.core.errors import DataError
from rooftrace.service.tiff_blocks import check_deflate_blocks_of

LAYOUTS: list[dict[str, Any]] = [
    {"tiled": True, "blockxsize": 32, "blockysize": 64},
    {"blockysize": 7},
]


def write(path: Path, data: np.ndarray, **options: Any) -> Path:
    return write_geotiff(path, data, **{"compress": "deflate"} | options)


def check_deflate_blocks(path: Path) -> None:
    with path.open("rb") as file:
        check_deflate_blocks_of(file, str(path))


@pytest.mark.parametrize(
    ("layout", "interleave", "big", "endianness"),
    list(product(LAYOUTS, ("pixel", "band"), ("no", "yes"), ("little", "big"))),
)
def test_sound_files_with_masks_and_overviews(
    layout: dict[str, Any], interleave: str, big: str, endianness: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for dtype, bands, predictor in ((np.uint8, 1, 1), (np.uint16, 3, 2), (np.float32, 4, 3)):
        data = (rng.random((bands, 101, 67)) * 200).astype(dtype)
        path = write(
            tmp_path / "a.tif", data, interleave=interleave, predictor=predictor, bigtiff=big,
            endianness=endianness, **layout,
        )  # fmt: skip
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK=True) as file,
        ):
            file.write_mask(np.where(data[0] > 100, 255, 0).astype(np.uint8))
            file.build_overviews([2, 4])
        check_deflate_blocks(path)


def one_block(path: Path, block: bytes) -> Path:
    """Write a TIFF with one block of 20 × 20 pixels, and replace the block."""
    data = np.random.default_rng(0).integers(0, 255, (1, 20, 20), np.uint8)
    write(path, data, blockysize=20)
    path.write_bytes(with_blocks(path.read_bytes(), block))
    return path


def test_a_block_that_is_a_little_longer_is_refused(tmp_path: Path) -> None:
    path = one_block(tmp_path / "a.tif", zlib.compress(bytes(401)))
    with pytest.raises(DataError, match="401 bytes; expected 400"):
        check_deflate_blocks(path)


def test_damage_at_the_end_is_refused(tmp_path: Path) -> None:
    # The last copy is longer than the rest of the block, and begins before the first byte.
    damaged = bytearray(zlib.compress(np.arange(380, dtype=np.uint8).tobytes() + bytes(20)))
    damaged[-6] ^= 0xFF
    path = one_block(tmp_path / "a.tif", bytes(damaged))
    with pytest.raises(DataError, match="is damaged"):
        check_deflate_blocks(path)


def test_any_damage_of_a_file_passes_or_is_refused(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, (3, 20, 20), np.uint8)
    whole = write(tmp_path / "a.tif", data, blockysize=5).read_bytes()
    rng, refused = np.random.default_rng(1), 0
    for _ in range(500):
        damaged = bytearray(whole)
        for at in rng.integers(0, 400, 3):
            damaged[at] = rng.integers(256)
        (tmp_path / "b.tif").write_bytes(damaged[: rng.integers(8, len(whole) + 1)])
        try:
            check_deflate_blocks(tmp_path / "b.tif")
        except DataError:
            refused += 1
    assert refused > 20
