"""The value types that all parts of rooftrace share.

Rows come before columns. Names carry units: `_px`, `_m`, `_m2`. Arrays are band-first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from affine import Affine
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer

from rooftrace.core.errors import GeoreferenceError
from rooftrace.core.text import plural

if TYPE_CHECKING:
    import geopandas


Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Polygons = NDArray[np.object_]
"""Shapely polygons and multipolygons; None where a feature has none."""

Bounds = tuple[float, float, float, float]
"""Left, bottom, right and top; in degrees: west, south, east and north."""

Progress = Callable[[int, int], None]
"""Function called with the number of finished items and their total; 0 if that is unknown."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of pixels: rows [row, row_stop) and columns [col, col_stop), half-open."""

    row: int
    col: int
    height: int
    width: int

    @classmethod
    def middle(cls, shape_yx: tuple[int, int], side_px: int) -> Window:
        """Return the middle of a raster, at most `side_px` high and wide."""
        (height, width), (rows, cols) = shape_yx, (min(side, side_px) for side in shape_yx)
        return cls((height - rows) // 2, (width - cols) // 2, rows, cols)

    @classmethod
    def whole(cls, shape_yx: tuple[int, int]) -> Window:
        """Return the window that covers an array of `shape_yx`."""
        return cls(0, 0, *shape_yx)

    @property
    def row_stop(self) -> int:
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        return self.col + self.width

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def area_px(self) -> int:
        return self.height * self.width

    def padded(self, px: int) -> Window:
        """Return the window grown by `px` on every side; it may leave its array."""
        return Window(self.row - px, self.col - px, self.height + 2 * px, self.width + 2 * px)

    def intersection(self, other: Window) -> Window | None:
        """Return the part that both windows cover, or None if they do not overlap."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row_stop, other.row_stop) - row
        width = min(self.col_stop, other.col_stop) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def strips(self, rows: int) -> Iterator[Window]:
        """Yield windows of `rows` rows from top to bottom; the last one may have fewer."""
        for row in range(self.row, self.row_stop, rows):
            yield Window(row, self.col, min(rows, self.row_stop - row), self.width)

    def blocks(self, rows: int, cols: int) -> Iterator[Window]:
        """Yield windows of `rows` by `cols`, row by row; the last ones may be smaller."""
        for strip in self.strips(rows):
            for col in range(self.col, self.col_stop, cols):
                yield Window(strip.row, col, strip.height, min(cols, self.col_stop - col))

    def slices(self, origin: Window | None = None) -> tuple[slice, slice]:
        """Return slices (rows, columns) into an array that covers `origin` (default: from 0, 0)."""
        row0, col0 = (origin.row, origin.col) if origin else (0, 0)
        return (
            slice(self.row - row0, self.row_stop - row0),
            slice(self.col - col0, self.col_stop - col0),
        )

    def __str__(self) -> str:
        return f"rows {self.row}:{self.row_stop}, columns {self.col}:{self.col_stop}"


@dataclass(frozen=True, slots=True)
class Tile:
    """A window that the network reads, and the part of it whose output counts.

    Both are in pixels of the scene. `write` lies inside `read`; the ring between them is context.
    """

    read: Window
    write: Window


_MERCATOR = ("Popular Visualisation Pseudo Mercator", "Mercator (variant A)")


@lru_cache(maxsize=32)
def full_turn(crs: CRS) -> float | None:
    """Return by how much x grows in a full turn around the Earth; None where it does not repeat.

    Longitudes and the Mercator projections that are usual on the web repeat.
    """
    # A compound CRS has its degrees or metres in the horizontal part, and one that brings its
    # transformation to WGS 84 in the other.
    crs = next((part for part in crs.sub_crs_list if not part.is_vertical), crs)
    if crs.is_bound and crs.source_crs is not None:
        crs = crs.source_crs
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 0.0
    if not unit:
        return None
    if crs.is_geographic:
        return 2 * math.pi / unit
    operation = crs.coordinate_operation
    if operation is None or operation.method_name not in _MERCATOR or crs.ellipsoid is None:
        return None
    scale = next((float(one.value) for one in operation.params if "Scale" in one.name), 1.0)
    return 2 * math.pi * crs.ellipsoid.semi_major_metre * scale / unit


@dataclass(frozen=True)
class GeoGrid:
    """The position of the pixels of a raster.

    Args:
        shape: Rows and columns.
        transform: Transform from pixel (column, row) to world (x, y), corner-based as in GDAL.
        crs: Coordinate system of the world, as pyproj or rasterio has it, or None for an image
            without a georeference.
    """

    shape: tuple[int, int]
    transform: Affine = field(default_factory=Affine.identity)
    crs: CRS | None = None

    def __post_init__(self) -> None:
        crs: Any = self.crs
        if not isinstance(crs, CRS | None):
            object.__setattr__(self, "crs", CRS.from_user_input(crs))
        # Six bare numbers have one order in rasterio and another in GDAL.
        if not isinstance(self.transform, Affine):
            raise GeoreferenceError(
                f"The transform of the grid is {self.transform!r}; expected an Affine, as "
                "dataset.transform of rasterio.",
                remedy="From affine import Affine, and give Affine(*numbers) in rasterio's order, "
                "or Affine.from_gdal(*numbers) in GDAL's.",
            )

    @property
    def height(self) -> int:
        return self.shape[0]

    @property
    def width(self) -> int:
        return self.shape[1]

    @property
    def gsd_yx_m(self) -> tuple[float, float] | None:
        """Metres on the ground from one pixel to the next, down a column and along a row.

        The distance is measured on the WGS 84 ellipsoid at the centre of the grid, so that neither
        the degrees of a geographic CRS nor the stretching of Web Mercator count as metres. None
        without a CRS, and if pixels have no size on the ground.
        """
        return None if self._pixel is None else self._pixel[:2]

    @cached_property
    def _pixel(self) -> tuple[float, float, float] | None:
        """`gsd_yx_m`, and the sine of the angle between the two directions on the ground."""
        if self.crs is None:
            return None
        row, col = self.height / 2, self.width / 2
        # A baseline of several pixels keeps the difference of two coordinates well conditioned.
        step = 16.0
        cols = np.array([col, col, col - step / 2, col + step / 2])
        rows = np.array([row - step / 2, row + step / 2, row, row])
        xs, ys = self.to_world(cols, rows)
        transformer = Transformer.from_crs(self.crs, 4326, always_xy=True)
        lon, lat = transformer.transform(xs, ys)
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            return None
        turn, _, metres = Geod(ellps="WGS84").inv(
            lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]]
        )
        down, along = np.asarray(metres, dtype=float) / step
        across = abs(np.sin(np.radians(turn[1] - turn[0])))
        if not (np.isfinite([down, along]).all() and down > 0 and along > 0 and across > 0):
            return None
        return float(down), float(along), float(across)

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel as one figure for both axes: the side of a square of a pixel's area."""
        pixel = self._pixel
        return None if pixel is None else float(np.sqrt(np.prod(pixel)))

    def to_world(
        self, cols: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the world (x, y) of pixel coordinates; 0 is the outer edge of the first pixel."""
        t = self.transform
        return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f

    def to_pixels(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, 2) columns and rows of (n, 2) world coordinates, the reverse of `to_world`.

        Longitudes that differ by whole turns are one place: of the columns of a position, the one
        is returned that is nearest to the middle of the grid. So a grid may lie across longitude
        180, or beyond it, where transformations give longitudes from -180 to 180.
        """
        t = ~self.transform
        x, y = xy.T
        # Positions outside the range of a system are infinite.
        with np.errstate(invalid="ignore"):
            if self._turn is not None:
                middle, _ = self.to_world(np.array(self.width / 2), np.array(self.height / 2))
                x = x - self._turn * np.round((x - middle) / self._turn)
            return np.stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f], axis=1)

    @cached_property
    def _turn(self) -> float | None:
        return None if self.crs is None else full_turn(self.crs)

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """Bounds (left, bottom, right, top) of the grid's corners in the CRS."""
        cols = np.array([0, self.width, self.width, 0], dtype=float)
        rows = np.array([0, 0, self.height, self.height], dtype=float)
        xs, ys = self.to_world(cols, rows)
        return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())

    def crop(self, window: Window) -> GeoGrid:
        """Return the grid of a window of this grid."""
        shifted = self.transform @ Affine.translation(window.col, window.row)
        return GeoGrid(window.shape_yx, shifted, self.crs)

    def resampled(self, shape: tuple[int, int], scale_yx: tuple[float, float]) -> GeoGrid:
        """Return a grid from the same corner whose pixels are `scale_yx` times as large."""
        scaled = self.transform @ Affine.scale(scale_yx[1], scale_yx[0])
        return GeoGrid(shape, scaled, self.crs)


