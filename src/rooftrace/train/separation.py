"""From where on the second head's answer counts: chosen by the buildings that it tells apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Sample
from rooftrace.data.dataset import EvalTiles
from rooftrace.metrics.objects import ObjectCounts
from rooftrace.metrics.scene import drawn
from rooftrace.models.spec import BundleSpec, Measured
from rooftrace.vector.polygonize import TracedPolygons, trace
from rooftrace.vector.separate import SMALLEST_CORE_PX, separate

__all__ = ["SeparationFigures", "choose_separation"]

_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))

_SMALLEST_PX = 9.0
"""Of a building: as `rooftrace predict` has it."""

Run = Callable[[NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True)
class SeparationFigures:
    """What the second head is good for on one validation folder.

    Args:
        name: of the folder.
        without: buildings as connected regions of the mask.
        apart: buildings told apart at the chosen threshold.
    """

    name: str
    without: ObjectCounts
    apart: ObjectCounts

    def measured(self, spec: BundleSpec) -> Measured:
        """For the bundle's record; nothing of a folder without buildings."""
        values = {
            "f1": self.apart.f1,
            "precision": self.apart.precision,
            "recall": self.apart.recall,
            "f1_without": self.without.f1,
        }
        return Measured(
            data=self.name,
            split="val",
            protocol=(
                f"buildings told apart by {spec.separation}, matched one to one at IoU > 0.5, "
                "against connected regions (f1_without); PyTorch fp32; the thresholds were chosen "
                "on these folders"
            ),
            values={k: round(v, 5) for k, v in values.items() if not np.isnan(v)},
        )


def choose_separation(
    run: Run, folders: Sequence[EvalTiles], spec: BundleSpec
) -> tuple[float, list[SeparationFigures]]:
    """The threshold with the highest F1 of buildings, the mean over the folders.

    Args:
        run: (n, band, y, x) pixel values to (n, output, y, x) probabilities.
        folders: tiles with instances.
        spec: the contract, with the threshold of the building.
    """
    counts = [_count(run, tiles, spec) for tiles in folders]
    # A folder without a building says nothing of any threshold.
    f1 = [np.nan_to_num([one[t].f1 for t in _THRESHOLDS]) for one in counts]
    best = _THRESHOLDS[int(np.mean(f1, axis=0).argmax())]
    figures = [
        SeparationFigures(tiles.name, one[None], one[best]) for tiles, one in zip(folders, counts)
    ]
    return best, figures


def _count(run: Run, tiles: EvalTiles, spec: BundleSpec) -> dict[float | None, ObjectCounts]:
    """Of one folder at each threshold; None is without the second head."""
    counts: dict[float | None, ObjectCounts] = dict.fromkeys((None, *_THRESHOLDS), ObjectCounts())
    for number in range(len(tiles)):
        sample = tiles[number]
        for threshold, found in _found(run(sample.image[None])[0], sample, spec).items():
            assert sample.instances is not None
            counts[threshold] += ObjectCounts.of(sample.instances, found, sample.valid)
    return counts


def _found(
    probability: NDArray[np.float32], sample: Sample, spec: BundleSpec
) -> dict[float | None, NDArray[np.int32]]:
    """(y, x) the buildings of one tile by their number, at each threshold."""
    if spec.is_binary:
        mask = probability[0] >= spec.threshold
    else:
        mask = probability[: spec.channels].argmax(axis=0) == spec.building_class
    mask &= sample.valid
    buildings = trace(mask)
    found: dict[float | None, NDArray[np.int32]] = {None: _large(buildings, mask.shape)}
    for threshold in _THRESHOLDS:
        above = probability[-1] >= threshold
        cores = trace(mask & (~above if spec.separation == "border" else above))
        pieces = separate(buildings, cores, smallest_px=SMALLEST_CORE_PX)
        found[threshold] = _large(pieces, mask.shape)
    return found


def _large(traced: TracedPolygons, shape_yx: tuple[int, ...]) -> NDArray[np.int32]:
    return drawn(traced.polygons[traced.area_px >= _SMALLEST_PX], shape_yx)
