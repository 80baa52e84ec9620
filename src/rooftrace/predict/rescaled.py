"""A model that is asked at another scale, or in another size of tile, than its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.engines.base import Engine
from rooftrace.io.memory import ArraySource
from rooftrace.io.resample import Resampler, Scaling, enlarge
from rooftrace.models.spec import BundleSpec

__all__ = ["RescaledEngine"]

_ONE = 65535
"""A probability of 1 while it is brought back."""


class RescaledEngine:
    """An `Engine` that brings tiles to the scale and size that another one takes, and its answers
    back, both as `io.resample` does for whole scenes: antialiased down, bilinear up.

    A tile is resampled from its own first pixel on: where its pixels come to lie between those of
    the model differs from tile to tile, as it does between tiles that are laid elsewhere. What its
    size lacks is mirrored at its lower and right edge, and cut off again.

    Args:
        inner: the network.
        spec: its contract.
        scaling: how many pixels of a tile one of its pixels spans; 1 or more.
    """

    def __init__(self, inner: Engine, spec: BundleSpec, scaling: Scaling) -> None:
        self._inner = inner
        self._spec = spec
        self._scaling = scaling
        self.name = inner.name
        self.precision = inner.precision
        own = getattr(inner, "settings", {})
        told = {} if scaling.is_identity else {"pixels_of_tile_per_own": scaling.scale_yx[0]}
        self.settings: dict[str, Any] = {**own, **told}

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x) probabilities in 0..1, without what
        else the network may answer.

        Raises:
            ValueError: the tiles are larger than the one size that the network takes.
        """
        shape_yx = int(batch.shape[2]), int(batch.shape[3])
        own_yx = self._scaling.model_shape(shape_yx)
        tiles = batch
        if not self._scaling.is_identity:
            tiles = np.stack([self._resampled(tile, own_yx) for tile in batch])
        lacking = [self._size(side) - side for side in own_yx]
        if any(lacking):
            beyond = ((0, 0), (0, 0), (0, lacking[0]), (0, lacking[1]))
            tiles = np.pad(tiles, beyond, mode="reflect")
        answer = self._inner.run(np.ascontiguousarray(tiles))
        answer = answer[:, : self._spec.channels, : own_yx[0], : own_yx[1]]
        if self._scaling.is_identity:
            return answer
        return np.stack([self._enlarged(one, shape_yx) for one in answer])

    def release(self) -> None:
        """Give back what the engine's compiled networks hold."""
        getattr(self._inner, "release", lambda: None)()

    def _size(self, side: int) -> int:
        """The least that the network takes and that holds so many pixels."""
        multiple = self._spec.input_multiple_px
        size = self._spec.input_px or -(-side // multiple) * multiple
        if size < side:
            raise ValueError(f"{self._spec.name} takes {size} px, and tiles have {side} for it")
        return size

    def _resampled(self, tile: NDArray[Any], own_yx: tuple[int, int]) -> NDArray[Any]:
        resampler = Resampler(ArraySource(tile), self._scaling, self._spec.mean)
        return resampler.read(Window.whole(own_yx))[0]

    def _enlarged(
        self, answer: NDArray[np.float32], shape_yx: tuple[int, int]
    ) -> NDArray[np.float32]:
        whole = Window.whole(shape_yx)
        origin = self._scaling.to_model(whole, shape_yx)
        steps = (answer[:, *origin.slices()] * np.float32(_ONE) + np.float32(0.5)).astype(np.uint16)
        return enlarge(steps, origin, whole, self._scaling).astype(np.float32) / np.float32(_ONE)
