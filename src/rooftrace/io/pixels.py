"""Pixel values in the range that a model expects.

`Stretch` turns values of any type into those of the model. It is found once for a scene, from its
header and from a sample of the whole scene, so that it is the same for every block, worker, resumed
run and area. `PreparedSource` applies it, and the choice of bands, where pixels are read.
"""

import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.types import BoolArray, Raster, RasterSource, Window
from rooftrace.io.bands import BandMap, band_infos, find_bands, names_infrared
from rooftrace.io.georeferenced import GeoreferencedSource, WrappedSource, innermost
from rooftrace.io.nodata import differs, mended, widened
from rooftrace.io.scene_sample import holds_bytes, sample_of

PERCENTILES = (0.1, 99.9)
"""Percentiles of a scene's values that become the ends of the model's range."""

DARK_LEVEL = 96
"""Value of 8-bit images below which nearly all values of a very dark scene lie."""

_BRIGHT_SHARE = 0.02
"""Share of brighter values from which an image is not very dark."""

_CHUNK_PX = 2**14
"""Number of pixels that are stretched at a time."""

_MASK_COLOURS, _MASK_PX = 8, 2**10
"""Maximum number of colours of an image that is probably a mask, and its minimum size in pixels."""

_INFRARED, _INFRARED_EVEN = 0.06, 0.005
"""Least excess of the first band's mean over the others, and how much darker the third may be than
the second, in shares of full scale, for near infrared. At most a fifth of the images of any of 22
sets of natural colours are so; with a simulated near infrared, two thirds or more of 13 of them."""

StretchName = Literal["auto", "none", "per-band"]


def parse_stretch(text: str) -> StretchName | tuple[float, float]:
    """Return the name of a stretch, or the two values of `LOW,HIGH`."""
    if text in get_args(StretchName):
        return text  # type: ignore[return-value]  # checked by the line above
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise ConfigError(
            f"--stretch received {text!r}; expected {', '.join(get_args(StretchName))} or two "
            "values, the first one below the second.",
            remedy="For example: --stretch per-band, or --stretch 200,2500",
        )
    return low, high


def may_be_infrared(mean: Sequence[float]) -> bool:
    """Return whether an image of three bands may have near infrared in place of red.

    Args:
        mean: Mean of each band, in shares of full scale.
    """
    first, second, third = mean
    return first - max(second, third) > _INFRARED and third - second > -_INFRARED_EVEN


