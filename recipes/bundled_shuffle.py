"""Move the sigmoid of a sub-pixel model before the pixel shuffle, as exports have it since.

    python recipes/bundled_shuffle.py default OUT.rooftrace

edits the graph and its int8 variant in place: nothing is quantised again, and of the bundle nothing
else changes. The answers are the same, since a sigmoid is by pixel; rounded to bytes before the
shuffle, they are computed before the output is laid out in full size.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import openvino
from onnx import helper
from openvino import opset13

from rooftrace.models.bundle import GRAPH_NAME, write_bundle
from rooftrace.models.exported import read_model


def edited_onnx(graph: bytes) -> bytes:
    model = onnx.load_from_string(graph)
    shuffles = [node for node in model.graph.node if node.op_type == "DepthToSpace"]
    (output,) = model.graph.output
    made = [
        helper.make_node("Concat", [one.input[0] for one in shuffles], ["joined"], axis=1),
        helper.make_node("Sigmoid", ["joined"], ["unshuffled"]),
        helper.make_node("DepthToSpace", ["unshuffled"], [output.name]),
    ]
    made[-1].attribute.extend(shuffles[0].attribute)
    needed, kept = set(made[0].input), made[::-1]
    for node in reversed(model.graph.node):
        if needed & {*node.output}:
            kept.append(node)
            needed.update(node.input)
    weights = [one for one in model.graph.initializer if one.name in needed]
    for field, values in ((model.graph.node, kept[::-1]), (model.graph.initializer, weights)):
        del field[:]
        field.extend(values)
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def edited_ir(xml: bytes, weights: bytes) -> tuple[bytes, bytes]:
    model = openvino.Core().read_model(xml, openvino.Tensor(np.frombuffer(weights, np.uint8)))
    shuffles = [one for one in model.get_ordered_ops() if one.get_type_name() == "DepthToSpace"]
    joined = opset13.concat([one.input_value(0) for one in shuffles], 1)
    size = shuffles[0].get_attributes()["block_size"]
    made = opset13.depth_to_space(opset13.sigmoid(joined), "depth_first", size)
    made.output(0).get_tensor().set_names(model.output(0).get_names())
    model.get_results()[0].input(0).replace_source_output(made.output(0))
    with TemporaryDirectory() as folder:
        paths = Path(folder, "graph.xml"), Path(folder, "graph.bin")
        openvino.serialize(model, *paths)
        return paths[0].read_bytes(), paths[1].read_bytes()


def main() -> None:
    model, out = map(Path, sys.argv[1:3])
    bundle = read_model(model)
    parts = {**bundle.parts, GRAPH_NAME: edited_onnx(bundle.part(GRAPH_NAME))}
    for variant in bundle.spec.variants:
        parts |= zip(variant.files, edited_ir(*map(bundle.part, variant.files)))
    write_bundle(out, bundle.spec, parts)


if __name__ == "__main__":
    main()
