"""Figures of building density: of any places, and of the cells of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Floats, GeoGrid

DENSITY_COLUMNS = (
    "built_up_share", "buildings_per_ha", "mean_area_m2", "nearest_m", "observed_share",
)  # fmt: skip
"""Names of the density figures that are written to files, in their order."""

_M2_PER_HA = 10_000.0

_LEAST_OBSERVED = 0.05
"""Share of a place that must be observed for a class of its density."""


@dataclass(frozen=True)
class DensityFigures:
    """Figures of building density in places: the cells of a grid, or zones.

    All arrays have one shape.

    Args:
        area_m2: float64 area of the place.
        observed_m2: float64 area of the part that was observed: inside the image and not nodata.
        built_m2: float64 area of the parts of buildings that lie in the place.
        buildings: int64 number of buildings whose centroid lies in the place.
        buildings_m2: float64 sum of the whole areas of these buildings.
        nearest_m: float64 mean distance from the centroids of these buildings to the centroid of
            the nearest other building, in any place (Clark & Evans 1954, Ecology 35); NaN if there
            is none.
    """

    area_m2: Floats
    observed_m2: Floats
    built_m2: Floats
    buildings: NDArray[np.int64]
    buildings_m2: Floats
    nearest_m: Floats

    @property
    def built_up_share(self) -> Floats:
        """Share of the observed area that is built up, 0..1; NaN where nothing was observed."""
        return np.minimum(_ratio(self.built_m2, self.observed_m2), 1.0)

    @property
    def observed_share(self) -> Floats:
        """Share of the area that was observed, 0..1."""
        return np.minimum(_ratio(self.observed_m2, self.area_m2), 1.0)

    @property
    def judged_share(self) -> Floats:
        """`built_up_share`, NaN where too little was observed to call a place sparse or dense."""
        return np.where(self.observed_share < _LEAST_OBSERVED, np.nan, self.built_up_share)

    @property
    def buildings_per_ha(self) -> Floats:
        """Buildings per hectare of observed area; NaN where nothing was observed."""
        return _ratio(self.buildings, self.observed_m2) * _M2_PER_HA

    @property
    def mean_area_m2(self) -> Floats:
        """Mean area of a building; NaN where there is none."""
        return _ratio(self.buildings_m2, self.buildings)

    def total(self) -> DensityFigures:
        """Return the figures of all places together, in arrays of shape (); none may overlap."""
        measured = np.isfinite(self.nearest_m)
        distances = (self.nearest_m[measured] * self.buildings[measured]).sum()
        return DensityFigures(
            np.asarray(self.area_m2.sum()),
            np.asarray(self.observed_m2.sum()),
            np.asarray(self.built_m2.sum()),
            np.asarray(self.buildings.sum()),
            np.asarray(self.buildings_m2.sum()),
            _ratio(distances, self.buildings[measured].sum()),
        )

    def columns(self) -> dict[str, Floats]:
        """Return the figures named in `DENSITY_COLUMNS`."""
        return {name: getattr(self, name) for name in DENSITY_COLUMNS}

    def to_json(self) -> dict[str, float | int | None]:
        """Return the figures and the number of buildings of one place; None if not known."""
        figures = {name: float(value) for name, value in self.columns().items()}
        known = {name: value if np.isfinite(value) else None for name, value in figures.items()}
        return known | {"buildings": int(self.buildings)}


def _ratio(over: Floats | NDArray[np.int64], under: Floats | NDArray[np.int64]) -> Floats:
    """Divide; NaN where the divisor is not positive."""
    over, under = np.asarray(over, np.float64), np.asarray(under, np.float64)
    ratio = np.full(np.broadcast_shapes(over.shape, under.shape), np.nan)
    return np.asarray(np.divide(over, under, out=ratio, where=under > 0))


@dataclass(frozen=True)
class DensityGrid:
    """Building density of a scene, cell by cell.

    Args:
        grid: Grid with one pixel per cell, north up, in metres.
        cell_m: Side of a cell in metres; cell edges lie at multiples of it.
        figures: Figures of each cell, in arrays of the grid's shape.
        outside: Number of buildings that are not counted, since their centroid lies on ground that
            was not observed.
    """

    grid: GeoGrid
    cell_m: float
    figures: DensityFigures
    outside: int = 0
