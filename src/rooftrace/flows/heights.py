"""`rooftrace heights`: how tall each building of a layer is, from a surface model or points."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.arrays import in_steps
from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError
from rooftrace.core.report import Report
from rooftrace.core.system import peak_rss_mb
from rooftrace.core.text import list_and_count, plural, utc_now
from rooftrace.core.types import Floats, Ints, Progress
from rooftrace.density.cells import metric_crs
from rooftrace.flows.compare.inputs import (
    ALL_FIELDS,
    BuildingLayer,
    on_plane,
    read_buildings_layer,
)
from rooftrace.flows.density.inputs import areas_with_edits
from rooftrace.heights.city_model import GRADES, UNKNOWN, city_model, epsg_code, heights_picture
from rooftrace.heights.estimate import (
    BELOW_TERRAIN,
    MEASURED,
    NO_STEP,
    NO_TERRAIN,
    REASONS,
    UNCOVERED,
    Heights,
    level_parts,
)
from rooftrace.heights.faces import slope_and_azimuth_deg
from rooftrace.heights.roof import SHAPES
from rooftrace.heights.surface import RoofOffset, Surface
from rooftrace.heights.survey import Places, PointSurvey, RasterSurvey, metres_of, moved
from rooftrace.io.area import Area, area_in_degrees, read_area
from rooftrace.io.companions import predicted_file
from rooftrace.io.elevation import PointFile, Vertical, elevation_files, open_models, vertical_of
from rooftrace.io.files import prepare_folder, write_json
from rooftrace.io.legend import Grades
from rooftrace.io.picture import source_line
from rooftrace.io.reproject import (
    CRS84,
    crs_text,
    degrees_text,
    joint_bounds,
    layer_position_notes,
    missing_grid,
    reprojected,
    transform_points,
)
from rooftrace.io.spill_file import SpillFile
from rooftrace.io.vector_write import free_names, write_copies, write_layer
from rooftrace.io.vector_writers import LayerChunk, LayerSettings
from rooftrace.vector.match import PackedPolygons, SpilledPolygons

if TYPE_CHECKING:
    from rooftrace.flows.predict.image_run import RunReport

COLUMNS = (
    "height", "height_low", "height_high", "height_median", "roof_height", "roof_shape",
    "roof_direction", "roof_slope_deg", "roof_azimuth_deg", "roof_plane_m2",
    "num_floors_estimated", "ground_m", "ground_min_m", "samples", "method", "height_reason",
)  # fmt: skip
"""Columns of the layer that is written, besides those of the buildings."""

_FACING = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")

_PLANE_GRADES = Grades(
    "azimuth_deg",
    (
        ("level", -1.0, UNKNOWN),
        ("N, 0° to 22.5°", 22.5, (49, 84, 161)),
        ("NE, to 67.5°", 67.5, (110, 85, 165)),
        ("E, to 112.5°", 112.5, (178, 98, 156)),
        ("SE, to 157.5°", 157.5, (226, 108, 86)),
        ("S, to 202.5°", 202.5, (246, 190, 60)),
        ("SW, to 247.5°", 247.5, (168, 182, 66)),
        ("W, to 292.5°", 292.5, (84, 163, 110)),
        ("NW, to 337.5°", 337.5, (64, 130, 156)),
        ("N, to 360°", 360.0, (49, 84, 161)),
    ),
)
"""Colours of roof planes in QGIS, by the parts of `_FACING`."""

_CHUNK, _SOLIDS_AT_ONCE = 20_000, 2_000
"""Numbers of buildings that are written at a time to the layer, and to the city model."""

_INNER_SUFFIXES = (
    ".shp", ".gdb", ".osm", ".geojson", ".geojsonl", ".json", ".csv", ".gml", ".city",
)  # fmt: skip
"""Suffixes before another one, as in houses.geojson.gz."""

_NOTED_OFFSET_M = 0.75
"""Offset of outlines in metres from which a note names it."""

_TALL_M, _TALLEST_M = 25.0, 300.0
"""Median height in metres above which heights in feet may have been read as metres; height of a
building from which it may be that above fill."""

_MOST_ABOVE_M = 0.75
"""Height in metres of the surface's ground above the terrain model from which a note names it; for
five pairs of public models it was 0.13 at most."""

_LEVEL_GROUND_M = 0.1
"""Distance in metres from 0 within which three quarters of the ground lie in heights above ground:
0.02 m in an nDSM of Delft, 0.4 m in its surface model near the sea."""

_MOST_BELOW, _MOST_NAMED = 0.5, 3
"""Maximum share of buildings whose surface lies below the terrain, or hardly above the ground;
maximum number of files that an error names."""


@dataclass(frozen=True)
class HeightOptions:
    """Sources of heights.

    Args:
        surface: Surface model: files, folders, patterns or URLs; several are tiles of one.
        terrain: Terrain model; without, the ground is looked for around each building.
        points: Laser scans (LAS, LAZ, COPC), in place of a surface model.
        area: File of polygons; buildings whose centre lies outside are left out.
        layer: Layer of a file of buildings with several.
        move: Whether the outlines are moved onto the roofs of the surface.
        planes: Whether a layer of roof planes is written, too.
        unit: Unit of all heights, see `elevation.UNITS_M`; default: as the files state, or metres.
        crs: CRS of surface, terrain and points that state none.
        formats: Suffixes of further files of the layer, see `write_copies`.
    """

    surface: tuple[str, ...] = ()
    terrain: tuple[str, ...] = ()
    points: tuple[Path, ...] = ()
    area: Path | None = None
    layer: str | None = None
    move: bool = False
    planes: bool = False
    unit: str | None = None
    crs: CRS | None = None
    formats: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise ConfigError for sources that do not fit together."""
        if bool(self.surface) == bool(self.points):
            received = "both" if self.points else "none"
            raise ConfigError(
                f"Received {received} of a surface model and points; expected one of them.",
                remedy="Give --surface dsm.tif, or --points tiles/*.laz.",
            )
        if self.points and self.terrain:
            raise ConfigError(
                "Received points and a terrain model; points measure the ground themselves.",
                remedy="Leave --terrain out, or give --surface in place of --points.",
            )

    def check_prediction(self, outputs: Sequence[str]) -> None:
        """Check, before the work, that the buildings of a prediction can be measured.

        Raises:
            ConfigError: There are no polygons, or no surface.
            DataError, GeoreferenceError: A model cannot be used.
        """
        if not self.surface:
            raise ConfigError(
                "Received a terrain model without a surface model.", remedy="Add --surface dsm.tif."
            )
        if "polygons" not in outputs:
            raise ConfigError(
                "Heights need the output polygons.", remedy="Keep polygons among --outputs."
            )
        _Rasters(self)

    def measure(self, report: RunReport) -> RunReport:
        """Return the report of a prediction with the heights of its buildings.

        Raises:
            DataError: No image has buildings that can be measured; of one among several it is a
                note.
        """
        measured, missed = list[HeightsReport](), list[DataError]()
        for output in report.outputs:
            if output.polygons is not None and output.buildings:
                path = Path(output.polygons)
                try:
                    measured.append(run_heights(path, path.parent, self))
                except DataError as error:
                    missed.append(error)
        if missed and not measured:
            raise missed[0]
        notes = [note for one in measured for note in one.notes]
        notes += [error.message for error in missed]
        return replace(report, heights=tuple(measured), notes=(*report.notes, *notes))


