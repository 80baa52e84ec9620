"""Helpers of all benchmarks: child processes with their peak memory, scenes, the machine.

A benchmark script is a light process that starts the measured ones: what the kernel reports as a
child's peak memory is at least what its parent held when it started it. So nothing heavy is
imported here or at the top of a script, but only in the parts that run as children.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))  # the generated town

if TYPE_CHECKING:
    from rooftrace.models.bundle import ModelBundle

__all__ = [
    "PART",
    "RECIPE",
    "WORK",
    "ChildFailed",
    "Measured",
    "Part",
    "argument_parser",
    "by_turns",
    "cpu_s",
    "fastest_s",
    "load_bundle",
    "measure",
    "measure_part",
    "measure_rooftrace",
    "peak_mb",
    "rounded",
    "say",
    "start",
    "warm",
    "write_scene",
]

WORK = Path(__file__).resolve().parents[1] / "work" / "bench"
"""Folder of scenes and results between runs; git ignores it."""

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "mobilenetv2.toml"

Part = Callable[..., dict[str, Any]]

PART = "--part"
_PIECE_PX = 2048
_SEEDS = (101, 102, 103, 104)
_VERSIONS = ("rooftrace", "openvino", "torch", "segmentation-models-pytorch", "rasterio", "numpy")


class ChildFailed(Exception):
    """A measured process that did not end well."""

    def __init__(self, command: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"{' '.join(command)} ended with {code}: {output or 'see above'}")
        self.code = code
        self.output = output


@dataclass(frozen=True)
class Measured:
    """One run of one process.

    Args:
        seconds: Wall-clock time from start to end, including imports.
        cpu_s: Processor time of the process and of the children that it waited for.
        peak_rss_mb: Peak memory in 10^6 bytes, as the kernel reports it.
        report: JSON object that the process printed.
    """

    seconds: float
    cpu_s: float
    peak_rss_mb: float
    report: dict[str, Any]

    @property
    def row(self) -> dict[str, Any]:
        """The report with the peak memory."""
        return {**self.report, "peak_rss_mb": self.peak_rss_mb}


def argument_parser(doc: str | None, *, model: bool = False) -> argparse.ArgumentParser:
    """Return a parser with `--work`, and with `--model` if the benchmark runs a bundle."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--work", type=Path, default=WORK, help="folder of scenes and results")
    if model:
        parser.add_argument("--model", help="a .rooftrace file; default: the bundled model")
    return parser


