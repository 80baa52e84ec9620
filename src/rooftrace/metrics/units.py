"""What the statistics of an evaluation are drawn over: scenes, or groups of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CHUNK", "LEAST_GROUPS", "UnitKind", "Units", "draw"]

LEAST_GROUPS = 10
"""With fewer groups to draw, scenes are drawn in their place."""

CHUNK = 1 << 22
"""Weights that are made at once."""

Floats = NDArray[np.float64]
UnitKind = Literal["scene", "group"]


@dataclass(frozen=True)
class Units:
    """What is drawn whole, and what is in it.

    Args:
        sums: (units, k) float64 counts, those of the scenes of a unit added.
        kind: what a unit is.
        note: what should be known of the choice; else empty.
    """

    sums: Floats
    kind: UnitKind
    note: str = ""

    @classmethod
    def of(cls, counts: ArrayLike, groups: Sequence[str] | None = None) -> Units:
        """Groups, where there are enough of them, else scenes.

        Args:
            counts: (scenes, k), finite.
            groups: the group of each scene; "" for one that stands alone.

        Raises:
            ValueError: counts of another shape, or not finite; not one group for each scene.
        """
        scenes = np.asarray(counts, np.float64)
        if scenes.ndim != 2 or not np.isfinite(scenes).all():
            raise ValueError(f"counts of shape {scenes.shape}; expected finite (scenes, k)")
        if groups is None:
            return cls(scenes, "scene")
        if len(groups) != len(scenes):
            raise ValueError(f"{len(groups)} groups for {len(scenes)} scenes")
        names = [group or (number,) for number, group in enumerate(groups)]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        if len(numbers) == len(scenes):
            return cls(scenes, "scene")
        if len(numbers) < LEAST_GROUPS:
            note = (
                f"drawn over scenes, as there are fewer than {LEAST_GROUPS} groups "
                f"({len(numbers)}); scenes of one group are alike, so the interval may be too "
                "narrow"
            )
            return cls(scenes, "scene", note)
        sums = np.zeros((len(numbers), scenes.shape[1]))
        np.add.at(sums, [numbers[name] for name in names], scenes)
        return cls(sums, "group")

    def __len__(self) -> int:
        return len(self.sums)

    def weighted(self, weights: Iterator[Floats]) -> Floats:
        """(n, k) sums, from the (n, units) weights of the units, part by part."""
        parts = [part @ self.sums for part in weights]
        return np.concatenate([np.zeros((0, self.sums.shape[1])), *parts])


def draw(count: int, draws: int, seed: int) -> Iterator[Floats]:
    """(draws, count) how often each unit is drawn, in parts that bound the memory."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // max(count, 1))
    for first in range(0, draws if count else 0, step):
        rows = min(step, draws - first)
        drawn = rng.integers(count, size=(rows, count))
        drawn += np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count)
        yield times.reshape(rows, count).astype(np.float64)
