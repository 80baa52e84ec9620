"""Several engines as one: their answers averaged, weighted, or counted as votes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.models.spec import BundleSpec
from rooftrace.predict.predictor import Predictor

__all__ = ["Combine", "EnsembleEngine"]

Combine = Literal["average", "vote", "weighted"]
"""`average`: the mean of the probabilities. `weighted`: their weighted mean. `vote`: the share of
the models whose own answer, at their own threshold, is the class."""


class EnsembleEngine:
    """An `Engine` that asks several.

    Args:
        members: loaded models that `combine` accepts, which take the same tiles.
        how: see `Combine`.
        weights: one of each, their sum being 1.
        notes: what was assumed of them, for the person to see.
    """

    name = "ensemble"

    def __init__(
        self,
        members: Sequence[Predictor],
        how: Combine,
        weights: Sequence[float],
        notes: Sequence[str] = (),
    ) -> None:
        self._members = tuple(members)
        self._how = how
        # Around one, so that equal weights are exactly a mean.
        self._factors = [np.float32(weight * len(weights)) for weight in weights]
        self._notes = tuple(notes)
        self._asked_px = 0
        self._tied_px = 0
        self.precision = "+".join(
            dict.fromkeys(member.engine.precision for member in self._members)
        )
        self.settings: dict[str, Any] = {
            "combined_by": how,
            "members": [
                {
                    "name": member.bundle.spec.name,
                    "sha256": member.bundle.sha256,
                    "engine": member.engine.name,
                    "precision": member.engine.precision,
                    "settings": getattr(member.engine, "settings", {}),
                    "weight": round(weight, 6),
                }
                for member, weight in zip(self._members, weights)
            ],
        }

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x): means, or shares of the votes."""
        total: NDArray[np.float32] | None = None
        for member, factor in zip(self._members, self._factors):
            spec = member.bundle.spec
            # Without what else a network may answer.
            given = batch.astype(spec.numpy_dtype, copy=False)
            answer = member.engine.run(given)[:, : spec.channels]
            part = factor * (_votes(answer, spec) if self._how == "vote" else answer)
            total = part if total is None else total + part
        assert total is not None
        if self._how == "vote":
            self._count_ties(total)
        return np.asarray(total / np.float32(len(self._members)), dtype=np.float32)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed; of votes, the rule of a tie where there can be one, and after tiles
        were run how many pixels of them were tied, overlaps and padding included.
        """
        if self._how != "vote" or not self._can_tie:
            return self._notes
        rule = "is for the building" if self._is_binary else "is for the first class in order"
        told = f"{len(self._members)} models vote: a tie {rule}"
        if self._asked_px:
            share = self._tied_px / self._asked_px
            told += f"; {self._tied_px:,} of {self._asked_px:,} pixels were tied ({share:.2%})"
        return (*self._notes, f"{told}.")

    def release(self) -> None:
        """Give back what the engines' compiled networks hold."""
        for member in self._members:
            getattr(member.engine, "release", lambda: None)()

    @property
    def _is_binary(self) -> bool:
        return self._members[0].bundle.spec.is_binary

    @property
    def _can_tie(self) -> bool:
        count = len(self._members)
        return count > 1 and (count % 2 == 0 or not self._is_binary)

    def _count_ties(self, votes: NDArray[np.float32]) -> None:
        self._asked_px += votes.shape[0] * votes.shape[2] * votes.shape[3]
        if self._is_binary:
            self._tied_px += int(np.count_nonzero(votes * 2 == len(self._members)))
        elif self._can_tie:
            most = votes.max(axis=1, keepdims=True)
            self._tied_px += int(np.count_nonzero((votes == most).sum(axis=1) > 1))


def _votes(answer: NDArray[np.float32], spec: BundleSpec) -> NDArray[np.float32]:
    """1 for the class that one model sees, else 0."""
    if spec.is_binary:
        return (answer >= np.float32(spec.threshold)).astype(np.float32)
    classes = np.arange(answer.shape[1])[:, None, None]
    return np.asarray(answer.argmax(axis=1)[:, None] == classes, dtype=np.float32)
