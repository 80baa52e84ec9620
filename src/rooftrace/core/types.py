"""The values that the parts of rooftrace hand to one another.

Row before column, always. Units are in names: `_px`, `_m`, `_m2`. Arrays are band-first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer

from rooftrace.core.density import DensityFigures

if TYPE_CHECKING:
    import geopandas

__all__ = [
    "DensityGrid",
    "Footprints",
    "GeoGrid",
    "InstanceReader",
    "LabelReader",
    "LabelSource",
    "Mask",
    "ProbMap",
    "Raster",
    "RasterSource",
    "Sample",
    "Scene",
    "SparseSource",
    "Tile",
    "Window",
]

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of pixels: the half-open rows [row, row_stop) and columns [col, col_stop)."""

    row: int
    col: int
    height: int
    width: int

    @classmethod
    def whole(cls, shape_yx: tuple[int, int]) -> Window:
        """The window over all of an array of `shape_yx`."""
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
        """Grown by `px` on every side; may leave the array it lies in."""
        return Window(self.row - px, self.col - px, self.height + 2 * px, self.width + 2 * px)

    def intersection(self, other: Window) -> Window | None:
        """The part in both, or None where they do not overlap."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row_stop, other.row_stop) - row
        width = min(self.col_stop, other.col_stop) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def strips(self, rows: int) -> Iterator[Window]:
        """Cut from top to bottom into windows of so many rows; the last may have fewer."""
        for row in range(self.row, self.row_stop, rows):
            yield Window(row, self.col, min(rows, self.row_stop - row), self.width)

    def slices(self, origin: Window | None = None) -> tuple[slice, slice]:
        """Indices (rows, columns) into an array that covers `origin` (default: starts at 0, 0)."""
        row0, col0 = (origin.row, origin.col) if origin else (0, 0)
        return (
            slice(self.row - row0, self.row_stop - row0),
            slice(self.col - col0, self.col_stop - col0),
        )

    def __str__(self) -> str:
        return f"rows {self.row}:{self.row_stop}, columns {self.col}:{self.col_stop}"


@dataclass(frozen=True, slots=True)
class Tile:
    """What the network reads, and the part of it (in scene coordinates) that counts.

    `write` lies inside `read`; the ring between them is context.
    """

    read: Window
    write: Window


@dataclass(frozen=True)
class GeoGrid:
    """Where pixels lie.

    Args:
        shape: (rows, columns).
        transform: pixel (column, row) to world (x, y), corner-based as in GDAL.
        crs: the world's coordinate system, or None for an image that lies nowhere.
    """

    shape: tuple[int, int]
    transform: Affine = field(default_factory=Affine.identity)
    crs: CRS | None = None

    @property
    def height(self) -> int:
        return self.shape[0]

    @property
    def width(self) -> int:
        return self.shape[1]

    @cached_property
    def gsd_yx_m(self) -> tuple[float, float] | None:
        """Metres on the ground from one pixel to the next, down a column and along a row.

        Measured on the WGS 84 ellipsoid at the centre of the grid, so that neither the degrees of
        a geographic CRS nor the stretching of Web Mercator are taken for metres. None without a
        CRS, and where pixels have no size on the ground.
        """
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
        _, _, metres = Geod(ellps="WGS84").inv(lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]])
        down, along = np.asarray(metres, dtype=float) / step
        if not (np.isfinite([down, along]).all() and down > 0 and along > 0):
            return None
        return float(down), float(along)

    @property
    def gsd_m(self) -> float | None:
        """One figure for both axes: the geometric mean of `gsd_yx_m`."""
        gsd = self.gsd_yx_m
        return None if gsd is None else float(np.sqrt(gsd[0] * gsd[1]))

    def to_world(
        self, cols: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """World (x, y) of pixel coordinates, 0 being the outer edge of the first pixel."""
        t = self.transform
        return t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the grid's corners in the CRS."""
        cols = np.array([0, self.width, self.width, 0], dtype=float)
        rows = np.array([0, 0, self.height, self.height], dtype=float)
        xs, ys = self.to_world(cols, rows)
        return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())

    def crop(self, window: Window) -> GeoGrid:
        """The grid of a window of this one."""
        moved = self.transform @ Affine.translation(window.col, window.row)
        return GeoGrid(window.shape_yx, moved, self.crs)

    def resampled(self, shape: tuple[int, int], scale_yx: tuple[float, float]) -> GeoGrid:
        """A grid from the same corner whose pixels are `scale_yx` of this one's pixels large."""
        scaled = self.transform @ Affine.scale(scale_yx[1], scale_yx[0])
        return GeoGrid(shape, scaled, self.crs)


