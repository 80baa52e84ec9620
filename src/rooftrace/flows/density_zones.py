"""`rooftrace density --zones`: built-up shares and buildings by administrative areas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.flows.density import DensityReport
from rooftrace.flows.density_inputs import (
    MaskFile,
    Progress,
    read_buildings,
    sort_inputs,
    stem_of,
    trace,
)
from rooftrace.io.display import write_picture
from rooftrace.io.legend import NODATA
from rooftrace.io.reproject import degrees_text, reprojected
from rooftrace.io.vector import write_polygons
from rooftrace.io.vector_read import VectorFile, VectorLayer
from rooftrace.vector.density_files import beside, density_columns, write_table
from rooftrace.vector.density_picture import draw_zones
from rooftrace.vector.density_plane import Bounds, Ground, metric_crs
from rooftrace.vector.density_threshold import DEFAULT_THRESHOLD, DensityThreshold
from rooftrace.vector.density_zones import density_of_zones

__all__ = ["run_zone_density"]

Polygons = NDArray[np.object_]

_BEND_M = 0.01


def run_zone_density(
    inputs: Sequence[Path],
    zones: Path,
    out: Path,
    *,
    building: str | None = None,
    min_area_m2: float = 0.0,
    threshold: DensityThreshold = DEFAULT_THRESHOLD,
    progress: Progress | None = None,
) -> DensityReport:
    """Count by zones; write OUT.gpkg, OUT.csv and OUT.png.

    Areas are exact, those of a mask along the edges of its pixels. Zones may overlap.

    Args:
        inputs, out, building, min_area_m2, threshold, progress: as in `run_density`.
        zones: polygons; their attributes are kept.

    Raises:
        As `run_density`, and
        GeoreferenceError: the mask lies nowhere.
        DataError: no zone touches what was observed.
    """
    mask_path, polygons_path = sort_inputs(inputs)
    stem = stem_of(out, inputs[0].resolve().stem)
    file = VectorFile(zones)
    layer = file.read(file.fields)
    notes = []
    if layer.mended:
        notes.append(f"{layer.mended} zones had invalid outlines, which were mended")
    traced, observed = np.empty(0, np.object_), None
    if mask_path is not None:
        mask = MaskFile.of(mask_path, building)
        ground = _ground(mask)
        plane, place = ground.crs, (mask.grid.bounds_xy, mask.grid.crs)
        traced, observed = _regions(mask, ground, progress, buildings=polygons_path is None)
    if polygons_path is not None:
        buildings = read_buildings(polygons_path, None if mask_path else building)
        notes += buildings.notes
        if mask_path is None:
            plane = metric_crs(buildings.crs, buildings.bounds_xy)
            place = buildings.bounds_xy, buildings.crs
            notes.append(
                f"{buildings.path.name} does not say where was looked for buildings: all of the "
                "zones counts as observed"
            )
        assert plane is not None
        traced = reprojected(buildings.geometry, buildings.crs, plane, _BEND_M)
    assert plane is not None
    outlines = reprojected(layer.geometry, layer.crs, plane, _BEND_M)
    if not np.isfinite(shapely.total_bounds(outlines)).all():
        raise _apart(zones, layer, *place)
    figures = density_of_zones(outlines, traced[shapely.area(traced) >= min_area_m2], observed)
    if not (figures.built_m2 if observed is None else figures.observed_m2).any():
        raise _apart(zones, layer, *place)
    files = tuple(beside(stem, suffix) for suffix in (".gpkg", ".csv", ".png"))
    columns = density_columns(figures, threshold, layer.values)
    write_polygons(files[0], layer.geometry, columns, layer.crs)
    write_table(files[1], list(columns), zip(*(values.tolist() for values in columns.values())))
    write_picture(files[2], draw_zones(outlines, figures, threshold, stem.name))
    return DensityReport.of(files, "zones", plane, figures, threshold, notes)


def _ground(mask: MaskFile) -> Ground:
    if mask.grid.crs is None:
        raise GeoreferenceError(
            f"{mask.path} has no coordinate system, so that zones cannot be laid over it.",
            remedy="Assign one (gdal_edit -a_srs), or count by cells: leave --zones out.",
        )
    return Ground.of(mask.grid, name=str(mask.path))


def _regions(
    mask: MaskFile, ground: Ground, progress: Progress | None, *, buildings: bool
) -> tuple[Polygons, Polygons]:
    """Buildings, if they are asked for, and what is not nodata, on the plane of the figures."""
    shape = mask.grid.shape
    found = [np.empty(0, np.object_)]
    if buildings:
        built = ((window, values * (values != NODATA)) for window, values in mask.blocks())
        found += [ground.move(regions, None) for regions in trace(shape, built)]
    known = (
        (window, (values != NODATA).view(np.uint8)) for window, values in mask.blocks(progress)
    )
    observed = [ground.move(regions, None) for regions in trace(shape, known)]
    return np.concatenate(found), np.concatenate(observed)


def _apart(zones: Path, layer: VectorLayer, bounds: Bounds, crs: CRS | None) -> DataError:
    assert crs is not None
    return DataError(
        f"No zone of {zones} ({degrees_text(layer.bounds_xy, layer.crs)}) touches what was "
        f"observed ({degrees_text(bounds, crs)}).",
        remedy="Give zones of the same place, or look at both coordinate systems.",
    )