@dataclass(frozen=True)
class HeightsReport(Report):
    """Result of `run_heights`.

    Args:
        buildings, measured: Number of buildings, and of those with a height.
        height_m: Median height in metres; None without any.
        error_m: Median half-width of the 90 % intervals in metres; None without any.
        shapes: Number of buildings by roof shape; those undecided count as `null`.
        reasons: Number of buildings without a height by reason.
        datum: Vertical datum of `ground_m`; None if the files state none.
        unit_m: Metres per unit of the source's heights.
        volume_m3, floor_m2: Volume, and estimated floor area, of all buildings with a height.
        offset: Offset from the outlines to the roofs of the surface; None where not known.
    """

    buildings: int
    measured: int
    height_m: float | None
    error_m: float | None
    shapes: Mapping[str, int]
    reasons: Mapping[str, int]
    method: str
    datum: str | None
    unit_m: float
    volume_m3: float
    floor_m2: float
    offset: RoofOffset | None
    files: tuple[Path, ...]
    seconds: float
    peak_rss_mb: float
    notes: tuple[str, ...]


def run_heights(
    buildings: Path, out: Path, options: HeightOptions, *, progress: Progress | None = None
) -> HeightsReport:
    """Measure the buildings of a layer, and write the layer with its heights to a folder.

    Args:
        buildings: File or folder of polygons, or a mask.
        out: Folder of the results; it is created where it is missing.

    Raises:
        ConfigError: The options do not fit together, or a result would replace an input.
        DataError, GeoreferenceError, LabelError: An input cannot be used.
        MissingExtraError: Points without the extra `points`.
        ExportError: A result cannot be written.
    """
    started = time.perf_counter()
    buildings = predicted_file(buildings, "polygons")
    plain = buildings.stem
    if Path(plain).suffix.lower() in _INNER_SUFFIXES:
        plain = Path(plain).stem
    plain = plain.removesuffix("_buildings").removesuffix("_heights")
    files = [out / f"{plain}_heights{end}" for end in (".gpkg", ".json", ".city.json", ".png")]
    table, record, model, picture = files
    planes_file = out / f"{plain}_roof_planes.gpkg"
    files += [planes_file] if options.planes else []
    files += [table.with_suffix(suffix) for suffix in options.formats if suffix != ".gpkg"]
    options.check()
    rasters = elevation_files((*options.surface, *options.terrain))
    local = [*map(Path, rasters), *options.points]
    prepare_folder(out, files, (buildings, options.area, *local))
    layer = read_buildings_layer(buildings, out, attributes=ALL_FIELDS, layer_name=options.layer)
    if options.area is not None:
        layer = _inside(layer, read_area(options.area, options.layer))
    if not len(layer):
        where = "" if options.area is None else f" inside {options.area}"
        raise DataError(
            f"{buildings} has no building{where}.", remedy="Give a layer with buildings."
        )
    plane = metric_crs(layer.crs, layer.bounds_xy)
    source: _Rasters | _Scans
    source = _Scans(options, layer, out) if options.points else _Rasters(options)
    notes = [*layer.notes, *source.notes]
    notes += layer_position_notes(layer.name, layer.crs, layer.bounds_xy)
    for system in dict.fromkeys(source.systems):
        notes += missing_grid(layer.crs, system, layer.bounds_xy)
    survey = source.survey(layer, plane, progress)
    offset = survey.offset()
    if offset is not None and offset.length_m >= max(_NOTED_OFFSET_M, source.resolution_m / 2):
        where = f"{offset.east_m:+.1f} m east and {offset.north_m:+.1f} m north"
        if options.move:
            parts = (moved(part, layer.crs, offset) for _, part in layer.outlines.chunks())
            layer = replace(layer, outlines=SpilledPolygons.of(parts, out))
            survey = source.survey(layer, plane, progress)
            notes.append(f"The outlines were moved by {where}, onto the roofs of the surface.")
        else:
            notes.append(
                f"The roofs of the surface lie {where} of the outlines: rooftrace heights --move "
                "moves these."
            )
    planes = _Planes(out)
    heights = survey.heights(planes.add if options.planes else None)
    above_m = 0.0
    if options.terrain and isinstance(survey, RasterSurvey):
        above_m = survey.above_terrain_m(heights)
    notes += _warnings(layer, heights, source, above_m)
    same = survey.places.crs == plane
    packed = survey.places.packed if same else on_plane(layer, plane)
    layer = _with_areas(layer, packed, plane)
    multi = bool(layer.outlines.is_multi.any())
    settings = LayerSettings(layer.crs, multi=multi, grades=GRADES)
    names = _own_names(layer)
    write_layer(table, settings, _chunks(layer, names, heights, source.method))
    notes += write_copies(table, options.formats, multi=multi)
    if options.planes:
        settings = LayerSettings(layer.crs, grades=_PLANE_GRADES)
        write_layer(planes_file, settings, planes.chunks(survey.places, layer.crs))
    if heights.is_known.any():
        code = epsg_code(plane, source.vertical.crs)
        if code is None:
            notes.append(
                f"{model.name} states no coordinate system: its own, {crs_text(plane)}, has no "
                "EPSG code. Measure smaller areas for one of UTM."
            )
        _write_model(model, layer, names, packed, plane, code, heights)
        names_shown = [buildings.name, *(Path(str(one).split("?")[0]).name for one in local)]
        shown = source_line(list_and_count(names_shown, _MOST_NAMED))
        heights_picture(picture, packed, heights, plain, shown)
    else:
        files = [table, record, *files[4:]]
    known = heights.is_known
    tall, wide = heights.height[known], (heights.high - heights.low)[known]
    shapes, reasons = (*SHAPES, "null"), REASONS[1:]
    # The shape -1 is the last name.
    shaped = np.bincount(heights.shape[known] % len(shapes), minlength=len(shapes))
    missing = np.bincount(heights.reason, minlength=len(REASONS))[1:]
    report = HeightsReport(
        buildings=len(heights), measured=len(tall),
        height_m=float(np.median(tall)) if len(tall) else None,
        error_m=float(np.median(wide) / 2) if len(tall) else None,
        shapes={name: count for name, count in sorted(zip(shapes, shaped.tolist())) if count},
        reasons={name: count for name, count in zip(reasons, missing.tolist()) if count},
        method=source.method, datum=source.vertical.datum, unit_m=source.vertical.unit_m,
        volume_m3=float((packed.area * heights.median)[known].sum()),
        floor_m2=float((packed.area * heights.floors)[known].sum()), offset=offset,
        files=tuple(files), seconds=time.perf_counter() - started, peak_rss_mb=peak_rss_mb(),
        notes=tuple(notes),
    )  # fmt: skip
    write_json(record, report.to_json() | {"created": utc_now()})
    return report


