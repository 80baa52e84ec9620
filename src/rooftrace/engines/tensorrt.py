"""TensorRT on an NVIDIA GPU: plans that `rooftrace export --to tensorrt` made on one like it.

PyTorch holds the GPU's memory. Networks are strongly typed: what is computed in which precision is
what the ONNX graph says, and the builder chooses kernels alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import (
    BundleError,
    ConfigError,
    ExportError,
    MissingExtraError,
    PredictError,
)
from rooftrace.engines.kind import EngineKind, Offers, offered_by_graph
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec, Output

__all__ = ["KIND", "TensorRtEngine", "build_plan", "built_with"]

_INPUT = "image"

_PROFILES = ((16, 512), (1, 1664))
"""Tiles at once and their largest side, in pixels: small ones together, large ones alone, as
`rooftrace predict` asks. A plan sets memory aside for the largest of each."""


class TensorRtEngine:
    """A TensorRT plan.

    Args:
        spec: the model's contract.
        plan: as TensorRT serialised it. It holds code for the GPU: it must be from somebody whom
            one would let run a program.
        precision: that its graph had.
        source: its file, for messages.
        output: of a refined model, which of its two outputs; both are computed.

    Raises:
        MissingExtraError: TensorRT or PyTorch is not installed.
        ConfigError: there is no GPU.
        BundleError: the plan is for another GPU or version, or not what its contract describes.
    """

    name = "tensorrt"

    def __init__(
        self,
        spec: BundleSpec,
        plan: bytes,
        precision: str,
        source: str,
        output: Output = "probabilities",
    ) -> None:
        self._trt, self._torch = _modules()
        self.precision = precision
        self._profiles = profiles_of(spec)
        self._logger = self._trt.Logger(self._trt.Logger.ERROR)
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BundleError(
                f"TensorRT cannot load the plan in {source}: it runs on the kind of GPU and the "
                f"version of TensorRT that it was made with, and here are {built_with()}.",
                remedy="Export it again on this machine: rooftrace export BUNDLE --to tensorrt",
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._outputs = [name for name in names if name != _INPUT]
        self._output = output if spec.is_refined else next(iter(self._outputs), output)
        self._check(spec, names, source)
        self._contexts: dict[int, Any] = {}

    @classmethod
    def from_bundle(
        cls, bundle: ModelBundle, files: Sequence[str], precision: str, output: Output
    ) -> TensorRtEngine:
        """The engine over the plan of an exported model."""
        return cls(bundle.spec, bundle.part(files[0]), precision, bundle.source, output)

    @property
    def settings(self) -> dict[str, str]:
        """What it runs on, for the record."""
        return built_with()

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x) probabilities in 0..1."""
        side = max(batch.shape[2:])
        fitting = [i for i, (_, largest) in enumerate(self._profiles) if side <= largest]
        if not fitting:
            raise PredictError(
                f"A tile of {batch.shape[2]} × {batch.shape[3]} px is larger than the "
                f"{self._profiles[-1][1]} px that the TensorRT plan was made for.",
                remedy="Use another engine with --engine.",
            )
        number = fitting[0]
        at_once = self._profiles[number][0]
        parts = [
            self._infer(batch[first : first + at_once], number)
            for first in range(0, len(batch), at_once)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def release(self) -> None:
        """Give back the memory of activations; the next call takes it again."""
        self._contexts.clear()
        self._torch.cuda.empty_cache()

    def _infer(self, batch: NDArray[Any], number: int) -> NDArray[np.float32]:
        torch = self._torch
        pixels = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).cuda()
        stream = torch.cuda.current_stream()
        context = self._context(number, stream)
        answers = {}
        done = context.set_input_shape(_INPUT, tuple(batch.shape))
        if done:
            context.set_tensor_address(_INPUT, pixels.data_ptr())
            for name in self._outputs:
                shape = tuple(context.get_tensor_shape(name))
                answers[name] = torch.empty(shape, dtype=torch.float32, device="cuda")
                context.set_tensor_address(name, answers[name].data_ptr())
            done = context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        if not done:
            raise PredictError(
                f"TensorRT failed on an input of shape {batch.shape}.",
                remedy="Use another engine with --engine, or report it with the bundle.",
            )
        probability: NDArray[np.float32] = answers[self._output].cpu().numpy()
        return probability

    def _context(self, number: int, stream: Any) -> Any:
        context = self._contexts.get(number)
        if context is None:
            context = self._engine.create_execution_context()
            context.set_optimization_profile_async(number, stream.cuda_stream)
            self._contexts[number] = context
        return context

    def _check(self, spec: BundleSpec, names: Sequence[str], source: str) -> None:
        shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        expected = {_INPUT: len(spec.bands), self._output: spec.outputs}
        for name, count in expected.items():
            shape = shapes.get(name, ())
            if len(shape) != 4 or shape[1] not in (-1, count):
                raise BundleError(
                    f"The plan in {source} takes and gives {shapes}; expected {name!r} of shape "
                    f"(n, {count}, y, x).",
                    remedy="Export it again: rooftrace export BUNDLE --to tensorrt",
                )


