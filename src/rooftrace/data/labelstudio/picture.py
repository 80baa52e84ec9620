"""Images as a browser shows them: what Label Studio's annotators see."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rooftrace.core.errors import DataError
from rooftrace.core.types import RasterSource

__all__ = ["Picture", "is_shown_by_browsers", "picture_of"]

_MOST_PX = 64_000_000
_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
_ENDINGS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg")}
_ORIENTATION = 0x0112
_UPRIGHT = 1


@dataclass(frozen=True)
class Picture:
    """A file for a browser, pixel by pixel on the image's grid.

    Args:
        name: with an ending.
        content: its bytes.
        media_type: such as `image/png`.
    """

    name: str
    content: bytes
    media_type: str


def picture_of(image: RasterSource, file: Path | None, name: str) -> Picture:
    """The image's own file where a browser shows it as it is, else a PNG of it.

    A PNG has the first three bands, or the first; values of more than 8 bits are stretched from the
    2nd to the 98th percentile of the valid pixels.

    Args:
        file: that the image was opened from, None where it is a part of a scene.
        name: without an ending.

    Raises:
        DataError: it has too many pixels to be labelled as one, or cannot be read.
    """
    height, width = image.grid.shape
    if height * width > _MOST_PX:
        raise DataError(
            f"{image.name} has {height * width / 1e6:,.0f} million pixels; Label Studio's editor "
            f"takes up to {_MOST_PX / 1e6:,.0f}.",
            remedy="Cut it into chips: --set chip_px=2048.",
        )
    kind = None if file is None else is_shown_by_browsers(file)
    if file is not None and kind is not None:
        # A server goes by the ending, whatever the file was called.
        suffix = file.suffix if file.suffix.lower() in _ENDINGS[kind] else _ENDINGS[kind][0]
        return Picture(name + suffix, file.read_bytes(), _MEDIA_TYPES[kind])
    raster = image.read()
    data = raster.data[: 3 if image.bands >= 3 else 1]
    if data.dtype != np.uint8:
        known = data[:, raster.valid] if raster.valid.any() else data.reshape(len(data), -1)
        finite = np.where(np.isfinite(known), known, 0).astype(np.float64)
        low, high = np.percentile(finite, (2, 98), axis=1)[..., None, None]
        share = (np.nan_to_num(data.astype(np.float64)) - low) / np.maximum(high - low, 1e-9)
        data = np.rint(share.clip(0, 1) * 255).astype(np.uint8)
    pixels = np.moveaxis(data, 0, -1) if len(data) == 3 else data[0]
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, format="PNG", compress_level=3)
    return Picture(f"{name}.png", encoded.getvalue(), _MEDIA_TYPES["PNG"])


def is_shown_by_browsers(file: Path) -> str | None:
    """`PNG` or `JPEG` where a browser shows the file as it lies, by its content; else None.

    A photograph that says that it is to be turned would come back with its sides swapped.
    """
    try:
        with Image.open(file) as image:
            upright = image.getexif().get(_ORIENTATION, _UPRIGHT) == _UPRIGHT
            return image.format if upright and image.format in _MEDIA_TYPES else None
    except (OSError, ValueError, SyntaxError):
        return None
