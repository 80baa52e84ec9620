"""What the pixels of an image sum up to, whatever the parts in which they come."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.data.audit.flat import flat_area, inner_nodata
from rooftrace.data.dataset import full_scale_of
from rooftrace.data.duplicates import phash

__all__ = ["PixelSums"]

_THUMBNAIL_PX = 128
"""Side of the picture that the hash of a large scene is made of."""

_SQUARE = np.ones((3, 3), np.uint8)


class PixelSums:
    """Sums over the parts of an image: `feed` each, then `finish`.

    Args:
        whole: the image.
    """

    def __init__(self, whole: Window) -> None:
        self._whole = whole
        self._px = self._valid_px = self._inner_nodata_px = 0
        self._flat: dict[tuple[int, ...], int] = {}
        self._saturation = 0.0
        self._bands: list[_Moments] = []
        self._luma = _Moments()
        self._laplacian_px = 0
        self._laplacian_squares = 0.0
        self._picture: tuple[NDArray[Any], NDArray[np.bool_] | None] | None = None

    def feed(self, data: NDArray[Any], valid: NDArray[np.bool_] | None, window: Window) -> None:
        """Take in what `window` shows.

        Args:
            data: (band, y, x), of any dtype.
            valid: (y, x), None where all are valid.
            window: of the image.
        """
        self._px += window.area_px
        count = window.area_px if valid is None else int(np.count_nonzero(valid))
        if valid is not None:
            self._inner_nodata_px += inner_nodata(valid)
        if count == 0:
            return
        self._valid_px += count
        colour, area = flat_area(data, valid)
        if area:
            self._flat[colour] = self._flat.get(colour, 0) + area
        scale = 1 / full_scale_of(data.dtype)
        if data.dtype != np.uint8:
            data, scale = data.astype(np.float32) * np.float32(scale), 1.0
            if valid is not None:
                data[:, ~valid] = 0  # what is no number would spread
        mask = None if valid is None else valid.view(np.uint8)
        self._bands = self._bands or [_Moments() for _ in data]
        for band, moments in zip(data, self._bands):
            moments.feed(band, mask, count, scale)
        luma: NDArray[Any] = data[0]
        if len(data) >= 3:
            red, green, blue = data[:3]
            most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
            spread = _only(np.asarray(cv2.subtract(most, least)), mask)
            self._saturation += cv2.sumElems(spread)[0] * scale
            luma = np.asarray(cv2.cvtColor(cv2.merge((red, green, blue)), cv2.COLOR_RGB2GRAY))
        self._luma.feed(luma, mask, count, scale)
        self._feed_laplacian(luma, mask, scale)
        self._feed_picture(luma, valid, window)

    def finish(self) -> dict[str, Any]:
        """The fields of `SceneFacts` that tell of pixels, but for `valid_share`."""
        found: dict[str, Any] = {
            "measured_share": self._px / max(self._whole.area_px, 1),
            "inner_nodata_share": self._inner_nodata_px / max(self._px, 1),
        }
        if not self._valid_px:
            return found
        colour = max(self._flat, key=lambda c: self._flat[c], default=None)
        variance = self._luma.variance
        return found | {
            "flat_colour": colour,
            "flat_share": 0.0 if colour is None else self._flat[colour] / self._valid_px,
            "mean": tuple(band.mean for band in self._bands),
            "std": tuple(band.variance**0.5 for band in self._bands),
            "brightness": self._luma.mean,
            "contrast": variance**0.5,
            "saturation": self._saturation / self._valid_px,
            # Where less than a 255th of full scale varies, that is rounding. The Laplacian's mean
            # is nearly 0, so its mean square is its variance.
            "sharpness": self._laplacian_squares / max(self._laplacian_px, 1) / variance
            if variance > 255**-2
            else 0.0,
            "phash": 0 if self._picture is None else phash(*self._picture),
        }

    def _feed_laplacian(
        self, luma: NDArray[Any], mask: NDArray[np.uint8] | None, scale: float
    ) -> None:
        # The edge of what is valid is no edge of what is seen.
        if mask is not None:
            mask = np.asarray(cv2.erode(mask, _SQUARE, borderType=cv2.BORDER_REPLICATE), np.uint8)
        depth = cv2.CV_16S if luma.dtype == np.uint8 else cv2.CV_32F
        laplacian = _only(np.asarray(cv2.Laplacian(luma, depth)), mask)
        self._laplacian_px += luma.size if mask is None else cv2.countNonZero(mask)
        self._laplacian_squares += cv2.norm(laplacian, cv2.NORM_L2SQR) * scale**2

    def _feed_picture(
        self, luma: NDArray[Any], valid: NDArray[np.bool_] | None, window: Window
    ) -> None:
        """For the hash: the luma itself, or its part of a small picture."""
        if window == self._whole:
            self._picture = luma, valid
            return
        if self._picture is None:
            side = (_THUMBNAIL_PX, _THUMBNAIL_PX)
            self._picture = np.zeros(side, np.float32), np.zeros(side, np.bool_)
        small, seen = self._picture
        assert seen is not None
        down, along = _THUMBNAIL_PX / self._whole.height, _THUMBNAIL_PX / self._whole.width
        rows = slice(int(window.row * down), max(int(window.row_stop * down), 1))
        cols = slice(int(window.col * along), max(int(window.col_stop * along), 1))
        height, width = small[rows, cols].shape
        if not height or not width:
            return
        known = np.ones(luma.shape, np.float32) if valid is None else valid.astype(np.float32)
        share = 1 / 255 if luma.dtype == np.uint8 else 1.0
        total, weight = (
            cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            for picture in (luma * known * np.float32(share), known)
        )
        small[rows, cols] = total / np.maximum(weight, 1e-6)
        seen[rows, cols] = weight > 0.5


class _Moments:
    """Mean and variance of what comes in parts."""

    def __init__(self) -> None:
        self._count = 0
        self._total = self._squares = 0.0

    def feed(
        self, band: NDArray[Any], mask: NDArray[np.uint8] | None, count: int, scale: float
    ) -> None:
        """The `count` pixels of `band` (y, x) where `mask` is not 0."""
        band = _only(band, mask)
        self._count += count
        self._total += cv2.sumElems(band)[0] * scale
        self._squares += cv2.norm(band, cv2.NORM_L2SQR) * scale**2

    @property
    def mean(self) -> float:
        return self._total / self._count if self._count else 0.0

    @property
    def variance(self) -> float:
        return max(self._squares / self._count - self.mean**2, 0.0) if self._count else 0.0


def _only(band: NDArray[Any], mask: NDArray[np.uint8] | None) -> NDArray[Any]:
    """With 0 where `mask` is: several times faster than to sum under a mask."""
    return band if mask is None else np.asarray(cv2.copyTo(band, mask))