def build_plan(graph: bytes, spec: BundleSpec) -> bytes:
    """A plan for the GPU of this machine; takes minutes.

    Args:
        graph: ONNX, in the precision that it is to be computed in.
        spec: the contract, which says what sizes the graph takes.

    Raises:
        MissingExtraError, ConfigError: as `TensorRtEngine`.
        ExportError: TensorRT cannot build it.
    """
    trt, _ = _modules()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        told = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise _not_built(told or "its parser refused the graph")
    config = builder.create_builder_config()
    # On by itself it would make fp32 something less.
    config.clear_flag(trt.BuilderFlag.TF32)
    for at_once, largest in profiles_of(spec):
        smallest = spec.input_px or spec.input_multiple_px
        profile = builder.create_optimization_profile()
        most = (at_once, len(spec.bands), largest, largest)
        profile.set_shape(_INPUT, (1, len(spec.bands), smallest, smallest), most, most)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _not_built("it says no more than that it failed")
    return bytes(plan)


def profiles_of(spec: BundleSpec) -> tuple[tuple[int, int], ...]:
    """Tiles at once and the largest side of each profile, for what sizes a model takes."""
    if spec.input_px is not None:
        return ((_PROFILES[0][0], spec.input_px),)
    multiple = spec.input_multiple_px
    sides = [(count, math.ceil(side / multiple) * multiple) for count, side in _PROFILES]
    return tuple(sides)


def built_with() -> dict[str, str]:
    """Version of TensorRT and name of the GPU, which a plan is for."""
    trt, torch = _modules()
    return {"tensorrt": str(trt.__version__), "gpu": str(torch.cuda.get_device_name())}


def _modules() -> tuple[Any, Any]:
    try:
        import tensorrt
    except ImportError as error:
        raise MissingExtraError(
            "TensorRT needs the package 'tensorrt', which is not installed.",
            remedy="On a machine with an NVIDIA GPU install it with: pip install tensorrt. "
            "Elsewhere export to onnx or openvino.",
        ) from error
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError.of("train", "The engine tensorrt", "torch") from error
    if not torch.cuda.is_available():
        raise ConfigError(
            "TensorRT builds and runs on an NVIDIA GPU, and PyTorch sees none here.",
            remedy="Do it on a machine with a GPU and a CUDA build of PyTorch; here export to onnx "
            "or openvino, and predict with --engine openvino.",
        )
    return tensorrt, torch


def _not_built(why: str) -> ExportError:
    return ExportError(
        f"TensorRT could not build a plan: {why[:400].rstrip('.')}.",
        remedy="Export to onnx instead, which ONNX Runtime runs on a GPU, or report the "
        "architecture.",
    )


def _offers(bundle: ModelBundle) -> Offers:
    return offered_by_graph(bundle, TensorRtEngine.name, ())


def _prefers() -> Sequence[str]:
    return ("fp16", "int8", "fp32")


def _check_here() -> None:
    _modules()


KIND = EngineKind(
    name=TensorRtEngine.name,
    takes="what rooftrace export --to tensorrt made on a GPU like this machine's",
    build=TensorRtEngine.from_bundle,
    offers=_offers,
    prefers=_prefers,
    check=_check_here,
)
