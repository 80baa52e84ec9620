"""int8 variants of a graph, made by post-training quantisation."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import MissingExtraError
from rooftrace.models.lowering import normalising_nodes

__all__ = ["quantize_onnx", "quantize_openvino"]


def quantize_openvino(graph: bytes, samples: Sequence[NDArray[np.float32]]) -> tuple[bytes, bytes]:
    """The xml and bin of an int8 model (Jacob et al. 2018; NNCF with full bias correction).

    It is done on OpenVINO's model, for quantising the ONNX graph itself lost much IoU, and on that
    model simplified: as exported, normalisation stands apart from its convolution and the bounded
    ReLU is two steps, and NNCF would round what passes between them.

    Args:
        graph: of a bundle.
        samples: images (band, y, x) in pixel values, of one size, like those it will see.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        raise MissingExtraError.of("export", "An int8 variant", "nncf") from error
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = openvino.Core().read_model(graph)
    # `openvino.convert_model` does the same but for the folding of constants: the file would hold
    # every weight twice, and the biases would not be found and corrected.
    apply_moc_transformations(model, cf=True)
    quantized = nncf.quantize(
        model,
        nncf.Dataset([sample[None] for sample in samples]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
        fast_bias_correction=False,
    )
    return _serialised(quantized)


def quantize_onnx(
    graph: bytes, samples: Sequence[NDArray[np.float32]], *, symmetric: bool = False
) -> bytes:
    """An int8 ONNX graph with pairs of QuantizeLinear and DequantizeLinear (ONNX Runtime; weights
    by channel, activations by the least and greatest value of the samples).

    Args:
        graph: as `lowering.simplified` leaves it.
        samples: images (band, y, x) in pixel values, of one size, like those it will see.
        symmetric: activations are rounded to numbers around zero, as TensorRT wants them; a little
            less exact.

    Raises:
        MissingExtraError: ONNX Runtime or `onnx` is not installed.
    """
    try:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )
    except ImportError as error:
        raise MissingExtraError.of("export", "An int8 graph", "onnxruntime") from error

    class Samples(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self._given: Iterator[NDArray[np.float32]] = iter(samples)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            sample = next(self._given, None)
            return None if sample is None else {"image": sample[None].astype(np.float32)}

    # It recommends to simplify the graph before, which is done.
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
            given.write_bytes(graph)
            quantize_static(
                given,
                made,
                Samples(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # Rounding pixel values of 16 bits to 8 would lose them.
                nodes_to_exclude=normalising_nodes(graph),
                extra_options={"ActivationSymmetric": symmetric},
            )
            return made.read_bytes()
    finally:
        root.setLevel(level)


def _serialised(model: Any) -> tuple[bytes, bytes]:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "model.xml"
        openvino.save_model(model, xml, compress_to_fp16=True)
        return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()
