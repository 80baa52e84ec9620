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

from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError
from rooftrace.core.machine import peak_rss_mb
from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray, Floats, Ints, Progress
from rooftrace.density.cells import metric_crs
from rooftrace.flows.compare.inputs import BuildingLayer, SpilledTexts, read_buildings_layer
from rooftrace.heights.city_model import CityModelWriter
from rooftrace.heights.estimate import REASONS, Heights, level_parts
from rooftrace.heights.picture import heights_picture
from rooftrace.heights.shift import RoofOffset
from rooftrace.heights.surface import Surface
from rooftrace.heights.survey import (
    moved,
    places_of,
    roof_offset,
    survey_points,
    survey_rasters,
)
from rooftrace.io.area import Area, area_in_degrees, read_area
from rooftrace.io.elevation import UNITS_M, PointFile, Vertical, open_elevation, vertical_of
from rooftrace.io.files import check_outputs, export_error, write_json
from rooftrace.io.remote import is_url
from rooftrace.io.reproject import degrees_text, reprojected, transform_points
from rooftrace.io.vector_write import free_names, write_layer
from rooftrace.io.vector_writers import LayerChunk, LayerSettings
from rooftrace.vector.match import SpilledPolygons

if TYPE_CHECKING:
    from rooftrace.flows.predict.image_run import RunReport

COLUMNS = (
    "height", "height_low", "height_high", "height_median", "roof_height", "roof_shape",
    "roof_direction", "num_floors_estimated", "ground_m", "samples", "method", "height_reason",
)  # fmt: skip
"""Columns of the layer that is written, besides those of the buildings."""

_CHUNK = 20_000
_NOTED_OFFSET_M = 0.75
"""Offset of outlines in metres from which a note names it."""

_TALL_M = 25.0
"""Median height in metres above which heights in feet may have been read as metres."""

_FEW = 0.5
"""Share of buildings below a terrain from which the two models do not belong together."""

_WGS84 = CRS.from_epsg(4326)


@dataclass(frozen=True)
class HeightOptions:
    """Sources of heights.

    Args:
        surface: Surface models (paths or URLs); several are tiles of one.
        terrain: Terrain models; without, the ground is looked for around each building.
        points: Laser scans (LAS, LAZ, COPC), in place of a surface model.
        area: File of polygons; buildings whose centre lies outside are left out.
        layer: Layer of a file of buildings with several.
        move: Whether the outlines are moved onto the roofs of the surface.
        unit: Unit of all heights, a key of `UNITS_M`; None takes what the files state, or metres.
        name: Beginning of the names of the results; default: that of the layer, and `_heights`.
    """

    surface: tuple[str, ...] = ()
    terrain: tuple[str, ...] = ()
    points: tuple[Path, ...] = ()
    area: Path | None = None
    layer: str | None = None
    move: bool = False
    unit: str | None = None
    name: str | None = None

    def check_prediction(self, out: str, outputs: Sequence[str]) -> None:
        """Check, before the work, that the buildings of a prediction can be measured.

        Raises:
            ConfigError: There are no polygons, no surface, or the results are not local.
            DataError, GeoreferenceError: A model cannot be used.
        """
        if not self.surface:
            raise ConfigError(
                "Received a terrain model without a surface model.", remedy="Add --surface dsm.tif."
            )
        if "polygons" not in outputs or is_url(out):
            raise ConfigError(
                "Heights need the outputs polygons in a local folder.",
                remedy="Keep polygons among --outputs, and give -o a folder.",
            )
        for path in (*self.surface, *self.terrain):
            open_elevation(path)

    def measure(self, report: RunReport) -> RunReport:
        """Return the report of a prediction with the heights of its buildings."""
        measured = []
        for output in report.outputs:
            if output.polygons is not None and output.buildings:
                path = Path(output.polygons)
                measured.append(run_heights(path, path.parent, self))
        notes = (note for one in measured for note in one.notes)
        return replace(report, heights=tuple(measured), notes=(*report.notes, *notes))