def _inside(layer: BuildingLayer, area: Area) -> BuildingLayer:
    """Return the buildings whose centre lies in an area."""
    shape = area_in_degrees(area)
    shapely.prepare(shape)
    keep = [np.zeros(0, np.bool_)]
    for _, outlines in layer.outlines.chunks():
        centre = shapely.get_coordinates(shapely.centroid(outlines))
        keep.append(shapely.contains_xy(shape, transform_points(centre, layer.crs, CRS84)))
    rows = np.flatnonzero(np.concatenate(keep))
    attributes = {name: values[rows] for name, values in layer.attributes.items()}
    return replace(
        layer, outlines=layer.outlines.take(rows), ids=layer.ids[rows], score=layer.score[rows],
        attributes=attributes,
    )  # fmt: skip


class _Rasters:
    """A surface model, with a terrain model or without."""

    def __init__(self, options: HeightOptions) -> None:
        self.notes = list[str]()
        self.method = "surface, terrain" if options.terrain else "surface, ground around"
        names = (options.surface, options.terrain)
        opened = open_models(*names, options.unit, options.crs)
        self.vertical = opened[0][1]
        self._models = [Surface(source) for source, _ in opened]
        self.systems = [model.crs for model in self._models]
        self.resolution_m = self._models[0].resolution_m
        self.extents = [
            (list_and_count(some, _MOST_NAMED), degrees_text(source.grid.bounds_xy, model.crs))
            for some, (source, _), model in zip(names, opened, self._models)
        ]
        if self.vertical.datum is None:
            self.notes.append(
                "The surface model does not state a vertical datum: ground_m has that of the file, "
                "which is not known. Heights are differences, and do not depend on it."
                + " No unit is stated, either: metres are assumed."
                * (not self.vertical.stated)
            )
        for (source, vertical), model in zip(opened, self._models):
            self.notes += _unit_notes(source.name, model.crs, vertical)

    def survey(self, layer: BuildingLayer, plane: CRS, progress: Progress | None) -> RasterSurvey:
        surface, *terrain = self._models
        places = Places(on_plane(layer, plane), plane)
        return RasterSurvey(places, surface, terrain[0] if terrain else None, progress)