def measure(command: Sequence[str]) -> Measured:
    """Run a command that prints one JSON object, in a process of its own.

    Raises:
        ChildFailed: it ended with an error.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as stream:
        printed = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise ChildFailed(command, process.returncode, printed.strip())
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(seconds, cpu, peak_mb(usage), json.loads(printed))


def measure_part(script: str, name: str, **arguments: Any) -> Measured:
    """Run one part of a benchmark script in a process of its own; paths become strings."""
    return measure([sys.executable, script, PART, name, json.dumps(arguments, default=str)])


def measure_rooftrace(*arguments: str | Path, model: str | None = None) -> Measured:
    """Run a command of rooftrace with `--json`, by default with the bundled model."""
    chosen = ["-m", model] if model else []
    return measure([sys.executable, "-m", "rooftrace", *map(str, arguments), "--json", *chosen])


def by_turns(
    rows: Iterable[str], repeats: int, run: Callable[[str], dict[str, Any]], *figures: str
) -> dict[str, list[dict[str, Any]]]:
    """Run every row once a round, so that what disturbs the machine disturbs all rows.

    Args:
        rows: Names of the rows.
        repeats: Number of rounds.
        run: Function that measures a row.
        figures: Keys of the figures that are shown as progress.
    """
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    for turn in range(repeats):
        for name, found in runs.items():
            found.append(run(name))
            shown = ", ".join(f"{figure} {found[-1][figure]:,.4g}" for figure in figures)
            say(f"{turn + 1}/{repeats} {name}: {shown}")
    return runs


def fastest_s(work: Callable[[], object], seconds: float, at_least: int = 1) -> tuple[float, int]:
    """Return the seconds of the fastest call, and the number of calls that fit into `seconds`."""
    best, runs, started = float("inf"), 0, time.perf_counter()
    while runs < at_least or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - before)
        runs += 1
    return best, runs


def start(main: Callable[[], dict[str, Any]], *parts: Part) -> None:
    """Run a script, or the part of it that `measure_part` asks for, and print what it answers.

    The answer of a script begins with its name and with the machine before it ran.
    """
    if sys.argv[1:2] == [PART]:
        by_name = {part.__name__: part for part in parts}
        answer = by_name[sys.argv[2]](**json.loads(sys.argv[3]))
    else:
        answer = {"benchmark": Path(sys.argv[0]).stem, "machine": _machine()}
        try:
            answer |= main()
        except ChildFailed as error:
            raise SystemExit(f"error: {error}") from None
    print(json.dumps(answer, allow_nan=False))


def peak_mb(usage: resource.struct_rusage) -> float:
    """Return the peak memory in 10^6 bytes."""
    # Linux counts in KiB, macOS in bytes.
    return round(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def _machine() -> dict[str, Any]:
    """Return the machine on which the figures are measured, and its load before."""
    from rooftrace.engines.base import this_processor

    processor = this_processor()
    return {
        "cpu": processor.name,
        "instruction_set": processor.instruction_set,
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _VERSIONS},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def rounded(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}")


def cpu_s() -> float:
    """Processor time of all threads of this process so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def say(text: str) -> None:
    """A line for the person, beside the JSON."""
    print(text, file=sys.stderr, flush=True)


def warm(path: Path) -> None:
    """Read a file once, so that every run finds it in the page cache."""
    with path.open("rb") as stream:
        while stream.read(1 << 20):
            pass


def load_bundle(model: str | None) -> ModelBundle:
    """The bundle of a path, or the one that comes with rooftrace."""
    from rooftrace.models.bundle import bundled_model, read_bundle

    return bundled_model() if model is None else read_bundle(Path(model))


def write_scene(folder: Path, size_px: int, gsd_m: float, compress: str) -> Path:
    """A square RGB GeoTIFF of generated town, unless it is there already.

    A few scenes are generated and laid side by side, each time turned another way.

    Args:
        folder: for the file, whose name says what it is.
        size_px: its side.
        gsd_m: metres per pixel.
        compress: `deflate` or `jpeg`.
    """
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    from rooftrace.io.files import replacing
    from town import generate_scene

    path = folder / f"scene_{size_px}px_{gsd_m:g}m_{compress}.tif"
    if path.exists():
        return path
    piece_px = min(_PIECE_PX, size_px)
    pieces = [generate_scene(seed, (piece_px, piece_px), gsd_m) for seed in _SEEDS]
    options = (
        {"compress": "jpeg", "photometric": "ycbcr", "jpeg_quality": 90}
        if compress == "jpeg"
        else {"compress": "deflate", "predictor": 2}
    )
    grid = pieces[0].grid
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 3, "height": size_px, "width": size_px,
        "crs": grid.crs.to_wkt() if grid.crs else None, "transform": grid.transform,
        "tiled": True, "blockxsize": 512, "blockysize": 512, **options,
    }  # fmt: skip
    with replacing(path) as partial, rasterio.open(partial, "w", **profile) as target:
        for down, row in enumerate(range(0, size_px, piece_px)):
            for along, col in enumerate(range(0, size_px, piece_px)):
                piece = pieces[(3 * down + along) % len(pieces)].image
                turned = np.rot90(piece, down + along, axes=(1, 2))
                height, width = min(piece_px, size_px - row), min(piece_px, size_px - col)
                target.write(
                    turned[:, :height, :width], window=Window(col, row, width, height)
                )  # fmt: skip
    return path
