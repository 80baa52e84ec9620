"""Images resampled to another ground sample distance, or to another grid and coordinate system.

`Resampler` reads windows at the resolution of a model. A pixel depends on its position in the scene
alone and not on the window: scales are multiples of 1/256, so that every coordinate is exact in the
24 bits from which Pillow computes its filter. `enlarge` is the way back to the grid of the image.
`warped` transforms an image to any grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, floor
from typing import Any

import cv2
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from rooftrace.core.errors import ConfigError, GeoreferenceError, GsdMismatch
from rooftrace.core.scales import SAME_WITHIN, WorkingScales
from rooftrace.core.text import CHECK_CRS, plain_number
from rooftrace.core.types import (
    BoolArray,
    Bounds,
    GeoGrid,
    Ints,
    Raster,
    RasterSource,
    Window,
    full_turn,
)
from rooftrace.io.reproject import degrees_text, outline_bounds, outline_points

COARSEST_RATIO = 4.0
"""Maximum ratio of the metres per pixel of an image to those of the model: a coarser image does not
have the detail that the model was trained to see."""

FINEST_RATIO = 128.0
"""Maximum ratio of the metres per pixel of the model to those of an image. An image that claims to
be even finer has wrong metres per pixel."""

LARGEST_SCALE = 16.0
"""Maximum scale that a user can request."""

_NOTE_RATIO = 1.5
"""Ratio of resolutions above which the user gets a note."""

_DEGREES = 1e-3
"""Maximum size of a pixel whose unit is taken for degrees, if nothing states the unit."""

_NOMINAL = 1.05
"""Ratio accepted beyond the limits, because zoom levels are nominal: 0.0742 m is a quarter of
0.3 m."""

_SQUARE = 1e-6
"""Relative difference of the sides of a pixel up to which it counts as square: they are measured on
the ground, with a numerical error."""

_STEPS = 256
_SOURCE_STRIP_PX = 4 * 2**20
"""Number of source pixels in memory at a time while they are resampled."""


@dataclass(frozen=True)
class Scaling:
    """Number of source pixels per model pixel, down and across, in 256ths.

    Args:
        steps_yx: 256ths of a source pixel per model pixel; 256 leaves an axis as it is.
        note: Assumption to report to the user; empty if nothing was assumed.
    """

    steps_yx: tuple[int, int] = (_STEPS, _STEPS)
    note: str = ""

    @property
    def is_identity(self) -> bool:
        return self.steps_yx == (_STEPS, _STEPS)

    @property
    def scale_yx(self) -> tuple[float, float]:
        return self.steps_yx[0] / _STEPS, self.steps_yx[1] / _STEPS

    def model_shape(self, shape_yx: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns at the model's resolution of a source of `shape_yx`."""
        rows, cols = (-(-n * _STEPS // step) for n, step in zip(shape_yx, self.steps_yx))
        return rows, cols

    def to_source(self, window: Window, shape_yx: tuple[int, int]) -> Window:
        """Return the source pixels under a window of model pixels, inside the source."""
        row, row_stop = _span(window.row, window.row_stop, self.steps_yx[0], shape_yx[0])
        col, col_stop = _span(window.col, window.col_stop, self.steps_yx[1], shape_yx[1])
        return Window(row, col, row_stop - row, col_stop - col)

    def to_model(self, window: Window, shape_yx: tuple[int, int]) -> Window:
        """Return the model pixels that `enlarge` needs for a window of a source of `shape_yx`."""
        row, row_stop = self.needed(0, window.row, window.row_stop, shape_yx[0])
        col, col_stop = self.needed(1, window.col, window.col_stop, shape_yx[1])
        return Window(row, col, row_stop - row, col_stop - col)

    def needed(self, axis: int, start: int, stop: int, length: int) -> tuple[int, int]:
        """Return the range of model pixels that `enlarge` needs along one axis.

        Args:
            axis: 0 down the columns, 1 along the rows.
            start, stop: Half-open range of source pixels.
            length: Number of source pixels along the axis.
        """
        if self.is_identity:
            return start, stop
        step = self.steps_yx[axis]
        last = -(-length * _STEPS // step) - 1
        first_px = floor((start + 0.5) * _STEPS / step - 0.5)
        last_px = floor((stop - 0.5) * _STEPS / step - 0.5) + 1
        return min(max(first_px, 0), last), min(max(last_px, 0), last) + 1


def _span(start: int, stop: int, step: int, length: int) -> tuple[int, int]:
    return start * step // _STEPS, min(-(-stop * step // _STEPS), length)


def working_metres(
    grid: GeoGrid, scales: WorkingScales, gsd_m: float | None = None
) -> tuple[tuple[float, float], float] | None:
    """Return the metres per pixel of an image, down and along, and those of the model on it.

    Each axis has a scale of its own where pixels are not square. The model chooses its metres per
    pixel by the larger side.

    Args:
        gsd_m: Metres per pixel of the image, given by the user; overrides the georeference.

    Returns:
        None if the metres per pixel of the image are not known.
    """
    own_m = grid.gsd_m if gsd_m is None else gsd_m
    if own_m is None:
        return None
    sides_m = grid.gsd_yx_m if gsd_m is None else None
    if sides_m is None or max(sides_m) <= (1 + _SQUARE) * min(sides_m):
        sides_m = own_m, own_m
    return sides_m, scales.for_image(max(sides_m))


def scaling_for(
    grid: GeoGrid,
    scales: WorkingScales | None,
    *,
    gsd_m: float | None = None,
    scale: float | None = None,
    name: str = "image",
) -> Scaling:
    """Return the scaling from an image to the model's metres per pixel.

    Args:
        scales: Metres per pixel at which the model works; None leaves the image as it is.
        gsd_m: Metres per pixel of the image, given by the user; overrides the georeference.
        scale: Factor for the rows and columns of the image, given by the user; overrides all
            metres.

    Raises:
        ConfigError: the scale is not between 1/128 and 16.
        GeoreferenceError: the image lies outside of the range of its CRS.
        GsdMismatch: the image is more than four times as coarse as the model, or more than 128
            times as fine.
    """
    if scale is not None:
        return _scaling_by(scale, name)
    if scales is None:
        return Scaling()
    metres = working_metres(grid, scales, gsd_m)
    if metres is None and grid.crs is not None:
        raise GeoreferenceError(
            f"{name} has no metres per pixel, because its position has no longitude and latitude: "
            f"{degrees_text(grid.bounds_xy, grid.crs)}.",
            remedy=f"{CHECK_CRS} Or give --gsd.",
        )
    if metres is None:
        right = "If that is wrong, give the right value with --gsd."
        size = abs(grid.transform.determinant) ** 0.5
        if not grid.transform.is_identity and size > _DEGREES:
            number = plain_number(size)
            right = (
                f"Its position has {number} units per pixel; if these are metres: --gsd {number}"
            )
        return Scaling(
            note=f"{name} has no metres per pixel: assumed to be the model's {scales.gsd_m:g} m. "
            f"{right}"
        )
    gsd_yx_m, model_gsd_m = metres
    gsd_text, width_text = map(plain_number, gsd_yx_m)
    if width_text != gsd_text:
        gsd_text = f"{gsd_text} × {width_text} (height × width)"
    ratios = tuple(model_gsd_m / value for value in gsd_yx_m)
    if max(gsd_yx_m) > scales.gsd_m * COARSEST_RATIO * _NOMINAL:
        coarsest_m = plain_number(scales.gsd_m * COARSEST_RATIO)
        raise GsdMismatch(
            f"{name} has {gsd_text} m per pixel, the model was trained at {scales.gsd_m:g} m; "
            f"expected at most {coarsest_m} m, {COARSEST_RATIO:g} times as coarse as the model.",
            remedy="Use finer imagery or a coarser model, or give the right one with --gsd.",
        )
    if max(ratios) > FINEST_RATIO * _NOMINAL:
        finest_m = plain_number(model_gsd_m / FINEST_RATIO)
        raise GsdMismatch(
            f"{name} has {gsd_text} m per pixel, the model works at {model_gsd_m:g} m; "
            f"expected at least {finest_m} m, {FINEST_RATIO:g} times as fine as the model.",
            remedy="Check the unit of the georeference. Give the right value with --gsd.",
        )
    steps = tuple(
        _STEPS if abs(ratio - 1) <= SAME_WITHIN else round(ratio * _STEPS) for ratio in ratios
    )
    note = ""
    if max(ratios) > _NOTE_RATIO or min(ratios) < 1 / _NOTE_RATIO:
        note = f"{name} has {gsd_text} m per pixel and is resampled to {model_gsd_m:g} m."
    return Scaling((steps[0], steps[1]), note)


def _scaling_by(scale: float, name: str) -> Scaling:
    if not 1 / FINEST_RATIO <= scale <= LARGEST_SCALE:
        raise ConfigError(
            f"A scale of {plain_number(scale)} was given for {name}; expected a factor between "
            f"1/{FINEST_RATIO:g} and {LARGEST_SCALE:g}.",
            remedy="Use --scale 0.5 for an image twice as fine as the model, 2 for half as fine.",
        )
    step = round(_STEPS / scale)
    note = ""
    if not 1 / _NOTE_RATIO <= scale <= _NOTE_RATIO:
        note = f"{name} is resampled to {plain_number(_STEPS / step)} times its size, as requested."
    return Scaling((step, step), note)


class Resampler:
    """Reader of windows of a source at the model's resolution.

    Nodata pixels have the value 0 and do not affect their neighbours, as in training
    (`samples.augment.warp`): a network that was trained with black nodata misses buildings beside
    nodata of another colour. Pixels that an area of interest leaves out are no nodata here.

    Args:
        source: Image, read from one thread at a time.
        scaling: Number of source pixels per model pixel.
    """

    def __init__(self, source: RasterSource, scaling: Scaling) -> None:
        self._source = source
        self._scaling = scaling
        self.shape_yx = scaling.model_shape(source.grid.shape)

    def read(
        self, window: Window, watch: Callable[[Window, Raster], None] | None = None
    ) -> tuple[NDArray[Any], BoolArray]:
        """Return a window of model pixels: (band, y, x) in the source's dtype, and (y, x) seen.

        A model pixel is seen if at least half of the source pixels below it are, see `Raster.seen`.

        Args:
            watch: Function called with the window and the source pixels of every part that is read.
        """
        if self._scaling.is_identity:
            return self._read_source(window, watch)
        step_y, _ = self._scaling.steps_yx
        row_px = ceil(window.width * self._scaling.scale_yx[1]) * step_y / _STEPS
        strip = max(1, int(_SOURCE_STRIP_PX / max(row_px, 1)))
        data = np.empty((self._source.bands, *window.shape_yx), dtype=self._source.dtype)
        valid = np.empty(window.shape_yx, dtype=bool)
        for top in range(0, window.height, strip):
            height = min(strip, window.height - top)
            part = Window(window.row + top, window.col, height, window.width)
            pixels, part_seen = data[:, top : top + height], valid[top : top + height]
            self._resample(part, pixels, part_seen, watch)
        return data, valid

    def reach(self, window: Window) -> Window:
        """Return the source pixels from which a window of model pixels is computed."""
        if self._scaling.is_identity:
            return window
        pixels = self._filtered(window).intersection(Window.whole(self._source.grid.shape))
        assert pixels is not None
        return pixels

    def _filtered(self, window: Window) -> Window:
        """Return the pixels under the filter; the window may leave the source at its far edges."""
        step_y, step_x = self._scaling.steps_yx
        margin_y, margin_x = (ceil(max(step / _STEPS, 1)) + 1 for step in (step_y, step_x))
        row = max(floor(window.row * step_y / _STEPS) - margin_y, 0)
        col = max(floor(window.col * step_x / _STEPS) - margin_x, 0)
        row_stop = ceil(window.row_stop * step_y / _STEPS) + margin_y
        col_stop = ceil(window.col_stop * step_x / _STEPS) + margin_x
        return Window(row, col, row_stop - row, col_stop - col)

    def _resample(
        self, window: Window, data: NDArray[Any], valid: BoolArray,
        watch: Callable[[Window, Raster], None] | None,
    ) -> None:  # fmt: skip
        # The last pixels of the source are repeated beyond its edges.
        reach = self._filtered(window)
        wide = reach.intersection(Window.whole(self._source.grid.shape))
        assert wide is not None
        pixels, seen = self._read_source(wide, watch)
        beyond = (0, reach.height - wide.height), (0, reach.width - wide.width)
        if beyond != ((0, 0), (0, 0)):
            pixels = np.pad(pixels, ((0, 0), *beyond), mode="edge")
            seen = np.pad(seen, beyond, mode="edge")
        step_y, step_x = self._scaling.steps_yx
        box = (
            window.col * step_x / _STEPS - reach.col,
            window.row * step_y / _STEPS - reach.row,
            window.col_stop * step_x / _STEPS - reach.col,
            window.row_stop * step_y / _STEPS - reach.row,
        )
        for band, out in zip(pixels, data):
            out[:] = _resize(band, window.shape_yx, box)
        if seen.all():
            valid[:] = True
        elif not seen.any():
            valid[:] = False
        else:
            share = _resize(seen.astype(np.uint8) * np.uint8(255), window.shape_yx, box)
            valid[:] = share >= 128
            where = valid & (share < 255)
            means = data[:, where] * (np.float32(255) / share[where])
            if data.dtype.kind in "ui":
                limits = np.iinfo(data.dtype)
                means = np.rint(means).clip(limits.min, limits.max)
            data[:, where] = means
            data[:, ~valid] = 0

    def _read_source(
        self, window: Window, watch: Callable[[Window, Raster], None] | None
    ) -> tuple[NDArray[Any], BoolArray]:
        raster = self._source.read(window)
        if watch is not None:
            watch(window, raster)
        data, seen = raster.data, raster.seen
        if not seen.all():
            data = np.where(seen, data, data.dtype.type(0))
        return data, seen


def _resize(band: NDArray[Any], shape_yx: tuple[int, int], box: Bounds) -> NDArray[Any]:
    """Resize the part in `box` (left, top, right, bottom) to (y, x), with antialiasing."""
    from PIL import Image

    whole = band.dtype == np.uint8
    image = Image.fromarray(band if whole else band.astype(np.float32))
    # One axis after the other: Pillow would choose their order by the sizes, and rounding in
    # between would make a pixel depend on the window.
    left, top, right, bottom = box
    height, width = shape_yx
    across = image.resize(
        (width, image.height), Image.Resampling.BILINEAR, box=(left, 0, right, image.height)
    )
    resized = np.asarray(
        across.resize((width, height), Image.Resampling.BILINEAR, box=(0, top, width, bottom))
    )
    if band.dtype.kind in "ui" and not whole:
        resized = np.rint(resized)
    return resized.astype(band.dtype, copy=False)


def enlarge(
    values: NDArray[np.uint16], origin: Window, window: Window, scaling: Scaling
) -> NDArray[np.uint16]:
    """Resample model pixels to the source's grid, bilinear.

    As in `Resampler`, a value depends on its position in the scene alone: coordinates are rounded
    to 32nds of a model pixel, the precision of OpenCV's interpolation.

    Args:
        values: (channel, y, x) of the model window `origin`.
        origin: Window of model pixels, from `scaling.to_model(window, …)`.
        scaling: Number of source pixels per model pixel.

    Returns:
        (channel, y, x) of `window`.
    """
    if scaling.is_identity:
        return values
    rows, row_fraction = _places(window.row, window.row_stop, scaling.steps_yx[0], origin.row)
    cols, col_fraction = _places(window.col, window.col_stop, scaling.steps_yx[1], origin.col)
    out = np.empty((len(values), *window.shape_yx), dtype=np.uint16)
    strip = max(1, (1 << 19) // window.width)
    for top in range(0, window.height, strip):
        part = slice(top, min(top + strip, window.height))
        # OpenCV's map cannot address rows beyond 2^15: values are passed in strips.
        first = int(max(rows[part].min(), 0))
        last = int(rows[part].max()) + 2
        whole = np.empty((part.stop - part.start, window.width, 2), dtype=np.int16)
        whole[..., 0] = cols
        whole[..., 1] = (rows[part] - first)[:, None]
        fraction = (row_fraction[part, None] * 32 + col_fraction).astype(np.uint16)
        for channel, result in zip(values, out):
            cv2.remap(
                channel[first:last], whole, fraction, cv2.INTER_LINEAR,
                dst=result[part], borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
    return out


def _places(start: int, stop: int, step: int, origin: int) -> tuple[Ints, Ints]:
    """Return the model pixel before each source pixel, and the distance from it in 32nds."""
    pixels = np.arange(start, stop, dtype=np.int64)
    # The centre of source pixel p is at (p + 1/2) * 256 / step - 1/2 model pixels.
    thirty_seconds = ((2 * pixels + 1) * (_STEPS * 32) + step) // (2 * step) - 16
    return (thirty_seconds >> 5) - origin, thirty_seconds & 31


_MAX_READ_PX = 2**22
"""Maximum number of source pixels that are read at a time."""

_AVERAGE_FROM = 1.5
"""Source pixels per target pixel above which interpolation would skip some of them."""


def warped(source: RasterSource, grid: GeoGrid, *, nearest: bool = False) -> Raster:
    """Resample `source` to `grid`: bilinear, or averages if the source has finer pixels.

    Nodata has no weight; a pixel is valid if at least half of its weight is. Memory is bounded by
    the size of `grid`, independent of the resolution of the source.

    Args:
        source: Image with a CRS.
        grid: Target grid with a CRS.
        nearest: Take the source pixel under each centre instead, as for class indices.

    Raises:
        GeoreferenceError: no transformation between the two CRS is known.
    """
    data = np.zeros((source.bands, *grid.shape), source.dtype)
    valid = np.zeros(grid.shape, np.bool_)
    _fill(source, grid, Window.whole(grid.shape), data, valid, nearest)
    return Raster(data, valid, grid)


def _fill(
    source: RasterSource,
    grid: GeoGrid,
    window: Window,
    data: NDArray[Any],
    valid: BoolArray,
    nearest: bool,
) -> None:
    target = grid.crop(window)
    area, scale = _source_window(source.grid, target)
    if area is None:
        return
    if area.area_px > _MAX_READ_PX and window.area_px > 1:
        for part in _quarters(window):
            _fill(source, grid, part, data, valid, nearest)
        return
    raster = source.read(area)
    if not raster.valid.any():
        return
    # Numerator and denominator of a weighted mean, with the same kernel.
    weighed = np.where(raster.valid, raster.data, 0).astype(np.float32)
    stack = np.concatenate([weighed, raster.valid[None].astype(np.float32)])
    out = np.zeros((len(stack), *window.shape_yx), np.float32)
    assert source.grid.crs is not None
    assert grid.crs is not None
    smooth = Resampling.average if scale > _AVERAGE_FROM else Resampling.bilinear
    reproject(
        stack,
        out,
        src_transform=_turned(raster.grid, target).transform,
        src_crs=_rasterio_crs(source.grid.crs),
        dst_transform=target.transform,
        dst_crs=_rasterio_crs(grid.crs),
        resampling=Resampling.nearest if nearest else smooth,
    )
    is_valid = out[-1] >= 0.5
    mean = out[:-1, is_valid] / out[-1, is_valid]
    if data.dtype.kind in "ui":
        limits = np.iinfo(data.dtype)
        mean = np.rint(mean).clip(limits.min, limits.max)
    rows, cols = window.slices()
    data[:, rows, cols][:, is_valid] = mean.astype(data.dtype)
    valid[rows, cols] = is_valid


def _turned(source: GeoGrid, target: GeoGrid) -> GeoGrid:
    """Return a source grid in Mercator moved by whole turns around the Earth to its target.

    GDAL does so with longitudes, but not with metres.
    """
    assert source.crs is not None
    turn = None if source.crs.is_geographic else full_turn(source.crs)
    bounds = None if turn is None else outline_bounds(target, source.crs)
    if turn is None or bounds is None:
        return source
    left, _, right, _ = source.bounds_xy
    turns = round((bounds[0] + bounds[2] - left - right) / 2 / turn)
    return replace(source, transform=Affine.translation(turns * turn, 0) @ source.transform)


def _source_window(source: GeoGrid, target: GeoGrid) -> tuple[Window | None, float]:
    """Return the window of the source under a grid, and the number of its pixels per grid pixel."""
    assert source.crs is not None
    pixels = source.to_pixels(outline_points(target, source.crs))
    if not len(pixels):
        return None, 1.0
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    scale = float(max((high - low) / (target.width, target.height)))
    margin = 2 * scale + 2
    col, row = np.floor(low - margin).clip(0).astype(int).tolist()
    stop = np.ceil(high + margin).clip(max=(source.width, source.height)).astype(int).tolist()
    if stop[0] <= col or stop[1] <= row:
        return None, scale
    return Window(row, col, stop[1] - row, stop[0] - col), scale


def _quarters(window: Window) -> list[Window]:
    half = Window(window.row, window.col, -(-window.height // 2), -(-window.width // 2))
    starts = [(row, col) for row in (0, half.height) for col in (0, half.width)]
    parts = (
        Window(window.row + row, window.col + col, half.height, half.width).intersection(window)
        for row, col in starts
    )
    return [part for part in parts if part is not None]


@lru_cache(maxsize=32)
def _rasterio_crs(crs: CRS) -> rasterio.crs.CRS:
    return rasterio.crs.CRS.from_wkt(crs.to_wkt())