class _Scans:
    """Laser scans."""

    method = "points"
    resolution_m = 0.0

    def __init__(self, options: HeightOptions, layer: BuildingLayer, out: Path) -> None:
        self._out, self.notes = out, list[str]()
        files = [PointFile(path) for path in options.points]
        self._files = [file for file in files if file.count]
        if empty := len(files) - len(self._files):
            self.notes.append(f"{plural(empty, 'file holds', 'files hold')} no points.")
        if not self._files:
            remedy = "Give the tiles that cover the buildings."
            raise DataError(f"{files[0].path} holds no points.", remedy=remedy)
        stated = [crs for crs in (options.crs, *(file.crs for file in self._files)) if crs]
        # A file, or --crs, may name the map's system alone where others have that of heights, too.
        crs = next((one for one in stated if one.sub_crs_list), (*stated, layer.crs)[0])
        self._plane = crs.sub_crs_list[0] if crs.sub_crs_list else crs
        self.systems = [self._plane]
        unstated = sum(file.crs is None for file in self._files)
        if unstated and options.crs is None:
            self.notes.append(
                f"{plural(unstated, 'file of points states', 'files of points state')} no "
                f"coordinate system: that of {'the others' if stated else layer.name}, "
                f"{crs_text(crs)}, is taken."
            )
        if crs.is_geographic and not stated:
            raise GeoreferenceError(
                f"The points name no coordinate system, and {layer.name} is in degrees.",
                remedy="Give that of the points, for instance --crs EPSG:28992.",
            )
        if crs.is_geographic:
            raise GeoreferenceError(
                f"The points are in degrees, {crs_text(crs)}; expected a projected system.",
                remedy="Reproject them, for instance with pdal translate … filters.reprojection.",
            )
        for other in stated:
            same = crs if other.sub_crs_list else self._plane
            if not other.equals(same, ignore_axis_order=True):
                raise GeoreferenceError(
                    f"The points are in {crs_text(crs)} and in {crs_text(other)}; expected one.",
                    remedy="Give the tiles of one system at a time.",
                )
        units = {file.unit or "no stated unit" for file in self._files}
        verticals = [
            vertical_of(crs, unit=options.unit or file.unit or None) for file in self._files
        ]
        if len({one.unit_m for one in verticals}) > 1:
            raise GeoreferenceError(
                f"The points have heights in {' and in '.join(sorted(units))}; expected one.",
                remedy="Give the tiles of one unit at a time.",
            )
        self.vertical = verticals[0]
        self.notes += _unit_notes("The laser scan", self._plane, self.vertical)
        names = list_and_count(options.points, _MOST_NAMED)
        bounds = joint_bounds(np.array([file.bounds_xy for file in self._files]), self._plane)
        self.extents = [(names, degrees_text(bounds, self._plane))]

    def survey(self, layer: BuildingLayer, plane: CRS, progress: Progress | None) -> PointSurvey:
        places = Places(on_plane(layer, self._plane), self._plane)
        return PointSurvey(places, self._files, self.vertical.unit_m, self._out, progress)


