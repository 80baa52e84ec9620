"""What can be chosen for a scene, apart from the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["OUTPUTS", "SceneOptions", "SceneOutput"]

SceneOutput = Literal["mask", "polygons", "preview", "density"]

OUTPUTS: tuple[SceneOutput, ...] = get_args(SceneOutput)


@dataclass(frozen=True)
class SceneOptions:
    """How a scene is predicted.

    Args:
        gsd_m: its metres per pixel, where its georeference does not say or is wrong.
        scale: the scene is taken so many times as large, whatever metres say; 0.5 halves its sides.
        threshold: on the building's probability; default the model's own.
        min_area_m2: smaller footprints are left out.
        min_hole_m2: smaller holes of buildings are filled.
        regularize: whether outlines get right angles where buildings have them.
        separate: whether buildings that touch are cut apart.
        forgiving: whether a tile that cannot be read or run becomes nodata, and the rest goes on.
        cell_m: the side of a cell of the density, where metres are known.
        outputs: what is made. Without polygons nothing is counted either.
        outline: whether it is told where the scene has valid data, for what is made of several.
    """

    gsd_m: float | None = None
    scale: float | None = None
    threshold: float | None = None
    min_area_m2: float | None = None
    min_hole_m2: float | None = None
    regularize: bool = True
    separate: bool = True
    forgiving: bool = False
    cell_m: float = 100.0
    outputs: tuple[SceneOutput, ...] = OUTPUTS
    outline: bool = False
