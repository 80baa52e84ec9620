"""Measure the images and labels of scenes."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.audit.duplicates import ThumbnailBuilder, grey_thumbnail, hash_of, luma_of
from rooftrace.audit.facts import LabelFacts, SceneFacts
from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import Mask, Progress, Scene, Window
from rooftrace.io.georeferenced import innermost
from rooftrace.io.nodata import fill_at_edges
from rooftrace.io.raster import RasterFile
from rooftrace.labels.derived import label_area
from rooftrace.labels.scene_extents import outline_of
from rooftrace.labels.source import SceneEntry, SceneSet, map_entries
from rooftrace.samples.dataset import full_scale_of

_SQUARE = np.ones((3, 3), np.uint8)

_LARGEST = np.float32(1e15)
"""Largest absolute value that is measured; the squares of much larger ones would be infinite."""


class PixelSums:
    """Figures of the pixels of an image that comes in parts: `feed` each, then `finish`."""

    def __init__(self, whole: Window) -> None:
        self._whole = whole
        self._px = self._valid_px = 0
        self._flat: dict[tuple[float, ...], int] = {}
        self._saturation = 0.0
        self._bands: list[_Moments] = []
        self._luma = _Moments()
        self._laplacian_px = 0
        self._laplacian_squares = 0.0
        self._thumbnail = ThumbnailBuilder(whole.shape_yx)
        self._small: NDArray[np.float32] | None = None

    def feed(self, data: NDArray[Any], valid: NDArray[np.bool_] | None, window: Window) -> None:
        """Add a part of the image.

        Args:
            data: (band, y, x) pixels of any dtype.
            valid: (y, x), False where nodata; None if all pixels are valid.
            window: Window of the part in the image.
        """
        self._px += window.area_px
        count = window.area_px if valid is None else int(np.count_nonzero(valid))
        if count == 0:
            return
        self._valid_px += count
        colour, fill = fill_at_edges(data, valid)
        if fill is not None:
            self._flat[colour] = self._flat.get(colour, 0) + int(np.count_nonzero(fill))
        scale = 1 / full_scale_of(data.dtype)
        if data.dtype != np.uint8:
            with np.errstate(over="ignore"):
                data = data.astype(np.float32) * np.float32(scale)
            data, scale = np.clip(data, -_LARGEST, _LARGEST), 1.0
            if valid is not None:
                data[:, ~valid] = 0  # NaN would spread
        mask = None if valid is None else valid.view(np.uint8)
        self._bands = self._bands or [_Moments() for _ in data]
        for band, moments in zip(data, self._bands):
            moments.feed(band, mask, count, scale)
        if len(data) >= 3:
            red, green, blue = data[:3]
            most, least = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
            spread = _only(np.asarray(cv2.subtract(most, least)), mask)
            self._saturation += cv2.sumElems(spread)[0] * scale
        luma = luma_of(data)
        self._luma.feed(luma, mask, count, scale)
        self._feed_laplacian(luma, mask, scale)
        if window == self._whole:
            self._small = grey_thumbnail(luma, valid)
        else:
            self._thumbnail.feed(luma if valid is None else _only(luma, mask), valid, window)

    def finish(self) -> dict[str, Any]:
        """Return the fields of `SceneFacts` about pixels, except `valid_share`."""
        figures: dict[str, Any] = {"measured_share": self._px / max(self._whole.area_px, 1)}
        if not self._valid_px:
            return figures
        colour = max(self._flat, key=lambda c: self._flat[c], default=None)
        variance = self._luma.variance
        small = self._thumbnail.finish() if self._small is None else self._small
        return figures | {
            "flat_colour": colour,
            "flat_share": 0.0 if colour is None else self._flat[colour] / self._valid_px,
            "mean": tuple(band.mean for band in self._bands),
            "std": tuple(band.variance**0.5 for band in self._bands),
            "brightness": self._luma.mean,
            "contrast": variance**0.5,
            "saturation": self._saturation / self._valid_px,
            # A deviation below 1/255 of full scale is rounding. The mean of the Laplacian is nearly
            # 0, so its mean square is its variance.
            "sharpness": self._laplacian_squares / max(self._laplacian_px, 1) / variance
            if variance > 255**-2
            else 0.0,
            "phash": hash_of(small),
            "thumbnail": small.astype(np.float16),
        }

    def _feed_laplacian(
        self, luma: NDArray[Any], mask: NDArray[np.uint8] | None, scale: float
    ) -> None:
        # The border of the valid area is not an edge in the image.
        if mask is not None:
            mask = np.asarray(cv2.erode(mask, _SQUARE, borderType=cv2.BORDER_REPLICATE), np.uint8)
        depth = cv2.CV_16S if luma.dtype == np.uint8 else cv2.CV_32F
        laplacian = _only(np.asarray(cv2.Laplacian(luma, depth)), mask)
        self._laplacian_px += luma.size if mask is None else cv2.countNonZero(mask)
        self._laplacian_squares += cv2.norm(laplacian, cv2.NORM_L2SQR) * scale**2


class _Moments:
    """Mean and variance of a band that comes in parts."""

    def __init__(self) -> None:
        self._count = 0
        self._total = self._squares = 0.0

    def feed(
        self, band: NDArray[Any], mask: NDArray[np.uint8] | None, count: int, scale: float
    ) -> None:
        """Add the `count` pixels of `band` (y, x) where `mask` is not 0."""
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
    """Set pixels to 0 where the mask is 0; it is several times faster than masked sums."""
    return band if mask is None else np.asarray(cv2.copyTo(band, mask))


_STRIP_PX = 2**22
"""Number of pixels in a strip; it takes some 50 MB with all intermediate arrays."""

_EXACT_PX = 2**26
"""Number of pixels (8192 × 8192) up to which a whole scene is read; larger ones are sampled."""

WINDOW_PX = 1024
"""Side in pixels of a window of a larger scene."""

_WINDOWS = 48
"""Number of windows of a larger scene that are measured."""

_TRIES = 192
"""Maximum number of windows that are read to find enough with valid pixels."""

_ENOUGH_VALID = 0.25
"""Least share of valid pixels in a window that is measured."""


def measure_scene(scene: Scene, classes: tuple[str, ...], building_class: int) -> SceneFacts:
    """Measure a scene of any size in bounded memory.

    A scene of up to 8192 × 8192 pixels is read in strips, and areas and counts are exact. A larger
    scene is sampled: 48 windows of 1024 × 1024, spread evenly, with at least a quarter of valid
    pixels. The figures are then those of the windows (`measured_share` gives their share),
    buildings that reach out of a window are left out, and `valid_share` refers to all windows read.

    Returns:
        Facts. A read error is not raised but stored in `image_error` or `label_error`.
    """
    whole = Window.whole((0, 0))
    try:
        whole = Window.whole(scene.image.grid.shape)
        return _measure(scene, whole, len(classes), building_class)
    except RooftraceError as error:
        return SceneFacts(
            scene.id, scene.image.name, scene.group, whole.shape_yx,
            gsd_m=scene.gsd_m, image_error=error.message,
        )  # fmt: skip


def _measure(scene: Scene, whole: Window, classes: int, building_class: int) -> SceneFacts:
    exact = whole.area_px <= _EXACT_PX
    pixels = PixelSums(whole)
    label = _LabelSums(classes, building_class, whole, exact=exact)
    reader, error, remedy = scene.label, "", ""
    area = label_area(reader)
    tried_px = tried_valid = used = 0
    rows = max(1, _STRIP_PX // whole.width)
    # Strips of whole blocks of a tiled file, so that no block is decoded twice.
    sampled = islice(spread_windows(whole.shape_yx, WINDOW_PX), _TRIES)
    for window in whole.strips(rows // 256 * 256 or rows) if exact else sampled:
        asked = None if window == whole else window
        raster = scene.image.read(asked)
        valid_px = int(np.count_nonzero(raster.valid))
        tried_px += window.area_px
        tried_valid += valid_px
        if not exact and valid_px < _ENOUGH_VALID * window.area_px:
            continue
        # Without a mask, a part that is completely valid is measured in half the time.
        valid = None if valid_px == window.area_px else raster.valid
        pixels.feed(raster.data, valid, window)
        if reader is not None:
            try:
                # A label has nothing to say outside of its area.
                known = valid if area is None else raster.valid & area.inside(asked)
                label.feed(reader.read(asked), known, window)
            except RooftraceError as caught:
                reader, error, remedy = None, caught.message, caught.remedy
        used += 1
        if not exact and used == _WINDOWS:
            break
    file = innermost(scene.image)
    return SceneFacts(
        id=scene.id,
        image=scene.image.name,
        group=scene.group,
        shape_yx=whole.shape_yx,
        bands=scene.image.bands,
        dtype=str(scene.image.dtype),
        file_format=file.file_format if isinstance(file, RasterFile) else "",
        gsd_m=scene.gsd_m,
        is_georeferenced=outline_of(scene.image.grid) is not None,
        valid_share=tried_valid / max(tried_px, 1),
        label=None if reader is None else label.finish(),
        label_error=error,
        label_remedy=remedy,
        **pixels.finish(),
    )


def spread_windows(shape_yx: tuple[int, int], side_px: int) -> Iterator[Window]:
    """Yield windows side by side in the middle of a scene, each beginning of them spread evenly.

    Their order is that of the multiples of the golden ratio, modulo 1.
    """
    height, width = (min(side, side_px) for side in shape_yx)
    rows, cols = shape_yx[0] // height, shape_yx[1] // width
    top, left = (shape_yx[0] - rows * height) // 2, (shape_yx[1] - cols * width) // 2
    for cell in np.argsort((np.arange(rows * cols) * 0.6180339887498949) % 1).tolist():
        row, col = divmod(cell, cols)
        yield Window(top + row * height, left + col * width, height, width)


class _LabelSums:
    """Figures of a label that comes in parts: `feed` each, then `finish`.

    With `exact`, the parts are strips of the whole image, whose buildings are joined. Otherwise
    they are separate windows; buildings that reach out of a window are left out.
    """

    def __init__(self, classes: int, building_class: int, whole: Window, *, exact: bool) -> None:
        self._class_px = np.zeros(classes, dtype=np.int64)
        self._building_class = building_class
        self._whole = whole
        self._canvas = np.zeros(whole.shape_yx, np.uint8) if exact else None
        self._areas_px = [np.zeros(0, np.int64)]
        self._cut = self._image_px = self._known_px = 0

    def feed(self, mask: Mask, valid: NDArray[np.bool_] | None, window: Window) -> None:
        """Add a part of the label.

        Args:
            mask: Part of the label.
            valid: (y, x), False where the image is nodata or outside of the label's area; None if
                it is so nowhere.
            window: Window of the part in the image.
        """
        known = mask.valid if valid is None else mask.valid & valid
        self._image_px += known.size if valid is None else int(np.count_nonzero(valid))
        self._known_px += int(np.count_nonzero(known))
        bins = len(self._class_px)
        counts = cv2.calcHist([mask.data], [0], known.view(np.uint8), [bins], [0, bins])
        self._class_px += np.asarray(counts).ravel().astype(np.int64)
        building = ((mask.data == self._building_class) & known).view(np.uint8)
        if self._canvas is None:
            self._count(building, window)
        else:
            self._canvas[window.slices()] = building

    def _count(self, building: NDArray[np.uint8], window: Window) -> None:
        """Count the 8-connected regions in a window that lie in it completely."""
        _, _, stats, _ = cv2.connectedComponentsWithStats(building, connectivity=8)
        left, top, width, height, area = np.asarray(stats[1:], np.int64).T
        sides = np.stack([
            left == 0, top == 0, left + width == window.width, top + height == window.height,
        ])  # fmt: skip
        edges = np.array([
            window.col == 0, window.row == 0, window.col_stop == self._whole.width,
            window.row_stop == self._whole.height,
        ])[:, None]  # fmt: skip
        out = np.any(sides & ~edges, axis=0)
        cut = np.any(sides & edges, axis=0) & ~out
        self._areas_px.append(area[~out])
        self._cut += int(cut.sum())

    def finish(self) -> LabelFacts:
        """Return the figures of all parts."""
        if self._canvas is not None:
            self._count(self._canvas, self._whole)
        return LabelFacts(
            class_px=tuple(self._class_px.tolist()),
            buildings_px=np.concatenate(self._areas_px),
            cut=self._cut,
            unknown_share=1 - self._known_px / self._image_px if self._image_px else 0.0,
        )


def measure_set(
    source: SceneSet, *, workers: int | None = None, progress: Progress | None = None
) -> tuple[SceneFacts, ...]:
    """Measure every scene of a set.

    Returns:
        Facts in the order of `source.entries`; for read errors see `measure_scene`.
    """
    return map_entries(source, _measure_entry, workers=workers, progress=progress)


def _measure_entry(source: SceneSet, entry: SceneEntry) -> SceneFacts:
    """Measure one scene of a set; an error in opening it is stored in the facts."""
    try:
        scene = source.open_scene(entry)
    except RooftraceError as error:
        name = entry.id if entry.image is None else str(entry.image)
        return SceneFacts(entry.id, name, entry.group, image_error=error.message)
    return measure_scene(scene, source.classes, source.building_class)
