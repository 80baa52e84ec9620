"""The reader of bundles under attack: the zip, and its description with right hashes."""

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutate import mutate_bytes, mutate_json, zipped
from fuzz_target import Files, Target, check, json_bytes

from tiny_models import write_tiny_bundle


def _bundled(parts: Mapping[str, bytes], spec: Mapping[str, Any]) -> bytes:
    hashed = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in parts.items()
    }
    return zipped({"bundle.json": json_bytes({**spec, "parts": hashed}), **parts})


def _bundles() -> tuple[Files, Files]:
    with tempfile.TemporaryDirectory() as folder:
        path = write_tiny_bundle(Path(folder, "a.rooftrace"))
        return {path.name: path.read_bytes()}, {}


def _opened(data: bytes) -> tuple[dict[str, Any], Files]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(files.pop("bundle.json")), files


def _mutate_bundle(rng: np.random.Generator, name: str, data: bytes, others: list[bytes]) -> bytes:
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


def _read_bundle(path: Path) -> None:
    from rooftrace.engines.select import load_engine
    from rooftrace.io.georeferenced import ArraySource
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
    Predictor(bundle, load_engine(bundle, engine="onnxruntime")).predict(image, options=options)


TARGETS = (Target("bundle", _bundles, _read_bundle, _mutate_bundle),)
