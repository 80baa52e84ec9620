"""Areas of interest: results have no value outside of the area, and a network sees the image."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import shapely
from pyproj import CRS

from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.core.text import PLACE_IMAGE, plain_number
from rooftrace.core.types import BoolArray, Polygons, Raster, RasterSource, Window
from rooftrace.io.files import check_exists
from rooftrace.io.gdal import number_polygons
from rooftrace.io.georeferenced import WrappedSource, placed_by, window_box
from rooftrace.io.make_valid import made_valid, valid_by_structure
from rooftrace.io.partitions import OBSERVED
from rooftrace.io.remote_raster import RemoteRaster
from rooftrace.io.reproject import (
    CRS84,
    crs_text,
    degrees_text,
    in_pixels,
    missing_grid,
    reprojected,
    split_at_180,
    transform_points,
)
from rooftrace.io.vector_read import VectorFile, assign_crs

_BEND_PX = 0.05
"""Maximum deviation of an edge that a projection bends."""

_BEND_DEG = 1e-6

_MAX_LONGITUDE = 540
"""Maximum longitude of an area, which may be drawn a full turn away."""

_DRAW_PIXELS = f"Draw it in pixels of the image, as a GeoJSON; or place the image: {PLACE_IMAGE}"

_JSON = (".geojson", ".json", ".geojsonl", ".geojsons")


@dataclass(frozen=True)
class Area:
    """Polygons that limit the work.

    Args:
        geometry: (n,) shapely polygons and multipolygons, at least one.
        crs: Coordinate system of the polygons; None for pixels (x right, y down).
        may_be_pixels: True if the format always states a CRS, as GeoJSON does, so that the
            coordinates may be pixels nevertheless.
        in_pixels: True if the file states that it is in pixels, as rooftrace writes it.
    """

    geometry: Polygons
    crs: CRS | None
    name: str
    may_be_pixels: bool = False
    in_pixels: bool = False

    @property
    def digest(self) -> str:
        """Hash of the coordinates and the CRS."""
        digest = hashlib.sha256(b"" if self.crs is None else self.crs.to_wkt().encode())
        digest.update(b"".join(shapely.to_wkb(self.geometry).tolist()))
        return digest.hexdigest()


def read_area(path: Path, layer: str | None = None) -> Area:
    """Read an area of interest from a vector file.

    Args:
        path: File with polygons, in any format that `VectorFile` reads.
        layer: Name of its layer, of a file with several; `*` joins them.
    """
    check_exists(path)
    file = VectorFile(path, layer, areas=True)
    geometry, crs, _, _ = file.columns()
    if not len(geometry):
        raise DataError(
            f"{path} holds no polygon; an area needs at least one.",
            remedy="Draw the area as a polygon.",
        )
    return Area(geometry, crs, str(path), path.suffix.lower() in _JSON, file.in_pixels)


def observed_file(polygons: Path) -> VectorFile | None:
    """Return the ground that a catalogue or a comparison says was seen, for its buildings."""
    files = [polygons.with_name(f"{polygons.stem}_{OBSERVED}")]
    if polygons.is_dir():
        files = [polygons / OBSERVED, polygons.parent / OBSERVED]
    return next((VectorFile(file) for file in files if file.is_file()), None)


def no_area_crs(area: Area, consequence: str = "") -> GeoreferenceError:
    """Return the error of an area without a coordinate system, where one is needed."""
    if area.in_pixels:
        return GeoreferenceError(
            f"The area {area.name} is in pixels of an image{consequence}.",
            remedy="Draw the area in coordinates of the ground.",
        )
    return GeoreferenceError(
        f"The area {area.name} has no coordinate system{consequence}.",
        remedy=assign_crs(area.geometry, area.name),
    )


def area_in_degrees(area: Area) -> shapely.Geometry:
    """Return the polygons of an area as one geometry in degrees of longitude and latitude."""
    if area.crs is None:
        raise no_area_crs(area)
    degrees = reprojected(area.geometry, area.crs, CRS84, _BEND_DEG)
    edges = shapely.get_coordinates(degrees)
    if not (np.abs(edges) <= (_MAX_LONGITUDE, 90)).all():
        raise GeoreferenceError(
            f"The area {area.name} has coordinates outside the range of degrees.",
            remedy="Assign the right coordinate system to the area.",
        )
    degrees = _split(degrees, area.geometry, area.crs)
    invalid = ~shapely.is_valid(degrees)
    degrees[invalid] = valid_by_structure(degrees[invalid])
    return shapely.union_all(degrees)


def _split(degrees: Polygons, geometry: Polygons, crs: CRS) -> Polygons:
    """Return (n,) polygons in degrees, divided at longitude 180 where they lie across it.

    An area may also be wider than half the Earth. A point of the polygons in `crs` decides.
    """
    inside = shapely.get_coordinates(shapely.point_on_surface(geometry))
    lonlat = transform_points(inside, crs, CRS84)
    points = shapely.points((lonlat[:, 0] + 180) % 360 - 180, lonlat[:, 1])
    divided = split_at_180(degrees)
    fits = shapely.intersects(made_valid(divided), points)
    return np.asarray(np.where(fits, divided, degrees), np.object_)


class AreaSource(WrappedSource):
    """A `RasterSource` whose pixels are valid inside an area alone.

    A pixel is inside if its centre is. Pixels outside keep their values, so that a network sees
    what lies around the area; `is_empty` finds the windows that need not be read. It can be
    pickled; one thread at a time may read from it.

    Args:
        area: Area in any CRS, or in pixels if the scene has no CRS.
    """

    def __init__(self, source: RasterSource, area: Area) -> None:
        super().__init__(source)
        self.area = area

    @property
    def notes(self) -> tuple[str, ...]:
        crs, area = self.grid.crs, self.area
        if crs is not None and area.crs is not None:
            bounds = tuple(shapely.total_bounds(area.geometry).tolist())
            return (*super().notes, *missing_grid(area.crs, crs, bounds))
        if crs is not None:
            return super().notes
        assumed = f"{self.area.name} is read as pixels of {self.name}, which has no georeference."
        return (*super().notes, assumed)

    def read(self, window: Window | None = None) -> Raster:
        """Return the pixels of `window`, valid inside the area alone; see `Raster.context`.

        Raises:
            DataError: the scene cannot be read, or the area does not overlap it.
            GeoreferenceError: the scene or the area has no georeference.
        """
        inside = self.inside(window)
        raster = self.source.read(window)
        return replace(raster, valid=raster.valid & inside, context=raster.valid)

    def is_empty(self, window: Window) -> bool:
        return not self.inside(window).any() or super().is_empty(window)

    @property
    def is_missed(self) -> bool:
        """True if the area and the scene do not overlap."""
        return not len(self._tree.query(window_box(Window.whole(self.grid.shape)), "intersects"))

    def check(self) -> None:
        """Check that the area overlaps the scene."""
        is_pixels = self.grid.crs is None
        # Longitudes and latitudes that are read as pixels.
        is_tiny = is_pixels and shapely.area(self.polygons).sum() < 1
        if is_tiny or self.is_missed:
            remedy = "Check both in a GIS, especially the coordinate system of the area."
            raise DataError(
                f"The area {self.area.name} {'is too small for' if is_tiny else 'lies outside'} "
                f"{self.name}: it covers {self._extent_text(self.polygons)}, the image covers "
                f"{self._extent_text(np.array([window_box(Window.whole(self.grid.shape))]))}.",
                remedy=placed_by(self, _DRAW_PIXELS) if is_pixels else remedy,
            )

    def _extent_text(self, geometry: Polygons) -> str:
        left, top, right, bottom = (float(edge) for edge in shapely.total_bounds(geometry))
        crs = self.grid.crs
        if crs is None:
            return f"columns {left:g} to {right:g} and rows {top:g} to {bottom:g}"
        corners = (np.array([left, right, right, left]), np.array([top, top, bottom, bottom]))
        xs, ys = self.grid.to_world(*corners)
        return degrees_text((xs.min(), ys.min(), xs.max(), ys.max()), crs)

    @cached_property
    def polygons(self) -> Polygons:
        """The polygons (n,) of the area in pixels of the scene."""
        crs, area = self.grid.crs, self.area
        if crs is None:
            if area.crs is not None and not area.may_be_pixels:
                raise GeoreferenceError(
                    f"{self.name} has no georeference, and the area {area.name} is in "
                    f"{crs_text(area.crs)}: its position in the image is not known.",
                    remedy=placed_by(self, _DRAW_PIXELS),
                )
            return area.geometry
        if area.crs is None:
            raise no_area_crs(area, f", but {self.name} has {crs_text(crs)}")
        polygons = in_pixels(area.geometry, area.crs, self.grid, _BEND_PX)
        if not np.isfinite(shapely.get_coordinates(polygons)).all():
            raise GeoreferenceError(
                f"The area {area.name} has coordinates outside the range of "
                f"{crs_text(area.crs)} or of the image's {crs_text(crs)}.",
                remedy="Assign the right coordinate system to the area, or clip it to the image.",
            )
        return polygons

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.polygons)

    def inside(self, window: Window | None = None) -> BoolArray:
        """Return (y, x) bool, True for the pixels of a window (default all) in the area."""
        window = window or Window.whole(self.grid.shape)
        self.check()
        near = self.polygons[self._tree.query(window_box(window), "intersects")]
        return np.asarray(number_polygons(near, window) > 0)


def is_limited(source: RasterSource) -> bool:
    """Return True if an area limits a scene."""
    if isinstance(source, AreaSource):
        return True
    return isinstance(source, WrappedSource) and is_limited(source.source)


def limit_to_area(sources: Sequence[RasterSource], area: Area) -> list[AreaSource | None]:
    """Return the parts of scenes in an area; None for a scene that it misses.

    Raises:
        DataError: the area misses all scenes.
        GeoreferenceError: the first scene or the area has no georeference.
    """
    limited = [AreaSource(source, area) for source in sources]
    missed = []
    for source in limited:
        try:
            missed.append(source.is_missed)
        except DataError:
            # The error is raised again and reported when the image is predicted.
            missed.append(False)
    if all(missed):
        limited[0].check()
    return [None if out else source for source, out in zip(limited, missed)]


def select_overview(
    source: RasterSource, model_gsd_m: float | None
) -> tuple[RasterSource, str | None]:
    """Replace a remote image by the coarsest overview that is fine enough for a model.

    Other sources, and remote images without metres or without such an overview, are returned as
    they are. If the user gives the metres or the scale, the image itself must be read.

    Args:
        source: A `RemoteRaster`, or an area of one.
        model_gsd_m: Metres per pixel of the model's training data; None if it has none.

    Returns:
        The source to read, and a note about the overview; None if the source is unchanged.
    """
    image = source.source if isinstance(source, AreaSource) else source
    if not isinstance(image, RemoteRaster) or model_gsd_m is None:
        return source, None
    coarser = image.overview_for(model_gsd_m)
    if coarser is image:
        return source, None
    rows, cols = coarser.grid.shape
    own_m, coarser_m = (plain_number(one.grid.gsd_m or 0.0) for one in (image, coarser))
    note = (
        f"{image.name} has {own_m} m per pixel: its overview of {rows} × {cols} pixels with "
        f"{coarser_m} m is read, whose grid results have."
    )
    image.close()
    return (AreaSource(coarser, source.area) if isinstance(source, AreaSource) else coarser), note
