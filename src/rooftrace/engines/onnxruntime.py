"""ONNX Runtime: the second engine, of the extra `onnx`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, MissingExtraError, PredictError
from rooftrace.engines.graph import refuse_external_data
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec, Output

__all__ = ["OnnxRuntimeEngine"]


class OnnxRuntimeEngine:
    """A model on ONNX Runtime's CPU provider.

    Args:
        spec: the model's contract.
        graph: an ONNX file.
        precision: what the graph's arithmetic is in: `fp32`, or `int8` of a quantised graph.
        source: the bundle, for messages.
        output: of a refined model, which of its two outputs; only what that needs is computed.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BundleError: the graph cannot be read, or is not the one that the contract describes.
    """

    name = "onnxruntime"

    def __init__(
        self,
        spec: BundleSpec,
        graph: bytes,
        precision: str,
        source: str,
        output: Output = "probabilities",
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError.of("onnx", "The engine onnxruntime", "onnxruntime") from error
        self.precision = precision
        refuse_external_data(graph, source)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # Its exceptions share no base class of their own.
            raise BundleError(
                f"The graph in {source} cannot be read: {_first_line(error)}.",
                remedy="Get the bundle again from where it was trained.",
            ) from error
        # None is all there are, which is one.
        self._outputs = [output] if spec.is_refined else None
        self._check(spec, source)
        self._input = self._session.get_inputs()[0].name
        self._options = onnxruntime.RunOptions()
        self._options.only_execute_path_to_fetches = True

    @classmethod
    def from_bundle(
        cls, bundle: ModelBundle, files: Sequence[str], precision: str, output: Output
    ) -> OnnxRuntimeEngine:
        """The engine over one file of a bundle."""
        return cls(bundle.spec, bundle.part(files[0]), precision, bundle.source, output)

    @property
    def settings(self) -> dict[str, str]:
        """How the network was compiled, for the record."""
        return {"providers": ",".join(self._session.get_providers())}

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x) probabilities in 0..1."""
        try:
            given = {self._input: batch.astype(np.float32)}
            (answer,) = self._session.run(self._outputs, given, self._options)
        except Exception as error:
            raise PredictError(
                f"ONNX Runtime failed on an input of shape {batch.shape}: {_first_line(error)}.",
                remedy="Check input_px and input_multiple_px in the bundle's bundle.json.",
            ) from error
        probability: NDArray[np.float32] = np.asarray(answer, dtype=np.float32)
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
