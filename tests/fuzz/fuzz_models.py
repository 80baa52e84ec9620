"""Readers of models under attack: bundles, the graphs in them, and variants for an engine."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutate import mutate, mutate_bytes, mutate_json, zipped
from fuzz_target import Files, Target, check, json_bytes

__all__ = ["TARGETS"]

BRIGHT = {"mean": [127.5] * 3, "std": [127.5] * 3}


def _models(variants: bool) -> Files:
    """Return the parts of a model of two convolutions, and optionally OpenVINO's form of it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "scale": np.full((1,), 1 / 255, np.float32),
        "first": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "second": rng.normal(size=(1, 4, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "scale"], ["s"]),
        helper.make_node("Conv", ["s", "first"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "second"], ["d"], kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["d"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, "y", "x"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 1, "y", "x"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    parts = {"model.onnx": model.SerializeToString()}
    if variants:
        from rooftrace.flows.export.convert import _openvino

        xml, binary = _openvino(parts["model.onnx"], half=False)
        parts |= {"variants/model.xml": xml, "variants/model.bin": binary}
    return parts


def _bundled(parts: Mapping[str, bytes], spec: Mapping[str, Any]) -> bytes:
    hashed = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in parts.items()
    }
    return zipped({"bundle.json": json_bytes({**spec, "parts": hashed}), **parts})


def make_bundle(variants: bool = False) -> tuple[Files, Files]:
    parts = _models(variants)
    spec: dict[str, Any] = {
        "name": "tiny", "bands": ["red", "green", "blue"], "gsd_m": 0.4, **BRIGHT,
        "classes": ["background", "building"], "input_multiple_px": 1, "context_px": 0,
        "metrics": [{"data": "d", "split": "val", "protocol": "p", "values": {"iou": 0.5}}],
    }  # fmt: skip
    if variants:
        files = ["variants/model.xml", "variants/model.bin"]
        parity = {"max": 0.0}
        spec["variants"] = [
            {"engine": "openvino", "precision": "int8", "files": files, "parity": parity}
        ]
    return {"a.rooftrace": _bundled(parts, spec)}, {}


def _opened(data: bytes) -> tuple[dict[str, Any], Files]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(files.pop("bundle.json")), files


def _mutate_bundle(rng: np.random.Generator, name: str, data: bytes, others: list[bytes]) -> bytes:
    """Mutate the zip, or its description with the hashes made right again."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, data, others)
    spec, parts = _opened(data)
    if rng.random() < 0.7:
        spec.pop("parts")
        try:
            return _bundled(parts, json.loads(mutate_json(rng, json_bytes(spec))))
        except (ValueError, TypeError, RecursionError):
            pass
    return zipped({"bundle.json": mutate_json(rng, json_bytes(spec)), **parts})


def _mutate_part(rng: np.random.Generator, name: str, data: bytes, others: list[bytes]) -> bytes:
    """Mutate one part of a bundle, with its hash made right; weights also become not finite."""
    spec, parts = _opened(data)
    chosen = list(parts)[int(rng.integers(0 if len(parts) == 1 else 1, len(parts)))]
    part = parts[chosen]
    if chosen.endswith(".onnx") and rng.random() < 0.5:
        part = _mutate_graph(rng, part)
    elif rng.random() < 0.2:
        # Four bytes in the second half lie mostly in the weights.
        at = int(rng.integers(len(part) // 2, max(len(part) - 4, len(part) // 2 + 1)))
        part = part[:at] + struct.pack("<f", rng.choice([np.nan, np.inf, 3e38])) + part[at + 4 :]
    else:
        part = mutate(rng, chosen, part, list(parts.values()))
    spec.pop("parts")
    return _bundled({**parts, chosen: part}, spec)


OPERATORS = ("Conv", "Add", "Loop", "If", "Identity", "Log", "Sqrt", "Reciprocal", "Resize", "Tile",
             "", "X" * 300)  # fmt: skip
"""Operators that replace others in a graph."""


def _mutate_graph(rng: np.random.Generator, data: bytes) -> bytes:
    """Change a node, a shape or the weights of an ONNX graph that stays well-formed."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(data)
    graph = model.graph
    for _ in range(int(rng.integers(1, 4))):
        way = int(rng.integers(0, 6))
        node = graph.node[int(rng.integers(0, len(graph.node)))]
        if way == 0:
            index = int(rng.integers(0, len(graph.initializer)))
            try:
                value = numpy_helper.to_array(graph.initializer[index]).copy()
            except ValueError:
                # An earlier change gave it another shape.
                continue
            value.flat[int(rng.integers(0, value.size))] = rng.choice([np.nan, np.inf, -3e38, 3e38])
            new = numpy_helper.from_array(value, graph.initializer[index].name)
            graph.initializer[index].CopyFrom(new)
        elif way == 1:
            node.op_type = str(rng.choice(OPERATORS))
        elif way == 2 and node.attribute:
            attribute = node.attribute[int(rng.integers(0, len(node.attribute)))]
            attribute.i = int(rng.choice([0, -1, 1, 3, 2**31, 2**62]))
            for at in range(len(attribute.ints)):
                if rng.random() < 0.5:
                    attribute.ints[at] = int(rng.choice([0, -1, 1, 2, 1000, 2**31, 2**62]))
        elif way == 3 and node.input:
            node.input[int(rng.integers(0, len(node.input)))] = str(
                rng.choice(["image", "f", "s", "c", "r", "d", "probabilities", "", "scale"])
            )
        elif way == 4:
            tensor = graph.initializer[int(rng.integers(0, len(graph.initializer)))]
            tensor.dims[int(rng.integers(0, len(tensor.dims)))] = int(
                rng.choice([0, -1, 1, 7, 2**31, 2**62])
            )
        else:
            value = [*graph.input, *graph.output][int(rng.integers(0, 2))]
            dims = value.type.tensor_type.shape.dim
            if dims:
                dims[int(rng.integers(0, len(dims)))].dim_value = int(
                    rng.choice([0, 1, 2, 3, 64, 2**40])
                )
    made: bytes = model.SerializeToString()
    return made


def _read_bundle(
    path: Path, engines: tuple[str, ...] = ("openvino",), precision: str | None = None
) -> None:
    from rooftrace.engines.select import load_engine
    from rooftrace.io.sources import ArraySource
    from rooftrace.models.bundle import read_bundle
    from rooftrace.predict.plan import SceneOptions
    from rooftrace.predict.predictor import Predictor

    bundle = read_bundle(path)
    with zipfile.ZipFile(path) as archive:
        for name, data in bundle.parts.items():
            check(archive.read(name) == data, "a part is not that of the zip")
    pixels = np.random.default_rng(0).integers(0, 256, (len(bundle.spec.bands), 64, 64))
    image = ArraySource(pixels.astype(bundle.spec.numpy_dtype))
    options = SceneOptions(gsd_m=bundle.spec.gsd_m or 1.0, forgiving=True)
    for name in engines:
        engine = load_engine(bundle, engine=name, precision=precision)
        raw: list[bool] = []
        run = engine.run

        def watched(batch: Any, run: Any = run, raw: list[bool] = raw) -> Any:
            answer = run(batch)
            raw.append(bool(np.isfinite(answer).all()))
            return answer

        engine.run = watched  # type: ignore[method-assign]
        Predictor(bundle, engine).predict(image, options=options)
        check(all(raw), "a prediction was made of answers that are not finite")


def _read_graph(path: Path) -> None:
    _read_bundle(path, ("openvino", "onnxruntime"))


def _read_variant(path: Path) -> None:
    _read_bundle(path, precision="int8")


TARGETS = (
    Target("bundle", make_bundle, _read_bundle, _mutate_bundle),
    Target("onnx", make_bundle, _read_graph, _mutate_part),
    Target("openvino", lambda: make_bundle(variants=True), _read_variant, _mutate_part),
)