@dataclass(frozen=True)
class Stretch:
    """Linear map from the values of an image to those of a model, the same for a whole scene.

    Args:
        low, high: Values of the image, one for each of the model's bands, that become `to`.
        to: Ends of the model's range, one pair for each band; values beyond them are cut off.
        how: Way in which it was found: `percentiles`, `per-band`, `given`, `dark` or `bits`.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    to: tuple[tuple[float, float], ...]
    dtype: str
    how: str

    def apply(self, data: NDArray[Any]) -> NDArray[Any]:
        """Return (band, y, x) values of the model for values of the image."""
        out = np.empty(data.shape, self.dtype)
        is_exact = data.dtype.itemsize <= 2 or data.dtype == np.float32
        kind = np.dtype(np.float32 if is_exact else np.float64)
        # Few rows at a time stay in the processor's cache, which is several times as fast.
        rows = max(1, _CHUNK_PX // max(1, data.shape[2]))
        buffer = np.empty((rows, data.shape[2]), kind)
        ends = zip(data, out, self.low, self.high, self.to)
        for pixels, target, low, high, (first, last) in ends:
            for top in range(0, data.shape[1], rows):
                part = pixels[top : top + rows]
                mapped = buffer[: len(part)]
                np.subtract(part, kind.type(low), out=mapped, dtype=kind)
                mapped *= kind.type((last - first) / (high - low))
                if first:
                    mapped += kind.type(first)
                if data.dtype.kind == "f":
                    # NaN becomes the lower end.
                    np.fmax(mapped, kind.type(first), out=mapped)
                np.clip(mapped, kind.type(first), kind.type(last), out=mapped)
                if out.dtype.kind in "ui":
                    np.rint(mapped, out=mapped)
                np.copyto(target[top : top + rows], mapped, casting="unsafe")
        return out

    def record(self) -> dict[str, Any]:
        """Return the stretch as plain data."""
        to = [list(ends) for ends in self.to]
        return asdict(self) | {"low": list(self.low), "high": list(self.high), "to": to}

    def note(self, name: str, dtype: np.dtype[Any]) -> str:
        """Return a sentence for the user."""
        ends = [f"{low:.6g} to {high:.6g}" for low, high in zip(self.low, self.high)]
        values = ", ".join(dict.fromkeys(ends))
        first, last = self.to[0]
        what = f"{name} has values of type {dtype}"
        if self.how == "dark":
            what = f"{name} is very dark"
        elif self.how == "bits":
            what = f"{name} has fewer than 8 bits per value"
        into = f"{values} become {first:.6g} to {last:.6g}"
        return f"{what}: {into}, the range of the model. --stretch sets other values."


@dataclass(frozen=True)
class _Collar:
    """Fill that is left out although the file does not mark it.

    Args:
        colour: Its colour, one value per band.
        near: (y, x) of any number of rows and columns over the scene, True where it lies.
    """

    colour: tuple[float, ...]
    near: BoolArray

    def differs(self, data: NDArray[Any], window: Window, shape_yx: tuple[int, int]) -> BoolArray:
        """Return (y, x), False for the pixels of a window of the scene that have the colour."""
        rows, cols = (
            np.arange(start, stop) * known // length
            for start, stop, known, length in zip(
                (window.row, window.col), (window.row_stop, window.col_stop), self.near.shape,
                shape_yx,
            )
        )  # fmt: skip
        near = self.near[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        if not near.any():
            return np.ones(window.shape_yx, np.bool_)
        return differs(data, self.colour) | ~near[np.ix_(rows - rows[0], cols - cols[0])]


@dataclass(frozen=True)
class _Found:
    """Result of looking at the sample of a scene."""

    stretch: Stretch | None
    alpha: tuple[int, float] | None = None
    """Index of the alpha band, and half of its value for what is seen."""

    notes: tuple[str, ...] = ()
    collar: _Collar | None = None
    may_be_infrared: bool = False


_FOUND: weakref.WeakKeyDictionary[Any, dict[Any, _Found]] = weakref.WeakKeyDictionary()
"""Results by the source that was sampled: many windows of one scene share its sample."""


class PreparedSource(WrappedSource):
    """A `RasterSource` that shows the bands and values of another one as a model expects them.

    The scene is sampled when its pixels are first read. It can be pickled; one thread at a time may
    read from it.

    Args:
        to: Ends of the model's range, one pair for each of its bands.
        how: Result of `parse_stretch`.
        is_natural: Whether the model reads natural colours, so that infrared gets a note.
    """

    def __init__(
        self,
        source: RasterSource,
        bands: BandMap,
        dtype: np.dtype[Any],
        to: tuple[tuple[float, float], ...],
        how: StretchName | tuple[float, float],
        *,
        is_natural: bool = False,
    ) -> None:
        super().__init__(source)
        self.band_map = bands
        self._dtype = dtype
        self._to = to
        self._how = how
        self._is_natural = is_natural
        self._held: Raster | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with what was found, so that no worker samples the scene again."""
        _ = self._found
        return self.__dict__ | {"_held": None}

    @property
    def bands(self) -> int:
        return len(self.band_map.indexes)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def is_prepared(self) -> bool:
        """True: the values are those of the model."""
        return True

    @property
    def stretch(self) -> Stretch | None:
        """Map of the values; None if they are read as they are. The scene is sampled for it."""
        return self._found.stretch

    @property
    def choices(self) -> tuple[str, ...]:
        """Choices of bands and values that the user should know."""
        notes = [self.band_map.note, *self._found.notes]
        is_guess = self._is_natural and not names_infrared(self.source)
        if is_guess and self._found.may_be_infrared:
            choose = "" if self.source.bands == self.bands else ", or choose them with --bands"
            notes.append(
                f"{self.name}: the band that is read as red may be near infrared. If so, the model "
                f"is wrong here: take natural colours from the provider{choose}."
            )
        return tuple(filter(None, notes))

    @property
    def record(self) -> dict[str, Any]:
        """Return the bands and the stretch as plain data for `run.json`."""
        stretch = self._found.stretch
        return {
            "bands": list(self.band_map.numbers),
            "stretch": None if stretch is None else stretch.record(),
        }

    def read(self, window: Window | None = None) -> Raster:
        """Return the pixels of `window` as the model expects them."""
        found = self._found
        raster = self._stored(window)
        data, valid, context = raster.data, raster.valid, raster.context
        if found.collar is not None:
            is_ground = self._without_collar(found.collar, raster, window)
            valid = valid & is_ground
            context = None if context is None else context & is_ground
        if found.alpha is not None:
            band, half = found.alpha
            is_opaque = data[band] > half
            valid = valid & is_opaque
            context = None if context is None else context & is_opaque
        first = tuple(range(self.bands))
        indexes = self.band_map.indexes
        data = data[: self.bands] if indexes == first else data[list(indexes)]
        if found.stretch is not None:
            data = found.stretch.apply(data)
        elif data.dtype != self._dtype:
            data = self._cast(data)
        return Raster(data, valid, raster.grid, context)

    def close(self) -> None:
        self._held = None
        super().close()

    def _stored(self, window: Window | None) -> Raster:
        held = self._held
        if held is None or window is None or window.shape_yx == held.valid.shape:
            return held or self.source.read(window)
        rows, cols = window.slices()
        return Raster(held.data[:, rows, cols], held.valid[rows, cols], held.grid.crop(window))

    def _without_collar(self, collar: _Collar, raster: Raster, window: Window | None) -> BoolArray:
        """Return (y, x), False where pixels of a window belong to fill that is not marked."""
        shape, bands = self.grid.shape, len(collar.colour)

        def by_colour(stored: Raster, place: Window) -> tuple[NDArray[Any], BoolArray]:
            data = stored.data[:bands]
            return data, collar.differs(data, place, shape) & stored.seen

        window = window or Window.whole(shape)
        data, valid = by_colour(raster, window)
        # Many files without loss were JPEG before.
        return mended(
            window, data, valid, lambda around: by_colour(self._stored(around), around),
            [collar.colour], self.grid, is_lossy=collar.colour[0] == 255,
        )  # fmt: skip

    def _cast(self, data: NDArray[Any]) -> NDArray[Any]:
        if self._dtype.kind in "ui":
            limits = np.iinfo(self._dtype)
            data = np.nan_to_num(data).clip(limits.min, limits.max)
            if data.dtype.kind == "f":
                data = np.rint(data)
        return data.astype(self._dtype)

    @cached_property
    def _found(self) -> _Found:
        scene = innermost(self.source)
        is_entire = scene.grid.shape == self.grid.shape
        bands = self.band_map.indexes, self.band_map.maybe_alpha
        key = (bands, self._dtype, self._to, self._how, is_entire)
        known = _FOUND.setdefault(scene, {})
        if key in known:
            return known[key]
        maybe_alpha, alpha = self.band_map.maybe_alpha, None
        needs_values = self._how in ("auto", "per-band")
        is_whole = scene is self.source or isinstance(self.source, GeoreferencedSource)
        sample = sample_of(scene)
        values, whole = sample.values, sample.whole
        if is_whole and whole is not None:
            self._held = Raster(whole.data, whole.valid, self.grid)
        collar = None
        if sample.collar is not None and is_entire and not getattr(scene, "keeps_fill", False):
            collar = _Collar(sample.fill, widened(sample.collar))
        notes = sample.notes(self.name, is_left_out=collar is not None)
        if maybe_alpha is not None:
            half = _half_of_alpha(values[maybe_alpha])
            kind = "near infrared and not read" if half is None else "alpha: 0 is no data"
            taken = f"{self.name}: band {maybe_alpha + 1} is taken as {kind}."
            notes = [*notes, taken] if half is None else [taken]
            if half is not None:
                alpha = maybe_alpha, half
                values = values[:, values[maybe_alpha] > half]
        values = values[list(self.band_map.indexes[: self._in_file])]
        made = self._from_values(values) if needs_values else self._without_sample()
        is_infrared = False
        colours = _few_colours(values) + bool(sample.fill)
        if 1 < colours <= _MASK_COLOURS and values.shape[1] >= _MASK_PX:
            what = (
                f"{self.name} has only {colours} colours: it is a mask or a drawing. Give the "
                "image; for polygons of a mask: rooftrace vectorize."
            )
            notes = [what]
        elif values.size and len(values) == self.bands == 3 and self._dtype == np.uint8:
            cast = self._cast if made.stretch is None else made.stretch.apply
            shown = cast(values[:, None])[:, 0]
            is_infrared = may_be_infrared((shown.mean(axis=1) / 255).tolist())
        known[key] = _Found(made.stretch, alpha, (*notes, *made.notes), collar, is_infrared)
        return known[key]

    def _without_sample(self) -> _Found:
        if isinstance(self._how, tuple):
            low, high = self._how
            made = self._stretch([low] * self._in_file, [high] * self._in_file, "given")
            return _Found(made)
        if self._dtype != self.source.dtype:
            note = f"{self.name} has values of type {self.source.dtype}, which are not stretched."
            return _Found(None, notes=(note,))
        return _Found(None)

    def _from_values(self, values: NDArray[Any]) -> _Found:
        """Return the stretch for the sampled (band, n) values of the model's bands."""
        own, is_byte = self.source.dtype, self._dtype == np.uint8
        if own.kind in "ui" and own.itemsize > 1:
            # Collars and clipboards at the ends of the type would squeeze the picture.
            limits = np.iinfo(own)
            inside = ((values > limits.min) & (values < limits.max)).all(axis=0)
            values = values[:, inside] if inside.any() else values
        if not values.size:
            return self._without_sample()
        if self._how == "per-band":
            low, high = np.percentile(values, PERCENTILES, axis=1)
            made = self._stretch(low.tolist(), high.tolist(), "per-band")
            return _Found(made, notes=(made.note(self.name, own),))
        stated = min((info.bits for info in band_infos(self.source)), default=0)
        bits = stated or own.itemsize * 8
        if is_byte and own == np.uint8 and bits < 8:
            most = [2.0**bits - 1] * self._in_file
            made = self._stretch([0.0] * self._in_file, most, "bits")
            return _Found(made, notes=(made.note(self.name, own),))
        as_bytes = own == np.uint8 or holds_bytes(values)
        if is_byte and as_bytes:
            is_dark = np.count_nonzero(values >= DARK_LEVEL) < _BRIGHT_SHARE * values.size
            if not is_dark:
                note = f"{self.name} has 8-bit values of type {own}."
                return _Found(None, notes=() if own == np.uint8 else (note,))
        elif own == self._dtype or self._dtype.kind == "f":
            return _Found(None)
        low, high = np.percentile(values, PERCENTILES)
        if low == high:
            return self._without_sample()
        ends = [float(low)] * self._in_file, [float(high)] * self._in_file
        made = self._stretch(*ends, "dark" if as_bytes else "percentiles")
        return _Found(made, notes=(made.note(self.name, own),))

    @cached_property
    def _in_file(self) -> int:
        """Number of bands that are read from the file; heights, which come last, are not."""
        count = innermost(self.source).bands
        return sum(index < count for index in self.band_map.indexes)

    def _stretch(self, low: Sequence[float], high: Sequence[float], how: str) -> Stretch:
        # A band with one value has no contrast to stretch.
        above = (one if one > least else least + 1 for least, one in zip(low, high))
        added = self.bands - len(low)
        return Stretch(
            (*low, *[0.0] * added), (*above, *[255.0] * added),
            (*self._to[: len(low)], *[(0.0, 255.0)] * added), self._dtype.name, how,
        )  # fmt: skip


