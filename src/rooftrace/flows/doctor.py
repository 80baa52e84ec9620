"""`rooftrace doctor`: check the installation, and test and measure each engine.

`tiny_bundle` is a model small enough to be part of the source code, which tests an engine.
"""

import hashlib
import re
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np

from rooftrace.core.errors import (
    BundleError,
    ConfigError,
    MissingExtraError,
    PredictError,
    RooftraceError,
)
from rooftrace.core.report import Report
from rooftrace.core.system import installed_versions, version_of, versions
from rooftrace.core.text import reason_of
from rooftrace.engines.base import Engine, EngineKind, engine_processor, this_processor
from rooftrace.engines.select import ENGINES, load_engine
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle, bundled_model
from rooftrace.models.spec import BundlePart, BundleSpec

# ONNX: one 1 × 1 convolution whose weights are 1 / (3 · 255).
_GRAPH = b64decode(
    "CAgSCXJvb2Z0cmFjZTqUAQofCgVpbWFnZQoBdxINcHJvYmFiaWxpdGllcyIEQ29udhIEbWVhbiobCAEIAwgBCAEQAUIB"
    "d0oMAVarOgFWqzoBVqs6WiIKBWltYWdlEhkKFwgBEhMKAxIBbgoCCAMKAxIBeQoDEgF4YioKDXByb2JhYmlsaXRpZXMS"
    "GQoXCAESEwoDEgFuCgIIAQoDEgF5CgMSAXhCBAoAEA0="
)
_TOLERANCE = 0.01
"""Maximum error of a probability in bf16; a defective engine has larger errors."""


def tiny_bundle() -> ModelBundle:
    """Return a model of three bands whose probability is the pixel's brightness: mean / 255."""
    spec = BundleSpec(
        name="brightness",
        bands=("red", "green", "blue"),
        mean=(127.5,) * 3,
        std=(127.5,) * 3,
        classes=("background", "building"),
        input_multiple_px=1,
        context_px=0,
        parts={GRAPH_NAME: BundlePart(sha256=hashlib.sha256(_GRAPH).hexdigest(), size=len(_GRAPH))},
    )
    return ModelBundle(spec, {GRAPH_NAME: _GRAPH}, "the built-in self test", is_trusted=True)


def check_engine(engine: Engine) -> None:
    """Run an engine that was loaded with `tiny_bundle` and compare it with the known output.

    Raises:
        PredictError: the output differs.
    """
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96), dtype=np.uint8)
    expected = image.mean(axis=1, keepdims=True) / 255
    probability = engine.run(image)
    is_shaped = probability.shape == expected.shape
    if not (is_shaped and np.allclose(probability, expected, atol=_TOLERANCE)):
        error = f", maximum error {np.abs(probability - expected).max():.3g}" if is_shaped else ""
        raise PredictError(
            f"The engine {engine.name} in {engine.precision} fails the self test: "
            f"shape {probability.shape}, expected {expected.shape}{error}.",
            remedy="Reinstall the engine's package, or use another one with --engine.",
        )


def measure_engine(engine: Engine, spec: BundleSpec, *, seconds: float = 1.0) -> float:
    """Return millions of pixels per second, measured on noise for about `seconds`."""
    side = spec.side_near(512)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (1, len(spec.bands), side, side)).astype(spec.numpy_dtype)
    # The first run compiles.
    engine.run(image)
    runs, started = 0, time.perf_counter()
    while not runs or (elapsed := time.perf_counter() - started) < seconds:
        engine.run(image)
        runs += 1
    return runs * side * side / 1e6 / elapsed


_EXTRAS = {
    "train": "train, finetune, and the engine torch",
    "pretrained": "weights to start a training from",
    "tune": "train --trials",
    "tracking": "train --track: TensorBoard and MLflow",
    "labels": "COCO data",
    "onnx": "the engine onnxruntime",
    "export": "export in fp16 and int8, and import",
    "serve": "serve: page, map and REST API",
    "video": "video",
    "sam": "outlines and clicks with SAM 2",
    "ray": "predict --cluster",
    "parquet": "GeoParquet, and the layer of a catalogue",
    "points": "heights from point clouds: LAS and LAZ",
    "stac": "results as STAC items",
    "services": "images of map services: WMS and WMTS",
    "mcp": "mcp: tools for assistants",
    "s3": "images and results in object storage",
}
"""Use of each extra of pyproject.toml."""

_CORE = ("numpy", "openvino", "rasterio", "pyogrio", "shapely", "pyproj", "geopandas",
         "opencv-python-headless", "pillow", "pydantic", "typer", "rich")  # fmt: skip
_FLAGS = ("avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16",
          "amx_int8")  # fmt: skip


