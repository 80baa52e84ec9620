"""Tiles of pixels as a browser shows them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rooftrace.core.types import Raster

__all__ = ["Stretch", "class_picture", "clear_picture", "colour_picture", "share_picture"]

_QUALITY = 82
# Viridis (Smith & van der Walt 2015) at even steps, as in the picture of `rooftrace density`.
SHARE_COLOURS = ("440154", "443983", "31688e", "21918c", "35b779", "90d743", "fde725")
SHARE_BREAKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)


@dataclass(frozen=True)
class Stretch:
    """How values become bytes, the same in all tiles of a scene.

    Args:
        low, high: what is shown as black and as white.
    """

    low: float
    high: float

    @classmethod
    def of(cls, sample: Raster) -> Stretch | None:
        """From the 1st to the 99th percentile of a sample; None of 8-bit values, shown as is."""
        if sample.data.dtype == np.uint8:
            return None
        known = sample.data[:3, sample.valid].astype(np.float32)
        known = known[np.isfinite(known)]
        if not known.size:
            return cls(0.0, 1.0)
        low, high = np.percentile(known, (1, 99))
        return cls(float(low), float(max(high, low + 1e-6)))

    def apply(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Bytes of values of any shape."""
        scaled = (values - self.low) * (255 / (self.high - self.low))
        return np.asarray(np.nan_to_num(scaled).clip(0, 255), np.uint8)


def colour_picture(raster: Raster, stretch: Stretch | None) -> bytes:
    """The first three bands, or the first as grey, in WebP; nodata is transparent."""
    bands = raster.data[:3] if len(raster.data) >= 3 else raster.data[:1].repeat(3, axis=0)
    if stretch is not None:
        bands = stretch.apply(bands.astype(np.float32))
    valid = raster.valid
    if not valid.any():
        return clear_picture()
    rgb = np.ascontiguousarray(np.moveaxis(bands.astype(np.uint8), 0, -1))
    if valid.all():
        return _saved(Image.fromarray(rgb), "WEBP", quality=_QUALITY, method=1)
    # WebP's colours run a little over the edge of what is transparent.
    hidden = rgb[valid].mean(axis=0).astype(np.uint8)
    alpha = (valid * np.uint8(255))[..., None]
    rgba = np.concatenate([np.where(valid[..., None], rgb, hidden), alpha], axis=2)
    return _saved(Image.fromarray(rgba), "WEBP", quality=_QUALITY, method=1)


def class_picture(raster: Raster, table: NDArray[np.uint8]) -> bytes:
    """Class indices in their colours, in PNG.

    Args:
        raster: of one band.
        table: (256, 4) RGBA by class.
    """
    index = np.where(raster.valid, raster.data[0], 255).astype(np.uint8)
    picture = Image.fromarray(index)
    picture.putpalette(table[:, :3].tobytes())
    return _saved(picture, "PNG", transparency=table[:, 3].tobytes(), compress_level=1)


def share_picture(raster: Raster) -> bytes:
    """Built-up shares, the first band, in the colours of their steps, in PNG.

    What is not known, and cells without a building, are transparent.
    """
    share = raster.data[0]
    shown = raster.valid & (share > 0)
    index = np.where(shown, np.searchsorted(SHARE_BREAKS, share, side="right"), 255)
    table = np.zeros((256, 4), np.uint8)
    table[: len(SHARE_COLOURS), :3] = [list(bytes.fromhex(text)) for text in SHARE_COLOURS]
    table[: len(SHARE_COLOURS), 3] = 255
    return class_picture(Raster(index[None], shown, raster.grid), table)


@cache
def clear_picture() -> bytes:
    """A pixel of nothing."""
    return _saved(Image.new("RGBA", (1, 1)), "PNG")


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()
