"""The engine ONNX Runtime (extra `onnx`), on the processor or by CUDA or TensorRT on a GPU."""

import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError, PredictError
from rooftrace.core.parallel import thread_limit
from rooftrace.core.system import user_folder
from rooftrace.core.text import first_line
from rooftrace.engines.base import Engine, EngineKind, this_processor, variants_by_precision
from rooftrace.models.spec import BundleSpec, Output

_PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}


class OnnxRuntimeEngine(Engine):
    """A model on ONNX Runtime.

    Args:
        spec: Contract of the model.
        graph: Content of an ONNX file.
        precision: Precision of the graph's arithmetic: `fp32`, or `fp16` or `int8` for a graph
            that was converted to it.
        source: Name of the bundle in messages.
        output: Output to compute, for a refined model with two outputs.
        name: `onnxruntime` for the processor; for a GPU `onnxruntime-cuda` or
            `onnxruntime-tensorrt`.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ConfigError: this ONNX Runtime has no CUDA or TensorRT, or no GPU responds.
        BundleError: the graph cannot be read, or does not match the contract.
    """

    def __init__(
        self,
        spec: BundleSpec,
        graph: bytes,
        precision: str,
        source: str,
        output: Output = "probabilities",
        name: str = "onnxruntime",
    ) -> None:
        onnxruntime = _runtime(name)
        self.name = name
        self.precision = precision
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = thread_limit() or 0
        wanted = _PROVIDERS[name]
        try:
            # It prints on stdout that it tries the processor again, which helps a GPU only.
            self._session = onnxruntime.InferenceSession(
                graph,
                options,
                providers=_providers(wanted, precision, graph),
                enable_fallback=wanted != "CPUExecutionProvider",
            )
        except Exception as error:
            # Its exceptions share no base class of their own.
            raise BundleError(
                f"The graph in {source} cannot be read: {first_line(error)}.",
                remedy="Get the bundle again from where it was trained.",
            ) from error
        # It would run a tile that failed on the GPU again on the processor, and all later ones.
        self._session.disable_fallback()
        # If a provider cannot start, ONNX Runtime only logs it and continues with the next one.
        if wanted not in self._session.get_providers():
            raise _no_gpu(name, "the installed one could not start: its libraries or the GPU fail")
        self.settings = {"providers": ",".join(self._session.get_providers())}
        # None stands for all outputs, which is one.
        self._outputs = [output] if spec.is_refined else None
        self._check(spec, source)
        self._input = self._session.get_inputs()[0].name
        self._options = onnxruntime.RunOptions()
        self._options.only_execute_path_to_fetches = True

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Turn pixel values (n, band, y, x) into probabilities (n, class, y, x) in 0..1."""
        try:
            inputs = {self._input: batch.astype(np.float32)}
            (first,) = self._session.run(self._outputs, inputs, self._options)
        except Exception as error:
            raise PredictError(
                f"ONNX Runtime failed on an input of shape {batch.shape}: {first_line(error)}.",
                remedy="Check input_px and input_multiple_px in the bundle's bundle.json.",
            ) from error
        probability: NDArray[np.float32] = np.asarray(first, dtype=np.float32)
        return probability

    def _check(self, spec: BundleSpec, source: str) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if self._outputs is not None:
            outputs = [value for value in outputs if value.name in self._outputs]
        expected = [len(spec.bands), spec.outputs]
        shapes = [value.shape for value in (*inputs, *outputs)]
        fits = len(inputs) == len(outputs) == 1 and all(
            len(shape) == 4 and (not isinstance(shape[1], int) or shape[1] == count)
            for shape, count in zip(shapes, expected)
        )
        if not fits:
            raise BundleError(
                f"The graph in {source} takes and gives {shapes}; "
                f"expected (n, {expected[0]}, y, x) and (n, {expected[1]}, y, x).",
                remedy="Export it with rooftrace train.",
            )


def _providers(wanted: str, precision: str, graph: bytes) -> list[str | tuple[str, dict[str, str]]]:
    if wanted == "CPUExecutionProvider":
        return [wanted]
    # A search by trial takes seconds for each size of a tile. TF32 has ten bits of precision.
    # `fuse_conv_bias` has shorter first calls, but wrong outputs: docs/export.md.
    tf32 = "0" if precision == "fp32" else "1"
    options = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": tf32}
    cuda = (_PROVIDERS["onnxruntime-cuda"], options)
    if wanted == cuda[0]:
        return [cuda, "CPUExecutionProvider"]
    # It builds a plan for each size of tiles, which takes minutes. Its names of plans do not depend
    # on the weights, so each graph has a folder of its own.
    folder = user_folder("cache") / "tensorrt" / hashlib.sha256(graph).hexdigest()[:32]
    plans = {
        "trt_fp16_enable": "1" if precision == "fp16" else "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
    }
    return [(wanted, plans), cuda, "CPUExecutionProvider"]


def _runtime(name: str) -> Any:
    """The package, which must have what the engine of that name runs on."""
    with MissingExtraError.on_import("onnx", f"The engine {name}", "onnxruntime"):
        import onnxruntime
    if _PROVIDERS[name] not in onnxruntime.get_available_providers():
        raise _no_gpu(name, "the installed one has none")
    if name != "onnxruntime" and hasattr(onnxruntime, "preload_dlls"):
        # pip puts the libraries of CUDA where the system does not look for them. What is missing
        # is printed on stdout, although the system may have it.
        with redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    return onnxruntime


def _no_gpu(name: str, why: str) -> ConfigError:
    needed = "CUDA" if name == "onnxruntime-cuda" else "TensorRT"
    return ConfigError(
        f"The engine {name} needs an ONNX Runtime with {needed}; {why}.",
        remedy="On a machine with an NVIDIA GPU: pip uninstall onnxruntime, then "
        "pip install 'onnxruntime-gpu[cuda,cudnn]'. Elsewhere leave out --engine.",
    )


def _kind(
    name: str, where: str, prefers: Callable[[], Sequence[str]], *, int8: bool = True
) -> EngineKind:
    return EngineKind(
        name=name,
        takes=f"every bundle in fp32, exported .onnx files in fp32, fp16{' and int8' * int8}; on "
        f"{where}",
        build=lambda bundle, files, precision, output: OnnxRuntimeEngine(
            bundle.spec, bundle.part(files[0]), precision, bundle.source, output, name
        ),
        # All of them run the variants of the first.
        offers=lambda bundle: {
            precision: files
            for precision, files in variants_by_precision(bundle, "onnxruntime", ("fp32",)).items()
            if int8 or precision != "int8"
        },
        prefers=prefers,
        check=partial(_runtime, name),
    )


def _on_cpu() -> Sequence[str]:
    is_fast = this_processor().has_fast_int8
    return ("int8", "fp32", "fp16") if is_fast else ("fp32", "int8", "fp16")


CPU = _kind("onnxruntime", "the processor", _on_cpu)
CUDA = _kind("onnxruntime-cuda", "an NVIDIA GPU", lambda: ("fp16", "fp32", "int8"))
# TensorRT takes int8 that is symmetric around zero alone, which costs accuracy elsewhere.
TENSORRT = _kind(
    "onnxruntime-tensorrt", "an NVIDIA GPU by TensorRT", lambda: ("fp16", "fp32"), int8=False
)
