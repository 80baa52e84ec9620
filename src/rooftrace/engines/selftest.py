"""A model so small that it is part of the source, to see whether an engine computes."""

from __future__ import annotations

import hashlib
import time
from base64 import b64decode

import numpy as np

from rooftrace.core.errors import PredictError
from rooftrace.engines.base import Engine
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.spec import BundleSpec, Part

__all__ = ["check_engine", "measure_engine", "tiny_bundle"]

# ONNX: one 1 × 1 convolution whose weights are 1 / (3 · 255).
_GRAPH = b64decode(
    "CAgSCXJvb2Z0cmFjZTqUAQofCgVpbWFnZQoBdxINcHJvYmFiaWxpdGllcyIEQ29udhIEbWVhbiobCAEIAwgBCAEQAUIB"
    "d0oMAVarOgFWqzoBVqs6WiIKBWltYWdlEhkKFwgBEhMKAxIBbgoCCAMKAxIBeQoDEgF4YioKDXByb2JhYmlsaXRpZXMS"
    "GQoXCAESEwoDEgFuCgIIAQoDEgF5CgMSAXhCBAoAEA0="
)
_TOLERANCE = 0.01
"""What bf16 may be off; a wrong engine is off by more."""


def tiny_bundle() -> ModelBundle:
    """A model of three bands whose probability is the pixel's brightness, their mean over 255."""
    spec = BundleSpec(
        name="brightness",
        bands=("red", "green", "blue"),
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
        classes=("background", "building"),
        input_multiple_px=1,
        context_px=0,
        parts={GRAPH_NAME: Part(sha256=hashlib.sha256(_GRAPH).hexdigest(), size=len(_GRAPH))},
    )
    return ModelBundle(spec, {GRAPH_NAME: _GRAPH}, "the built-in self test")


def check_engine(engine: Engine) -> None:
    """Run an engine that was loaded with `tiny_bundle` and compare with the known answer.

    Raises:
        PredictError: it answers something else.
    """
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96), dtype=np.uint8)
    expected = image.mean(axis=1, keepdims=True) / 255
    answer = engine.run(image)
    if answer.shape != expected.shape or not np.allclose(answer, expected, atol=_TOLERANCE):
        raise PredictError(
            f"The engine {engine.name} in {engine.precision} answers the self test wrongly: "
            f"shape {answer.shape}, expected {expected.shape}"
            + (
                f", off by up to {np.abs(answer - expected).max():.3g}."
                if answer.shape == expected.shape
                else "."
            ),
            remedy="Reinstall the engine's package, or use another one with --engine.",
        )


def measure_engine(engine: Engine, spec: BundleSpec, *, seconds: float = 1.0) -> float:
    """Millions of pixels per second, measured for about a second on noise."""
    side = spec.input_px or -(-512 // spec.input_multiple_px) * spec.input_multiple_px
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (1, len(spec.bands), side, side)).astype(spec.numpy_dtype)
    # The first run compiles.
    engine.run(image)
    runs, started = 0, time.perf_counter()
    while not runs or (elapsed := time.perf_counter() - started) < seconds:
        engine.run(image)
        runs += 1
    return runs * side * side / 1e6 / elapsed
