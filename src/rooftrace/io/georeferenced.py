"""Raster sources of other pixels: an array, a black image, another source with another grid.

The origin of an image is its name and the date on which it was taken, where its file states one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.text import ASSIGN_CRS, PLACE_IMAGE, list_first
from rooftrace.core.types import (
    UNKNOWN_PROVENANCE,
    BoolArray,
    GeoGrid,
    Raster,
    RasterSource,
    ResultProvenance,
    Window,
    is_known_empty,
)
from rooftrace.io.image_header import BandInfo, is_date
from rooftrace.io.reproject import crs_text


class WrappedSource:
    """Base of a source that shows the pixels of another source."""

    def __init__(self, source: RasterSource) -> None:
        self.source = source

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r})"

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def grid(self) -> GeoGrid:
        return self.source.grid

    @property
    def bands(self) -> int:
        return self.source.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    @property
    def band_info(self) -> tuple[BandInfo, ...]:
        """Descriptions of the bands, if the other source has them."""
        return tuple(getattr(self.source, "band_info", ()))

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of the other source for the user."""
        return tuple(getattr(self.source, "notes", ()))

    def is_empty(self, window: Window) -> bool:
        """Return True if a window certainly holds nodata alone; False if that is not known."""
        return is_known_empty(self.source, window)

    def close(self) -> None:
        """Close the file of the other source, if there is one."""
        close_source(self.source)


def window_box(window: Window) -> shapely.Polygon:
    """Return the rectangle of a window, x right and y down."""
    return shapely.box(window.col, window.row, window.col_stop, window.row_stop)


def close_source(source: RasterSource) -> None:
    """Close the file of an image, if it has one."""
    getattr(source, "close", lambda: None)()


def innermost(source: RasterSource) -> RasterSource:
    """Return the image under the wrappers that show it."""
    while isinstance(source, WrappedSource):
        source = source.source
    return source


def is_sequential(source: RasterSource) -> bool:
    """Return the attribute `is_sequential` of an image; False if it has none."""
    return bool(getattr(innermost(source), "is_sequential", False))


class GeoreferencedSource(WrappedSource):
    """A `RasterSource` whose grid comes from elsewhere: the name of a tile, a table.

    Args:
        place: Function from the source's own grid to the grid to use, of the same shape. It is
            called when the grid is first needed. It must be picklable if the source is pickled.
    """

    def __init__(self, source: RasterSource, place: Callable[[GeoGrid], GeoGrid]) -> None:
        super().__init__(source)
        self._place = place

    @cached_property
    def grid(self) -> GeoGrid:
        return self._place(self.source.grid)

    def read(self, window: Window | None = None) -> Raster:
        raster = self.source.read(window)
        return replace(raster, grid=self.grid if window is None else self.grid.crop(window))


def parse_crs(text: str) -> CRS:
    """Return the coordinate system of a code, WKT or PROJ string."""
    try:
        return CRS.from_user_input(int(text) if text.isdecimal() else text)
    except CRSError:
        raise ConfigError(
            f"--crs received {text!r}; expected a coordinate system.",
            remedy="Give its code, such as EPSG:32645; https://epsg.io lists them.",
        ) from None


def placed_by(source: RasterSource, otherwise: str = "") -> str:
    """Return the remedy for an image without a coordinate system: its own note, if it has one."""
    note: str = getattr(innermost(source), "position_note", "")
    command = PLACE_IMAGE if source.grid.transform.is_identity else ASSIGN_CRS
    return note or otherwise or f"Assign one: {command}"


def check_crs(source: RasterSource, crs: CRS, name: str) -> None:
    """Raise ConfigError if a coordinate system that was given cannot be that of an image."""
    grid = source.grid
    if grid.transform.is_identity:
        raise ConfigError(
            f"--crs was given, but {name} has no position, nor a world file beside it.",
            remedy=placed_by(source, f"Leave out --crs, or write the position: {PLACE_IMAGE}"),
        )
    if grid.crs is not None and not grid.crs.equals(crs, ignore_axis_order=True):
        raise ConfigError(
            f"--crs says {crs_text(crs)}, but {name} is in {crs_text(grid.crs)}.",
            remedy=f"Leave out --crs, or correct the file: {ASSIGN_CRS}",
        )


def in_crs(source: RasterSource, crs: CRS) -> GeoreferencedSource:
    """Return an image in `crs` if it has a position in an unknown coordinate system."""
    return GeoreferencedSource(source, partial(_with_crs, crs))


def _with_crs(crs: CRS, grid: GeoGrid) -> GeoGrid:
    return grid if grid.crs or grid.transform.is_identity else replace(grid, crs=crs)


class WindowSource(WrappedSource):
    """A `RasterSource` that shows one window of another: a chip of a scene."""

    def __init__(self, source: RasterSource, window: Window) -> None:
        super().__init__(source)
        self._window = window

    @property
    def name(self) -> str:
        return f"{self.source.name} ({self._window})"

    @cached_property
    def grid(self) -> GeoGrid:
        return self.source.grid.crop(self._window)

    def read(self, window: Window | None = None) -> Raster:
        return self.source.read(in_scene(window, self._window))

    def is_empty(self, window: Window) -> bool:
        return super().is_empty(in_scene(window, self._window))


