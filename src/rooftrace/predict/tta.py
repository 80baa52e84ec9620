"""Test-time augmentation: an engine that averages another one over mirrored copies of tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.engines.base import Engine
from rooftrace.models.spec import BundleSpec, Tta

__all__ = ["MirroredEngine", "TtaChoice", "TtaEngine", "with_tta"]

TtaChoice = Tta | Literal["none"]
"""Test-time augmentation that a user asks for; `none` turns off that of the model."""

Mirror = Callable[[NDArray[Any]], NDArray[Any]]
"""Function that mirrors (…, y, x) arrays; it is its own inverse."""


def _left_right(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles[..., ::-1]


def _top_bottom(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles[..., ::-1, :]


def _transposed(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles.swapaxes(-1, -2)


# Each mirror is its own inverse; the augmented copies are all products of the mirrors.
_MIRRORS: dict[Tta, tuple[Mirror, ...]] = {
    "flips": (_left_right, _top_bottom),
    "d4": (_left_right, _top_bottom, _transposed),
}


class TtaEngine:
    """Engine that runs another one on mirrored copies of each tile, and averages the outputs.

    Outputs are mirrored back before they are averaged. The output for a mirrored tile is the
    mirrored output for the tile, bit for bit: outputs are added in mirror pairs, and the sum of two
    numbers does not depend on their order.

    With `d4` the other engine also receives tiles whose height and width are exchanged.

    Args:
        inner: Engine of the network; it runs 4 times (`flips`) or 8 times (`d4`) for each tile.
        tta: Kind of augmentation.
    """

    def __init__(self, inner: Engine, tta: Tta) -> None:
        self._inner = inner
        self._mirrors = _MIRRORS[tta]
        self.name = inner.name
        self.precision = inner.precision
        self.settings: dict[str, Any] = {**getattr(inner, "settings", {}), "tta": tta}

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run (n, band, y, x) pixel values to (n, class, y, x) mean probabilities in 0..1."""
        total = self._sum(batch, self._mirrors)
        # The number of copies is a power of two, so that the mean is as exact as the sum.
        total *= np.float32(0.5 ** len(self._mirrors))
        return total

    def release(self) -> None:
        """Release the compiled networks of the engine."""
        getattr(self._inner, "release", lambda: None)()

    def _sum(self, batch: NDArray[Any], mirrors: tuple[Mirror, ...]) -> NDArray[np.float32]:
        if not mirrors:
            return np.array(self._inner.run(np.ascontiguousarray(batch)), dtype=np.float32)
        *others, mirror = mirrors
        total = self._sum(batch, tuple(others))
        total += mirror(self._sum(mirror(batch), tuple(others)))
        return total


class MirroredEngine:
    """Engine that runs another one on tiles mirrored left to right, and mirrors its outputs back.

    Args:
        inner: Engine of the network.
    """

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self.name = inner.name
        self.precision = inner.precision

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run (n, band, y, x) pixel values to (n, class, y, x) probabilities in 0..1."""
        return _left_right(self._inner.run(np.ascontiguousarray(_left_right(batch))))


def with_tta(engine: Engine, spec: BundleSpec, wanted: TtaChoice | None = None) -> Engine:
    """Return an engine with the test-time augmentation that is asked for.

    Args:
        engine: Engine of a model.
        spec: Contract of the model.
        wanted: Augmentation; None for that of the contract.
    """
    tta = wanted or spec.tta
    return engine if tta is None or tta == "none" else TtaEngine(engine, tta)
