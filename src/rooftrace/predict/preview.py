"""Preview of a result: a picture of the image with its buildings or classes.

It has a scale bar and, for more than two classes, a key of their colours.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil
from typing import Any

import cv2
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.io.legend import Legend
from rooftrace.io.picture import as_rgb, draw_key, font_for, round_length, shortened

LARGEST_PX = 1600
"""Maximum length of the longer side of a preview, in pixels."""

_FILL = (255, 196, 0)
_FILL_SHARE = 0.35
"""Opacity of the fill of buildings."""

_CLASS_SHARE = 0.55
"""Opacity of the fill of several classes; it is higher, because their colours must differ
visibly."""

_OUTLINE = (255, 64, 32)
_PAPER, _INK = (24, 24, 28), (240, 240, 240)
_STRIP_PX = 34
"""Height of the strip with the caption, in pixels."""

_CREDIT_PX = 22
"""Height of the line with the attribution of the imagery, in pixels."""

_MIN_WIDTH_PX = 420
"""Minimum width of a preview in pixels."""

_SHIFT = 4
"""Number of fractional bits in the coordinates for OpenCV."""

_ROWS = 32
"""Number of rows that are mixed at a time: they fit the processor's cache."""

_MIN_PARALLEL = 1000
"""Number of outlines from which threads draw them."""


