"""Density figures to files: a raster and polygons of cells, polygons and a table of zones."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.density import DENSITY_COLUMNS, DensityFigures
from rooftrace.core.types import DensityGrid
from rooftrace.io.atomic import write_atomically
from rooftrace.io.cog import write_cog
from rooftrace.io.display import write_picture
from rooftrace.io.vector import write_polygons
from rooftrace.vector.density_cells import CellGrid
from rooftrace.vector.density_picture import draw_cells
from rooftrace.vector.density_threshold import DensityThreshold

__all__ = ["beside", "density_columns", "write_density", "write_table"]

_TAKEN = {*DENSITY_COLUMNS, "buildings", "class", "id", "fid", "geom", "geometry"}


def write_density(
    stem: Path, density: DensityGrid, threshold: DensityThreshold, title: str
) -> tuple[Path, ...]:
    """Writes STEM.tif, STEM.gpkg and STEM.png.

    The raster has a band for each of `DENSITY_COLUMNS`. The polygons are the cells of which
    something was observed.

    Args:
        stem: of the files, with their folder, which is made where it is missing.
        threshold: for the column `class`, and the border in the picture.
        title: of the picture.

    Returns:
        Their paths.

    Raises:
        ExportError: a file cannot be written.
    """
    raster, polygons, picture = (beside(stem, suffix) for suffix in (".tif", ".gpkg", ".png"))
    write_cog(raster, density.figures.columns(), density.grid)
    cells = CellGrid.of(density)
    shown = np.flatnonzero((density.figures.observed_m2 > 0) | (density.figures.buildings > 0))
    columns = density_columns(density.figures, threshold)
    write_polygons(
        polygons,
        cells.polygons(shown),
        {"id": shown + 1} | {name: values[shown] for name, values in columns.items()},
        density.grid.crs,
    )
    write_picture(picture, draw_cells(density, threshold, title))
    return raster, polygons, picture


def density_columns(
    figures: DensityFigures,
    threshold: DensityThreshold,
    kept: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Attributes (n,) of places, row by row.

    Args:
        kept: attributes that go before; those whose names are taken are called `zone_NAME`.
    """
    before = {
        f"zone_{name}" if name.lower() in _TAKEN else name: values
        for name, values in (kept or {}).items()
    }
    return {
        **before,
        "class": threshold.classes(figures.built_up_share.ravel()),
        "buildings": figures.buildings.ravel(),
        **{name: values.ravel() for name, values in figures.columns().items()},
    }


def write_table(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV; None and NaN are empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    for row in rows:
        table.writerow(["" if value is None or value != value else value for value in row])
    write_atomically(path, text.getvalue().encode())


def beside(stem: Path, suffix: str) -> Path:
    """The path of one of several files of a stem, which may have dots of its own."""
    return stem.with_name(stem.name + suffix)
