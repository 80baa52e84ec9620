"""Export of a trained network to the graph of a bundle."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from rooftrace.core.system import only_errors
from rooftrace.models.losses import probabilities
from rooftrace.models.spec import Output

_MIN_HALVED = 256
"""Minimum number of values in a tensor for which storing it as fp16 saves space."""

_HALF = "_fp16"
"""Ending of the names of weights that are stored as fp16."""

_EXAMPLE_STRIDES = 4
"""Side of the example input, in multiples of the network's stride."""


class ExportableModel(nn.Module):
    """A model from pixel values to probabilities: normalisation, network and activation in one.

    Args:
        net: Network from (n, band, y, x) normalised pixels to (n, channel, y, x) logits.
        mean, std: One value per band, in pixel values.
    """

    outputs: ClassVar[tuple[Output, ...]] = ("probabilities",)

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        # The name is not "mean": the exporter also uses that for the output of a pooling, and the
        # graph would hold two values with one name.
        self.band_mean: Tensor
        self.band_std: Tensor
        for name, values in (("band_mean", mean), ("band_std", std)):
            per_band = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, per_band)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return one (n, channel, y, x) tensor for each of `outputs`."""
        image = self._normalised(image)
        # A `SubpixelUnet` of one class; this module does not import it.
        if getattr(self.net, "shuffled_channels", 0) == 1:
            return (self.net(image, torch.sigmoid),)
        return (probabilities(self.net(image)),)

    @torch.no_grad()
    def run(self, batch: NDArray[Any], output: Output = "probabilities") -> NDArray[np.float32]:
        """Return the same for arrays, in fp32, as an `Engine` does."""
        images = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32))
        values: NDArray[np.float32] = self(images)[self.outputs.index(output)].numpy()
        return values

    def _normalised(self, image: Tensor) -> Tensor:
        return (image - self.band_mean) / self.band_std


class RefinedModel(ExportableModel):
    """Exportable model with a refiner behind the network, a `models.pix2pix.RefinedNet`."""

    outputs: ClassVar[tuple[Output, ...]] = ("probabilities", "coarse")

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        refined, coarse = self.net(self._normalised(image))
        return probabilities(refined), probabilities(coarse)


def export_onnx(
    model: ExportableModel, *, bands: int, multiple_px: int, fixed_px: int | None = None
) -> bytes:
    """Return the graph as ONNX: `image` (n, band, y, x) float32 to `probabilities` (n, channel, y,
    x), and to `coarse` of the same shape for a refined model.

    Args:
        multiple_px: Number that height and width must be multiples of; the batch has any size.
        fixed_px: The only side that the network accepts, or None.
    """
    model = model.eval().cpu()
    side = fixed_px or _EXAMPLE_STRIDES * multiple_px
    example = torch.zeros(2, bands, side, side)
    auto = torch.export.Dim.AUTO
    dynamic = {0: auto} if fixed_px else {0: auto, 2: auto, 3: auto}
    with only_errors("torch.onnx", "onnxscript", "onnx_ir"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (example,),
            input_names=["image"],
            output_names=list(model.outputs),
            dynamic_shapes={"image": dynamic},
            dynamo=True,
            # BatchNorm is not folded into the weights, because fp16 could not hold the result
            # exactly. Engines fold it when they load the graph.
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return _without_sources(program.model_proto)


def with_weights(graph: bytes, model: ExportableModel) -> bytes | None:
    """Return a graph of `export_onnx` with the weights of another model of the same network.

    It takes a second, where tracing the network takes half a minute of a processor.

    Returns:
        The graph with fp32 weights; None if those of the graph have other names or shapes.
    """
    proto, state = onnx.load_from_string(graph), model.state_dict()
    missing = {key for key, value in state.items() if value.is_floating_point()}
    for tensor in proto.graph.initializer:
        key = tensor.name.removesuffix(_HALF)
        if key in missing and state[key].shape == tuple(tensor.dims):
            value = state[key].detach().cpu().contiguous().numpy()
            tensor.CopyFrom(numpy_helper.from_array(value, key))
            missing.remove(key)
        elif key.startswith("net."):
            return None
    nodes = [one for one in proto.graph.node if not any(i.endswith(_HALF) for i in one.input)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    result: bytes = proto.SerializeToString()
    return None if missing else result


def round_weights_to_fp16(net: nn.Module) -> None:
    """Round the large weights of a network, in place, to values that fp16 can hold.

    This is done before anything is measured or exported: the rounded network is the model, and
    `store_weights_as_fp16` then loses nothing.
    """
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim >= 2:
                parameter.copy_(parameter.half().float())


def store_weights_as_fp16(graph: bytes) -> bytes:
    """Store weights that fp16 holds exactly as fp16, each followed by a cast back to fp32.

    The arithmetic stays fp32: engines fold the casts when they load the graph.
    """
    model = onnx.load_from_string(graph)
    casts = []
    for index, tensor in enumerate(model.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _MIN_HALVED:
            continue
        whole = numpy_helper.to_array(tensor)
        half = whole.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), whole):
            continue
        name = tensor.name
        stored = numpy_helper.from_array(half, name + _HALF)
        model.graph.initializer[index].CopyFrom(stored)
        casts.append(helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    # The list of tensor shapes would be wrong for the fp16 tensors.
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    result: bytes = model.SerializeToString()
    return result


def _without_sources(model: onnx.ModelProto) -> bytes:
    """Return the model without notes on the origin of each node in Python.

    They contain paths of the machine that exported it, and are a third of the file.
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
