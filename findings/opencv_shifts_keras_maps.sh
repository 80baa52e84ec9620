#!/usr/bin/env bash
# OpenCV 5 moves the map of a network in the manner of Keras by a pixel at each of its levels.
#
# Guess before the run: a convolution of stride 2 with auto_pad SAME_UPPER, which is how Keras' and
# TensorFlow's padding="same" stands in ONNX, gives in OpenCV what it gives in onnxruntime.
# Seen: it pads 3 x 3 windows by a pixel on all sides, whatever the stride and the size; of an even
# size SAME_UPPER pads below and to the right alone. An encoder of five levels has its house 31
# pixels to the lower right, and one of max pooling 32. OpenCV 4.14 has these right, and moves
# SAME_LOWER by as much the other way. A size of 513 is right in both, as are stride 1 and explicit
# pads.
# There is no message, and the shapes are those that one expects.
# Versions: opencv-python-headless 5.0.0.93 and 4.14.0.94, onnx 1.23.2, onnxruntime 1.32.0. Source:
# getPadding in modules/dnn/src/layers/conv2_common.cpp of OpenCV 5 (ksize / 2 on both sides).
# Hurt: who runs a U-Net with an encoder of Keras, such as EfficientNet or MobileNet, by OpenCV, and
# who goes from OpenCV 4 to 5: deep levels lie beside shallow ones, and outlines beside the walls.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for cv in 5.0.0.93 4.14.0.94; do
    python3 -m venv "$cv"
    "$cv"/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 \
        opencv-python-headless=="$cv" numpy==2.2.6
done
cat > shift.py <<'PYTHON'
import cv2
import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper

LEVELS = 5


def encoder(kind, padding, size):
    """Halve the image at each level and enlarge the last map to the size of the image again."""
    nodes, name = [], "image"
    for level in range(LEVELS):
        inputs = [name, "smooth"] if kind == "Conv" else [name]
        name = f"level{level}"
        nodes.append(
            helper.make_node(
                kind, inputs, [name], kernel_shape=[3, 3], strides=[2, 2], auto_pad=padding
            )
        )
    nodes.append(
        helper.make_node(
            "Resize",
            [name, "", "scales"],
            ["map"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    )
    smooth = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32)[None, None] / 16
    scales = np.array([1, 1, 2**LEVELS, 2**LEVELS], np.float32)
    weights = {"scales": scales} | ({"smooth": smooth} if kind == "Conv" else {})
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, size, size])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()


def centre(values):
    """Return the mean column and row of the map, weighted by its values."""
    _, _, height, width = values.shape
    plane = values[0, 0]
    column, row = plane.sum(0) @ np.arange(width), plane.sum(1) @ np.arange(height)
    return np.array([column, row]) / plane.sum()


def moved(kind, padding, size):
    image = np.zeros((1, 1, size, size), np.float32)
    image[..., 200:296, 200:296] = 1
    model = encoder(kind, padding, size)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (right,) = session.run(None, {"image": image})
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
    net.setInput(image)
    seen = net.forward()
    assert seen.shape == right.shape
    columns, rows = np.round(centre(seen) - centre(right), 2)
    assert columns == rows
    return float(columns)


print("OpenCV", cv2.__version__)
shifts = {
    (kind, padding, size): moved(kind, padding, size)
    for kind in ("Conv", "MaxPool")
    for padding in ("SAME_UPPER", "SAME_LOWER")
    for size in (512, 513)
}
for case, shift in shifts.items():
    print(*case, "moved by", shift, "pixels")
wrong, sign = {"5": ("SAME_UPPER", 1), "4": ("SAME_LOWER", -1)}[cv2.__version__[0]]
assert shifts == {
    (kind, padding, size): sign * pixels if (padding, size) == (wrong, 512) else 0
    for kind, pixels in (("Conv", 31), ("MaxPool", 32))
    for padding in ("SAME_UPPER", "SAME_LOWER")
    for size in (512, 513)
}
PYTHON
5.0.0.93/bin/python shift.py
4.14.0.94/bin/python shift.py
