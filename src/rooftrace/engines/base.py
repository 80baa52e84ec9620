"""The interface of all inference engines, and their registry entries."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.system import processor_fields
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.spec import Output
from rooftrace.tiling.plan import quantise


class Engine:
    """A loaded model.

    The normalisation is inside the model: an engine takes the pixel values of the image. The
    result for one tile does not depend on the other tiles of the batch.

    An engine may have more members, which callers use if they exist: `features` (a row of features
    for each tile) and `parallel` (the same model for a number of threads that call it at the same
    time).
    """

    name: str
    """Name of the engine: `openvino`, `onnxruntime`, `torch`…"""

    precision: str
    """Precision of the arithmetic: `fp32`, `bf16`, `fp16` or `int8`.

    An ensemble joins the different ones of its members: `fp32+int8`.
    """

    settings: Mapping[str, Any] = {}
    """Settings for the run record."""

    notes: Sequence[str] = ()
    """Assumptions to report to the user."""

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Turn pixel values (n, band, y, x) into probabilities (n, class, y, x) in 0..1."""
        raise NotImplementedError

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Like `run`, but in 255ths. Rounded inside the network they are a quarter of the bytes."""
        return quantise(self.run(batch))

    def expect(self, shape: tuple[int, ...]) -> None:
        """Begin to compile the network for a batch of this shape, if the engine can."""

    def release(self) -> None:
        """Free the memory of compiled networks, if there are any; the next call compiles again."""


class ConstantEngine(Engine):
    """A fake engine that returns the same probability everywhere."""

    name = "constant"
    precision = "fp32"

    def __init__(self, probability: float = 0.5, classes: int = 1) -> None:
        self._probability = probability
        self._classes = classes

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        n, _, height, width = batch.shape
        return np.full((n, self._classes, height, width), self._probability, dtype=np.float32)


class PointwiseEngine(Engine):
    """A fake engine whose output depends on the pixel alone: band 0 divided by 255.

    A tiled run with it must equal a run on the whole image.
    """

    name = "pointwise"
    precision = "fp32"

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = batch[:, :1].astype(np.float32) / 255.0
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


def engine_processor(engine: Engine) -> dict[str, str]:
    """Return the `name` of the processor of this machine, and the `instruction_set` on which the
    bytes of an engine's outputs depend, "" on a GPU.
    """
    processor, device = this_processor(), str(engine.settings.get("device", ""))
    on_gpu = engine.name in ("onnxruntime-cuda", "onnxruntime-tensorrt")
    on_gpu = on_gpu or device.startswith("cuda")
    return {
        "name": processor.name,
        "instruction_set": "" if on_gpu else processor.instruction_set,
    }


_AVX2 = frozenset({"sse4_1", "avx", "avx2", "fma"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
_VNNI = _AVX512 | {"avx512_vnni"}
_BF16 = _VNNI | {"avx512_bf16"}
_FP16 = _BF16 | {"avx512_fp16"}
_AMX = _FP16 | {"amx_tile", "amx_int8", "amx_bf16"}

INSTRUCTION_SETS: dict[str, frozenset[str]] = {
    "SSE41": frozenset({"sse4_1"}),
    "AVX": frozenset({"sse4_1", "avx"}),
    "AVX2": _AVX2,
    "AVX2_VNNI": _AVX2 | {"avx_vnni"},
    "AVX2_VNNI_2": _AVX2 | {"avx_vnni", "avx_vnni_int8", "avx_ne_convert"},
    "AVX512_CORE": _AVX512,
    "AVX512_CORE_VNNI": _VNNI,
    "AVX512_CORE_BF16": _BF16,
    "AVX512_CORE_FP16": _FP16,
    "AVX512_CORE_AMX": _AMX,
    "AVX512_CORE_AMX_FP16": _AMX | {"amx_fp16"},
}
"""Instruction sets as oneDNN names them, and the flags by which Linux lists them. The lowest comes
first; a set that comes later is not always a superset."""


@dataclass(frozen=True)
class Processor:
    """A processor.

    Args:
        name: Name of the model, such as "AMD EPYC 9654".
        machine: Architecture in lower case, such as "x86_64".
        flags: Instruction sets as Linux names them; empty if they are not known.
    """

    name: str
    machine: str
    flags: frozenset[str]

    @property
    def instruction_set(self) -> str:
        """Instruction set that oneDNN uses.

        Where the system does not list the flags, the name of the processor stands for it.
        """
        sets = [name for name, needed in INSTRUCTION_SETS.items() if needed <= self.flags]
        return sets[-1] if sets else f"{self.machine}: {self.name}"

    @property
    def has_fast_int8(self) -> bool:
        """True if the processor multiplies bytes faster than floats: x86 with VNNI."""
        return bool({"avx512_vnni", "avx_vnni"} & self.flags)

    @property
    def has_bf16(self) -> bool:
        """True if the processor has instructions for bf16."""
        return bool({"avx512_bf16", "amx_bf16", "avx_ne_convert"} & self.flags)

    def describe(self) -> str:
        """Return the name and the instruction set for messages."""
        return f"{self.name} ({self.instruction_set})"


@cache
def this_processor() -> Processor:
    """Return the processor of this machine, with its flags as Linux lists them."""
    fields = processor_fields()
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = frozenset(fields.get("flags", "").split())
    return Processor(name, platform.machine().lower(), flags)
