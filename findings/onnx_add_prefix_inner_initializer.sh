#!/usr/bin/env bash
# onnx.compose.add_prefix leaves the initializers that an inner graph reads under their old names.
#
# Guess before the run: with its defaults add_prefix renames every value consistently, so a valid
# model stays valid.
# Seen: values of the outer graph are renamed inside the branches of If, but initializers are not
# ("w" beside "a_m"); the result fails onnx.checker. With rename_initializers=False it passes.
# Versions: onnx 1.23.2, Python 3.11. Source: onnx/compose.py, add_prefix_graph.
# Hurt: who merges two exported models (pre- or post-processing) of which one has a condition: merge
# fails, or two weights of one name are taken for one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2
venv/bin/python - <<'PYTHON'
import onnx
from onnx import TensorProto, compose, helper, numpy_helper
import numpy as np

value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
then = helper.make_graph([helper.make_node("Add", ["m", "w"], ["t"])], "then", [], [value("t")])
other = helper.make_graph([helper.make_node("Neg", ["m"], ["e"])], "other", [], [value("e")])
nodes = [
    helper.make_node("Relu", ["x"], ["m"]),
    helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
]
condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
weights = [numpy_helper.from_array(np.ones(1, np.float32), "w")]
graph = helper.make_graph(nodes, "g", [condition, value("x")], [value("y")], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
onnx.checker.check_model(model, full_check=True)

prefixed = compose.add_prefix(model, "a_")
inner = [list(node.input) for a in prefixed.graph.node[1].attribute for node in a.g.node]
print("inner graphs read", inner, "and the initializer is", prefixed.graph.initializer[0].name)
assert ["a_m", "w"] in inner and prefixed.graph.initializer[0].name == "a_w"
try:
    onnx.checker.check_model(prefixed, full_check=True)
except onnx.checker.ValidationError as error:
    print("invalid:", str(error).splitlines()[0])
else:
    raise SystemExit("the model is valid: this finding has changed")
onnx.checker.check_model(compose.add_prefix(model, "a_", rename_initializers=False))
PYTHON