@dataclass(frozen=True)
class HeightsReport:
    """Result of `run_heights`.

    Args:
        buildings, measured: Number of buildings, and of those with a height.
        height_m: Median height in metres; None without any.
        error_m: Median half-width of the 90 % intervals in metres; None without any.
        shapes: Number of buildings by roof shape; those undecided count as `null`.
        reasons: Number of buildings without a height by reason.
        method: Source of heights and ground.
        datum: Vertical datum of `ground_m`; None if the files state none.
        unit_m: Metres per unit of the source's heights.
        volume_m3, floor_m2: Volume, and estimated floor area, of all buildings with a height.
        offset: Offset from the outlines to the roofs of the surface; None where not known.
        files: Files that were written.
        seconds: Time of the whole run.
        peak_rss_mb: Peak memory of the process.
        notes: Assumptions that the user should know.
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

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `--json` prints."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "shapes": dict(self.shapes),
            "offset": None if self.offset is None else self.offset.to_json(),
            "reasons": dict(self.reasons),
            "files": [str(file) for file in self.files],
            "notes": list(self.notes),
        }


def run_heights(
    buildings: Path, out: Path, options: HeightOptions, *, progress: Progress | None = None
) -> HeightsReport:
    """Measure the buildings of a layer, and write the layer with its heights to a folder.

    Args:
        buildings: File or folder of polygons, or a mask.
        out: Folder of the results; it is created where it is missing.
        options: Sources of heights.
        progress: See `Progress`.

    Raises:
        ConfigError: The options do not fit together, or a result would replace an input.
        DataError, GeoreferenceError, LabelError: An input cannot be used.
        MissingExtraError: Points without the extra `points`.
        ExportError: A result cannot be written.
    """
    started = time.perf_counter()
    plain = buildings.name.split(".")[0].removesuffix("_buildings").removesuffix("_heights")
    name = options.name or f"{plain}_heights"
    table, model, picture, record = _outputs(out, name)
    _check(buildings, out, (table, model, picture, record), options)
    layer = read_buildings_layer(buildings, out, attributes=True, layer_name=options.layer)
    notes = list(layer.notes)
    if options.area is not None:
        layer = _inside(layer, read_area(options.area))
    if not len(layer):
        where = "" if options.area is None else f" inside {options.area}"
        raise DataError(
            f"{buildings} has no building{where}.", remedy="Give a layer with buildings."
        )
    offset = None
    if options.points:
        heights, vertical = _from_points(layer, options, out, progress, notes)
    else:
        layer, offset, heights, vertical = _from_rasters(layer, options, progress, notes)
    if (heights.reason == 1).all():
        raise _elsewhere(layer, options)
    method = _method(options)
    notes += _warnings(heights, vertical, options)
    plane = metric_crs(layer.crs, layer.bounds_xy)
    area_m2 = _areas(layer, plane)
    write_layer(
        table,
        LayerSettings(layer.crs, multi=bool(layer.outlines.is_multi.any())),
        _chunks(layer, heights, method),
    )
    files = [table]
    if (heights.reason == 0).any():
        _write_model(model, layer, heights, plane)
        heights_picture(picture, layer.outlines, heights, layer.bounds_xy)
        files += [model, picture]
    report = _report(heights, area_m2, vertical, method, (*files, record), tuple(notes))
    seconds = time.perf_counter() - started
    report = replace(report, offset=offset, seconds=seconds, peak_rss_mb=peak_rss_mb())
    write_json(record, report.to_json())
    return report


def _outputs(out: Path, name: str) -> tuple[Path, Path, Path, Path]:
    return tuple(out / f"{name}{end}" for end in (".gpkg", ".city.json", ".png", ".json"))  # type: ignore[return-value]


def _check(buildings: Path, out: Path, outputs: Sequence[Path], options: HeightOptions) -> None:
    if bool(options.surface) == bool(options.points):
        received = "both" if options.points else "none"
        raise ConfigError(
            f"Received {received} of a surface model and points; expected one of them.",
            remedy="Give --surface dsm.tif, or --points tiles/*.laz.",
        )
    if options.points and options.terrain:
        raise ConfigError(
            "Received points and a terrain model; points measure the ground themselves.",
            remedy="Leave --terrain out, or give --surface in place of --points.",
        )
    if options.unit is not None and options.unit not in UNITS_M:
        raise ConfigError(
            f"The unit of heights is {options.unit!r}; expected {', '.join(UNITS_M)}.",
            remedy="Give --unit foot, for instance.",
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(
            f"-o received {out}, which is a file; expected a folder for the results.",
            remedy="Give the name of a folder: -o heights",
        )
    local = [*map(Path, (*options.surface, *options.terrain)), *options.points]
    check_outputs(outputs, (buildings, options.area, *local))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise export_error(out, error) from error


def _inside(layer: BuildingLayer, area: Area) -> BuildingLayer:
    """Return the buildings whose centre lies in an area."""
    shape = area_in_degrees(area)
    shapely.prepare(shape)
    keep = [np.zeros(0, np.bool_)]
    for _, outlines in layer.outlines.chunks():
        centre = shapely.get_coordinates(shapely.centroid(outlines))
        keep.append(shapely.contains_xy(shape, transform_points(centre, layer.crs, _WGS84)))
    rows = np.flatnonzero(np.concatenate(keep))
    return replace(
        layer,
        outlines=layer.outlines.take(rows),
        ids=layer.ids.take(rows),
        score=layer.score[rows],
        attributes={
            name: values.take(rows) if isinstance(values, SpilledTexts) else values[rows]
            for name, values in layer.attributes.items()
        },
    )


def _from_rasters(
    layer: BuildingLayer, options: HeightOptions, progress: Progress | None, notes: list[str]
) -> tuple[BuildingLayer, RoofOffset | None, Heights, Vertical]:
    surfaces, vertical = _surfaces(options.surface, options.unit, notes)
    terrains, ground = _surfaces(options.terrain, options.unit, notes)
    if terrains and vertical.datum and ground.datum and vertical.datum != ground.datum:
        raise GeoreferenceError(
            f"The surface model has heights in {vertical.datum}, the terrain model in "
            f"{ground.datum}; their difference would be no height of a building.",
            remedy="Convert one of them, or leave the terrain model out: the ground is then "
            "looked for around each building.",
        )
    plane = metric_crs(layer.crs, layer.bounds_xy)
    places = places_of(
        layer.outlines, layer.crs, plane, (part for _, part in layer.outlines.chunks())
    )
    offset = roof_offset(places, surfaces)
    beside = 0.0 if offset is None else float(np.hypot(offset.east_m, offset.north_m))
    if offset is not None and beside >= max(_NOTED_OFFSET_M, surfaces[0].resolution_m / 2):
        where = f"{offset.east_m:+.1f} m east and {offset.north_m:+.1f} m north"
        if options.move:
            parts = (moved(part, layer.crs, offset) for _, part in layer.outlines.chunks())
            layer = replace(layer, outlines=SpilledPolygons.of(parts, layer.outlines.spill.folder))
            places = replace(places, outlines=layer.outlines)
            notes.append(f"The outlines were moved by {where}, onto the roofs of the surface.")
        else:
            notes.append(
                f"The roofs of the surface lie {where} of the outlines: --move moves these."
            )
    heights = survey_rasters(places, surfaces, terrains, progress)
    return layer, offset, heights, vertical


def _surfaces(
    paths: Sequence[str], unit: str | None, notes: list[str]
) -> tuple[list[Surface], Vertical]:
    surfaces = []
    vertical = Vertical(1.0, True, None)
    for path in paths:
        source, vertical = open_elevation(path)
        vertical = _with_unit(vertical, unit)
        surfaces.append(Surface(source, vertical.unit_m))
        crs = source.grid.crs
        assert crs is not None
        factor = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        if not vertical.stated and not crs.is_geographic and abs(factor - 1) > 1e-6:
            notes.append(
                f"{source.name} has coordinates in {crs.axis_info[0].unit_name}, and does not "
                "state the unit of its heights: they are read as metres. If they are feet, give "
                "--unit us-foot."
            )
    return surfaces, vertical


def _with_unit(vertical: Vertical, unit: str | None) -> Vertical:
    return vertical if unit is None else Vertical(UNITS_M[unit], True, vertical.datum)


def _from_points(
    layer: BuildingLayer,
    options: HeightOptions,
    out: Path,
    progress: Progress | None,
    notes: list[str],
) -> tuple[Heights, Vertical]:
    files = [PointFile(path) for path in options.points]
    stated = [file.crs for file in files if file.crs is not None]
    crs = stated[0] if stated else layer.crs
    if not stated:
        notes.append(
            f"The points name no coordinate system: that of {layer.name}, {crs.name}, is taken."
        )
    if crs.is_geographic:
        raise GeoreferenceError(
            f"The points are in degrees ({crs.name}); expected a projected coordinate system.",
            remedy="Reproject them, for instance with pdal translate … filters.reprojection.",
        )
    for other in stated[1:]:
        if not other.equals(crs, ignore_axis_order=True):
            raise GeoreferenceError(
                f"The points are in {crs.name} and in {other.name}; expected one system.",
                remedy="Give the tiles of one system at a time.",
            )
    vertical = _with_unit(vertical_of(crs), options.unit)
    flat = crs.sub_crs_list[0] if crs.sub_crs_list else crs

    def parts() -> Iterator[NDArray[np.object_]]:
        for _, part in layer.outlines.chunks():
            yield reprojected(part, layer.crs, flat, np.inf)

    outlines = SpilledPolygons.of(parts(), out)
    places = places_of(outlines, flat, flat, (part for _, part in outlines.chunks()))
    return survey_points(places, files, vertical.unit_m, out, progress), vertical


def _elsewhere(layer: BuildingLayer, options: HeightOptions) -> DataError:
    names = ", ".join(map(str, options.points or options.surface))
    here = degrees_text(layer.bounds_xy, layer.crs)
    there = ""
    if options.surface:
        grid = open_elevation(options.surface[0])[0].grid
        assert grid.crs is not None
        x, y = grid.to_world(np.array([0.0, grid.width]), np.array([0.0, grid.height]))
        bounds = float(x.min()), float(y.min()), float(x.max()), float(y.max())
        there = f"; the first file covers {degrees_text(bounds, grid.crs)}"
    return DataError(
        f"No building of {layer.name} lies on {names}: the buildings cover {here}{there}.",
        remedy="Give a surface of the same ground, and check both coordinate systems.",
    )


def _method(options: HeightOptions) -> str:
    if options.points:
        return "points"
    return "surface, terrain" if options.terrain else "surface, ground around"


def _warnings(heights: Heights, vertical: Vertical, options: HeightOptions) -> list[str]:
    notes = []
    known = heights.reason == 0
    seen = heights.reason != 1
    below = int((heights.reason == len(REASONS) - 1).sum())
    if options.terrain and below > _FEW * seen.sum():
        raise DataError(
            f"The terrain model lies above the surface model at {below:,} of {int(seen.sum()):,} "
            "buildings.",
            remedy="Check that --surface and --terrain are not swapped, and that both have one "
            "unit and one vertical datum.",
        )
    if known.any():
        middle = float(np.median(heights.height[known]))
        if middle > _TALL_M and vertical.unit_m == 1.0:
            notes.append(
                f"The median building is {middle:.0f} m tall: are the heights in feet? Then give "
                "--unit foot."
            )
    for number, reason in enumerate(REASONS):
        count = int((heights.reason == number).sum())
        if number and count:
            notes.append(f"{plural(count, 'building')} without a height: {reason}.")
    if vertical.datum is None and not options.points:
        notes.append(
            "The surface model does not state a vertical datum: ground_m has that of the file, "
            "which is not known. Heights are differences, and do not depend on it."
        )
    return notes


def _areas(layer: BuildingLayer, plane: CRS) -> Floats:
    areas = [np.zeros(0)]
    for _, outlines in layer.outlines.chunks():
        areas.append(shapely.area(reprojected(outlines, layer.crs, plane, np.inf)))
    return np.concatenate(areas)


def _chunks(layer: BuildingLayer, heights: Heights, method: str) -> Iterator[LayerChunk]:
    is_ours = "height_reason" in layer.attributes
    others = [name for name in layer.attributes if not (is_ours and name in COLUMNS)]
    names = free_names(others, COLUMNS, "map_")
    for start in range(0, len(layer), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(layer)))
        own = {names[name]: layer.attributes[name][rows] for name in others}
        yield LayerChunk(layer.outlines.unpack(rows), own | _columns(heights.of(rows), method))


def _columns(heights: Heights, method: str) -> dict[str, NDArray[Any]]:
    known = heights.reason == 0

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
        "num_floors_estimated": np.ma.MaskedArray(floors, ~known),
        "ground_m": metres(heights.ground),
        "samples": heights.samples,
        "method": np.full(len(heights), method, np.object_),
        "height_reason": np.array([None, *REASONS[1:]], np.object_)[heights.reason],
    }


def _write_model(path: Path, layer: BuildingLayer, heights: Heights, plane: CRS) -> None:
    """Write the buildings with a height as CityJSON, in metres."""
    known: BoolArray = heights.reason == 0
    rows = np.flatnonzero(known)
    low = heights.ground
    top = low + np.maximum(heights.median, 0.5)
    bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        part = shapely.total_bounds(_on_plane(layer, some, plane))
        bounds = np.concatenate(
            [np.minimum(bounds[:2], part[:2]), np.maximum(bounds[2:], part[2:])]
        )
    extent = [*bounds[:2], low[rows].min(), *bounds[2:], top[rows].max()]
    origin = tuple(float(np.floor(value)) for value in extent[:3])
    with CityModelWriter(path, plane, origin, list(map(float, extent))) as model:  # type: ignore[arg-type]
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            columns = _columns(heights.of(some), "")
            kept = {name: columns[name].tolist() for name in COLUMNS[:9]}
            outlines = _on_plane(layer, some, plane)
            model.add(
                [f"building-{number + 1}" for number in some.tolist()],
                outlines,
                low[some],
                top[some],
                level_parts(outlines, heights.of(some)),
                [
                    {name: v for name, v in zip(kept, values) if v is not None and v == v}
                    for values in zip(*kept.values())
                ],
            )


def _on_plane(layer: BuildingLayer, rows: Ints, plane: CRS) -> NDArray[np.object_]:
    return reprojected(layer.outlines.unpack(rows), layer.crs, plane, np.inf)


def _report(
    heights: Heights,
    area_m2: Floats,
    vertical: Vertical,
    method: str,
    files: tuple[Path, ...],
    notes: tuple[str, ...],
) -> HeightsReport:
    known = heights.reason == 0
    shapes = [name or "null" for name in heights.shape_names()[known].tolist()]
    half = (heights.high - heights.low)[known] / 2
    return HeightsReport(
        len(heights),
        int(known.sum()),
        float(np.median(heights.height[known])) if known.any() else None,
        float(np.median(half)) if known.any() else None,
        dict(zip(*(values.tolist() for values in np.unique(shapes, return_counts=True)))),
        {
            reason: int((heights.reason == number).sum())
            for number, reason in enumerate(REASONS)
            if number and (heights.reason == number).any()
        },
        method,
        vertical.datum,
        vertical.unit_m,
        float((area_m2 * heights.median)[known].sum()),
        float((area_m2 * heights.floors)[known].sum()),
        None,
        files,
        0.0,
        0.0,
        notes,
    )


def point_files(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return laser scans by name; a folder stands for all that lie in it.

    Raises:
        DataError: A folder has none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in (".las", ".laz"))
        if not inside:
            raise DataError(
                f"The folder {path} has no laser scans; expected .las or .laz files.",
                remedy="Give the folder of the tiles, or the files.",
            )
        found += inside
    return tuple(found)