@dataclass(frozen=True, slots=True, repr=False)
class Raster:
    """Pixels of an image.

    Args:
        data: (band, y, x) values of any dtype.
        valid: (y, x) bool, False where nodata.
        grid: Grid of the pixels.
        context: (y, x) bool, True for valid pixels and for those that an area of interest leaves
            out. A network sees them, and results have no value there. None if there is no area.
    """

    data: NDArray[Any]
    valid: BoolArray
    grid: GeoGrid
    context: BoolArray | None = None

    def __repr__(self) -> str:
        bands, kind = plural(len(self.data), "band"), self.data.dtype
        return f"<Raster: {bands} of {kind}, {_described(self.grid, self.valid)}>"

    @property
    def seen(self) -> BoolArray:
        """(y, x) bool, True for the pixels that a network sees."""
        return self.valid if self.context is None else self.context

    @property
    def is_coloured(self) -> bool:
        """True if there are several bands, and they differ in a valid pixel."""
        differs = (self.data[1:] != self.data[0]).any(axis=0)
        return bool((differs & self.valid).any())


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Mask(NDArrayOperatorsMixin):
    """Class indices: `data` (y, x) uint8; `valid` (y, x), False where the class is not known.

    It compares and computes as `data` does: `mask == 1` is (y, x) bool.
    """

    data: NDArray[np.uint8]
    valid: BoolArray
    grid: GeoGrid

    def __repr__(self) -> str:
        return f"<Mask: {_described(self.grid, self.valid)}>"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.grid.shape

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Return `data`, for `np.asarray` and libraries that take arrays."""
        return np.array(self.data, dtype, copy=copy)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any
    ) -> NDArray[Any]:
        arrays = [one.data if isinstance(one, Mask) else one for one in inputs]
        result: NDArray[Any] = getattr(ufunc, method)(*arrays, **options)
        return result


def _described(grid: GeoGrid, valid: BoolArray) -> str:
    crs = "pixels" if grid.crs is None else grid.crs.name
    return f"{grid.height} × {grid.width} px, {valid.mean():.0%} valid, in {crs}"


@runtime_checkable
class RasterSource(Protocol):
    """Anything from which pixels can be read by window."""

    @property
    def name(self) -> str: ...
    @property
    def grid(self) -> GeoGrid: ...
    @property
    def bands(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def read(self, window: Window | None = None) -> Raster:
        """Return the pixels of `window` (inside the grid; default all) at the native resolution."""
        ...


@runtime_checkable
class SparseSource(RasterSource, Protocol):
    """A `RasterSource` that knows without reading which windows are empty."""

    def is_empty(self, window: Window) -> bool:
        """Return True if a window certainly holds nodata alone; False if that is not known."""
        ...


def is_known_empty(source: RasterSource, window: Window) -> bool:
    """Return `SparseSource.is_empty` of an image; False for one that does not know."""
    # Not `isinstance`, which would evaluate every property of the protocol.
    is_empty = getattr(source, "is_empty", None)
    return is_empty is not None and bool(is_empty(window))


@runtime_checkable
class LabelReader(Protocol):
    """The label of one scene."""

    def read(self, window: Window | None = None) -> Mask: ...


@runtime_checkable
class InstanceReader(LabelReader, Protocol):
    """A `LabelReader` that separates its objects, even those that touch."""

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32] | None:
        """Return the number of the object of each pixel: (y, x), from 1; 0 where there is none.

        An object has the same number in every window of the scene. None if the label does not
        separate objects.
        """
        ...


@runtime_checkable
class OutlineReader(LabelReader, Protocol):
    """A `LabelReader` whose objects are polygons."""

    def read_outlines(self) -> tuple[NDArray[np.object_], NDArray[np.int16]] | None:
        """Return the polygons of the scene and their class indices; None if there are no polygons.

        Polygons are (n,) in pixels of the image (x right, y down). Class indices are (n,) and
        negative where the class is not known.
        """
        ...


@dataclass(frozen=True)
class Scene:
    """One image and, if there is one, its label.

    Args:
        id: Name of the scene in splits and reports, unique within its source.
        image: Pixels of the image.
        label: Class indices on the grid of the image, or None.
        group: Place or flight; a split puts all scenes of one group into the same subset.
        gsd_m: Metres per pixel, given by the user or derived from the georeference; None if
            unknown.
    """

    id: str
    image: RasterSource
    label: LabelReader | None = None
    group: str = ""
    gsd_m: float | None = None

    @property
    def stated_gsd_m(self) -> float | None:
        """The `gsd_m` that the user gave; None if it comes from the georeference.

        The georeference has a figure for each axis, which is more exact than one figure for both.
        """
        return None if self.gsd_m == self.image.grid.gsd_m else self.gsd_m


@dataclass(frozen=True, slots=True)
class Sample:
    """A training sample.

    Args:
        image: Pixels (band, y, x).
        target: Class indices (y, x) uint8.
        valid: Pixels (y, x) bool that are valid in the image and whose class is known; only these
            count in the loss and in metrics.
        instances: Number of the object of each pixel (y, x) int32, 0 for none; None if not
            requested or if the label does not separate objects.
        image_valid: Pixels (y, x) bool that are valid in the image, also where the class is not
            known; None if these are the same as `valid`.
    """

    image: NDArray[Any]
    target: NDArray[np.uint8]
    valid: BoolArray
    instances: NDArray[np.int32] | None = None
    image_valid: BoolArray | None = None

    @property
    def shown(self) -> BoolArray:
        """Pixels (y, x) bool that are valid in the image."""
        return self.valid if self.image_valid is None else self.image_valid


@dataclass(frozen=True)
class ResultProvenance:
    """Origin of the polygons of an image; None for what is not known.

    Args:
        imagery_date: Date on which the image was taken, in the form of ISO 8601: `2024`,
            `2024-05`, `2024-05-17`, `2024-05-17T10:31:00Z` or `2024-05-01/2024-05-31`.
        source: Attribution of the imagery.
        model: Name of the model.
        image: Name or URL of the image.
    """

    imagery_date: str | None = None
    source: str | None = None
    model: str | None = None
    image: str | None = None

    def filled(self, other: ResultProvenance) -> ResultProvenance:
        """Return the same origin, with what is not known taken from another one."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        return replace(other, **known) if known else other

    def credit(self) -> str:
        """Return attribution and date of the imagery for a picture."""
        return ", ".join(filter(None, (self.source, self.imagery_date)))

    def columns(self) -> dict[str, str | None]:
        """Return the attributes of polygons; of one without an attribution, the image is given."""
        source = self.source or self.image
        return {"imagery_date": self.imagery_date, "source": source, "model": self.model}