@dataclass(frozen=True, slots=True)
class Raster:
    """Pixels of an image. `data` (band, y, x), any dtype; `valid` (y, x), False where nodata."""

    data: NDArray[Any]
    valid: BoolArray
    grid: GeoGrid


@dataclass(frozen=True, slots=True)
class Mask:
    """Class indices. `data` (y, x) uint8; `valid` (y, x), False where nothing is known."""

    data: NDArray[np.uint8]
    valid: BoolArray
    grid: GeoGrid


@dataclass(frozen=True, slots=True)
class ProbMap:
    """Probabilities. `data` (class, y, x) float32 in 0..1; `valid` (y, x)."""

    data: NDArray[np.float32]
    valid: BoolArray
    grid: GeoGrid


@runtime_checkable
class RasterSource(Protocol):
    """Anything that pixels can be read from by window."""

    @property
    def name(self) -> str: ...
    @property
    def grid(self) -> GeoGrid: ...
    @property
    def bands(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def read(self, window: Window | None = None) -> Raster:
        """The pixels of `window` (inside the grid; default all), at the source's own resolution."""
        ...


@runtime_checkable
class SparseSource(RasterSource, Protocol):
    """A `RasterSource` that knows where it has nothing, before it reads."""

    def is_empty(self, window: Window) -> bool:
        """Whether it is certain that a window is nodata alone; False where that is not known."""
        ...


@runtime_checkable
class LabelReader(Protocol):
    """The label of one scene."""

    def read(self, window: Window | None = None) -> Mask: ...


@runtime_checkable
class InstanceReader(LabelReader, Protocol):
    """A `LabelReader` that tells its objects apart, be they ever so close."""

    def read_instances(self, window: Window | None = None) -> NDArray[np.int32] | None:
        """(y, x) the number of the object that a pixel belongs to, from 1; 0 where there is none.

        Numbers are of the scene, whichever window is asked for. None where it does not tell.
        """
        ...


@runtime_checkable
class OutlineReader(LabelReader, Protocol):
    """A `LabelReader` whose objects were drawn as polygons."""

    def read_outlines(self) -> tuple[NDArray[np.object_], NDArray[np.int16]] | None:
        """(n,) polygons of the scene, in pixels of its image (x right, y down), and (n,) the class
        index of each, negative where nothing is known. None where the label has no polygons.
        """
        ...


@dataclass(frozen=True)
class Scene:
    """One image with its label, if it has one.

    Args:
        id: unique within its source; what splits and reports call it.
        image: its pixels.
        label: its class indices on the image's grid, or None.
        group: scenes of one group never straddle the parts of a split (a place, a flight).
        gsd_m: metres per pixel, said by the person or told by the georeference; None if unknown.
    """

    id: str
    image: RasterSource
    label: LabelReader | None = None
    group: str = ""
    gsd_m: float | None = None

    @property
    def said_gsd_m(self) -> float | None:
        """`gsd_m`, where the georeference does not say it: what that says of both axes, it says
        better than one figure for the two.
        """
        return None if self.gsd_m == self.image.grid.gsd_m else self.gsd_m


class LabelSource(Protocol):
    """A labelled set of scenes, whatever tool its labels came from."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Scene]: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """What training sees.

    Args:
        image: (band, y, x).
        target: (y, x) uint8, class indices.
        valid: (y, x) bool.
        instances: (y, x) int32, which object a pixel belongs to, 0 for none; None where nobody
            asked or the label does not tell.
    """

    image: NDArray[Any]
    target: NDArray[np.uint8]
    valid: BoolArray
    instances: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Footprints:
    """Buildings, or the regions of several classes, as polygons.

    Args:
        geometry: (n,) shapely polygons, in `crs`, or in pixels (x right, y down) without one.
        score: (n,) float32 in 0..1, the mean probability of the polygon's class in its pixels.
        area_m2: (n,) float64 on the ellipsoid; NaN where metres are not known.
        crs: of the geometry.
        class_id: (n,) uint8, the index of each one's class; None where all are buildings.
        classes: names by that index.
        perimeter_m: (n,) float64 on the ellipsoid, holes included; NaN where metres are not known.
        orientation_deg: (n,) float64 in 0..180, the bearing of the longer side of the smallest
            rectangle around it: clockwise from true north, or from the image's upper side where
            there is no CRS. A square has that of either side.
        rectangularity: (n,) float64 in 0..1, its area over that of the smallest rectangle around
            it (Rosin 1999, doi:10.1007/s001380050101). These three are None where nobody asked.
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

    def __len__(self) -> int:
        return len(self.geometry)

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Footprints:
        """Those that are chosen: (n,) bool, or indices."""
        return replace(self, **{name: values[which] for name, values in self._arrays().items()})

    @classmethod
    def joined(cls, parts: Sequence[Footprints]) -> Footprints:
        """The parts, one or more of one CRS and with the same attributes, one after the other."""
        arrays = [part._arrays() for part in parts]
        together: dict[str, Any] = {
            name: np.concatenate([a[name] for a in arrays]) for name in arrays[0]
        }
        return replace(parts[0], **together)

    def _arrays(self) -> dict[str, Any]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: array for name, array in values.items() if isinstance(array, np.ndarray)}

    def of_class(self, index: int) -> Footprints:
        """Those of one class; where all are buildings, all."""
        if self.class_id is None:
            return self
        return self.take(self.class_id == index)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Attributes: `id` (from 1), `class` and `class_id` if there are any, `score`, `area_m2`,
        and those of `perimeter_m`, `orientation_deg` and `rectangularity` that are known.

        (n,) each: int64, str as objects, int32, float32, and float64 for the rest.
        """
        classes: dict[str, NDArray[Any]] = {}
        if self.class_id is not None:
            names = np.array(self.classes, dtype=np.object_)
            classes = {"class": names[self.class_id], "class_id": self.class_id.astype(np.int32)}
        shape = {
            "perimeter_m": self.perimeter_m,
            "orientation_deg": self.orientation_deg,
            "rectangularity": self.rectangularity,
        }
        return {
            "id": np.arange(1, len(self) + 1, dtype=np.int64),
            **classes,
            "score": self.score.astype(np.float32),
            "area_m2": self.area_m2.astype(np.float64),
            **{name: values for name, values in shape.items() if values is not None},
        }

    def to_geodataframe(self) -> geopandas.GeoDataFrame:
        """`columns` and `geometry`."""
        import geopandas as gpd

        return gpd.GeoDataFrame(self.columns(), geometry=list(self.geometry), crs=self.crs)


@dataclass(frozen=True)
class DensityGrid:
    """How densely a scene is built up, cell by cell.

    Args:
        grid: one pixel for each cell, north up, in metres.
        cell_m: the side of a cell; its edges lie at multiples of it.
        figures: arrays (rows, columns) of the grid.
        outside: how many buildings have their centroid in none of the cells.
    """

    grid: GeoGrid
    cell_m: float
    figures: DensityFigures
    outside: int = 0
