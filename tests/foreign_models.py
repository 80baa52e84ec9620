"""Small ONNX graphs as other programs write them, without a contract."""

from collections.abc import Sequence

import numpy as np


def conv_graph(
    channels: int,
    *,
    names: tuple[str, str] = ("input", "out"),
    sizes: Sequence[int | str] = ("n", 3, "y", "x"),
    stride: int = 1,
    opset: int = 17,
    bias: float = 0.0,
    is_fixed: bool = False,
) -> bytes:
    """Return a graph of one 3 × 3 convolution, whose answers are logits.

    Args:
        channels: Channels of the answer.
        names: Names of the input and of the output.
        sizes: Sizes (n, band, y, x) of the input; a text stands for any.
        stride: Stride of the convolution.
        opset: Version of the operators.
        bias: Value added to every answer.
        is_fixed: Whether it takes one image only, as a constant channel is joined to its answers.
    """
    from onnx import TensorProto, helper, numpy_helper

    bands = sizes[1]
    assert isinstance(bands, int)
    weight = np.random.default_rng(0).normal(size=(channels, bands, 3, 3)).astype(np.float32)
    held = [numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.full(channels, bias, np.float32), "bias")]  # fmt: skip
    conv = helper.make_node(
        "Conv", [names[0], "weight", "bias"], ["conv" if is_fixed else names[1]],
        kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[stride, stride],
    )  # fmt: skip
    nodes = [conv]
    if is_fixed:
        held.append(numpy_helper.from_array(np.zeros((1, 1, *sizes[2:]), np.float32), "more"))
        nodes.append(helper.make_node("Concat", ["conv", "more"], [names[1]], axis=1))
    out = [sizes[0], channels + is_fixed, *(sizes[2:] if stride == 1 else ("h", "w"))]
    graph = helper.make_graph(
        nodes, "conv",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, list(sizes))],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, out)], held,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())
