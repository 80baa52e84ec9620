"""From a trained network to the graph of a bundle."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import rooftrace.models._torch  # noqa: F401

# isort: split
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from rooftrace.models.losses import probabilities
from rooftrace.models.spec import Output

__all__ = ["RefinedModel", "WholeModel", "export_onnx", "halve_weights", "round_to_half"]

_HALVED_FROM = 256
"""Numbers in a tensor from which storing it as fp16 saves anything."""

_TRACED_AT = 4
"""Side of the example input, in multiples of the network's stride."""


class WholeModel(nn.Module):
    """Pixel values to probabilities: normalisation, network and activation in one.

    Args:
        net: (n, band, y, x) normalised pixels to (n, output, y, x) logits.
        mean, std: per band, in pixel values.
        separated: the last output is that of the second head, a probability of its own.
    """

    outputs: ClassVar[tuple[Output, ...]] = ("probabilities",)

    def __init__(
        self,
        net: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        separated: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.separated = separated
        # Not "mean": the exporter gives that name to the answer of a pooling, too, and then the
        # graph holds two values of one name.
        self.band_mean: Tensor
        self.band_std: Tensor
        for name, values in (("band_mean", mean), ("band_std", std)):
            per_band = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, per_band)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """One (n, output, y, x) for each of `outputs`."""
        return (self._activated(self.net(self._normalised(image))),)

    @torch.no_grad()
    def run(self, batch: NDArray[Any], output: Output = "probabilities") -> NDArray[np.float32]:
        """The same for arrays, in fp32, as an `Engine` does it."""
        images = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32))
        answer: NDArray[np.float32] = self(images)[self.outputs.index(output)].numpy()
        return answer

    def _normalised(self, image: Tensor) -> Tensor:
        return (image - self.band_mean) / self.band_std

    def _activated(self, logits: Tensor) -> Tensor:
        if not self.separated:
            return probabilities(logits)
        return torch.cat([probabilities(logits[:, :-1]), torch.sigmoid(logits[:, -1:])], dim=1)


class RefinedModel(WholeModel):
    """The same with a refiner behind the network, a `models.pix2pix.RefinedNet`."""

    outputs: ClassVar[tuple[Output, ...]] = ("probabilities", "coarse")

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        refined, coarse = self.net(self._normalised(image))
        return self._activated(refined), self._activated(coarse)


def export_onnx(
    model: WholeModel, *, bands: int, multiple_px: int, fixed_px: int | None = None
) -> bytes:
    """The graph as ONNX: `image` (n, band, y, x) float32 to `probabilities` (n, output, y, x), and
    of a refined model `coarse` alike.

    Args:
        multiple_px: height and width may be any multiple of it, and the batch any size.
        fixed_px: the one side that the network takes, where it takes one alone.
    """
    model = model.eval().cpu()
    side = fixed_px or _TRACED_AT * multiple_px
    example = torch.zeros(2, bands, side, side)
    auto = torch.export.Dim.AUTO
    dynamic = {0: auto} if fixed_px else {0: auto, 2: auto, 3: auto}
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (example,),
                input_names=["image"],
                output_names=list(model.outputs),
                dynamic_shapes={"image": dynamic},
                dynamo=True,
                # BatchNorm stays apart from the weights: folded, they are no longer what fp16
                # holds. Engines fold it when they load the graph.
                optimize=False,
                verbose=False,
            )
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
    assert program is not None
    return _without_sources(program.model_proto)


def round_to_half(net: nn.Module) -> None:
    """Round the large weights of a network, in place, to what fp16 can hold.

    Done before anything is measured or exported: the rounded network is the model, and
    `halve_weights` then loses nothing.
    """
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim >= 2:
                parameter.copy_(parameter.half().float())


def halve_weights(graph: bytes) -> bytes:
    """Store weights that fp16 holds exactly as fp16, each followed by a cast back to fp32.

    The arithmetic stays that of fp32: engines fold the casts when they load the graph.
    """
    model = onnx.load_from_string(graph)
    casts = []
    for index, tensor in enumerate(model.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _HALVED_FROM:
            continue
        whole = numpy_helper.to_array(tensor)
        half = whole.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), whole):
            continue
        name = tensor.name
        stored = numpy_helper.from_array(half, f"{name}_fp16")
        model.graph.initializer[index].CopyFrom(stored)
        casts.append(helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    # The tensors' shapes are listed apart; the fp16 ones would be listed wrongly.
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    result: bytes = model.SerializeToString()
    return result


def _without_sources(model: onnx.ModelProto) -> bytes:
    """Without the notes of where in Python each node came from: paths of the machine that made it,
    and a third of the file.
    """
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    result: bytes = model.SerializeToString()
    return result
