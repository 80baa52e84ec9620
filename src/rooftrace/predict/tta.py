"""Test-time augmentation: an engine that averages another one over mirrored copies of tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.engines.base import Engine, run_quantised
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec, Tta

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
    "mirror": (_left_right,),
    "flips": (_left_right, _top_bottom),
    "d4": (_left_right, _top_bottom, _transposed),
}


class TtaEngine:
    """Engine that runs another one on mirrored copies of each tile, and averages the outputs.

    Outputs are mirrored back before they are averaged. The output for a mirrored tile is the
    mirrored output for the tile, bit for bit: outputs are added in mirror pairs, and the sum of two
    numbers does not depend on their order.

    The mean of rounded outputs (`run_quantised`) is rounded once more. It differs from the rounded
    mean by at most one 255th.

    With `d4` the other engine also receives tiles whose height and width are exchanged.

    Args:
        inner: Engine of the network; it runs 2 (`mirror`), 4 (`flips`) or 8 times (`d4`) for each
            tile.
        tta: Kind of augmentation.
    """

    def __init__(self, inner: Engine, tta: Tta) -> None:
        self._inner = inner
        self._mirrors = _MIRRORS[tta]
        self.name = inner.name
        self.precision = inner.precision
        self.settings: dict[str, Any] = {**getattr(inner, "settings", {}), "tta": tta}
        parallel = getattr(inner, "parallel", None)
        if parallel is not None:
            self.parallel = lambda count: TtaEngine(parallel(count), tta)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run (n, band, y, x) pixel values to (n, class, y, x) mean probabilities in 0..1."""
        total = _sum(
            lambda tiles: np.array(self._inner.run(tiles), np.float32), batch, self._mirrors
        )
        # The number of copies is a power of two, so that the mean is as exact as the sum.
        total *= np.float32(0.5 ** len(self._mirrors))
        return total

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Like `run`, but in 255ths, from copies that are in 255ths."""
        copies = 2 ** len(self._mirrors)
        total = _sum(
            lambda tiles: run_quantised(self._inner, tiles).astype(np.uint16), batch, self._mirrors
        )
        total += copies // 2
        total //= copies
        return total.astype(np.uint8)

    def release(self) -> None:
        """Release the compiled networks of the engine."""
        getattr(self._inner, "release", lambda: None)()


def _sum(
    run: Callable[[NDArray[Any]], NDArray[Any]], batch: NDArray[Any], mirrors: tuple[Mirror, ...]
) -> NDArray[Any]:
    """Return the sum of the outputs for all products of the mirrors, each mirrored back."""
    if not mirrors:
        return run(np.ascontiguousarray(batch))
    *others, mirror = mirrors
    total = _sum(run, batch, tuple(others))
    total += mirror(_sum(run, mirror(batch), tuple(others)))
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
    tta = _chosen(spec, wanted)
    return engine if tta is None else TtaEngine(engine, tta)


def applied_tta(bundle: ModelBundle, wanted: TtaChoice | None = None) -> str | None:
    """Return the test-time augmentation that a model runs with, for records and reports.

    Args:
        bundle: Bundle of one model, or of an ensemble.
        wanted: Augmentation that is asked for; None for that of the contract.

    Returns:
        The augmentation, or None; for members that differ, that of each: `flips, none`.
    """
    used = [_chosen(member.spec, wanted) for member in bundle.members or (bundle,)]
    return used[0] if len({*used}) == 1 else ", ".join(one or "none" for one in used)


def _chosen(spec: BundleSpec, wanted: TtaChoice | None) -> Tta | None:
    tta = wanted or spec.tta
    return None if tta == "none" else tta
