"""What is made of the regions of a mask."""

from __future__ import annotations

from dataclasses import dataclass

from rooftrace.core.errors import ConfigError, GeoreferenceError
from rooftrace.core.types import GeoGrid
from rooftrace.vector.necks import Necks
from rooftrace.vector.separate import SMALLEST_CORE_PX

__all__ = ["VectorOptions"]


@dataclass(frozen=True)
class VectorOptions:
    """How regions become footprints. Pixels are those of the mask.

    Args:
        min_area_m2: smaller footprints are left out; measured with their holes filled.
        min_hole_m2: smaller holes of buildings are filled. At most `min_area_m2`: what stands in
            such a hole is then too small itself, and nothing comes to lie on anything.
        min_area_px: regions of fewer pixels are left out.
        simplify_px: how far an outline may lie from the stairs of the pixels; 0 keeps the stairs.
        regularize: whether buildings get right angles where they have them.
        separate: whether buildings that touch are cut apart, by their cores where there are some.
        core_px: cores of fewer pixels are no buildings.
        necks: where buildings are cut without cores; None leaves them whole.
    """

    min_area_m2: float | None = None
    min_hole_m2: float | None = None
    min_area_px: float = 9.0
    simplify_px: float = 1.25
    regularize: bool = True
    separate: bool = True
    core_px: float = SMALLEST_CORE_PX
    necks: Necks | None = None

    def check(self, grid: GeoGrid, gsd_m: float | None) -> None:
        """Refuses what cannot be done on a grid.

        Raises:
            ConfigError: `min_hole_m2` is larger than `min_area_m2`.
            GeoreferenceError: metres are asked for and not known.
        """
        if (self.min_hole_m2 or 0) > (self.min_area_m2 or 0):
            raise ConfigError(
                f"Holes up to {self.min_hole_m2:g} m² were to be filled and areas from "
                f"{self.min_area_m2 or 0:g} m² to be kept, but a building that stands in such a "
                "hole would lie on the one around it.",
                remedy="Let the smallest hole be no larger than the smallest area.",
            )
        if self.min_area_m2 and gsd_m is None and grid.gsd_m is None:
            where = "no coordinate system" if grid.crs is None else f"the system {grid.crs.name!r}"
            raise GeoreferenceError(
                f"A smallest area of {self.min_area_m2:g} m² was asked for, but the image has "
                f"{where}, which does not say how large its pixels are on the ground.",
                remedy="Give the metres per pixel with --gsd, or the smallest area in pixels.",
            )
