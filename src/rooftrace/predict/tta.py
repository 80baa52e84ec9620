"""Test-time augmentation: a tile is asked for in several mirrored ways, and the mean is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.engines.base import Engine

__all__ = ["Tta", "TtaEngine"]

Tta = Literal["flips", "d4"]
"""`flips`: as it is, left for right, top for bottom, and both. `d4`: these, and the same of the
transposed tile: all eight ways to lay a square on itself."""

Mirror = Callable[[NDArray[Any]], NDArray[Any]]


def _left_right(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles[..., ::-1]


def _top_bottom(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles[..., ::-1, :]


def _transposed(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles.swapaxes(-1, -2)


# Each undoes itself, and each group of ways is all products of its mirrors.
_MIRRORS: dict[Tta, tuple[Mirror, ...]] = {
    "flips": (_left_right, _top_bottom),
    "d4": (_left_right, _top_bottom, _transposed),
}


class TtaEngine:
    """An `Engine` that asks another for every way of `Tta`, and averages what comes back, undone.

    What comes out of a mirrored tile is the mirrored answer, bit for bit: the sum is made of pairs
    of a thing and its mirror image, and a sum of two does not depend on their order.

    With `d4` the other engine also gets tiles whose height and width are exchanged.

    Args:
        inner: the network; asked 4 times (`flips`) or 8 times (`d4`) for every tile.
        tta: which ways.
    """

    def __init__(self, inner: Engine, tta: Tta) -> None:
        self._inner = inner
        self._mirrors = _MIRRORS[tta]
        self.name = inner.name
        self.precision = inner.precision
        self.settings: dict[str, Any] = {**getattr(inner, "settings", {}), "tta": tta}

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x) mean probabilities in 0..1."""
        total = self._sum(batch, self._mirrors)
        # Their number is a power of two, so that the mean is as exact as the sum.
        total *= np.float32(0.5 ** len(self._mirrors))
        return total

    def release(self) -> None:
        """Give back what the engine's compiled networks hold."""
        getattr(self._inner, "release", lambda: None)()

    def _sum(self, batch: NDArray[Any], mirrors: tuple[Mirror, ...]) -> NDArray[np.float32]:
        if not mirrors:
            return np.array(self._inner.run(np.ascontiguousarray(batch)), dtype=np.float32)
        *others, mirror = mirrors
        total = self._sum(batch, tuple(others))
        total += mirror(self._sum(mirror(batch), tuple(others)))
        return total
