"""Orientation of an image as its camera recorded it in EXIF.

A phone or a drone stores the pixels as its sensor reads them, and states how the picture is to be
turned. Programs that show pictures turn it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window

__all__ = ["UPRIGHT", "Orientation"]


@dataclass(frozen=True)
class Orientation:
    """Way from the stored pixels to the picture: first transposed, then flipped.

    Args:
        transpose: Whether rows and columns are exchanged.
        flip_rows: Whether the picture is then turned upside down.
        flip_cols: Whether left and right are then exchanged.
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_cols: bool = False

    @classmethod
    def from_exif(cls, code: int) -> Orientation:
        """Return the orientation of an EXIF code from 1 to 8; other codes mean upright.

        https://exiftool.org/TagNames/EXIF.html, tag 0x0112.
        """
        return _BY_CODE.get(code, UPRIGHT)

    def shape(self, shape_yx: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of the picture for those stored, or the other way round."""
        height, width = shape_yx
        return (width, height) if self.transpose else shape_yx

    def stored(self, window: Window, shape_yx: tuple[int, int]) -> Window:
        """Return the stored pixels of a window of the picture.

        Args:
            window: Window of the picture.
            shape_yx: Rows and columns of the picture.
        """
        row, col, height, width = window.row, window.col, window.height, window.width
        if self.flip_rows:
            row = shape_yx[0] - row - height
        if self.flip_cols:
            col = shape_yx[1] - col - width
        return (
            Window(col, row, width, height) if self.transpose else Window(row, col, height, width)
        )

    def turned(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return stored pixels (…, y, x) as they are in the picture."""
        if self.transpose:
            pixels = np.swapaxes(pixels, -1, -2)
        rows = slice(None, None, -1 if self.flip_rows else 1)
        cols = slice(None, None, -1 if self.flip_cols else 1)
        return np.ascontiguousarray(pixels[..., rows, cols])


UPRIGHT = Orientation()

_BY_CODE = {
    2: Orientation(flip_cols=True),
    3: Orientation(flip_rows=True, flip_cols=True),
    4: Orientation(flip_rows=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, flip_cols=True),
    7: Orientation(transpose=True, flip_rows=True, flip_cols=True),
    8: Orientation(transpose=True, flip_rows=True),
}
