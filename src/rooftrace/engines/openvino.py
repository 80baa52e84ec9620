"""OpenVINO on the CPU: the engine of the core install."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, PredictError
from rooftrace.engines.graph import refuse_external_data
from rooftrace.engines.kind import EngineKind, Offers, offered_by_graph
from rooftrace.engines.processor import has_fast_int8, most_threads
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec, Output
from rooftrace.tiling.blend import PROB_ONE

__all__ = ["KIND", "OpenVinoEngine", "capabilities"]

_KEPT_PX = 4 * 2**20
"""Compiled networks are kept, one per shape of input, while their inputs together are this large:
each holds its activations. Compiling one takes a tenth of a second."""

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": None}
_THREADS = "INFERENCE_NUM_THREADS"
_TYPES = {"uint8": "u8", "uint16": "u16", "float32": "f32"}


@cache
def _core() -> Any:
    # Loaded on first use: the import takes longer than all else that a command needs to start.
    import openvino

    return openvino.Core()


@cache
def capabilities() -> frozenset[str]:
    """What OpenVINO says that this processor computes in: `FP32`, `BF16`, `INT8`…"""
    return frozenset(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


class OpenVinoEngine:
    """A model on OpenVINO, compiled once for each shape of input.

    Args:
        spec: the model's contract.
        parts: the graph: one ONNX file, or the xml and the bin of OpenVINO's own format.
        precision: what the arithmetic is done in; of an int8 graph, the layers left unquantised
            run in bf16 where the processor has it.
        source: the bundle, for messages.
        output: of a refined model, which of its two outputs; only what that needs is computed.

    Raises:
        BundleError: the graph cannot be read, or is not the one that the contract describes.
    """

    name = "openvino"

    def __init__(
        self,
        spec: BundleSpec,
        parts: Sequence[bytes],
        precision: str,
        source: str,
        output: Output = "probabilities",
    ) -> None:
        self.precision = precision
        self._spec = spec
        self._output = output
        # Its int8 kernels take no 16-bit pixels; as floats they are the same numbers.
        self._dtype = "float32" if (precision, spec.dtype) == ("int8", "uint16") else spec.dtype
        self._source = source
        hint = _HINTS[precision] or ("bf16" if "BF16" in capabilities() else "f32")
        self._config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        self._parts = tuple(parts)
        self._requests: OrderedDict[tuple[tuple[int, ...], bool], Any] = OrderedDict()
        self._check(self._read())

    @classmethod
    def from_bundle(
        cls, bundle: ModelBundle, files: Sequence[str], precision: str, output: Output
    ) -> OpenVinoEngine:
        """The engine over some files of a bundle."""
        parts = [bundle.part(name) for name in files]
        return cls(bundle.spec, parts, precision, bundle.source, output)

    @property
    def settings(self) -> dict[str, str]:
        """How the network was compiled, for the record."""
        return dict(self._config)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x) probabilities in 0..1."""
        answer: NDArray[np.float32] = self._infer(batch, quantised=False)
        return answer

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """`run`, rounded to 255ths inside the network: a quarter of the bytes come out."""
        answer: NDArray[np.uint8] = self._infer(batch, quantised=True)
        return answer

    def release(self) -> None:
        """Give back the memory of the compiled networks; the next call compiles again."""
        self._requests.clear()

    def _infer(self, batch: NDArray[Any], *, quantised: bool) -> NDArray[Any]:
        batch = np.ascontiguousarray(batch, dtype=self._dtype)
        key = (batch.shape, quantised)
        request = self._requests.get(key)
        if request is None:
            room = _KEPT_PX - _area_px(batch.shape)
            while self._requests and sum(_area_px(shape) for shape, _ in self._requests) > room:
                self._requests.popitem(last=False)
            request = self._requests[key] = self._compile(batch.shape, quantised)
        self._requests.move_to_end(key)
        try:
            request.infer([batch], share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise PredictError(
                f"OpenVINO failed on an input of shape {batch.shape}: {_first_line(error)}.",
                remedy="Try another engine with --engine, or report it with the bundle.",
            ) from error
        # The output belongs to the request, which the next call writes over.
        return np.array(request.get_output_tensor(0).data)

    def _read(self) -> Any:
        import openvino

        try:
            if len(self._parts) == 1:
                refuse_external_data(self._parts[0], self._source)
                return self._chosen(_core().read_model(self._parts[0]))
            weights = np.frombuffer(self._parts[1], dtype=np.uint8)
            tensor = openvino.Tensor(weights, weights.shape, openvino.Type.u8)
            return self._chosen(_core().read_model(self._parts[0], tensor))
        except (RuntimeError, TypeError, ValueError) as error:
            raise BundleError(
                f"The graph in {self._source} cannot be read: {_first_line(error)}.",
                remedy="Get the bundle again from where it was trained.",
            ) from error

    def _chosen(self, model: Any) -> Any:
        """Of a refined model the part that leads to the output."""
        import openvino

        if not self._spec.is_refined:
            return model
        found = [o for o in model.outputs if self._output in o.get_names()]
        if len(found) != 1:
            raise BundleError(
                f"The graph in {self._source} has no output {self._output!r}, which its contract "
                "names.",
                remedy="Export it with rooftrace train.",
            )
        return openvino.Model([found[0].get_node()], model.get_parameters(), self._output)

    def _check(self, model: Any) -> None:
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise BundleError(
                f"The graph in {self._source} has {len(model.inputs)} inputs and "
                f"{len(model.outputs)} outputs; expected one of each.",
                remedy="Export it with rooftrace train.",
            )
        shapes = model.input(0).partial_shape, model.output(0).partial_shape
        expected = len(self._spec.bands), self._spec.outputs
        for shape, count, what in zip(shapes, expected, ("bands", "channels")):
            if len(shape) != 4 or (shape[1].is_static and shape[1].get_length() != count):
                raise BundleError(
                    f"The graph in {self._source} has the shape {shape}, "
                    f"expected (n, {count}, y, x): its contract names {count} {what}.",
                    remedy="Export it with rooftrace train.",
                )

    def _compile(self, shape: tuple[int, ...], quantised: bool) -> Any:
        from openvino import Model, opset13
        from openvino.preprocess import PrePostProcessor

        try:
            steps = PrePostProcessor(self._read())
            steps.input().tensor().set_element_type(_element_type(self._dtype))
            model = steps.build()
            if quantised:
                probability = model.output(0).get_node().input_value(0)
                scaled = opset13.multiply(probability, opset13.constant(np.float32(PROB_ONE)))
                rounded = opset13.add(scaled, opset13.constant(np.float32(0.5)))
                answer = opset13.convert(rounded, "u8")
                model = Model([answer], model.get_parameters(), "quantised")
            model.reshape(list(shape))
            threads = most_threads()
            # No setting of the result, and so none of the record.
            config = self._config | ({} if threads is None else {_THREADS: str(threads)})
            return _core().compile_model(model, "CPU", config).create_infer_request()
        except RuntimeError as error:
            raise BundleError(
                f"The graph in {self._source} does not take an input of shape {shape}: "
                f"{_first_line(error)}.",
                remedy="Check input_px and input_multiple_px in its bundle.json.",
            ) from error


def _offers(bundle: ModelBundle) -> Offers:
    offered = offered_by_graph(bundle, OpenVinoEngine.name, ("fp32", "bf16"))
    # Without the instructions bf16 is slower than fp32; a file that has nothing else still runs.
    if "BF16" not in capabilities() and len(offered) > 1:
        offered.pop("bf16", None)
    return offered


def _prefers() -> Sequence[str]:
    return ("int8", "bf16", "fp32") if has_fast_int8() else ("bf16", "fp32", "int8")


def _check_installed() -> None:
    """It is part of the core install."""


KIND = EngineKind(
    name=OpenVinoEngine.name,
    takes="every bundle in fp32 and bf16, its int8 variant, exported .onnx and .xml files",
    build=OpenVinoEngine.from_bundle,
    offers=_offers,
    prefers=_prefers,
    check=_check_installed,
)


def _area_px(shape: tuple[int, ...]) -> int:
    return shape[0] * shape[2] * shape[3]


def _element_type(dtype: str) -> Any:
    import openvino

    return getattr(openvino.Type, _TYPES[dtype])


def _first_line(error: Exception) -> str:
    # OpenVINO's messages begin with the lines of its own source where they arose.
    lines = [line.strip() for line in str(error).splitlines()]
    told = [x for x in lines if x and not x.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[0][:200].rstrip(".")