def prepare(
    source: RasterSource,
    wanted: Sequence[str],
    dtype: np.dtype[Any],
    usual: Sequence[tuple[float, float]],
    *,
    bands: str | None = None,
    stretch: str = "auto",
    is_natural: bool = False,
) -> RasterSource:
    """Return an image with the bands and values that a model expects.

    Its pixels are not read here.

    Args:
        source: Image; one that is prepared already is returned as it is.
        usual: Mean and standard deviation of each band in the training of the model.
        bands: Bands of the image that the user chose, see `parse_bands`.
        stretch: Way in which values are stretched, see `parse_stretch`.
        is_natural: Whether the model reads natural colours, so that infrared gets a note.
    """
    if getattr(source, "is_prepared", False):
        return source
    how = parse_stretch(stretch)
    found = find_bands(band_infos(source), wanted, bands, source.name)
    own = source.dtype
    if own.kind not in "uif":
        raise DataError(
            f"{source.name} has values of type {own}; expected whole or decimal numbers.",
            remedy="Convert them: array.astype(np.uint8); radar to amplitudes with gdal_calc.py.",
        )
    kept = own if dtype.kind == "f" and how in ("auto", "none") else dtype
    to = ((0.0, 255.0),) * len(wanted)
    if dtype != np.uint8:
        least = 0.0 if dtype.kind == "u" else -np.inf
        to = tuple((max(mean - 2 * std, least), mean + 2 * std) for mean, std in usual)
    return PreparedSource(source, found, kept, to, how, is_natural=is_natural)


def _few_colours(values: NDArray[Any]) -> int:
    """Return the number of colours in (band, n) values if they are few, else some larger number."""
    colours = 0
    for step in (max(1, values.shape[1] // 64), 1):
        colours = len({*map(bytes, values[:, ::step].T)})
        if colours > _MASK_COLOURS:
            break
    return colours


def _half_of_alpha(values: NDArray[Any]) -> float | None:
    """Return half of the full value of an alpha band, also one that JPEG has blurred; else None."""
    full = next((full for full in (1, 255, 65535) if values.max(initial=0) <= full), 0)
    if not values.size or not full:
        return None
    off = np.minimum(np.abs(values.astype(np.float64)), np.abs(full - values.astype(np.float64)))
    # Near infrared of dark water is near 0, with bright roofs in it that are full.
    is_blurred = np.mean(values == full) >= 0.01 and np.mean(off == 0) >= 0.5
    is_blurred &= np.mean(off <= full / 8) >= 0.99
    return full / 2 if is_blurred or not off.any() else None
