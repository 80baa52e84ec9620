"""A block between its tiles and its blend: what they say of it, and of the blocks after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.block import Piece, make_block
from rooftrace.predict.parts import Part
from rooftrace.predict.scene import ScenePlan

__all__ = ["Divided"]


@dataclass(frozen=True)
class Divided:
    """What the tiles of a block said, divided among the blocks that it is of.

    Args:
        number: of the block.
        own: what they say of it.
        handed_on: for which later block, what they say of that.
        valid: (y, x) of the block; None where all of it is.
        glance: as of a `Part`.
        figures: as of a `Part`.
    """

    number: int
    own: tuple[Piece, ...]
    handed_on: tuple[tuple[int, Piece], ...]
    valid: BoolArray | None
    glance: tuple[NDArray[Any], NDArray[np.bool_]] | None
    figures: Mapping[str, int]

    def finish(
        self, plan: ScenePlan, spec: BundleSpec, received: Sequence[Piece], threshold: float | None
    ) -> Part:
        """The block, with what earlier ones handed on to it, in whatever order."""
        pieces = [*received, *self.own]
        block = make_block(plan, spec, self.number, pieces, self.valid, threshold)
        return Part(block, self.handed_on, self.glance, self.figures)
