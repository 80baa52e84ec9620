"""Which buildings were found, by how large they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIZE_EDGES_M2", "SizeClass", "SizeCounts"]

SIZE_EDGES_M2 = (25.0, 50.0, 100.0, 250.0, 1000.0)
"""No common classes are known for buildings. These tell apart sheds and huts, garages and small
houses, houses, large houses and rows, blocks of flats, and halls, each about twice to four times as
large as those before.
"""


@dataclass(frozen=True)
class SizeClass:
    """Buildings of `from_m2` up to below `to_m2`.

    Args:
        from_m2, to_m2: square metres; `to_m2` of the last class is infinite.
        labelled: labelled ones.
        found: those of them that match a predicted one, of whatever size.
        predicted: predicted ones.
        right: those of them that match a labelled one, of whatever size.
    """

    from_m2: float
    to_m2: float
    labelled: int
    found: int
    predicted: int
    right: int

    @property
    def recall(self) -> float:
        """Found of labelled; NaN where nothing is labelled."""
        return self.found / self.labelled if self.labelled else math.nan

    @property
    def precision(self) -> float:
        """Right of predicted; NaN where nothing is predicted."""
        return self.right / self.predicted if self.predicted else math.nan


@dataclass(frozen=True)
class SizeCounts:
    """Counts by class of size; each labelled object counts in the class of its own size, each
    predicted one likewise.

    Args:
        edges_m2: from where on a class begins, increasing; the first class begins at 0.
        labelled, found, predicted, right: of each class, one more than edges; see `SizeClass`.
    """

    edges_m2: tuple[float, ...]
    labelled: tuple[int, ...]
    found: tuple[int, ...]
    predicted: tuple[int, ...]
    right: tuple[int, ...]

    @classmethod
    def of(
        cls,
        labelled_m2: NDArray[np.float64],
        is_found: NDArray[np.bool_],
        predicted_m2: NDArray[np.float64],
        is_right: NDArray[np.bool_],
        edges_m2: tuple[float, ...] = SIZE_EDGES_M2,
    ) -> SizeCounts:
        """Count objects of (n,) areas.

        Raises:
            ValueError: the edges do not increase from above 0.
        """
        edges = np.array(edges_m2, np.float64)
        if not (np.diff(edges, prepend=0.0) > 0).all():
            raise ValueError(f"edges of size classes increase from above 0, not {edges_m2}")

        def counted(areas: NDArray[np.float64]) -> tuple[int, ...]:
            which = np.searchsorted(edges, areas, side="right")
            return tuple(np.bincount(which, minlength=len(edges) + 1).tolist())

        return cls(
            edges_m2,
            counted(labelled_m2),
            counted(labelled_m2[is_found]),
            counted(predicted_m2),
            counted(predicted_m2[is_right]),
        )

    def __add__(self, other: SizeCounts) -> SizeCounts:
        if self.edges_m2 != other.edges_m2:
            raise ValueError(
                f"counts of size classes {self.edges_m2} and {other.edges_m2} cannot be added"
            )
        return SizeCounts(
            self.edges_m2,
            _added(self.labelled, other.labelled),
            _added(self.found, other.found),
            _added(self.predicted, other.predicted),
            _added(self.right, other.right),
        )

    def rows(self) -> tuple[SizeClass, ...]:
        """The classes from the smallest to the largest."""
        bounds = zip((0.0, *self.edges_m2), (*self.edges_m2, math.inf))
        counts = zip(self.labelled, self.found, self.predicted, self.right)
        return tuple(SizeClass(*ends, *four) for ends, four in zip(bounds, counts))


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other))
