"""Elevation rasters and laser scans: opened with the unit and the datum of their heights."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.crs import CompoundCRS
from pyproj.exceptions import CRSError

from rooftrace.core.errors import DataError, GeoreferenceError, MissingExtraError, RooftraceError
from rooftrace.core.text import ASSIGN_CRS
from rooftrace.core.types import BoolArray, Bounds, Floats, Raster, RasterSource, Window
from rooftrace.io.bands import HEIGHT_BAND, band_infos
from rooftrace.io.companions import is_sidecar
from rooftrace.io.files import check_exists, is_url
from rooftrace.io.gdal import is_raster
from rooftrace.io.georeferenced import (
    WrappedSource,
    check_crs,
    close_source,
    in_crs,
    innermost,
    placed_by,
)
from rooftrace.io.image_header import BandInfo
from rooftrace.io.mosaic import AdjacentImages
from rooftrace.io.raster import open_image
from rooftrace.io.resample import warped

UNITS_M = {
    "metre": 1.0, "decimetre": 0.1, "centimetre": 0.01, "millimetre": 0.001,
    "foot": 0.3048, "us-foot": 1200 / 3937,
}  # fmt: skip
"""Units of heights, in metres."""

_SPELLINGS = {
    f"{word}{ending}": f"{prefix}metre"
    for prefix in ("", "deci", "centi", "milli")
    for word, ending in (
        (prefix[:1], "m"),
        *((prefix, f"met{end}") for end in ("re", "er", "res", "ers")),
    )
} | {"ft": "foot", "foot": "foot", "feet": "foot", "ftus": "us-foot"}
_SURVEY = {"us", "s", "survey"}
"""Words by which bands state their unit, and those by which feet are those of the US survey."""

_KEYED_UNITS = {9001: "metre", 9002: "foot", 9003: "us-foot"}
_VERTICAL_CRS_KEY, _VERTICAL_UNITS_KEY = 4096, 4099
"""GeoTIFF keys of heights, and the EPSG codes of their units."""

_SCANS = (".las", ".laz")

_NAMED = re.compile(
    r"(.*[\W_])?((n|gsd)?dsm|dtm|dem|elevation|chm|[bn]?dom|dgm|mn[sth]|md[st]|swissalti3d|swisssurface3d)\d*"
    r"([\W_].*)?",
    re.IGNORECASE,
)
"""Names of surface and terrain models, as drone software and national agencies give them."""

_RANGE_M = (-1_000.0, 9_000.0)
"""Heights of all land in metres: beyond lie -9999 and other fill that a file does not declare."""

_LEAST_GAP_M, _CLEAR_GAP_M = 20.0, 100.0
"""Minimum distance in metres of all heights from 0 where 0 is fill that a file does not declare, as
warping leaves it; below the second one, it is also more than the range of those heights."""

_LEAST_LAND = 0.5
"""Share of a file from which what is that far from 0 is land: high buildings cover less."""

_AROUND = 2
"""Pixels around such fill with which resampling may have mixed it."""

_AROUND_FILL = np.ones((2 * _AROUND + 1, 2 * _AROUND + 1), np.uint8)

_OVERVIEW_PX = 2**18, 2**24
"""Minimum and maximum number of pixels of an overview that tells whether 0 is fill; the second
one also limits what is read at once of a file without overviews."""

_MOST_SHARED = 0.5
"""Maximum share of a tile that another one may show, too."""

_POINTS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Vertical:
    """Unit and datum of heights.

    Args:
        stated: Whether the file states the unit; otherwise metres are assumed.
        datum: Name of the vertical datum or of the ellipsoid; None if the file states none.
        crs: Vertical CRS; None if the file states none.
        unknown: Unit that the file states and that has no meaning here; metres are assumed.
    """

    unit_m: float
    stated: bool
    datum: str | None
    crs: CRS | None = None
    unknown: str = ""


def vertical_of(crs: CRS, band_unit: str = "", unit: str | None = None) -> Vertical:
    """Return unit and datum by a vertical axis of the CRS, else the unit of the band.

    Args:
        unit: Unit in place of what the file states, a key of `UNITS_M`.
    """
    words = re.findall("[a-z]+", band_unit.lower())
    named = next((_SPELLINGS[word] for word in words if word in _SPELLINGS), None)
    name = unit or ("us-foot" if named == "foot" and _SURVEY & {*words} else named)
    for part in crs.sub_crs_list or [crs]:
        for axis in part.axis_info:
            if axis.direction == "up":
                unit_m = UNITS_M[unit] if unit else float(axis.unit_conversion_factor)
                datum = part.datum.name if part.datum else part.name
                return Vertical(unit_m, True, datum, part if part.is_vertical else None)
    unknown = "" if name else band_unit.strip()
    return Vertical(UNITS_M[name or "metre"], name is not None, None, unknown=unknown)


class ElevationRaster(WrappedSource):
    """Heights in metres as float32, from a raster in any unit, with any scale and offset.

    Heights of no land are nodata, and 0 beside land that is plainly elsewhere.

    Args:
        unit: Unit in place of what the file states, a key of `UNITS_M`.
        crs: CRS if the file states none, as grids of text do.

    Raises:
        ConfigError: `crs` is another than the file's.
        DataError: It cannot be read, or has several bands.
        GeoreferenceError: It has no CRS.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, source: RasterSource, unit: str | None = None, crs: CRS | None = None
    ) -> None:
        if crs is not None:
            check_crs(source, crs, source.name)
            source = in_crs(source, crs)
        super().__init__(source)
        if source.bands != 1:
            raise DataError(
                f"{source.name} has {source.bands} bands; expected one band of heights.",
                remedy="Give a surface or terrain model; of a folder: --surface 'FOLDER/dsm*.tif'.",
            )
        if source.grid.crs is None:
            raise GeoreferenceError(
                f"{source.name} has no coordinate system, so its heights have no place.",
                remedy=f"Give it: heights --crs EPSG:…, or {ASSIGN_CRS}",
            )
        self._band = band_infos(source)[0]
        self.vertical = vertical_of(source.grid.crs, self._band.unit, unit)

    def read(self, window: Window | None = None) -> Raster:
        raster = self._in_metres(self.source.read(window))
        is_fill = _around_zero(raster)
        if is_fill.any() and self._zero_is_fill:
            return replace(raster, valid=raster.valid & ~is_fill)
        return raster

    def _in_metres(self, raster: Raster) -> Raster:
        unit_m = self.vertical.unit_m
        metres = raster.data * (self._band.scale * unit_m) + self._band.offset * unit_m
        metres = metres.astype(np.float32, copy=False)
        low, high = _RANGE_M
        valid = raster.valid & (metres[0] > low) & (metres[0] < high)
        return replace(raster, data=metres, valid=valid)

    @cached_property
    def _zero_is_fill(self) -> bool:
        """Whether 0 is fill that the file does not declare: its land is plainly elsewhere.

        All of the file counts, by an overview if it has one: a window may show no more than a
        tower, in heights above ground.
        """
        read_overview = getattr(innermost(self.source), "read_overview", None)
        overview = read_overview and read_overview(*_OVERVIEW_PX)
        whole = Window.whole((overview or self.source).grid.shape)
        low_m, high_m, gap_m, is_enclosed, land_px = np.inf, -np.inf, np.inf, True, 0
        for strip in whole.strips(max(1, _OVERVIEW_PX[1] // whole.width)):
            area = strip.padded(_AROUND).intersection(whole) or strip
            raster = self._in_metres(overview or self.source.read(area))
            is_land = (raster.valid & ~_around_zero(raster))[strip.slices(area)]
            if not is_land.any():
                continue
            land = raster.data[0][strip.slices(area)][is_land]
            land_px += len(land)
            low_m, high_m = min(low_m, land.min()), max(high_m, land.max())
            gap_m = min(gap_m, np.abs(land).min())
            if gap_m <= _LEAST_GAP_M:
                return False
            at_edge = is_land[:, [0, -1]].any()
            at_edge |= strip.row == 0 and is_land[0].any()
            at_edge |= strip.row_stop == whole.height and is_land[-1].any()
            is_enclosed &= not at_edge
        if land_px >= _LEAST_LAND * whole.area_px:
            return True
        # In heights above ground, 0 is the ground around a tall building.
        least_m = _CLEAR_GAP_M if is_enclosed else min(high_m - low_m, _CLEAR_GAP_M)
        return bool(least_m < gap_m < np.inf)


def _around_zero(raster: Raster) -> BoolArray:
    """Return (y, x) whether heights are 0, or near such pixels."""
    zero = raster.valid & (raster.data[0] == 0)
    return np.asarray(cv2.dilate(zero.view(np.uint8), _AROUND_FILL) > 0)


def holds_heights(path: Path) -> bool:
    """Return whether a file is a raster of one band that is no picture of 8 bits."""
    try:
        source = open_image(path)
        return source.bands == 1 and source.dtype != np.uint8
    except RooftraceError:
        return False


def is_elevation(path: Path) -> bool:
    """Return whether a file beside images is a surface or a terrain model, by name and content."""
    return _NAMED.fullmatch(path.stem) is not None and holds_heights(path)


def _files_of(given: str | Path) -> list[Path]:
    """Return the files in a folder or under a pattern, or what is given itself."""
    path = Path(given)
    if path.is_dir():
        return sorted(path.glob("[!.]*"))
    if path.exists() or is_url(str(given)):
        return [path]
    # A path's own `glob` takes no absolute pattern.
    return sorted(map(Path, glob(str(given), recursive=True))) or [path]  # noqa: PTH207


def elevation_files(given: Sequence[str | Path]) -> tuple[str, ...]:
    """Return the rasters that are named: URLs, files, and those in folders or under patterns."""
    found: list[str] = []
    for one in map(str, given):
        files, tiles = _files_of(one), [one]
        if files != [Path(one)]:
            rasters = [file for file in files if not is_sidecar(file) and is_raster(file)]
            # A VRT beside its tiles shows them a second time.
            others = [file for file in rasters if file.suffix.lower() != ".vrt"]
            tiles = [str(file) for file in others or rasters]
        if tiles in ([], [one]) and any(file.suffix.lower() in _SCANS for file in files):
            raise DataError(
                f"{one} holds laser scans; expected a raster of heights, or tiles of one.",
                remedy=f"Give them as points: rooftrace heights BUILDINGS --points {one}",
            )
        is_other_file = tiles == [one] and Path(one).is_file() and not is_raster(Path(one))
        if is_other_file or not tiles:
            verb = "is" if is_other_file else "has"
            raise DataError(
                f"{one} {verb} no raster; expected a raster of heights.",
                remedy="Give a model or its tiles: rooftrace heights BUILDINGS --surface dsm.tif",
            )
        found += tiles
    return tuple(found)


def point_files(given: Sequence[Path]) -> tuple[Path, ...]:
    """Return the laser scans that are named: files, and those in folders or under patterns."""
    found: list[Path] = []
    for one in given:
        files = _files_of(one)
        scans = [file for file in files if file == one or file.suffix.lower() in _SCANS]
        if not scans:
            raise DataError(
                f"{one} has no laser scans; expected .las or .laz files.",
                remedy="Give the folder of the tiles, or the files.",
            )
        found += scans
    return tuple(found)


def open_elevation(
    given: Sequence[str | Path], unit: str | None = None, crs: CRS | None = None
) -> tuple[RasterSource, Vertical]:
    """Open a raster of heights, or the tiles of one, which are read in metres.

    Raises:
        DataError: One cannot be read, or has several bands, or two show the same ground.
        GeoreferenceError: One has no CRS, or tiles have several CRSs, grids or datums.
    """
    tiles = [ElevationRaster(open_image(file), unit, crs) for file in elevation_files(given)]
    verticals = [tile.vertical for tile in tiles]
    _check_datums(verticals)
    # A tile without a datum leaves that of all unknown.
    vertical = min(verticals, key=lambda one: one.datum or "")
    if len(tiles) == 1:
        return tiles[0], vertical
    try:
        mosaic = AdjacentImages(tiles, str(given[0]))
    except GeoreferenceError as error:
        raise GeoreferenceError(
            error.message,
            remedy="Join the tiles: gdalwarp -t_srs EPSG:… -tr METRES METRES TILES OUT.tif",
        ) from error
    _check_side_by_side(tiles)
    return mosaic, vertical


def _check_side_by_side(tiles: Sequence[RasterSource]) -> None:
    """Raise DataError for tiles of the same ground: those of a surface and of a terrain model."""
    boxes = shapely.box(*np.array([tile.grid.bounds_xy for tile in tiles]).T)
    one, other = shapely.STRtree(boxes).query(boxes, "intersects")
    one, other = one[one < other], other[one < other]
    least = np.minimum(shapely.area(boxes[one]), shapely.area(boxes[other]))
    same = shapely.area(shapely.intersection(boxes[one], boxes[other])) > _MOST_SHARED * least
    if same.any():
        names = [tiles[index[same][0]].name for index in (one, other)]
        raise DataError(
            f"{names[0]} and {names[1]} show the same ground; expected tiles side by side.",
            remedy="Give the tiles of one model, for instance by --surface 'FOLDER/dsm*.tif'.",
        )


def open_models(
    surface: Sequence[str], terrain: Sequence[str], unit: str | None = None, crs: CRS | None = None
) -> list[tuple[RasterSource, Vertical]]:
    """Open a surface model, and a terrain model where one is given.

    Raises:
        DataError, GeoreferenceError: See `open_elevation`. Or a file is part of both models, or
            they state different vertical datums.
    """
    files = [elevation_files(given) for given in (surface, terrain)]
    if both := {*files[0]} & {*files[1]}:
        raise DataError(
            f"{min(both)} was given as the surface model and as the terrain model.",
            remedy="Give the model of the bare ground (DTM) as the terrain.",
        )
    opened = [open_elevation(given, unit, crs) for given in (surface, terrain) if given]
    _check_datums([vertical for _, vertical in opened])
    return opened


def _check_datums(models: Sequence[Vertical]) -> None:
    """Raise GeoreferenceError for models that state different vertical datums."""
    datums = {vertical.datum for vertical in models if vertical.datum is not None}
    if len(datums) > 1:
        raise GeoreferenceError(
            f"The models have heights in {' and in '.join(sorted(datums))}; expected one datum.",
            remedy="Convert them to one, or leave the terrain model out.",
        )


_STEPS_PER_M, _MOST_STEPS = 5, 255


class WithHeights(WrappedSource):
    """An image with the heights above ground as its last band, called `HEIGHT_BAND`.

    They are counted in steps of 0.2 m from 0 to 255, which is 51 m, in the type of the image. A
    pixel is valid if it is so in the image and in both models.

    Raises:
        DataError, GeoreferenceError: On reading: a model cannot be used, the two state different
            datums, or the image has no CRS.
    """

    def __init__(
        self, source: RasterSource, surface: Sequence[str], terrain: Sequence[str]
    ) -> None:
        super().__init__(source)
        self._surface, self._terrain = tuple(surface), tuple(terrain)

    @property
    def bands(self) -> int:
        return self.source.bands + 1

    @property
    def band_info(self) -> tuple[BandInfo, ...]:
        return (*band_infos(self.source), BandInfo(self.bands, description=HEIGHT_BAND))

    @cached_property
    def _models(self) -> list[RasterSource]:
        if self.grid.crs is None:
            raise GeoreferenceError(
                f"{self.name} has no coordinate system, so the surface model has no place on it.",
                remedy=placed_by(self.source),
            )
        return [model for model, _ in open_models(self._surface, self._terrain)]

    def read(self, window: Window | None = None) -> Raster:
        raster = self.source.read(window)
        surface, terrain = (warped(model, raster.grid) for model in self._models)
        above = surface.data[0] - terrain.data[0]
        valid = raster.valid & surface.valid & terrain.valid
        steps = np.where(valid, np.clip(np.rint(above * _STEPS_PER_M), 0, _MOST_STEPS), 0)
        data = np.concatenate([raster.data, steps[None].astype(raster.data.dtype)])
        return Raster(data, valid, raster.grid)

    def close(self) -> None:
        super().close()
        for model in self.__dict__.pop("_models", ()):
            close_source(model)


@dataclass(frozen=True)
class Points:
    """Points of a laser scan.

    Args:
        xyz: (n, 3) float64 coordinates in the CRS of the file; heights in its unit.
        kind: (n,) uint8 classes of ASPRS: 2 ground, 6 building, 3 to 5 vegetation.
        last: (n,) bool, True for the last return of a pulse.
    """

    xyz: Floats
    kind: NDArray[np.uint8]
    last: BoolArray


class PointFile:
    """A LAS, LAZ or COPC file of points."""

    def __init__(self, path: Path) -> None:
        check_exists(path)
        if path.suffix.lower() not in _SCANS and is_raster(path):
            raise DataError(
                f"{path} is a raster; expected a laser scan (LAS, LAZ, COPC).",
                remedy=f"Give it as a surface model: --surface {path}",
            )
        self.path = path
        with self._opened() as file:
            header = file.header
            self.count = int(header.point_count)
            left, bottom, _ = header.mins
            right, top, _ = header.maxs
            self.bounds_xy: Bounds = (float(left), float(bottom), float(right), float(top))
            self.crs: CRS | None = None
            self.unit = ""
            with suppress(CRSError):
                self.crs = header.parse_crs()
            self._read_keys([key for vlr in header.vlrs for key in getattr(vlr, "geo_keys", ())])

    def _read_keys(self, keys: Sequence[Any]) -> None:
        """Take unit and datum of heights from GeoTIFF keys, which laspy (2.7.0) leaves out.

        The unit may be another than that of the vertical CRS.
        """
        if self.crs and len(self.crs.axis_info) > 2:
            return
        codes = {key.id: int(key.value_offset) for key in keys}
        self.unit = _KEYED_UNITS.get(codes.get(_VERTICAL_UNITS_KEY, 0), "")
        with suppress(CRSError):
            vertical = CRS.from_epsg(codes.get(_VERTICAL_CRS_KEY, 0))
            if self.crs:
                self.crs = CompoundCRS(f"{self.crs.name} + {vertical.name}", [self.crs, vertical])

    def chunks(self) -> Iterator[Points]:
        """Yield the points in their order, without noise, overlap and withheld points.

        Raises:
            DataError: The file is truncated or damaged.
        """
        with self._opened() as file:
            for chunk in file.chunk_iterator(_POINTS_AT_ONCE):
                kind = np.asarray(chunk.classification, np.uint8)
                keep = ~np.isin(kind, (7, 12, 18)) & ~np.asarray(chunk.withheld, np.bool_)
                # Some programs write that a point is the first of none.
                last = np.asarray(chunk.return_number) >= np.asarray(chunk.number_of_returns)
                xyz = np.stack([chunk.x, chunk.y, chunk.z], axis=1)
                yield Points(xyz[keep], kind[keep], last[keep])

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Yield the open file of laspy; its errors are explained."""
        with MissingExtraError.on_import("points", "Reading laser scans (LAS, LAZ)", "laspy"):
            import laspy
            from laspy.errors import LaspyException
            from lazrs import LazrsError
        try:
            with laspy.open(self.path) as file:
                yield file
        except (LaspyException, LazrsError, ValueError, OSError) as error:
            raise DataError(
                f"{self.path} cannot be read as LAS or LAZ: {error}.",
                remedy="Check that the file is complete, or leave it out.",
            ) from error