def in_scene(window: Window | None, outer: Window) -> Window:
    """Return a window of a chip, whose window in its scene is `outer`, as a window of the scene."""
    if window is None:
        return outer
    shifted = Window(window.row + outer.row, window.col + outer.col, window.height, window.width)
    if shifted.intersection(outer) != shifted:
        raise ValueError(f"{window} is not inside a chip of {outer.shape_yx}")
    return shifted


def provenance_of(source: RasterSource) -> ResultProvenance:
    """Return the attribute `provenance` of an image, or an unknown origin if it has none."""
    origin: ResultProvenance = getattr(innermost(source), "provenance", UNKNOWN_PROVENANCE)
    return origin


def recorded_provenance(figures: Mapping[str, Any]) -> ResultProvenance:
    """Return the origin in the figures of a `run.json`; names of later versions are left out."""
    record = figures.get("provenance") or {}
    return ResultProvenance(
        **{field.name: record.get(field.name) for field in fields(ResultProvenance)}
    )


def parse_imagery_date(text: str) -> str:
    """Return a date of `is_date`, or an interval of two of them, as they were given.

    Args:
        text: Text in the form of ISO 8601, such as `2024`, `2024-05-17` or `2024-05-01/2024-05-31`.
    """
    parts = text.split("/")
    if len(parts) > 2 or not all(map(is_date, parts)):
        raise ConfigError(
            f"The imagery date is {text!r}; expected 2024, 2024-05, 2024-05-17 or two with a /.",
            remedy="Write the year, or also month and day, with hyphens.",
        )
    return text


def date_span(dates: Sequence[str | None]) -> str | None:
    """Return the day or the interval of days that dates cover; None if one is not known."""
    days = sorted({part[:10] for date in dates if date for part in date.split("/")})
    if None in dates or not days:
        return None
    return days[0] if len(days) == 1 else f"{days[0]}/{days[-1]}"


def model_notes(models: Iterable[str | None]) -> list[str]:
    """Return a note if results of several dates are of different models."""
    names = sorted({*models} - {None}, key=str)
    if len(names) < 2:
        return []
    note = f"The dates are of the models {list_first(names)}"
    return [f"{note}: what these find differently looks like a change"]


class ArraySource:
    """A `RasterSource` over an array in memory.

    Args:
        array: Pixels (band, y, x), any dtype. The array is not copied and never written to. Pixels
            that are masked (`numpy.ma`), NaN or infinite in a band are nodata.
        grid: Position of the pixels; default a grid without a georeference.
        valid: Valid pixels (y, x) bool, False where nodata; default all valid.
        name: Name in errors and reports.
        band_info: Descriptions of the bands, if there are any.
        keeps_fill: Whether white or black at the edges is ground, not undeclared fill.

    Raises:
        DataError: the shapes of `array`, `grid` and `valid` do not agree.
    """

    def __init__(
        self,
        array: NDArray[Any],
        grid: GeoGrid | None = None,
        valid: BoolArray | None = None,
        name: str = "array",
        band_info: Sequence[BandInfo] = (),
        keeps_fill: bool = False,
    ) -> None:
        if array.ndim != 3 or not array.size:
            raise DataError(
                f"{name}: received an array of shape {array.shape}, expected (band, y, x).",
                remedy="Add a band axis in front, array[None], or check the slice if it is empty.",
            )
        shape_yx = (int(array.shape[1]), int(array.shape[2]))
        grid = GeoGrid(shape_yx) if grid is None else grid
        valid = np.ones(shape_yx, np.bool_) if valid is None else np.asarray(valid, np.bool_)
        for what, shape in (("grid", grid.shape), ("valid", valid.shape)):
            if shape != shape_yx:
                raise DataError(
                    f"{name}: received {what} of {shape} for (band, y, x) of {array.shape}.",
                    remedy="Put the bands first: np.moveaxis(array, -1, 0). Or crop it alike.",
                )
        if isinstance(array, np.ma.MaskedArray):
            valid = valid & ~np.ma.getmaskarray(array).any(axis=0)
        if array.dtype.kind == "f":
            valid = valid & np.isfinite(np.ma.getdata(array)).all(axis=0)
        self.name, self.grid, self.bands, self.dtype = name, grid, int(array.shape[0]), array.dtype
        self.band_info, self.keeps_fill = tuple(band_info), keeps_fill
        self._array, self._valid = np.ma.getdata(array), valid

    def read(self, window: Window | None = None) -> Raster:
        """Return a copy of the pixels of `window`, so that a caller may write to it.

        Raises:
            DataError: the window is empty or leaves the grid.
        """
        whole = Window.whole(self.grid.shape)
        window = whole if window is None else window
        if window.area_px <= 0 or window.intersection(whole) != window:
            raise DataError(
                f"{self.name}: received the window {window}, expected one inside {whole}.",
                remedy="Intersect the window with Window.whole(source.grid.shape) first.",
            )
        rows, cols = window.slices()
        return Raster(
            self._array[:, rows, cols].copy(),
            self._valid[rows, cols].copy(),
            self.grid.crop(window),
        )


class BlankSource:
    """A `RasterSource` that is black and valid everywhere: the image of a label without imagery."""

    bands = 3
    dtype = np.dtype(np.uint8)

    def __init__(self, grid: GeoGrid, name: str) -> None:
        self.grid = grid
        self.name = name

    def read(self, window: Window | None = None) -> Raster:
        grid = self.grid if window is None else self.grid.crop(window)
        data = np.zeros((self.bands, *grid.shape), np.uint8)
        return Raster(data, np.ones(grid.shape, np.bool_), grid)