def _unit_notes(name: str, crs: CRS, vertical: Vertical) -> list[str]:
    """Return a note on heights of an unknown unit, or that may be in feet, as coordinates are."""
    if vertical.unknown:
        note = f"{name} has heights in {vertical.unknown!r}, an unknown unit: they are read as "
        return [note + "metres. rooftrace heights --unit says otherwise."]
    unit = crs.axis_info[0].unit_name if crs.axis_info else "metre"
    if vertical.stated or unit in ("metre", "degree"):
        return []
    note = f"{name} has coordinates in {unit} and heights without a unit: they are read as metres. "
    return [note + "If they are feet: rooftrace heights --unit us-foot."]


def _warnings(
    layer: BuildingLayer, heights: Heights, source: _Rasters | _Scans, above_m: float
) -> list[str]:
    """Return notes on heights that look wrong or are missing; raise an error where most are.

    The ground of the surface lies `above_m` metres above the terrain model.
    """
    counts = np.bincount(heights.reason, minlength=len(REASONS))
    seen = len(heights) - int(counts[UNCOVERED])
    if counts[NO_TERRAIN] >= seen:
        names, extent = source.extents[1 if seen else 0]
        raise DataError(
            f"No building of {layer.name} lies on {names}: the buildings cover "
            f"{degrees_text(layer.bounds_xy, layer.crs)}; these cover {extent}.",
            remedy="Give a model of the same ground, and check both coordinate systems. Heights in "
            "centimetres need rooftrace heights --unit centimetre.",
        )
    if counts[BELOW_TERRAIN] > _MOST_BELOW * seen:
        raise DataError(
            f"The terrain model lies above the surface model at {counts[BELOW_TERRAIN]:,} of "
            f"{seen:,} buildings.",
            remedy="Check that --surface and --terrain are not swapped, that both have one unit "
            "and one vertical datum (one in decimetres: gdal_edit.py -units dm FILE), and that the "
            "surface is not above ground (nDSM) already.",
        )
    notes = [
        f"{plural(int(count), 'building')} without a height: {reason}."
        for count, reason in zip(counts[1:], REASONS[1:])
        if count
    ]
    if counts[NO_STEP] > _MOST_BELOW * seen:
        notes.append("Most buildings do not stand out: is --surface older, or a terrain model?")
    ground = np.abs(heights.ground[heights.is_known])
    if len(ground) and len(source.extents) == 1 and np.quantile(ground, 0.75) <= _LEVEL_GROUND_M:
        notes.append(
            "The ground around most buildings lies at 0 m. Heights above ground (nDSM) tilt "
            "roofs on slopes: give a surface model in its datum, with --terrain."
        )
    middle = float(np.median(heights.height[heights.is_known])) if counts[MEASURED] else 0.0
    if abs(above_m) > _MOST_ABOVE_M:
        notes.append(
            f"The ground of the surface lies {above_m:+.1f} m from the terrain model, so heights "
            "are wrong by as much. If the surface holds heights above ground (nDSM), or has "
            "another datum, leave --terrain out; of another unit, leave --unit out, and write the "
            "unit into its file: gdal_edit.py -units ft FILE."
        )
    elif middle > _TALL_M and source.vertical.unit_m == 1.0:
        notes.append(
            f"The median building is {middle:.0f} m tall: are the heights in feet or "
            "centimetres? Then give rooftrace heights --unit foot or --unit centimetre."
        )
    elif towers := int((heights.height[heights.is_known] > _TALLEST_M).sum()):
        notes.append(
            f"{plural(towers, 'building')} above {_TALLEST_M:.0f} m: fill that the model does not "
            "declare? State it: gdal_edit.py -a_nodata VALUE FILE."
        )
    return notes