UNKNOWN_PROVENANCE = ResultProvenance()


@dataclass(frozen=True, repr=False)
class Footprints:
    """Buildings, or the regions of several classes, as polygons.

    `perimeter_m`, `orientation_deg`, `rectangularity` and `refined` are None if not requested,
    `divided` if it is not known.

    Args:
        geometry: (n,) shapely polygons, in `crs`, or in pixels (x right, y down) without one.
        score: (n,) float32 in 0..1, mean probability of the polygon's class in its pixels.
        area_m2: (n,) float64 area on the ellipsoid; NaN where metres are not known.
        crs: Coordinate system of the geometry, or None for pixels.
        class_id: (n,) uint8 class index of each polygon; None if all are buildings.
        classes: Names of the classes by index.
        perimeter_m: (n,) float64 perimeter on the ellipsoid, holes included; NaN where metres are
            not known.
        orientation_deg: (n,) float64 in 0..180, bearing of the longer side of the smallest
            rectangle around the polygon: clockwise from true north, or from the upper side of the
            image without a CRS. A square has the bearing of either side.
        rectangularity: (n,) float64 in 0..1, area over that of the smallest rectangle around the
            polygon (Rosin 1999, doi:10.1007/s001380050101).
        provenance: Origin of the polygons, which is the same for all of them.
        refined: (n,) bool, True where another network has changed the outline, see
            `predict.refine_outlines`.
        cut: (n,) bool, True where the edge of the valid data cuts the polygon: of the image, its
            nodata, or the area; None if it is not known.
        divided: (n,) bool, True for a piece of a region of the mask that was divided into
            buildings, such as a house in a row; it is not written to files.
    """

    geometry: NDArray[np.object_]
    score: NDArray[np.float32]
    area_m2: NDArray[np.float64]
    crs: CRS | None
    class_id: NDArray[np.uint8] | None = None
    classes: tuple[str, ...] = ()
    perimeter_m: NDArray[np.float64] | None = None
    orientation_deg: NDArray[np.float64] | None = None
    rectangularity: NDArray[np.float64] | None = None
    provenance: ResultProvenance = UNKNOWN_PROVENANCE
    refined: NDArray[np.bool_] | None = None
    cut: NDArray[np.bool_] | None = None
    divided: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.geometry)

    def __repr__(self) -> str:
        crs = "pixels" if self.crs is None else self.crs.name
        return f"<Footprints: {plural(len(self), 'polygon')} in {crs}>"

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Footprints:
        """Return the chosen polygons; `which` is (n,) bool, or indices."""
        return replace(self, **{name: values[which] for name, values in self._arrays().items()})

    @classmethod
    def joined(cls, parts: Sequence[Footprints]) -> Footprints:
        """Concatenate one or more parts of one CRS and with the same attributes."""
        arrays = [part._arrays() for part in parts]
        together: dict[str, Any] = {
            name: np.concatenate([a[name] for a in arrays]) for name in arrays[0]
        }
        return replace(parts[0], **together)

    def _arrays(self) -> dict[str, Any]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: array for name, array in values.items() if isinstance(array, np.ndarray)}

    def of_class(self, index: int) -> Footprints:
        """Return the polygons of one class, or all if all are buildings."""
        if self.class_id is None:
            return self
        return self.take(self.class_id == index)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the attributes of the polygons, (n,) each.

        `id` int64 from 1; `class` (str objects) and `class_id` int32 if there are classes; `score`
        float32; `area_m2` float64; `perimeter_m`, `orientation_deg` and `rectangularity` float64 if
        they are known; `refined` and `cut` bool if they are known; `imagery_date`, `source` and
        `model` (str objects) as far as they are known.
        """
        classes: dict[str, NDArray[Any]] = {}
        if self.class_id is not None:
            names = np.array(self.classes, dtype=np.object_)
            classes = {"class": names[self.class_id], "class_id": self.class_id.astype(np.int32)}
        shape = {
            "perimeter_m": self.perimeter_m,
            "orientation_deg": self.orientation_deg,
            "rectangularity": self.rectangularity,
            "refined": self.refined,
            "cut": self.cut,
        }
        origin = self.provenance.columns()
        return {
            "id": np.arange(1, len(self) + 1, dtype=np.int64),
            **classes,
            "score": self.score.astype(np.float32),
            "area_m2": self.area_m2.astype(np.float64),
            **{name: values for name, values in shape.items() if values is not None},
            **{name: np.full(len(self), text, np.object_) for name, text in origin.items() if text},
        }

    def to_geodataframe(self) -> geopandas.GeoDataFrame:
        """Return `columns` and `geometry` as a GeoDataFrame."""
        import geopandas as gpd

        return gpd.GeoDataFrame(self.columns(), geometry=list(self.geometry), crs=self.crs)