class ThumbnailSampler:
    """Sampler that collects every n-th pixel of an image while its windows are read.

    Args:
        grid: Grid of the image.
        bands: Number of its bands; the first three are shown, or the first one as grey.
        dtype: Type of its values.
    """

    def __init__(self, grid: GeoGrid, bands: int, dtype: np.dtype[Any] | type) -> None:
        self.step = max(1, ceil(max(grid.shape) / LARGEST_PX))
        self.shape_yx = ceil(grid.height / self.step), ceil(grid.width / self.step)
        self._bands = 3 if bands >= 3 else 1
        kind = np.uint8 if np.dtype(dtype) == np.uint8 else np.float32
        self.pixels: NDArray[Any] = np.zeros((*self.shape_yx, self._bands), dtype=kind)
        self.valid = np.zeros(self.shape_yx, dtype=bool)

    def watch(self, window: Window, data: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Add the samples of a window of the image; windows may overlap.

        Args:
            window: Window of the image.
            data: (band, y, x) its pixels.
            valid: (y, x) False where nodata.
        """
        step = self.step
        row, col = -window.row % step, -window.col % step
        chosen = data[: self._bands, row::step, col::step]
        into = (
            slice((window.row + row) // step, (window.row + row) // step + chosen.shape[1]),
            slice((window.col + col) // step, (window.col + col) // step + chosen.shape[2]),
        )
        self.pixels[into] = np.moveaxis(chosen, 0, -1)
        self.valid[into] = valid[row::step, col::step]

    def part(self, window: Window) -> tuple[slice, slice]:
        """Return the rows and columns of `pixels` and `valid` that sample a window."""
        step = self.step
        return (
            slice(-(-window.row // step), -(-window.row_stop // step)),
            slice(-(-window.col // step), -(-window.col_stop // step)),
        )


@dataclass(frozen=True)
class Rings:
    """Outlines on a picture.

    Args:
        points: (n, 2) int32 x and y of all corners, in fixed-point pixels of the picture, see
            `_SHIFT`.
        starts: (rings + 1,) first corner of each ring, and the number of corners.
    """

    points: NDArray[np.int32]
    starts: NDArray[np.int64]


@dataclass(frozen=True)
class RingMaker:
    """Makes the outlines of footprints on a picture; picklable.

    Args:
        to_picture: Transform from the coordinates of footprints to pixels of the picture.
        classes: Number of classes, including the background.
    """

    to_picture: Affine
    classes: int

    def __call__(self, footprints: Footprints) -> list[Rings]:
        """Return the outlines of each class but the background.

        Raises:
            ValueError: A footprint is a multipolygon.
        """
        chosen = [footprints]
        if self.classes > 2:
            chosen = [footprints.of_class(index) for index in range(1, self.classes)]
        t, rings = self.to_picture, []
        for own in chosen:
            if not len(own):
                rings.append(Rings(np.zeros((0, 2), np.int32), np.zeros(1, np.int64)))
                continue
            parts, xy, offsets = shapely.to_ragged_array(np.asarray(own.geometry))
            if parts == shapely.GeometryType.MULTIPOLYGON:
                raise ValueError("footprints contain multipolygons; expected single polygons")
            x = t.a * xy[:, 0] + t.b * xy[:, 1] + t.c
            y = t.d * xy[:, 0] + t.e * xy[:, 1] + t.f
            # The origin is the centre of the first pixel in OpenCV, but its corner for footprints.
            points = np.rint((np.stack([x, y], axis=1) - 0.5) * (1 << _SHIFT)).astype(np.int32)
            rings.append(Rings(points, np.asarray(offsets[0], np.int64)))
        return rings


class Preview:
    """Picture of an image with its footprints, a scale bar and a caption.

    Args:
        grid: Grid of the image.
        bands: Number of its bands; the first three are shown, or the first one as grey.
        dtype: Type of its values.
        legend: Legend of the classes. Two classes are drawn without a key.
    """

    def __init__(
        self, grid: GeoGrid, bands: int, dtype: np.dtype[Any] | type, legend: Legend
    ) -> None:
        self._legend = legend
        self.thumbnail = ThumbnailSampler(grid, bands, dtype)
        """Background of the preview: every n-th pixel of the image."""

        to_pixel = Affine.identity() if grid.crs is None else ~grid.transform
        to_picture = Affine.scale(1 / self.thumbnail.step) @ to_pixel
        self.rings = RingMaker(to_picture, len(legend.names))
        """Maker of the outlines that `paint` takes."""

        self._background: NDArray[np.uint8] | None = None
        """RGB picture (y, x, 3) below the footprints; None until the first ones are drawn."""

        self._threads: ThreadPoolExecutor | None = None
        self._drawing: list[Future[Any]] = []
        """Calls that draw the last outlines, one for each of the three pictures."""

    def paint(self, rings: Sequence[Rings]) -> None:
        """Draw a chunk of the footprints; the thumbnail must be complete."""
        self._begin()
        is_binary = len(self._legend.names) == 2
        kind = cv2.LINE_AA if is_binary else cv2.LINE_8
        for index, own in enumerate(rings, 1):
            fill, outline = (_FILL, _OUTLINE) if is_binary else (self._legend.rgb(index),) * 2
            drawn = [own.points[start:stop] for start, stop in pairwise(own.starts.tolist())]
            if not drawn:
                continue
            edges, share = self._edges, self._edge_share
            pictures = [
                partial(cv2.fillPoly, self._filled, drawn, fill, kind, _SHIFT),
                partial(cv2.polylines, edges, drawn, True, outline, 2, cv2.LINE_8, _SHIFT),
                partial(cv2.polylines, share, drawn, True, 255, 1, cv2.LINE_AA, _SHIFT),
            ]
            # Of two outlines at a place, the later one is seen.
            for drawing in self._drawing:
                drawing.result()
            if len(drawn) < _MIN_PARALLEL:
                for draw in pictures:
                    draw()
                continue
            if self._threads is None:
                self._threads = ThreadPoolExecutor(len(pictures), "drawing")
            self._drawing = [self._threads.submit(draw) for draw in pictures]

    def _begin(self) -> None:
        """Make the pictures on which footprints are drawn."""
        if self._background is not None:
            return
        valid = self.thumbnail.valid
        picture = as_rgb(np.moveaxis(self.thumbnail.pixels, -1, 0), valid)
        picture[~valid] = _PAPER
        self._background, self._filled = picture, picture.copy()
        self._edges, self._edge_share = np.zeros_like(picture), np.zeros(valid.shape, np.uint8)

    def draw(
        self, shares: Sequence[float], caption: str, gsd_m: float | None, credit: str = ""
    ) -> Image.Image:
        """Return the picture, with a key if there are more than two classes.

        Args:
            shares: Share of the image's area by class index, 0..1; classes without area are not in
                the key.
            caption: Line of text below the picture.
            gsd_m: Metres per pixel of the image, for the scale bar; None draws no scale bar.
            credit: Attribution of the imagery, below the caption.
        """
        is_binary = len(self._legend.names) == 2
        self._begin()
        for drawing in self._drawing:
            drawing.result()
        assert self._background is not None
        fill_share = _FILL_SHARE if is_binary else _CLASS_SHARE
        mixed = cv2.addWeighted(self._filled, fill_share, self._background, 1 - fill_share, 0)
        for top in range(0, len(mixed), _ROWS):
            rows = slice(top, top + _ROWS)
            share = self._edge_share[rows, :, None].astype(np.uint16)
            mixed[rows] = (self._edges[rows] * share + mixed[rows] * (255 - share) + 127) // 255
        picture = Image.fromarray(mixed)
        page = self._with_caption(picture, caption, gsd_m, credit, swatch=is_binary)
        if is_binary:
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

    def close(self) -> None:
        """End the threads that draw."""
        if self._threads is not None:
            self._threads.shutdown()

    def _with_caption(
        self, picture: Image.Image, caption: str, gsd_m: float | None, credit: str, *, swatch: bool
    ) -> Image.Image:
        width = max(picture.width, _MIN_WIDTH_PX)
        strip_px = _STRIP_PX + (_CREDIT_PX if credit else 0)
        page = Image.new("RGB", (width, picture.height + strip_px), _PAPER)
        page.paste(picture, ((width - picture.width) // 2, 0))
        draw = ImageDraw.Draw(page)
        font = font_for(15, caption)
        middle = picture.height + _STRIP_PX // 2
        if swatch:
            draw.rectangle((10, middle - 6, 22, middle + 6), fill=_FILL, outline=_OUTLINE)
        draw.text((30 if swatch else 10, middle), caption, fill=_INK, font=font, anchor="lm")
        if gsd_m is not None:
            length_m = round_length(picture.width * self.thumbnail.step * gsd_m / 6)
            length_px = length_m / gsd_m / self.thumbnail.step
            label = f"{length_m:g} m" if length_m < 1000 else f"{length_m / 1000:g} km"
            right, left = width - 12, width - 12 - length_px
            draw.line((left, middle + 6, right, middle + 6), fill=_INK, width=3)
            draw.text(((left + right) / 2, middle + 3), label, fill=_INK, font=font, anchor="mb")
        if credit:
            small = font_for(12, credit)
            text = shortened(credit, small, width - 20)
            draw.text((10, picture.height + _STRIP_PX), text, fill=_INK, font=small)
        return page
