"""What the benchmarks share: child processes with their peak memory, scenes, the machine.

A benchmark script is a light process that starts the measured ones: what the kernel reports as a
child's peak memory is at least what its parent held when it started it. So nothing heavy is
imported here or at the top of a script, but only in the parts that run as children.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rooftrace.models.bundle import ModelBundle

__all__ = [
    "PART",
    "WORK",
    "ChildFailed",
    "Measured",
    "Part",
    "load_bundle",
    "machine",
    "measure",
    "measure_part",
    "rounded",
    "say",
    "start",
    "warm",
    "write_scene",
]

WORK = Path(__file__).resolve().parents[1] / "work" / "bench"
"""Where scenes and results are kept between runs; git ignores it."""

Part = Callable[..., dict[str, Any]]

PART = "--part"
_PIECE_PX = 2048
_SEEDS = (101, 102, 103, 104)
_VERSIONS = ("rooftrace", "openvino", "torch", "segmentation-models-pytorch", "rasterio", "numpy")


class ChildFailed(Exception):
    """A measured process that did not end well."""

    def __init__(self, command: Sequence[str], code: int, told: str) -> None:
        super().__init__(f"{' '.join(command)} ended with {code}: {told or 'see above'}")
        self.code = code
        self.told = told


@dataclass(frozen=True)
class Measured:
    """One run of one process.

    Args:
        seconds: wall clock, from its start to its end: imports and all.
        peak_rss_mb: the most memory that it held at once, in 10^6 bytes, by the kernel.
        report: the JSON object that it printed.
    """

    seconds: float
    peak_rss_mb: float
    report: dict[str, Any]


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
    return Measured(seconds, _in_mb(usage.ru_maxrss), json.loads(printed))


def measure_part(script: str, name: str, **arguments: Any) -> Measured:
    """Run one part of a benchmark script, in a process of its own."""
    return measure([sys.executable, script, PART, name, json.dumps(arguments)])


def start(main: Callable[[], dict[str, Any]], parts: Mapping[str, Part]) -> None:
    """Run a script, or the part of it that `measure_part` asks for, and print what it answers."""
    if sys.argv[1:2] == [PART]:
        answer = parts[sys.argv[2]](**json.loads(sys.argv[3]))
    else:
        try:
            answer = main()
        except ChildFailed as error:
            raise SystemExit(f"error: {error}") from None
    print(json.dumps(answer, allow_nan=False))


def _in_mb(maxrss: int) -> float:
    # Linux counts in KiB, macOS in bytes.
    return round(maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was before."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _VERSIONS},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def rounded(value: float) -> float:
    """To four significant digits."""
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
    from rooftrace.models.bundle import read_bundle
    from rooftrace.predict.predictor import default_bundle

    return default_bundle() if model is None else read_bundle(Path(model))


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

    from rooftrace.io.atomic import replacing
    from rooftrace.testing import generate_scene

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
