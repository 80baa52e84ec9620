"""Figures as functions of counts over scenes: for intervals and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from rooftrace.metrics.interval import (
    DRAWS,
    Interval,
    Ratio,
    mean_counts,
    quotient,
    resample,
)
from rooftrace.metrics.paired import PairedTest, paired
from rooftrace.metrics.pixel import PixelFigure, image_values, pixel_ratio
from rooftrace.metrics.scene import ImageScore

__all__ = ["SceneCounts"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SceneCounts:
    """What figures are made of, scene by scene.

    Args:
        counts: (scenes, k) float64, all counts side by side.
        ratios: figure to what makes it of (n, k) sums; named as in a report: `pixel.iou`,
            `per_image.dice`, `objects.f1`.
        groups: the place of each scene.
    """

    counts: Floats
    ratios: dict[str, Ratio]
    groups: tuple[str, ...]

    @classmethod
    def of(cls, images: Sequence[ImageScore], building_class: int) -> SceneCounts:
        """Of scenes of equal classes; without one there is no figure."""
        if not images:
            return cls(np.zeros((0, 0)), {}, ())
        table = _Columns()
        classes = len(images[0].counts.matrix)
        where = table.add([image.counts.matrix.ravel() for image in images])
        for figure in get_args(PixelFigure):
            ratio = pixel_ratio(figure, classes, building_class)
            table.ratios[f"pixel.{figure}"] = _of_part(ratio, where)
        values = image_values([image.counts for image in images], building_class)
        # Nothing there and nothing found is fully right, as in `image_values`.
        borders = np.array([image.outlines.iou for image in images])
        values["boundary_iou"] = np.where(np.isnan(borders), 1.0, borders)
        for name, each in values.items():
            table.ratio(f"per_image.{name}", table.add(mean_counts(each)), (1, 0), (0, 1))
        where = table.add([image.outlines.band for image in images])
        table.ratio("boundary.boundary_iou", where, (1, 0), (0, 1))
        where = table.add(
            [(o.matched, o.labelled, o.predicted) for o in (image.objects for image in images)]
        )
        table.ratio("objects.precision", where, (1, 0, 0), (0, 0, 1))
        table.ratio("objects.recall", where, (1, 0, 0), (0, 1, 0))
        table.ratio("objects.f1", where, (2, 0, 0), (0, 1, 1))
        return cls(np.hstack(table.columns), table.ratios, tuple(image.group for image in images))

    def intervals(self, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Interval]:
        """Of every figure, all from the same draws."""
        drawn = resample(self.counts, groups=self.groups, draws=draws, seed=seed)
        return {name: drawn.interval(ratio) for name, ratio in self.ratios.items()}

    def against(
        self, other: SceneCounts, figures: Sequence[str], *, draws: int = DRAWS, seed: int = 0
    ) -> dict[str, PairedTest]:
        """Whether this is better than another of the same scenes, figure by figure."""
        return {
            name: paired(
                self.counts, other.counts, self.ratios[name],
                groups=self.groups, draws=draws, seed=seed,
            )
            for name in figures
        }  # fmt: skip


class _Columns:
    """Counts side by side, and the ratios over them."""

    def __init__(self) -> None:
        self.columns: list[Floats] = []
        self.ratios: dict[str, Ratio] = {}
        self._width = 0

    def add(self, counts: Sequence[object] | Floats) -> slice:
        """(scenes, k) more; where they stand."""
        self.columns.append(np.asarray(counts, np.float64))
        start, self._width = self._width, self._width + self.columns[-1].shape[1]
        return slice(start, self._width)

    def ratio(self, name: str, where: slice, over: Sequence[float], under: Sequence[float]) -> None:
        made = quotient(over, under)
        self.ratios[name] = _of_part(made, where)


def _of_part(ratio: Ratio, where: slice) -> Ratio:
    return lambda sums: ratio(sums[:, where])
