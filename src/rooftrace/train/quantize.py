"""An int8 variant of a graph, for OpenVINO, made by post-training quantisation."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import MissingExtraError

__all__ = ["quantize_openvino"]


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
        raise MissingExtraError.of("train", "An int8 variant", "nncf") from error
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


def _serialised(model: Any) -> tuple[bytes, bytes]:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "model.xml"
        openvino.save_model(model, xml, compress_to_fp16=True)
        return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()
