"""A picture of a result that one can look at: the image, its buildings or classes, a scale."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import cv2
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rooftrace.core.types import Footprints, GeoGrid, Raster, Window
from rooftrace.io.display import round_length
from rooftrace.io.legend import Colour, Legend
from rooftrace.predict.key import draw_key

__all__ = ["Preview"]

LARGEST_PX = 1600
_FILL = (255, 196, 0)
_FILL_SHARE = 0.35
_CLASS_SHARE = 0.55
"""Of the colour where there are several classes, which is to be told from others."""

_OUTLINE = (255, 64, 32)
_PAPER, _INK = (24, 24, 28), (240, 240, 240)
_STRIP_PX = 34
_NARROWEST_PX = 420
_SHIFT = 4


class Preview:
    """Gathers every n-th pixel of an image as it passes, and draws footprints on them.

    Args:
        grid: of the image.
        bands: that it has; the first three are shown, or the first as grey.
        dtype: of its values.
        legend: of the classes; of two, buildings are drawn without a key.
        largest_px: of the picture's longer side.
    """

    def __init__(
        self,
        grid: GeoGrid,
        bands: int,
        dtype: np.dtype[Any] | type,
        legend: Legend,
        *,
        largest_px: int = LARGEST_PX,
    ) -> None:
        self._grid = grid
        self._step = max(1, ceil(max(grid.shape) / largest_px))
        self._bands = 3 if bands >= 3 else 1
        self._shape = ceil(grid.height / self._step), ceil(grid.width / self._step)
        kind = np.uint8 if np.dtype(dtype) == np.uint8 else np.float32
        # Made at once: the thread that reads and the one that finishes both come to write here.
        self._pixels: NDArray[Any] = np.zeros((*self._shape, self._bands), dtype=kind)
        self._valid = np.zeros(self._shape, dtype=bool)
        self._legend = legend
        self._paint: _Paint | None = None

    def watch(self, window: Window, raster: Raster) -> None:
        """Take the pixels of a window of the image; windows may overlap."""
        step = self._step
        row, col = -window.row % step, -window.col % step
        chosen = raster.data[: self._bands, row::step, col::step]
        into = (
            slice((window.row + row) // step, (window.row + row) // step + chosen.shape[1]),
            slice((window.col + col) // step, (window.col + col) // step + chosen.shape[2]),
        )
        self._pixels[into] = np.moveaxis(chosen, 0, -1)
        self._valid[into] = raster.valid[row::step, col::step]

    def crop(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """What was gathered in a window.

        Returns:
            Pixels (y, x, band) and whether each is valid (y, x).
        """
        part = self._samples(window)
        return self._pixels[part], self._valid[part]

    def paste(self, window: Window, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Take what `crop` gave of a window in place of its pixels."""
        part = self._samples(window)
        self._pixels[part], self._valid[part] = pixels, valid

    def _samples(self, window: Window) -> tuple[slice, slice]:
        rows, cols = (
            slice(-(-start // self._step), -(-stop // self._step))
            for start, stop in (
                (window.row, window.row_stop),
                (window.col, window.col_stop),
            )
        )
        return rows, cols

    def paint(self, footprints: Footprints) -> None:
        """Take some of the footprints, on the image's grid, when all of its pixels were seen."""
        if self._paint is None:
            self._paint = _Paint(self._background())
        if len(self._legend.names) == 2:
            self._paint.add(self._rings(footprints), _FILL, _OUTLINE, cv2.LINE_AA)
            return
        for index in range(1, len(self._legend.names)):
            colour = self._legend.rgb(index)
            rings = self._rings(footprints.of_class(index))
            self._paint.add(rings, colour, colour, cv2.LINE_8)

    def draw(self, shares: Sequence[float], caption: str, gsd_m: float | None) -> Image.Image:
        """The picture, with a key where there are more classes than that of buildings.

        Args:
            shares: of the image's area, by class index; what has none is left out of the key.
            caption: a line of text below.
            gsd_m: metres per pixel of the image, for the scale bar; None draws none.
        """
        alone = len(self._legend.names) == 2
        paint = self._paint or _Paint(self._background())
        picture = Image.fromarray(paint.mixed(_FILL_SHARE if alone else _CLASS_SHARE))
        page = self._with_caption(picture, caption, gsd_m, swatch=alone)
        if alone:
            return page
        entries = [
            (f"{name} {share:.1%}", self._legend.rgb(index) if index else None)
            for index, (name, share) in enumerate(zip(self._legend.names, shares))
            if share > 0
        ]
        key = draw_key(entries, page.width, paper=_PAPER, ink=_INK)
        whole = Image.new("RGB", (page.width, page.height + key.height), _PAPER)
        whole.paste(page, (0, 0))
        whole.paste(key, (0, page.height))
        return whole

    def _background(self) -> NDArray[np.uint8]:
        """(y, x, 3) RGB."""
        picture: NDArray[np.uint8] = np.full((*self._shape, 3), _PAPER, dtype=np.uint8)
        picture[self._valid] = _to_bytes(self._pixels[self._valid])
        return picture

    def _rings(self, footprints: Footprints) -> list[NDArray[np.int32]]:
        """The outlines in picture coordinates, fixed point with `_SHIFT` bits."""
        if not len(footprints):
            return []
        parts, xy, offsets = shapely.to_ragged_array(np.asarray(footprints.geometry))
        if parts == shapely.GeometryType.MULTIPOLYGON:
            raise ValueError("footprints are single polygons")
        to_pixel = ~self._grid.transform if self._grid.crs is not None else Affine.identity()
        to_picture = Affine.scale(1 / self._step) @ to_pixel
        t = to_picture
        x = t.a * xy[:, 0] + t.b * xy[:, 1] + t.c
        y = t.d * xy[:, 0] + t.e * xy[:, 1] + t.f
        # OpenCV counts from the centre of the first pixel, footprints from its corner.
        points = np.rint((np.stack([x, y], axis=1) - 0.5) * (1 << _SHIFT)).astype(np.int32)
        return np.split(points, offsets[0][1:-1])

    def _with_caption(
        self, picture: Image.Image, caption: str, gsd_m: float | None, *, swatch: bool
    ) -> Image.Image:
        width = max(picture.width, _NARROWEST_PX)
        page = Image.new("RGB", (width, picture.height + _STRIP_PX), _PAPER)
        page.paste(picture, ((width - picture.width) // 2, 0))
        draw = ImageDraw.Draw(page)
        font = ImageFont.load_default(size=15)
        middle = picture.height + _STRIP_PX // 2
        if swatch:
            draw.rectangle((10, middle - 6, 22, middle + 6), fill=_FILL, outline=_OUTLINE)
        draw.text((30 if swatch else 10, middle), caption, fill=_INK, font=font, anchor="lm")
        if gsd_m is not None:
            length_m = round_length(picture.width * self._step * gsd_m / 6)
            length_px = length_m / gsd_m / self._step
            label = f"{length_m:g} m" if length_m < 1000 else f"{length_m / 1000:g} km"
            right, left = width - 12, width - 12 - length_px
            draw.line((left, middle + 6, right, middle + 6), fill=_INK, width=3)
            draw.text(((left + right) / 2, middle + 3), label, fill=_INK, font=font, anchor="mb")
        return page


class _Paint:
    """A picture on which polygons are painted a chunk at a time.

    Args:
        ground: (y, x, 3) what shows through them.
    """

    def __init__(self, ground: NDArray[np.uint8]) -> None:
        self._ground = ground
        self._filled = ground.copy()
        self._edges = np.zeros_like(ground)
        self._edge_share = np.zeros(ground.shape[:2], dtype=np.uint8)

    def add(self, rings: list[NDArray[np.int32]], fill: Colour, outline: Colour, kind: int) -> None:
        """Polygons by their rings, in fixed point; `kind` of line bounds what is filled."""
        if rings:
            cv2.fillPoly(self._filled, rings, fill, kind, _SHIFT)
            cv2.polylines(self._edges, rings, True, outline, 2, cv2.LINE_8, _SHIFT)
            cv2.polylines(self._edge_share, rings, True, 255, 1, cv2.LINE_AA, _SHIFT)

    def mixed(self, fill_share: float) -> NDArray[np.uint8]:
        """(y, x, 3) with so much of what was filled, and the outlines over all."""
        mixed = cv2.addWeighted(self._filled, fill_share, self._ground, 1 - fill_share, 0)
        share = self._edge_share[..., None].astype(np.uint16)
        mixed = (self._edges * share + mixed * (255 - share) + 127) // 255
        return np.asarray(mixed, dtype=np.uint8)


def _to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """(n, band) of any dtype, stretched between the 2nd and the 98th percentile."""
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8)
    low, high = np.nanpercentile(values, (2, 98))
    stretched = (values - low) * (255 / max(high - low, 1e-6))
    return np.asarray(np.nan_to_num(stretched).clip(0, 255), dtype=np.uint8)
