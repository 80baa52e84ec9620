"""`rooftrace density`: built-up shares and buildings by the cells of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.density import DensityFigures
from rooftrace.core.errors import ConfigError
from rooftrace.core.types import DensityGrid, Window
from rooftrace.flows.density_inputs import (
    Buildings,
    MaskFile,
    Progress,
    read_buildings,
    sort_inputs,
    stem_of,
    trace,
)
from rooftrace.io.legend import NODATA
from rooftrace.io.reproject import reprojected
from rooftrace.vector.density import DensityAccumulator, density_of_polygons
from rooftrace.vector.density_cells import CellGrid
from rooftrace.vector.density_files import write_density
from rooftrace.vector.density_plane import metric_crs
from rooftrace.vector.density_threshold import DEFAULT_THRESHOLD, DensityThreshold

__all__ = ["DensityReport", "crs_text", "run_density"]

_BEND_M = 0.01


@dataclass(frozen=True)
class DensityReport:
    """What was counted.

    Args:
        files: that were written.
        places: what the figures are of, in words.
        crs: the plane on which was measured, in words.
        shape: (rows, columns) of cells, or (zones,).
        total: the figures of all cells together; None of zones, which may overlap.
        classes: how many places are of each class; None are those that were not observed.
        threshold: on the built-up share.
        notes: what was assumed, for the person to see.
    """

    files: tuple[Path, ...]
    places: str
    crs: str
    shape: tuple[int, ...]
    total: DensityFigures | None
    classes: dict[str | None, int]
    threshold: DensityThreshold
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, files: Sequence[Path], places: str, plane: CRS | None, figures: DensityFigures,
        threshold: DensityThreshold, notes: Sequence[str],
    ) -> DensityReport:  # fmt: skip
        """The report on figures of places."""
        share = figures.built_up_share
        names = threshold.classes(share.ravel()).tolist()
        classes = {name: names.count(name) for name in (threshold.dense, threshold.sparse, None)}
        total = figures.total() if share.ndim == 2 else None
        return cls(
            tuple(files), places, crs_text(plane), share.shape, total, classes, threshold,
            tuple(notes),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "files": [str(file) for file in self.files],
            "crs": self.crs,
            "shape": list(self.shape),
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
    progress: Progress | None = None,
) -> DensityReport:
    """Count by the cells of a grid; write OUT.tif, OUT.gpkg and OUT.png.

    Args:
        inputs: a mask, or polygons of buildings, or both: then shares are the mask's.
        out: the path of the results without their endings, or a folder that exists.
        cell_m: the side of a cell.
        gsd_m: metres per pixel of a mask that lies nowhere.
        building: which class is buildings: an index of a mask, a name of polygons alone.
        min_area_m2: smaller buildings are not counted.
        threshold: for the classes of cells.
        progress: called with the pixels of the mask that are done and that there are.

    Raises:
        ConfigError: inputs, cells or options that do not go together.
        DataError, GeoreferenceError, LabelError: an input cannot be used.
        ExportError: a result cannot be written.
    """
    mask_path, polygons_path = sort_inputs(inputs)
    stem = stem_of(out, inputs[0].resolve().stem)
    buildings, own = None, None
    if polygons_path is not None:
        buildings = read_buildings(polygons_path, None if mask_path else building)
    notes = [] if buildings is None else list(buildings.notes)
    if mask_path is None:
        assert buildings is not None
        density = _of_polygons(buildings, cell_m, gsd_m, min_area_m2)
        own = buildings.crs
        notes.append(
            f"{buildings.path.name} does not say where was looked for buildings: every cell counts "
            "as observed; give the mask beside it where it has nodata"
        )
    else:
        mask = MaskFile.of(mask_path, building)
        accumulator = DensityAccumulator(
            mask.grid, cell_m, gsd_m=gsd_m, min_area_m2=min_area_m2, name=str(mask_path)
        )
        density = _of_mask(mask, buildings, accumulator, progress)
        own = mask.grid.crs
    notes += _notes(density, own)
    files = write_density(stem, density, threshold, stem.name)
    places = f"cells of {cell_m:g} m"
    return DensityReport.of(files, places, density.grid.crs, density.figures, threshold, notes)


def crs_text(crs: CRS | None) -> str:
    """A coordinate system in a few words."""
    if crs is None:
        return "metres from the upper left corner of the image"
    epsg = crs.to_epsg()
    if epsg:
        return f"EPSG:{epsg} ({crs.name})"
    # Made here, about a place: its name says nothing.
    return str(crs.to_string())


def _of_mask(
    mask: MaskFile,
    buildings: Buildings | None,
    accumulator: DensityAccumulator,
    progress: Progress | None,
) -> DensityGrid:
    def fed() -> Iterator[tuple[Window, NDArray[np.uint8]]]:
        for window, values in mask.blocks(progress):
            accumulator.feed(window, values)
            yield window, values * (values != NODATA)

    if buildings is None:
        for regions in trace(mask.grid.shape, fed()):
            accumulator.add_polygons(regions, None)
    else:
        for _ in fed():
            pass
        accumulator.add_polygons(buildings.geometry, buildings.crs)
    return accumulator.finish()


def _of_polygons(
    buildings: Buildings, cell_m: float, gsd_m: float | None, min_area_m2: float
) -> DensityGrid:
    if gsd_m is not None:
        raise ConfigError(
            f"--gsd {gsd_m:g} was given, but {buildings.path} holds no pixels.",
            remedy="Leave --gsd out.",
        )
    plane = metric_crs(buildings.crs, buildings.bounds_xy)
    moved = reprojected(buildings.geometry, buildings.crs, plane, _BEND_M)
    left, bottom, right, top = shapely.total_bounds(moved).tolist()
    cells = CellGrid.over((left, bottom, right, top), cell_m, plane)
    return density_of_polygons([moved[shapely.area(moved) >= min_area_m2]], cells)


def _notes(density: DensityGrid, own: CRS | None) -> list[str]:
    notes = []
    plane, figures = density.grid.crs, density.figures
    if own is not None and plane is not None and own != plane:
        notes.append(f"cells lie on {crs_text(plane)}: {own.name} has no true metres here")
    if density.outside:
        notes.append(f"{density.outside} of the buildings lie outside the mask and count nowhere")
    crowded = int((figures.built_m2 > figures.observed_m2 * (1 + 1e-6)).sum())
    if crowded:
        notes.append(
            f"in {crowded} cells buildings overlap and cover more than there is; their built-up "
            "share is set to 1"
        )
    return notes
