"""The engine TensorRT on an NVIDIA GPU, for plans from `rooftrace export --to tensorrt`.

PyTorch manages the GPU's memory. Networks are strongly typed: the ONNX graph decides the precision
of each operation, and the builder chooses only the kernels.
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
from rooftrace.engines.base import EngineKind, variants_by_precision
from rooftrace.models.spec import BundleSpec, Output

__all__ = ["KIND", "TensorRtEngine", "build_plan", "built_with"]

_INPUT = "image"

_PROFILES = ((16, 512), (1, 1664))
"""Maximum number of tiles in a batch and their maximum side in pixels, as `rooftrace predict` uses
them: small tiles together, large tiles one by one. A plan reserves memory for the largest batch."""


class TensorRtEngine:
    """A TensorRT plan.

    Args:
        spec: Contract of the model.
        plan: Plan serialised by TensorRT. It holds code for the GPU: load plans from trusted
            sources only.
        precision: Precision of the graph from which the plan was built.
        source: Name of the file in messages.
        output: Output to return, for a refined model with two outputs; both are computed.

    Raises:
            MissingExtraError: TensorRT or PyTorch is not installed.
            ConfigError: there is no GPU.
            BundleError: the plan is for another GPU or version, or does not match its contract.
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
                f"TensorRT cannot load the plan in {source}: it needs the GPU model and version "
                f"of TensorRT that it was built with; this machine has {built_with()}.",
                remedy="Export it again on this machine: rooftrace export BUNDLE --to tensorrt",
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._outputs = [name for name in names if name != _INPUT]
        self._output = output if spec.is_refined else next(iter(self._outputs), output)
        self._check(spec, names, source)
        self._contexts: dict[int, Any] = {}

    @property
    def settings(self) -> dict[str, str]:
        """Version of TensorRT and name of the GPU, for the run record."""
        return built_with()

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Turn pixel values (n, band, y, x) into probabilities (n, class, y, x) in 0..1."""
        side = max(batch.shape[2:])
        fitting = [i for i, (_, largest) in enumerate(self._profiles) if side <= largest]
        if not fitting:
            raise PredictError(
                f"A tile of {batch.shape[2]} × {batch.shape[3]} px is larger than the "
                f"{self._profiles[-1][1]} px that the TensorRT plan was built for.",
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
        """Free the memory of activations; the next call allocates it again."""
        self._contexts.clear()
        self._torch.cuda.empty_cache()

    def _infer(self, batch: NDArray[Any], number: int) -> NDArray[np.float32]:
        torch = self._torch
        pixels = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).cuda()
        stream = torch.cuda.current_stream()
        context = self._contexts.get(number)
        if context is None:
            context = self._contexts[number] = self._engine.create_execution_context()
            context.set_optimization_profile_async(number, stream.cuda_stream)
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
    """Build a plan for the GPU of this machine; this takes minutes.

    Args:
        graph: ONNX graph in the precision of the plan.
        spec: Contract, which states the sizes that the graph takes.

    Raises:
        MissingExtraError: see `TensorRtEngine`.
        ConfigError: see `TensorRtEngine`.
        ExportError: TensorRT cannot build the plan.
    """
    trt, _ = _modules()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        reasons = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise _not_built(reasons or "its parser refused the graph")
    config = builder.create_builder_config()
    # TF32 is on by default and would reduce the precision of fp32.
    config.clear_flag(trt.BuilderFlag.TF32)
    for at_once, largest in profiles_of(spec):
        smallest = spec.input_px or spec.input_multiple_px
        profile = builder.create_optimization_profile()
        most = (at_once, len(spec.bands), largest, largest)
        profile.set_shape(_INPUT, (1, len(spec.bands), smallest, smallest), most, most)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _not_built("it reports no reason")
    return bytes(plan)


def profiles_of(spec: BundleSpec) -> tuple[tuple[int, int], ...]:
    """Return the batch size and the maximum side of each profile, for the sizes a model takes."""
    if spec.input_px is not None:
        return ((_PROFILES[0][0], spec.input_px),)
    multiple = spec.input_multiple_px
    sides = [(count, math.ceil(side / multiple) * multiple) for count, side in _PROFILES]
    return tuple(sides)


def built_with() -> dict[str, str]:
    """Return the version of TensorRT and the name of the GPU, which a plan depends on."""
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
            "TensorRT needs an NVIDIA GPU, and PyTorch finds none on this machine.",
            remedy="Use a machine with a GPU and a CUDA build of PyTorch. On this one export to "
            "onnx or openvino, and predict with --engine openvino.",
        )
    return tensorrt, torch


def _not_built(why: str) -> ExportError:
    return ExportError(
        f"TensorRT could not build a plan: {why[:400].rstrip('.')}.",
        remedy="Export to onnx instead, which ONNX Runtime runs on a GPU, or report the "
        "architecture.",
    )


KIND = EngineKind(
    name=TensorRtEngine.name,
    takes="files from rooftrace export --to tensorrt, made on the same GPU model",
    build=lambda bundle, files, precision, output: TensorRtEngine(
        bundle.spec, bundle.part(files[0]), precision, bundle.source, output
    ),
    offers=lambda bundle: variants_by_precision(bundle, TensorRtEngine.name, ()),
    prefers=lambda: ("fp16", "int8", "fp32"),
    check=_modules,
)