def _chunks(
    layer: BuildingLayer, names: Mapping[str, str], heights: Heights, method: str
) -> Iterator[LayerChunk]:
    for rows in in_steps(np.arange(len(layer)), _CHUNK):
        own = {new: layer.values(name, rows) for name, new in names.items()}
        yield LayerChunk(layer.outlines.unpack(rows), own | _columns(heights.of(rows), method))


class _Planes:
    """Roof planes of the buildings measured so far, one row for each connected part of one.

    Memory holds 20 bytes of each; the polygons are in a temporary file.
    """

    _ROW = np.dtype([("building", "i4"), ("slope", "f4"), ("azimuth", "f4"), ("start", "i8")])

    def __init__(self, folder: Path) -> None:
        self._spill, self._tables = SpillFile(folder), [np.zeros(0, self._ROW)]

    def add(self, rows: Ints, heights: Heights) -> None:
        """Add the planes of some buildings, which are rows of the layer."""
        at, plane = np.nonzero(heights.faces)
        parts, of = shapely.get_parts(heights.faces[at, plane], return_index=True)
        table = np.zeros(len(parts), self._ROW)
        table["building"] = rows[at[of]]
        found = slope_and_azimuth_deg(heights.planes[at[of], plane[of]])
        table["slope"], table["azimuth"] = found
        table["start"] = self._spill.append(parts)[:-1]
        self._tables.append(table)

    def chunks(self, places: Places, crs: CRS) -> Iterator[LayerChunk]:
        """Yield the planes in the order of their buildings, as polygons of a CRS."""
        table = np.concatenate(self._tables)
        stop = np.append(table["start"][1:], self._spill.size)
        order = np.argsort(table["building"], kind="stable")
        # A layer without planes has its columns.
        for some in in_steps(order, _CHUNK) if len(order) else [order]:
            row, slope, azimuth, begin = (table[some][name] for name in self._ROW.names or ())
            parts = self._spill.read(begin, stop[some])
            ground_m2 = shapely.area(parts)
            eighth = np.rint(np.nan_to_num(azimuth) / 45).astype(np.int64) % len(_FACING)
            facing = np.array([*_FACING, None], np.object_)[np.where(np.isnan(azimuth), -1, eighth)]
            columns = {
                "building": row.astype(np.int64) + 1,
                "slope_deg": slope.astype(np.float64).round(1),
                "azimuth_deg": azimuth.astype(np.float64).round(1) % 360,
                "facing": facing,
                "area_m2": (ground_m2 / np.cos(np.radians(slope.astype(np.float64)))).round(2),
                "ground_area_m2": ground_m2.round(2),
            }
            placed = places.placed(parts, places.packed.centre[row])
            yield LayerChunk(reprojected(placed, places.crs, crs, np.inf), columns)


