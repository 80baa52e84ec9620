"""What every inference engine is to the rest of rooftrace."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ConstantEngine", "Engine", "PointwiseEngine"]


class Engine(Protocol):
    """A loaded model.

    The normalisation is inside the model: an engine takes pixel values as they are in the image.
    The result for one tile does not depend on its neighbours in the batch.

    An engine may have more, which is used where it is there: `run_quantised` (as `run`, to 255ths
    in uint8), `release` (give back what compiled networks hold), `settings` (for the record),
    `notes` (what was assumed, for the person to see).
    """

    @property
    def name(self) -> str:
        """`openvino`, `onnxruntime`, `torch`…"""
        ...

    @property
    def precision(self) -> str:
        """`fp32`, `bf16` or `int8`: what the arithmetic is done in."""
        ...

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x) probabilities in 0..1."""
        ...


class ConstantEngine:
    """A fake: the same probability everywhere."""

    name = "constant"
    precision = "fp32"

    def __init__(self, probability: float = 0.5, classes: int = 1) -> None:
        self._probability = probability
        self._classes = classes

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        n, _, height, width = batch.shape
        return np.full((n, self._classes, height, width), self._probability, dtype=np.float32)


class PointwiseEngine:
    """A fake whose answer depends on the pixel alone: band 0 over `full_scale`.

    What a tiled run makes of it must equal the whole image done at once.
    """

    name = "pointwise"
    precision = "fp32"

    def __init__(self, full_scale: float = 255.0) -> None:
        self._full_scale = full_scale

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = batch[:, :1].astype(np.float32) / self._full_scale
        return scaled.clip(0, 1)
