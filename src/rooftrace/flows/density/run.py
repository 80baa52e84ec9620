"""`rooftrace density`: built-up shares and buildings by the cells of a grid, zones or whole images.

Whole images are measured by `flows.density.images`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ConfigError, GeoreferenceError
from rooftrace.core.text import list_first, plain_number, plural
from rooftrace.core.types import Floats, Ints, Progress, ResultProvenance, Window
from rooftrace.density.accumulate import (
    DensityAccumulator,
    centres_of,
    density_of_polygons,
    density_of_zones,
)
from rooftrace.density.cells import CellGrid, DensityFigures, DensityGrid
from rooftrace.density.files import (
    DEFAULT_THRESHOLD,
    DensityThreshold,
    density_columns,
    density_files,
    draw_zones,
    write_density,
)
from rooftrace.flows.density.ground import SeenGround, bounds_on, outside_notes, seen_ground
from rooftrace.flows.density.inputs import (
    FLOORS,
    BuildingPolygons,
    MaskFile,
    SceneFiles,
    files_of,
    mask_notes,
    read_buildings,
    scenes_of,
    stem_of,
    trace_regions,
)
from rooftrace.flows.density.zones import Zones
from rooftrace.io.area import observed_file
from rooftrace.io.files import check_outputs
from rooftrace.io.georeferenced import date_span
from rooftrace.io.legend import NODATA
from rooftrace.io.picture import source_line, write_png
from rooftrace.io.reproject import crs_text
from rooftrace.io.vector_read import VectorFile
from rooftrace.vector.prepare import MaskRecord


@dataclass(frozen=True)
class DensityReport:
    """Result of `run_density` or `run_zone_density`.

    Args:
        places: Description of the places: cells of a size, or zones.
        crs: Description of the coordinate system of the measurements.
        figures: Figures of the places: (rows, columns) of cells, or (zones,).
        names: Name of each zone; empty for cells.
        is_seen_assumed: Whether no input says which ground was seen, so that all of it counts.
    """

    files: tuple[Path, ...]
    places: str
    crs: str
    figures: DensityFigures
    threshold: DensityThreshold
    notes: tuple[str, ...]
    names: tuple[str, ...] = ()
    is_seen_assumed: bool = False

    @property
    def total(self) -> DensityFigures | None:
        """Figures of all cells together; None for zones, which may overlap."""
        return None if self.names else self.figures.total()

    @property
    def classes(self) -> dict[str | None, int]:
        """Number of places by class; None counts those of which too little was observed."""
        return self.threshold.counts(self.figures.judged_share)

    def to_json(self) -> dict[str, Any]:
        return {
            "files": [str(file) for file in self.files],
            "crs": self.crs,
            "shape": list(self.figures.area_m2.shape),
            "total": None if self.total is None else self.total.to_json(),
            "classes": {name or "not observed": count for name, count in self.classes.items()},
            "threshold": self.threshold.threshold,
            "notes": list(self.notes),
        }


def run_density(
    inputs: Sequence[Path],
    out: Path,
    *,
    cell_m: float = 100.0,
    gsd_m: float | None = None,
    building: str | None = None,
    min_area_m2: float = 0.0,
    threshold: DensityThreshold = DEFAULT_THRESHOLD,
    layer: str | None = None,
    progress: Progress | None = None,
) -> DensityReport:
    """Measure density by the cells of a grid; write OUT.tif, OUT.gpkg and OUT.png.

    Pixels of one image count as they are; ground of several is measured as polygons.

    Args:
        inputs: A mask, polygons of buildings, or both. With both, shares come from the mask.
        out: Path of the results without their endings, or an existing folder.
        gsd_m: Metres per pixel of a mask without georeference; default: those that were given
            when it was predicted.
        building: Class of buildings: its name, or its index in a mask.
        min_area_m2: Minimum area of a building that is counted.
        layer: Layer of files with several; see `VectorFile`.

    Raises:
        ConfigError: Inputs, cells or options do not fit together.
        DataError, GeoreferenceError, LabelError: An input cannot be used.
        ExportError: A result cannot be written.
    """
    scenes = scenes_of(inputs)
    stem = stem_of(out, inputs[0].resolve().stem)
    check_outputs(density_files(stem), [*inputs, *files_of(scenes)])
    mask, polygons = scenes[0]
    systems: Sequence[CRS | None]
    if len(scenes) == 1 and mask is not None:
        file = MaskFile.of(mask, building)
        if gsd_m is None and file.grid.crs is None:
            record = MaskRecord.read(mask)
            gsd_m = record.gsd_m if record is not None and record.is_of(file.grid) else None
        buildings = None
        notes = [*file.source.notes, *mask_notes(inputs, mask, polygons, min_area_m2)]
        if polygons is not None:
            buildings = read_buildings(polygons, building, file, layer)
            file, said = buildings.shares_of(file)
            notes = [*buildings.notes, *notes, *said]
        accumulator = DensityAccumulator(
            file.grid, cell_m, gsd_m=gsd_m, min_area_m2=min_area_m2, name=str(mask)
        )
        density = _of_mask(file, buildings, accumulator, progress)
        notes += outside_notes(density.outside)
        systems = (file.grid.crs,)
    else:
        _check_on_ground(scenes, gsd_m)
        ground = seen_ground(inputs, scenes, building=building, layer=layer, progress=progress)
        notes, systems = list(ground.notes), ground.systems or (ground.place[1],)
        density = _of_ground(ground, cell_m, min_area_m2)
    plane = density.grid.crs
    for own in systems:
        if own is not None and plane is not None and own != plane:
            notes.append(f"Cells lie on {crs_text(plane)}: {own.name} has no true metres here.")
    source = _source_line(inputs, scenes)
    files = write_density(stem, density, threshold, stem.name, source)
    places = f"cells of {cell_m:g} m"
    system = crs_text(plane) if plane else "metres from the upper left corner of the image"
    return DensityReport(files, places, system, density.figures, threshold, tuple(notes))


def _source_line(inputs: Sequence[Path], scenes: Sequence[SceneFiles], *others: Path) -> str:
    """Return the line below a picture: attribution and date of the imagery, then the files."""
    files = files_of(scenes)
    if len(scenes) > 1:
        files = [*dict.fromkeys(path if path.is_dir() else path.parent for path in inputs)]
    return source_line(", ".join(path.name for path in (*files, *others)), _credit(scenes))


def _credit(scenes: Sequence[SceneFiles]) -> str:
    """Return the attributions and dates of the imagery, as masks or a catalogue record them."""
    sources, dates = set(), set()
    for mask, polygons in scenes:
        record = None if mask is None else MaskRecord.read(mask)
        scenes_seen = None if polygons is None else observed_file(polygons)
        if record is not None:
            sources.add(record.origin.source)
            dates.add(record.origin.imagery_date)
        elif scenes_seen is not None:
            sources |= {*scenes_seen.distinct("source")}
            dates |= {*scenes_seen.distinct("imagery_date")}
    known = [*filter(None, dates)]
    date = known[0] if len(known) == 1 else date_span(known)
    if date is not None and None in dates:
        date += " and undated"
    return ResultProvenance(date, list_first(sorted(filter(None, sources)))).credit()


def _of_mask(
    mask: MaskFile,
    buildings: BuildingPolygons | None,
    accumulator: DensityAccumulator,
    progress: Progress | None,
) -> DensityGrid:
    def fed() -> Iterator[tuple[Window, NDArray[np.uint8]]]:
        for window, values in mask.blocks(progress):
            accumulator.feed(window, values)
            yield window, values

    if buildings is None:
        built = ((window, values * (values != NODATA)) for window, values in fed())
        for regions in trace_regions(mask.grid.shape, built):
            accumulator.add(accumulator.ground.reproject(regions, None))
    else:
        moved = accumulator.ground.reproject(buildings.geometry, buildings.crs)
        cols, rows = np.floor(accumulator.ground.pixels(*centres_of(moved).T))
        # Those whose centroids lie on observed ground.
        counted = np.zeros(len(moved), np.bool_)
        for window, values in fed():
            beside = (cols < window.col) | (cols >= window.col_stop)
            here = np.flatnonzero(~beside & (rows >= window.row) & (rows < window.row_stop))
            row, col = rows[here].astype(np.int64) - window.row, cols[here].astype(np.int64)
            counted[here] = values[row, col] != NODATA
        accumulator.add(moved, counted)
    return accumulator.finish()


def _check_on_ground(scenes: Sequence[SceneFiles], gsd_m: float | None) -> None:
    """Refuse polygons in pixels without their mask, and --gsd where no pixels are measured."""
    _, polygons = scenes[0]
    is_placed, reason = True, "several images are georeferenced"
    if len(scenes) == 1 and polygons is not None:
        file = VectorFile(polygons)
        if file.in_pixels:
            raise GeoreferenceError(
                f"{polygons} is in pixels of an image, and their size is not known without its "
                "mask.",
                remedy="Give the mask as well: rooftrace density MASK "
                f"{polygons.name} --gsd METRES -o OUT",
            )
        is_placed, reason = file.crs is not None, f"{polygons} holds no pixels"
    if gsd_m is not None and is_placed:
        raise ConfigError(
            f"--gsd {plain_number(gsd_m, 6)} was given, but {reason}.", remedy="Leave --gsd out."
        )


def _of_ground(ground: SeenGround, cell_m: float, min_area_m2: float) -> DensityGrid:
    """Return the density of ground that is measured as polygons."""
    places = [] if ground.observed is None else [ground.observed]
    if ground.built is None:
        places.append(ground.buildings)
    # Of images of nodata alone, nothing is observed.
    area = np.concatenate(places) if sum(map(len, places)) else ground.extent(ground.plane)
    cells = CellGrid.over(bounds_on(area), cell_m, ground.plane)
    large = ground.only(shapely.area(ground.buildings) >= min_area_m2)
    return density_of_polygons(large.buildings, cells, large.observed, large.built, large.counted)


def run_zone_density(
    inputs: Sequence[Path],
    zones: Path,
    out: Path,
    *,
    building: str | None = None,
    min_area_m2: float = 0.0,
    threshold: DensityThreshold = DEFAULT_THRESHOLD,
    layer: str | None = None,
    value: str | None = None,
    picture: bool = True,
    progress: Progress | None = None,
) -> DensityReport:
    """Measure density by zones; write OUT.gpkg, OUT.csv and OUT.png.

    Areas are exact; those of a mask follow the edges of its pixels. Zones may overlap, which a
    note says.

    Args:
        inputs, out, building, min_area_m2, threshold, layer, progress: See `run_density`.
        zones: File of polygons; their attributes are kept.
        value: Numeric attribute of the buildings, see `_values_of_zones`.
        picture: Whether OUT.png is written.

    Raises:
        GeoreferenceError: The mask has no coordinate system.
        DataError: No zone touches the observed area.
    """
    scenes = scenes_of(inputs)
    stem = stem_of(out, inputs[0].resolve().stem)
    files = tuple(Path(f"{stem}{one}") for one in (".gpkg", ".csv", ".png")[: 2 + picture])
    check_outputs(files, [*inputs, *files_of(scenes), zones])
    places = Zones.read(zones, layer)
    ground = seen_ground(
        inputs, scenes, building=building, min_area_m2=min_area_m2, layer=layer, value=value,
        progress=progress,
    )  # fmt: skip
    outlines, said = places.on([ground])
    notes = [*places.notes, *ground.notes, *said]
    figures, inside, zone = density_of_zones(
        outlines, ground.buildings, ground.observed, ground.built, ground.counted
    )
    counted = len(ground.buildings) - ground.outside
    times = np.bincount(inside, minlength=1)
    if outside := counted - np.count_nonzero(times):
        notes.append(f"Buildings in no zone: {outside:,} of {counted:,}.")
    if several := np.count_nonzero(times > 1):
        notes.append(f"Buildings in several zones, which count in each: {several:,}.")
    # The attributes of the zones come first; without one, a row of the table would have no name.
    attributes = places.layer.values or {"zone": np.array(places.names, np.object_)}
    columns = density_columns(figures, threshold, attributes)
    renamed = [f"{old} is {new}" for old, new in zip(attributes, columns) if old != new]
    if renamed:
        notes.append(f"Attributes of the zones are renamed: {', '.join(renamed)}.")
    if value is not None:
        of_zones = _values_of_zones(inside, zone, len(outlines), ground, value)
        columns |= {name: figures.known(values) for name, values in of_zones.items()}
    if (unseen := figures.observed_m2 == 0).any():
        zones_text = plural(int(unseen.sum()), "zone")
        notes.append(f"{zones_text} without observed area: figures are empty.")
        columns["zone_m2"] = places.true_areas(figures, outlines, ground.plane)
    places.write(files, columns, [ground])
    if picture:
        credit = _source_line(inputs, scenes, zones)
        image = draw_zones(outlines, figures, threshold, stem.name, places.names, credit)
        write_png(files[2], image)
    return DensityReport(
        files, "zones", crs_text(ground.plane), figures, threshold, tuple(notes),
        tuple(places.names), is_seen_assumed=ground.observed is None,
    )  # fmt: skip


def _values_of_zones(
    building: Ints, zone: Ints, zones: int, ground: SeenGround, value: str
) -> dict[str, NDArray[Any]]:
    """Return the mean of a value of the buildings in each zone, and what follows from heights.

    Those without a value are left out, and sums are NaN where no building has one. The pairs are
    those of `density_of_zones`.

    Returns:
        (n,) `VALUE_count`, `VALUE_mean` (NaN without any) and `VALUE_area_m2`, the sum of value
        times area: for heights the volume in m³. For `height` it is called `volume_m3`, and counts
        `height_median` where the layer has it, which is right for slanted roofs. `floor_m2` is the
        sum of area times floors where the layer has these.
    """
    numbers, area = ground.numbers, shapely.area(ground.buildings)
    buildings = np.bincount(zone, minlength=zones)

    def count_of(values: Floats) -> Ints:
        return np.bincount(zone[np.isfinite(values)[building]], minlength=zones)

    def total(values: Floats) -> Floats:
        summed = np.bincount(zone, np.nan_to_num(values)[building], minlength=zones)
        return np.where((count_of(values) > 0) | (buildings == 0), summed, np.nan)

    count = count_of(numbers[value])
    mean = total(numbers[value]) / np.where(count > 0, count, np.nan)
    is_height = value == "height"
    tall = numbers.get("height_median", numbers[value]) if is_height else numbers[value]
    columns: dict[str, NDArray[Any]] = {
        f"{value}_count": count,
        f"{value}_mean": np.round(mean, 3),
        "volume_m3" if is_height else f"{value}_area_m2": np.round(total(tall * area), 1),
    }
    if floors := [numbers[name] for name in FLOORS if name in numbers]:
        best = np.where(np.isnan(floors[0]), floors[-1], floors[0])
        columns["floor_m2"] = np.round(total(best * area), 1)
    return columns