def _with_areas(layer: BuildingLayer, packed: PackedPolygons, plane: CRS) -> BuildingLayer:
    """Return predicted buildings without the figures of outlines that were edited."""
    columns = {
        name: np.ma.filled(values.astype(np.float64), np.nan)
        for name in ("area_m2", "perimeter_m", "orientation_deg", "rectangularity")
        if (values := layer.column(name, "iuf")) is not None
    }
    if "score" not in layer.attributes or not {"area_m2", "rectangularity"} <= {*columns}:
        return layer
    areas, is_edited = areas_with_edits(packed.area, packed.centre, plane, columns["area_m2"])
    for name, values in columns.items():
        values[is_edited] = areas[is_edited].round(2) if name == "area_m2" else np.nan
    return replace(layer, attributes={**layer.attributes, **columns})


def _own_names(layer: BuildingLayer) -> dict[str, str]:
    """Return free names for the attributes of the input, without those of earlier heights."""
    is_ours = "height_reason" in layer.attributes
    # `fid` is the number of a row here, by which the roof planes name their building.
    taken = (*COLUMNS, "fid")
    others = [name for name in layer.attributes if not (is_ours and name in taken)]
    return free_names(others, taken, "map_")


def _columns(heights: Heights, method: str) -> dict[str, NDArray[Any]]:
    known = heights.is_known

    def metres(values: Floats) -> Floats:
        return np.round(values, 2) + 0.0

    floors = np.nan_to_num(heights.floors).astype(np.int64)
    return {
        "height": metres(heights.height),
        "height_low": metres(np.maximum(heights.low, 0)),
        "height_high": metres(heights.high),
        "height_median": metres(heights.median),
        "roof_height": metres(heights.roof_height),
        "roof_shape": heights.shape_names(),
        "roof_direction": np.round(heights.direction, 1),
        "roof_slope_deg": np.round(heights.slope_deg, 1),
        "roof_azimuth_deg": np.round(heights.azimuth_deg, 1) % 360,
        "roof_plane_m2": np.round(heights.plane_m2, 1),
        "num_floors_estimated": np.ma.MaskedArray(floors, ~known),
        "ground_m": metres(heights.ground),
        "ground_min_m": metres(heights.ground_min),
        "samples": heights.samples.astype(np.int64),
        "method": np.full(len(heights), method, np.object_),
        "height_reason": np.array([None, *REASONS[1:]], np.object_)[heights.reason],
    }


def _write_model(
    path: Path,
    layer: BuildingLayer,
    names: Mapping[str, str],
    packed: PackedPolygons,
    plane: CRS,
    code: int | None,
    heights: Heights,
) -> None:
    """Write the buildings with a height as CityJSON, in metres."""
    rows = np.flatnonzero(heights.is_known)
    low = heights.ground_min
    top = heights.ground + np.maximum(heights.median, 0.5)
    bounds = packed.bounds[rows]
    least = [*bounds[:, :2].min(axis=0).tolist(), float(low[rows].min())]
    # Of a roof with two levels, the upper one is higher than the median.
    highest = np.where(np.isfinite(heights.line[:, 0]), heights.ground + heights.height, top)
    greatest = [*bounds[:, 2:].max(axis=0).tolist(), float(highest[rows].max())]
    # Programs that merge city models (cjio 0.10.1) take equal ids for one building.
    scene = path.name.removesuffix("_heights.city.json")
    with city_model(path, code, least, greatest) as model:
        for some in in_steps(rows, _SOLIDS_AT_ONCE):
            columns = _columns(heights.of(some), "")
            kept = {own: layer.values(name, some).tolist() for name, own in names.items()}
            kept |= {name: columns[name].tolist() for name in COLUMNS[:-3]}
            outlines = packed.unpack(some)
            model.add(
                [f"{scene}-{number + 1}" for number in some.tolist()],
                outlines,
                low[some],
                top[some],
                level_parts(outlines, heights.of(some), metres_of(plane, packed.centre[some])),
                [
                    {name: v for name, v in zip(kept, values) if v is not None and v == v}
                    for values in zip(*kept.values())
                ],
            )
