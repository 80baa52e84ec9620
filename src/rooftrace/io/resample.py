"""A source seen at another ground sample distance, by window.

A pixel's value depends on where it lies in the scene alone, and not on the window that was asked
for: scales are multiples of 1/256, so that every coordinate is exact in the 24 bits that Pillow
computes its filter from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rooftrace.core.errors import ConfigError, GsdMismatch
from rooftrace.core.types import GeoGrid, Raster, RasterSource, SparseSource, Window

__all__ = ["Resampler", "Scaling", "enlarge", "scaling_for"]

LARGEST_RATIO = 4.0
LARGEST_SCALE = 16.0
"""That a person can ask for, who knows better."""

_SAID_FROM = 1.5
"""Times coarser or finer, from which a person is told."""

_SAME_WITHIN = 0.05
_STEPS = 256
_SOURCE_STRIP_PX = 4 * 2**20
"""Source pixels held at a time while they are resampled."""


@dataclass(frozen=True)
class Scaling:
    """How many source pixels one model pixel spans, down and along, in 256ths.

    Args:
        steps_yx: 256 where the axis stays as it is.
        note: what was assumed, for the person to see; empty where all is known.
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
        """Pixels at the model's resolution that cover a source of `shape_yx`."""
        rows, cols = (-(-n * _STEPS // step) for n, step in zip(shape_yx, self.steps_yx))
        return rows, cols

    def to_source(self, window: Window, shape_yx: tuple[int, int]) -> Window:
        """The source pixels that a window of model pixels lies on, inside the source."""
        row, row_stop = _span(window.row, window.row_stop, self.steps_yx[0], shape_yx[0])
        col, col_stop = _span(window.col, window.col_stop, self.steps_yx[1], shape_yx[1])
        return Window(row, col, row_stop - row, col_stop - col)

    def to_model(self, window: Window, shape_yx: tuple[int, int]) -> Window:
        """The model pixels that `enlarge` needs for a window of the source of `shape_yx`."""
        if self.is_identity:
            return window
        rows, cols = self.model_shape(shape_yx)
        row, row_stop = _needed(window.row, window.row_stop, self.steps_yx[0], rows)
        col, col_stop = _needed(window.col, window.col_stop, self.steps_yx[1], cols)
        return Window(row, col, row_stop - row, col_stop - col)


def _span(start: int, stop: int, step: int, length: int) -> tuple[int, int]:
    return start * step // _STEPS, min(-(-stop * step // _STEPS), length)


def _needed(start: int, stop: int, step: int, length: int) -> tuple[int, int]:
    first = floor((start + 0.5) * _STEPS / step - 0.5)
    last = floor((stop - 0.5) * _STEPS / step - 0.5) + 1
    return min(max(first, 0), length - 1), min(max(last, 0), length - 1) + 1


def scaling_for(
    grid: GeoGrid,
    model_gsd_m: float | None,
    *,
    gsd_m: float | None = None,
    scale: float | None = None,
    name: str = "image",
) -> Scaling:
    """How an image is brought to the model's metres per pixel.

    Args:
        grid: of the image.
        model_gsd_m: None for a model that knows no metres: the image stays as it is.
        gsd_m: of the image, said by the person; it outweighs the georeference.
        scale: that the image's rows and columns are multiplied by, said by the person; it
            outweighs all metres.
        name: of the image, for messages.

    Raises:
        ConfigError: a scale that is not between 1/16 and 16.
        GsdMismatch: more than four times coarser or finer than the model's.
    """
    if scale is not None:
        return _scaling_by(scale, name)
    if model_gsd_m is None:
        return Scaling()
    gsd_yx_m = (gsd_m, gsd_m) if gsd_m is not None else grid.gsd_yx_m
    if gsd_yx_m is None:
        return Scaling(
            note=f"{name} does not say how many metres a pixel spans: taken to be at the model's "
            f"{model_gsd_m:g} m. Say it with --gsd where that is wrong."
        )
    own = " × ".join(dict.fromkeys(f"{value:.3g}" for value in gsd_yx_m))
    ratios = tuple(model_gsd_m / value for value in gsd_yx_m)
    # A little beyond is let pass: zoom levels are nominal, and 0.0742 m is a quarter of 0.3 m.
    limit = LARGEST_RATIO * (1 + _SAME_WITHIN)
    if max(ratios) > limit or min(ratios) < 1 / limit:
        raise GsdMismatch(
            f"{name} has {own} m per pixel, the model was trained at {model_gsd_m:g} m; "
            f"up to {LARGEST_RATIO:g} times coarser or finer can be resampled.",
            remedy="Correct it with --gsd, use a model trained nearer to that, or have it resampled"
            f" nevertheless: --scale {1 / float(np.sqrt(ratios[0] * ratios[1])):.2g}",
        )
    steps = tuple(
        _STEPS if abs(ratio - 1) <= _SAME_WITHIN else round(ratio * _STEPS) for ratio in ratios
    )
    note = ""
    if max(ratios) > _SAID_FROM or min(ratios) < 1 / _SAID_FROM:
        note = f"{name} has {own} m per pixel and is resampled to the model's {model_gsd_m:g} m."
    return Scaling((steps[0], steps[1]), note)


def _scaling_by(scale: float, name: str) -> Scaling:
    if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
        raise ConfigError(
            f"A scale of {scale:g} was given; expected one between 1/{LARGEST_SCALE:g} and "
            f"{LARGEST_SCALE:g}, which rows and columns of {name} are multiplied by.",
            remedy="Give --scale 0.5 for an image twice as fine as the model, 2 for one half as "
            "fine.",
        )
    step = round(_STEPS / scale)
    note = ""
    if not 1 / _SAID_FROM <= scale <= _SAID_FROM:
        note = f"{name} is resampled to {_STEPS / step:.3g} times its rows and columns, as asked."
    return Scaling((step, step), note)


class Resampler:
    """Windows of a source at the model's resolution.

    Args:
        source: read from one thread at a time.
        scaling: how many source pixels a model pixel spans.
        fill: (band,) what nodata is given, so that the network sees nothing there.
        watch: called with the source pixels of every part that is read, and their window.
    """

    def __init__(
        self,
        source: RasterSource,
        scaling: Scaling,
        fill: tuple[float, ...],
        watch: Callable[[Window, Raster], None] | None = None,
    ) -> None:
        self._source = source
        self._scaling = scaling
        self._fill = np.asarray(fill)
        self._watch = watch
        self.shape_yx = scaling.model_shape(source.grid.shape)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(band, y, x) in the source's dtype and (y, x) valid, of a window of model pixels.

        A model pixel is valid where at least half of what it is made from is.
        """
        if self._scaling.is_identity:
            data, valid = self._read_source(window)
            return data, valid
        step_y, _ = self._scaling.steps_yx
        row_px = ceil(window.width * self._scaling.scale_yx[1]) * step_y / _STEPS
        strip = max(1, int(_SOURCE_STRIP_PX / max(row_px, 1)))
        data = np.empty((self._source.bands, *window.shape_yx), dtype=self._source.dtype)
        valid = np.empty(window.shape_yx, dtype=bool)
        for top in range(0, window.height, strip):
            height = min(strip, window.height - top)
            part = Window(window.row + top, window.col, height, window.width)
            self._resample(part, data[:, top : top + height], valid[top : top + height])
        return data, valid

    def is_empty(self, window: Window) -> bool:
        """Whether it is certain, without reading, that a window of model pixels is all nodata."""
        if not isinstance(self._source, SparseSource):
            return False
        return self._source.is_empty(self.reach(window))

    def reach(self, window: Window) -> Window:
        """The pixels of the source that a window of model pixels is made from."""
        if self._scaling.is_identity:
            return window
        found = self._filtered(window).intersection(Window.whole(self._source.grid.shape))
        assert found is not None
        return found

    def _filtered(self, window: Window) -> Window:
        """What the filter reaches; may leave the source at its last rows and columns."""
        step_y, step_x = self._scaling.steps_yx
        margin_y, margin_x = (ceil(max(step / _STEPS, 1)) + 1 for step in (step_y, step_x))
        row = max(floor(window.row * step_y / _STEPS) - margin_y, 0)
        col = max(floor(window.col * step_x / _STEPS) - margin_x, 0)
        row_stop = ceil(window.row_stop * step_y / _STEPS) + margin_y
        col_stop = ceil(window.col_stop * step_x / _STEPS) + margin_x
        return Window(row, col, row_stop - row, col_stop - col)

    def _resample(self, window: Window, data: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        # Beyond the source its last pixels are repeated.
        reach = self._filtered(window)
        wide = reach.intersection(Window.whole(self._source.grid.shape))
        assert wide is not None
        pixels, known = self._read_source(wide)
        beyond = (0, reach.height - wide.height), (0, reach.width - wide.width)
        if beyond != ((0, 0), (0, 0)):
            pixels = np.pad(pixels, ((0, 0), *beyond), mode="edge")
            known = np.pad(known, beyond, mode="edge")
        step_y, step_x = self._scaling.steps_yx
        box = (
            window.col * step_x / _STEPS - reach.col,
            window.row * step_y / _STEPS - reach.row,
            window.col_stop * step_x / _STEPS - reach.col,
            window.row_stop * step_y / _STEPS - reach.row,
        )
        for band, out in zip(pixels, data):
            out[:] = _resize(band, window.shape_yx, box)
        if known.all():
            valid[:] = True
        elif not known.any():
            valid[:] = False
        else:
            valid[:] = _resize(known.astype(np.uint8) * np.uint8(255), window.shape_yx, box) >= 128
            self._neutralise(data, valid)

    def _read_source(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        raster = self._source.read(window)
        if self._watch is not None:
            self._watch(window, raster)
        data = raster.data
        if not raster.valid.all():
            data = np.array(data)
            self._neutralise(data, raster.valid)
        return data, raster.valid

    def _neutralise(self, data: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        unknown = ~valid
        for band, value in zip(data, self._fill.astype(data.dtype)):
            band[unknown] = value


def _resize(
    band: NDArray[Any], shape_yx: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[Any]:
    """(y, x) of the part in `box` (left, top, right, bottom), antialiased where it shrinks."""
    whole = band.dtype == np.uint8
    image = Image.fromarray(band if whole else band.astype(np.float32))
    # One axis after the other: left to itself Pillow chooses their order by the sizes, and rounding
    # in between would make a pixel depend on the window.
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
    """Model pixels back onto the source's grid, bilinear.

    As in `Resampler` a value depends on the place in the scene alone: coordinates are rounded to
    32nds of a model pixel, which is what OpenCV interpolates from.

    Args:
        values: (channel, y, x) of the model window `origin`.
        origin: `scaling.to_model(window, …)`.
        window: of the source.
        scaling: source pixels per model pixel.

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
        # OpenCV's map cannot address rows beyond 2^15 either: values are handed over by strips.
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


def _places(
    start: int, stop: int, step: int, origin: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where source pixels lie between model pixels: the one before, and 32nds beyond it."""
    pixels = np.arange(start, stop, dtype=np.int64)
    # The centre of source pixel p is at (p + 1/2) * 256 / step - 1/2 model pixels.
    thirty_seconds = ((2 * pixels + 1) * (_STEPS * 32) + step) // (2 * step) - 16
    return (thirty_seconds >> 5) - origin, thirty_seconds & 31
