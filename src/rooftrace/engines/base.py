"""The interface of all inference engines, and their registry entries."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import PredictError
from rooftrace.core.parallel import core_count
from rooftrace.engines.processor import this_processor
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.spec import Output
from rooftrace.tiling.blend import quantise

__all__ = [
    "ConstantEngine",
    "Engine",
    "EngineKind",
    "Offers",
    "PointwiseEngine",
    "engine_processor",
    "instruction_set_of",
    "run_quantised",
    "thread_limit",
    "variants_by_precision",
]


class Engine(Protocol):
    """A loaded model.

    The normalisation is inside the model: an engine takes the pixel values of the image. The
    result for one tile does not depend on the other tiles of the batch.

    An engine may have more members, which callers use if they exist: `run_quantised` (like `run`,
    but 255ths in uint8), `features` (a row of features for each tile), `release` (free the memory
    of compiled networks), `parallel` (the same model for a number of threads that call it at the
    same time), `settings` (for the run record) and `notes` (assumptions to report to the user).
    """

    @property
    def name(self) -> str:
        """Name of the engine: `openvino`, `onnxruntime`, `torch`…"""
        ...

    @property
    def precision(self) -> str:
        """Precision of the arithmetic: `fp32`, `bf16`, `fp16` or `int8`.

        An ensemble joins the different ones of its members: `fp32+int8`.
        """
        ...

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Turn pixel values (n, band, y, x) into probabilities (n, class, y, x) in 0..1."""
        ...


def run_quantised(engine: Engine, batch: NDArray[Any]) -> NDArray[np.uint8]:
    """Return probabilities (n, class, y, x) in 255ths of pixel values (n, band, y, x).

    An engine that rounds inside its network returns a quarter of the bytes.

    Raises:
        PredictError: The output has not a value for each pixel.
    """
    rounded = getattr(engine, "run_quantised", None)
    output = quantise(engine.run(batch)) if rounded is None else rounded(batch)
    if output.ndim != 4 or (len(output), *output.shape[2:]) != (len(batch), *batch.shape[2:]):
        raise PredictError(
            f"the model answered the shape {output.shape} for tiles of shape {batch.shape}; "
            "expected an answer for each pixel.",
            remedy="The model is damaged: get it again, or export it again.",
        )
    return np.asarray(output, np.uint8)


class ConstantEngine:
    """A fake engine that answers the same probability everywhere."""

    name = "constant"
    precision = "fp32"

    def __init__(self, probability: float = 0.5, classes: int = 1) -> None:
        self._probability = probability
        self._classes = classes

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        n, _, height, width = batch.shape
        return np.full((n, self._classes, height, width), self._probability, dtype=np.float32)


class PointwiseEngine:
    """A fake engine whose answer depends on the pixel alone: band 0 divided by `full_scale`.

    A tiled run with it must equal a run on the whole image.
    """

    name = "pointwise"
    precision = "fp32"

    def __init__(self, full_scale: float = 255.0) -> None:
        self._full_scale = full_scale

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = batch[:, :1].astype(np.float32) / self._full_scale
        return scaled.clip(0, 1)


Offers = Mapping[str, tuple[str, ...]]
"""Mapping from each precision to the parts of a bundle that are loaded for it."""


@dataclass(frozen=True)
class EngineKind:
    """Registry entry of an engine.

    Args:
        name: Name in the registry.
        takes: Description of the models that the engine runs, for messages.
        build: Function that loads an engine from a bundle, the names of its parts, a precision and
            an output.
        offers: Function that returns the precisions in which the engine runs a bundle; it loads
            nothing.
        prefers: Function that returns the precisions, the fastest on this machine first.
        check: Function that raises MissingExtraError if the package is missing, and ConfigError if
            the hardware is missing.
        lacks: Function that returns the reason why this processor does not compute in a precision;
            "" if it does.
    """

    name: str
    takes: str
    build: Callable[[ModelBundle, Sequence[str], str, Output], Engine]
    offers: Callable[[ModelBundle], Offers]
    prefers: Callable[[], Sequence[str]]
    check: Callable[[], object] = lambda: None
    lacks: Callable[[str], str] = lambda _: ""


def variants_by_precision(
    bundle: ModelBundle, engine: str, precisions: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the variants of a bundle for an engine, and its plain graph in `precisions`."""
    offered: dict[str, tuple[str, ...]] = {
        v.precision: v.files for v in bundle.spec.variants if v.engine == engine
    }
    if GRAPH_NAME in bundle.parts:
        for plain in precisions:
            offered.setdefault(plain, (GRAPH_NAME,))
    return offered


def thread_limit() -> int | None:
    """Return the maximum number of threads of an engine; None where it may take all cores.

    Engines count the cores of the machine, of which this process may have only a part. Answers do
    not depend on the limit.
    """
    cores = core_count()
    return cores if cores < (os.cpu_count() or 1) else None


def engine_processor(engine: Engine) -> dict[str, str]:
    """Return the processor that runs an engine, with the instruction set that it uses."""
    return {"name": this_processor().name, "instruction_set": instruction_set_of(engine)}


def instruction_set_of(engine: Engine) -> str:
    """Return the instruction set on which the bytes of an engine's answers depend; "" on a GPU."""
    device = str(getattr(engine, "settings", {}).get("device", ""))
    if engine.name in ("onnxruntime-cuda", "onnxruntime-tensorrt") or device.startswith("cuda"):
        return ""
    return this_processor().instruction_set
