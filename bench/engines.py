"""Mpx/s, memory and IoU of each engine and precision, by files of `rooftrace export`.

Every row is a process that loads one engine and runs tiles.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import argument_parser, fastest_s, load_bundle, measure_part, rounded, say, start

if TYPE_CHECKING:
    from rooftrace.engines.base import Engine

BASE = "openvino_fp32"
"""The row that IoU is held against."""

EAGER = "torch_eager"

ROWS: dict[str, tuple[str, str, str]] = {
    EAGER: ("bundle", "torch", "fp32"),
    "torch_fp32": ("bundle", "torch", "fp32"),
    "torch_bf16": ("bundle", "torch", "bf16"),
    "onnxruntime_fp32": ("onnx_fp32", "onnxruntime", "fp32"),
    "onnxruntime_fp16": ("onnx_fp16", "onnxruntime", "fp16"),
    "onnxruntime_int8": ("onnx_int8", "onnxruntime", "int8"),
    BASE: ("onnx_fp32", "openvino", "fp32"),
    "openvino_bf16": ("openvino_bf16", "openvino", "bf16"),
    "openvino_int8": ("openvino_int8", "openvino", "int8"),
    "openvino_int8_onnx": ("onnx_int8", "openvino", "int8"),
    "onnxruntime_cuda_fp32": ("onnx_fp32", "onnxruntime-cuda", "fp32"),
    "onnxruntime_cuda_fp16": ("onnx_fp16", "onnxruntime-cuda", "fp16"),
    "onnxruntime_tensorrt_fp16": ("onnx_fp16", "onnxruntime-tensorrt", "fp16"),
}
"""File, engine and precision of each row."""

ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}


def main() -> dict[str, Any]:
    options = _options()
    say("exporting")
    made = measure_part(
        __file__, "export", work=options.work, model=options.model,
        calibration=options.calibration, rows=options.rows,
    ).report  # fmt: skip
    unavailable = dict(made["unavailable"])
    rows: dict[str, dict[str, Any]] = {}
    for name in options.rows:
        file, engine, precision = ROWS[name]
        if file in unavailable:
            unavailable[name] = unavailable[file]
            continue
        common = {
            "path": made["files"][file], "engine": engine, "precision": precision,
            "eager": name == EAGER,
        }  # fmt: skip
        run = measure_part(
            __file__, "speed", side_px=options.side, batch=options.batch,
            seconds=options.seconds, **common,
        )  # fmt: skip
        if "unavailable" in run.report:
            unavailable[name] = run.report["unavailable"]
            continue
        rows[name] = {
            "file": file,
            "file_mb": round(made["bytes"][file] / 1e6, 1),
            **run.report,
            "peak_rss_mb": run.peak_rss_mb,
        }
        if options.data:
            judged = measure_part(__file__, "judge", data=options.data, **common)
            rows[name]["iou"] = judged.report
        say(f"{name}: {rows[name]['mpx_per_s']} Mpx/s, {run.peak_rss_mb:.0f} MB")
    for row in rows.values():
        if BASE in rows and "iou" in row:
            row["iou_change"] = {
                place: round(value - rows[BASE]["iou"][place], 5)
                for place, value in row["iou"].items()
            }
        if EAGER in rows:
            row["speed_to_eager"] = rounded(row["mpx_per_s"] / rows[EAGER]["mpx_per_s"])
    return {
        "model": made["model"],
        "calibration": made["calibration"],
        "input": {"batch": options.batch, "side_px": options.side},
        "rows": rows,
        "unavailable": {name: why for name, why in unavailable.items() if name in ROWS},
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--data", nargs="+", default=[], help="labelled data; default: no IoU")
    parser.add_argument("--calibration", help="images for int8; default: generated town")
    parser.add_argument("--side", type=int, default=1024, help="of a tile, in pixels")
    parser.add_argument("--batch", type=int, default=1, help="tiles at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="that each row runs")
    options = parser.parse_args()
    if options.side < 32 or options.batch < 1:
        parser.error("--side starts at 32, --batch at 1")
    return options


# What follows runs in processes of its own.


def export(
    *, work: str, model: str | None, calibration: str | None, rows: list[str]
) -> dict[str, Any]:
    """Write the files that rows are run from."""
    from safetensors.torch import save

    from rooftrace.core.errors import ConfigError, MissingExtraError
    from rooftrace.flows.export.run import run_export
    from rooftrace.labels.config import SourceConfig
    from rooftrace.models.bundle import WEIGHTS_NAME, write_bundle
    from town import write_pairs

    bundle = load_bundle(model)
    folder = Path(work) / "engines"
    if calibration is None:
        calibration = str(folder / "town")
        if not Path(calibration).exists():
            write_pairs(Path(calibration), range(401, 409), shape_yx=(1024, 1024))
    data = SourceConfig(path=calibration)
    files, unavailable = {}, {}
    for name in dict.fromkeys(ROWS[row][0] for row in rows):
        if name == "bundle":
            path = folder / "bundle.rooftrace"
            parts = dict(bundle.parts)
            if WEIGHTS_NAME not in parts:
                from plain_loop import restore

                net = restore(bundle)
                parts[WEIGHTS_NAME] = save({k: v.contiguous() for k, v in net.state_dict().items()})
            write_bundle(path, bundle.spec, parts)
            files[name] = path
            continue
        to, _, precision = name.partition("_")
        path = folder / f"{name}{ENDINGS[to]}"
        ready = (to, precision) == ("openvino", "int8") and bool(bundle.spec.variants)
        calibrated = precision == "int8" and not ready
        try:
            # What it loses is a figure of the benchmark.
            run_export(
                None if model is None else Path(model), to, path,  # type: ignore[arg-type]
                precision=precision, tolerance=1.0,  # type: ignore[arg-type]
                calibration=data if calibrated else None, check=None if calibrated else data,
            )  # fmt: skip
        except (ConfigError, MissingExtraError) as error:
            unavailable[name] = error.message
            continue
        files[name] = path
    return {
        "model": {"name": bundle.spec.name, "sha256": bundle.sha256},
        "calibration": Path(calibration).name,
        "files": {name: str(path) for name, path in files.items()},
        "bytes": {
            name: sum(
                path.with_suffix(ending).stat().st_size
                for ending in {path.suffix, ".bin"}
                if path.suffix in (".xml", ending) and path.with_suffix(ending).exists()
            )
            for name, path in files.items()
        },
        "unavailable": unavailable,
    }


def speed(
    *, path: str, engine: str, precision: str, eager: bool, side_px: int, batch: int, seconds: float
) -> dict[str, Any]:
    """Run the same tile again and again; the first run, which compiles, does not count."""
    import numpy as np

    from rooftrace.core.errors import ConfigError, MissingExtraError
    from rooftrace.models.exported import read_model

    try:
        loaded = _loaded(path, engine, precision, eager=eager)
    except (ConfigError, MissingExtraError) as error:
        return {"unavailable": error.message}
    spec = read_model(Path(path)).spec
    # What is in a picture makes no difference to the time, and a town would to the memory.
    pixels = np.random.default_rng(0).integers(0, 255, (batch, len(spec.bands), side_px, side_px))
    pixels = pixels.astype(spec.numpy_dtype)
    loaded.run(pixels)
    best, runs = fastest_s(lambda: loaded.run(pixels), seconds, at_least=3)
    return {
        "engine": "torch, as it comes" if eager else loaded.name,
        "precision": loaded.precision,
        "mpx_per_s": rounded(batch * side_px**2 / 1e6 / best),
        "runs": runs,
    }


def judge(
    *, path: str, engine: str, precision: str, eager: bool, data: list[str]
) -> dict[str, float]:
    """IoU with labels over whole images, as `rooftrace predict` lays its tiles."""
    from rooftrace.flows.evaluate.predictions import of_model
    from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels
    from rooftrace.labels.config import SourceConfig
    from rooftrace.labels.kinds import open_source
    from rooftrace.models.exported import read_model
    from rooftrace.predict.predictor import Predictor

    loaded = _loaded(path, engine, precision, eager=eager)
    model = of_model(Predictor(read_model(Path(path)), loaded), pixels_only=True)
    found = {}
    for place in data:
        source = open_source(SourceConfig(path=place))
        (report,) = compare_with_labels([model], source, EvalOptions(pixels_only=True))
        found[source.name] = round(report.headline(report.pooled), 5)
    return found


def _loaded(path: str, engine: str, precision: str, *, eager: bool) -> Engine:
    from rooftrace.engines.select import load_engine
    from rooftrace.models.exported import read_model

    loaded = load_engine(read_model(Path(path)), engine=engine, precision=precision)
    if eager:
        import torch

        from rooftrace.engines.torch import TorchEngine

        assert isinstance(loaded, TorchEngine)
        # As people write it.
        loaded._net = loaded._net.to(memory_format=torch.contiguous_format)
    return loaded


if __name__ == "__main__":
    start(main, export, speed, judge)
