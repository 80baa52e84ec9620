"""How densely places are built up, in the figures that are counted and those made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DENSITY_COLUMNS", "DensityFigures"]

Floats = NDArray[np.float64]

DENSITY_COLUMNS = (
    "built_up_share", "buildings_per_ha", "mean_area_m2", "nearest_m", "observed_share",
)  # fmt: skip
"""The figures of a place that go to files, in their order."""

_M2_PER_HA = 10_000.0


@dataclass(frozen=True)
class DensityFigures:
    """What was counted in places: the cells of a grid, or zones. All arrays have one shape.

    Args:
        area_m2: float64, of the place.
        observed_m2: float64, of the part of it that was looked at: neither nodata nor outside.
        built_m2: float64, of the parts of buildings that lie in it.
        buildings: int64, those whose centroid lies in it.
        buildings_m2: float64, the sum of the whole areas of these.
        nearest_m: float64, the mean over these of the distance from their centroid to the nearest
            other building's, wherever that lies (Clark & Evans 1954, Ecology 35); NaN where there
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
        """0..1 of the observed area, NaN where nothing was observed."""
        return np.minimum(_ratio(self.built_m2, self.observed_m2), 1.0)

    @property
    def observed_share(self) -> Floats:
        """0..1 of the area."""
        return np.minimum(_ratio(self.observed_m2, self.area_m2), 1.0)

    @property
    def buildings_per_ha(self) -> Floats:
        """Of the observed area, NaN where nothing was observed."""
        return _ratio(self.buildings, self.observed_m2) * _M2_PER_HA

    @property
    def mean_area_m2(self) -> Floats:
        """Of a building, NaN where there is none."""
        return _ratio(self.buildings_m2, self.buildings)

    def total(self) -> DensityFigures:
        """All places as one, in arrays of shape (); none of them may overlap another."""
        placed = np.isfinite(self.nearest_m)
        apart = (self.nearest_m[placed] * self.buildings[placed]).sum()
        return DensityFigures(
            np.asarray(self.area_m2.sum()),
            np.asarray(self.observed_m2.sum()),
            np.asarray(self.built_m2.sum()),
            np.asarray(self.buildings.sum()),
            np.asarray(self.buildings_m2.sum()),
            _ratio(apart, self.buildings[placed].sum()),
        )

    def columns(self) -> dict[str, Floats]:
        """The figures named in `DENSITY_COLUMNS`."""
        return {name: getattr(self, name) for name in DENSITY_COLUMNS}

    def to_json(self) -> dict[str, float | int | None]:
        """Of shape (): the figures and the number of buildings; None where not known."""
        figures = {name: float(value) for name, value in self.columns().items()}
        known = {name: value if np.isfinite(value) else None for name, value in figures.items()}
        return known | {"buildings": int(self.buildings)}


def _ratio(over: Floats | NDArray[np.int64], under: Floats | NDArray[np.int64]) -> Floats:
    """NaN where there is nothing to divide by."""
    over, under = np.asarray(over, np.float64), np.asarray(under, np.float64)
    made = np.full(np.broadcast_shapes(over.shape, under.shape), np.nan)
    return np.asarray(np.divide(over, under, out=made, where=under > 0))
