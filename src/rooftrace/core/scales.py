"""Metres per pixel at which models work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

SAME_WITHIN = 0.05
"""Relative difference of metres per pixel up to which an image is not resampled: interpolation
softens it, and costs more than the difference does. See docs/resolution.md for the measurement."""

LEAST_GSD_M, MOST_GSD_M = 1e-4, 1e6
"""Range of metres per pixel that models, data cards and tasks may have, as the option `--gsd`."""


def is_gsd_m(value: object) -> TypeGuard[float]:
    """Return True for a number of metres per pixel in this range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return LEAST_GSD_M <= value <= MOST_GSD_M


@dataclass(frozen=True)
class WorkingScales:
    """Metres per pixel at which a model works; `BundleSpec` has the same fields.

    Args:
        gsd_m: Coarsest metres per pixel at which an image is predicted as it is.
        finest_gsd_m: Finest such value; None for a model that works at one scale only.
        interpolated_gsd_m: Metres per pixel to which coarser images are interpolated; None for
            `gsd_m`.

    """

    gsd_m: float
    finest_gsd_m: float | None = None
    interpolated_gsd_m: float | None = None

    @classmethod
    def of(
        cls, gsd_m: float | None, finest_gsd_m: float | None, interpolated_gsd_m: float | None
    ) -> WorkingScales | None:
        """Return the scales of a contract, or None for a model that works pixel by pixel.

        Raises:
            ValueError: There is another value without `gsd_m`, or above it; or a value is outside
                of `LEAST_GSD_M` to `MOST_GSD_M`.
        """
        others = {"finest_gsd_m": finest_gsd_m, "interpolated_gsd_m": interpolated_gsd_m}
        for name, value in {"gsd_m": gsd_m, **others}.items():
            if value is None:
                continue
            if not LEAST_GSD_M <= value <= MOST_GSD_M:
                expected = f"{LEAST_GSD_M:g} to {MOST_GSD_M:g}"
                raise ValueError(f"{value:g} metres per pixel; expected {expected}")
            if gsd_m is None:
                raise ValueError(
                    f"{name} needs a gsd_m, the coarsest metres per pixel of the model"
                )
            if value > gsd_m:
                raise ValueError(f"{name} is {value:g}, above gsd_m, which is {gsd_m:g}")
        return None if gsd_m is None else cls(gsd_m, finest_gsd_m, interpolated_gsd_m)

    def for_image(self, own_m: float) -> float:
        """Return the metres per pixel at which an image of `own_m` is predicted."""
        if own_m > self.gsd_m * (1 + SAME_WITHIN):
            return self.interpolated_gsd_m or self.gsd_m
        if self.finest_gsd_m is None:
            return self.gsd_m
        return min(max(own_m, self.finest_gsd_m), self.gsd_m)
