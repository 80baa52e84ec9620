"""What a schedule decides about: pieces of work, orders to workers, and the tally of both."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Literal

__all__ = ["Order", "Piece", "Tally"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of work.

    Args:
        key: its number; pieces are taken in this order.
        needs: earlier ones that hand something on to it.
        cost: of it, in any unit, by which times are compared; its pixels.
    """

    key: int
    needs: frozenset[int] = frozenset()
    cost: float = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told to do.

    `run` a piece, where nothing is missing finish it, too; `finish` one that it holds; `drop` one
    that it holds, since another was faster.
    """

    worker: Hashable
    what: Literal["run", "finish", "drop"]
    key: int


@dataclass
class Tally:
    """What the cluster's failures cost.

    Args:
        runs: of pieces, that were begun.
        repeated: of them, since a worker was lost or failed.
        doubled: of them, since a worker was slow.
        wasted: runs whose answer nobody needed.
        lost: workers.
        dismissed: workers that failed where others did not.
    """

    runs: int = 0
    repeated: int = 0
    doubled: int = 0
    wasted: int = 0
    lost: int = 0
    dismissed: int = 0

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))