@dataclass(frozen=True)
class EngineState:
    """Result of the test of one engine.

    Args:
        takes: Description of the models that it runs.
        available: Whether its package and hardware are present.
        runs: Whether it passed the self test and ran the model.
        instruction_set: Instruction set that it used; "" on a GPU.
        mpx_per_s: Millions of pixels per second with the default model, or with the tiny model if
            there is no default model.
        problem: Reason why it does not run and the remedy; empty if it runs or could not be tried.
        required: Whether it is part of the core install.
    """

    name: str
    takes: str
    available: bool
    runs: bool
    precision: str = ""
    instruction_set: str = ""
    mpx_per_s: float = 0.0
    model: str = ""
    problem: str = ""
    required: bool = False


@dataclass(frozen=True)
class DoctorReport(Report):
    """Result of `rooftrace doctor`.

    Args:
        versions: Versions of packages, GDAL, Python and the platform.
        missing: Packages of the core install that are missing.
        extras: Command that installs each extra; empty if it is installed.
        processor: Name of the processor, and the instruction set that OpenVINO and PyTorch use.
        cpu_flags: Instruction sets of the processor that affect speed.
        fast_int8: Whether the processor multiplies bytes faster than floats.
        default_model: Name and hash of the default model, or why there is none.
    """

    versions: dict[str, str]
    missing: tuple[str, ...]
    extras: dict[str, str]
    processor: dict[str, str]
    cpu_flags: tuple[str, ...]
    fast_int8: bool
    default_model: str
    has_default_model: bool
    engines: tuple[EngineState, ...]

    @property
    def healthy(self) -> bool:
        """True if prediction with the core install works on this machine."""
        runs = all(engine.runs for engine in self.engines if engine.required)
        return runs and self.has_default_model and not self.missing

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"healthy": self.healthy}

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the state of each part, for a table."""
        yield from self.versions.items()
        for name in self.missing:
            yield name, "missing: pip install rooftrace"
        for name, remedy in self.extras.items():
            yield f"extra {name}", f"{remedy or 'installed'} ({_EXTRAS[name]})"
        yield "processor", self.processor["name"]
        yield "processor has", ", ".join(self.cpu_flags) or "unknown"
        yield "instruction set", self.processor["instruction_set"]
        yield "int8", "fast: VNNI" if self.fast_int8 else "without instructions of its own"
        yield "default model", self.default_model
        for engine in self.engines:
            yield f"engine {engine.name}", _state_of(engine)


def run_doctor(*, seconds: float = 1.0) -> DoctorReport:
    """Check the installation and run each engine for about `seconds`."""
    bundle: ModelBundle | None = None
    try:
        found = bundle = bundled_model()
        default_model = f"{found.spec.name}, sha256 {found.sha256[:12]}…"
    except BundleError as error:
        default_model = error.in_full
    core, processor = installed_versions(_CORE), this_processor()
    extras = {}
    for name in _EXTRAS:
        absent = [package for package in _packages(name) if version_of(package) is None]
        remedy = f"missing {', '.join(absent)}: pip install 'rooftrace[{name}]'"
        extras[name] = remedy if absent else ""
    return DoctorReport(
        versions=core | versions(),
        missing=tuple(name for name in _CORE if name not in core),
        extras=extras,
        processor={"name": processor.name, "instruction_set": processor.instruction_set},
        cpu_flags=tuple(flag for flag in _FLAGS if flag in processor.flags),
        fast_int8=processor.has_fast_int8,
        default_model=default_model,
        has_default_model=bundle is not None,
        engines=tuple(_examine(kind, bundle, seconds) for kind in ENGINES.values()),
    )


def _packages(extra: str) -> list[str]:
    """Return the packages of an extra that have a build for each system."""
    listed = [one.replace('"', "'") for one in metadata.requires("rooftrace") or ()]
    return [
        re.split(r"[<>=!~;\s]", one)[0] for one in listed if one.endswith(f"; extra == '{extra}'")
    ]


def _state_of(engine: EngineState) -> str:
    if engine.runs:
        used = f", {engine.instruction_set}" if engine.instruction_set else ""
        return f"runs, {engine.precision}{used}, {engine.mpx_per_s:.1f} Mpx/s ({engine.model})"
    return engine.problem or f"installed, not tested: it takes {engine.takes}"


def _examine(kind: EngineKind, bundle: ModelBundle | None, seconds: float) -> EngineState:
    tiny = tiny_bundle()
    tested = bundle or tiny
    state = EngineState(
        kind.name, kind.takes, available=False, runs=False, required=kind.name == "openvino"
    )
    try:
        kind.check()
    except (MissingExtraError, ConfigError) as error:
        return replace(state, problem=error.in_full)
    state = replace(state, available=True)
    if not (kind.offers(tiny) and kind.offers(tested)):
        return state
    try:
        check_engine(load_engine(tiny, engine=kind.name))
        engine = load_engine(tested, engine=kind.name)
        rate = measure_engine(engine, tested.spec, seconds=seconds)
    except (RooftraceError, ImportError, RuntimeError, OSError) as error:
        return replace(state, problem=f"fails: {reason_of(error)}")
    return replace(
        state, runs=True, precision=engine.precision, mpx_per_s=rate, model=tested.spec.name,
        instruction_set=engine_processor(engine)["instruction_set"],
    )  # fmt: skip
