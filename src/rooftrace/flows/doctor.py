"""`rooftrace doctor`: what is installed, what runs, and how fast."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError, RooftraceError
from rooftrace.core.versions import installed, version_of
from rooftrace.engines.kind import EngineKind
from rooftrace.engines.processor import cpu_flags, has_fast_int8
from rooftrace.engines.select import ENGINES, load_engine
from rooftrace.engines.selftest import check_engine, measure_engine, tiny_bundle
from rooftrace.flows.machine import versions
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.predictor import default_bundle

__all__ = ["DoctorReport", "EngineState", "run_doctor"]

_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "train": ("torch", "lightning", "segmentation-models-pytorch", "timm", "onnx", "nncf"),
    "onnx": ("onnxruntime",),
    "export": ("nncf", "onnx", "onnxruntime"),
    "serve": ("fastapi", "gradio", "prometheus-client", "python-multipart", "uvicorn"),
    "video": ("av",),
    "labels": ("pycocotools",),
    "parquet": ("pyarrow",),
}
_CORE = ("numpy", "openvino", "rasterio", "pyogrio", "shapely", "pyproj", "geopandas",
         "opencv-python-headless", "pillow", "pydantic", "typer", "rich")  # fmt: skip
_FLAGS = ("avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16",
          "amx_int8")  # fmt: skip


@dataclass(frozen=True)
class EngineState:
    """One engine after its test.

    Args:
        name: of the engine.
        takes: what it runs, for people.
        available: whether its package is there, and what it runs on.
        runs: whether it answered the self test rightly and ran the model.
        precision: that the default model ran in.
        mpx_per_s: of the default model, or of the tiny one where there is none.
        model: which of the two.
        problem: why it does not run, and what to do; empty where it does, or where there was
            nothing that it could have been tried with.
        required: whether the core install should have it.
    """

    name: str
    takes: str
    available: bool
    runs: bool
    precision: str = ""
    mpx_per_s: float = 0.0
    model: str = ""
    problem: str = ""
    required: bool = False


@dataclass(frozen=True)
class DoctorReport:
    """What was found.

    Args:
        versions: of packages, GDAL, Python and the platform.
        missing: packages of the core install that are not there.
        extras: by name, an empty text where the extra is there, else how to install it.
        cpu_flags: the instruction sets that matter here.
        fast_int8: whether a quantised model is the fastest on this processor.
        default_model: name and fingerprint, or why there is none.
        has_default_model: whether there is one.
        engines: each after its test.
    """

    versions: dict[str, str]
    missing: tuple[str, ...]
    extras: dict[str, str]
    cpu_flags: tuple[str, ...]
    fast_int8: bool
    default_model: str
    has_default_model: bool
    engines: tuple[EngineState, ...]

    @property
    def healthy(self) -> bool:
        """Whether prediction with the core install works here."""
        runs = all(engine.runs for engine in self.engines if engine.required)
        return runs and self.has_default_model and not self.missing

    def to_json(self) -> dict[str, Any]:
        """One object for `--json`."""
        return asdict(self) | {"healthy": self.healthy}

    def rows(self) -> Iterator[tuple[str, str]]:
        """Part and state, for a table."""
        yield from self.versions.items()
        for name in self.missing:
            yield name, "missing: pip install rooftrace"
        for name, remedy in self.extras.items():
            yield f"extra {name}", remedy or "installed"
        yield "processor", ", ".join(self.cpu_flags) or platform.processor() or "unknown"
        yield "int8", "fast" if self.fast_int8 else "not faster than floats here"
        yield "default model", self.default_model
        for engine in self.engines:
            yield f"engine {engine.name}", _state_of(engine)


def run_doctor(*, seconds: float = 1.0) -> DoctorReport:
    """Look at the installation and run each engine for about `seconds`."""
    bundle: ModelBundle | None = None
    try:
        found = bundle = default_bundle()
        told = f"{found.spec.name}, sha256 {found.sha256[:12]}…"
    except BundleError as error:
        told = str(error)
    core = installed(_CORE)
    extras = {}
    for name, packages in _EXTRAS.items():
        absent = [package for package in packages if version_of(package) is None]
        remedy = f"missing {', '.join(absent)}: pip install 'rooftrace[{name}]'"
        extras[name] = remedy if absent else ""
    return DoctorReport(
        versions=core | versions(),
        missing=tuple(name for name in _CORE if name not in core),
        extras=extras,
        cpu_flags=tuple(flag for flag in _FLAGS if flag in cpu_flags()),
        fast_int8=has_fast_int8(),
        default_model=told,
        has_default_model=bundle is not None,
        engines=tuple(_examine(kind, bundle, seconds) for kind in ENGINES.values()),
    )


def _state_of(engine: EngineState) -> str:
    if engine.runs:
        return f"runs, {engine.precision}, {engine.mpx_per_s:.1f} Mpx/s ({engine.model})"
    return engine.problem or f"installed, not tried: it takes {engine.takes}"


def _examine(kind: EngineKind, bundle: ModelBundle | None, seconds: float) -> EngineState:
    tiny = tiny_bundle()
    tested = bundle or tiny
    state = EngineState(
        kind.name, kind.takes, available=False, runs=False, required=kind.name == "openvino"
    )
    try:
        kind.check()
    except (MissingExtraError, ConfigError) as error:
        return replace(state, problem=str(error))
    state = replace(state, available=True)
    if not (kind.offers(tiny) and kind.offers(tested)):
        return state
    try:
        check_engine(load_engine(tiny, engine=kind.name))
        engine = load_engine(tested, engine=kind.name)
        rate = measure_engine(engine, tested.spec, seconds=seconds)
    except (RooftraceError, ImportError, RuntimeError, OSError) as error:
        return replace(state, problem=f"fails: {error}")
    return replace(
        state, runs=True, precision=engine.precision, mpx_per_s=rate, model=tested.spec.name
    )
