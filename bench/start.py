"""Start: processor time, wall time and memory of commands that do little."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import ChildFailed, argument_parser, by_turns, measure_part, peak_mb, rounded, start

_TILE_PX = 256
_GSD_M = 0.3
_SEED = 401
_ROOFTRACE = ("-m", "rooftrace")


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=10, help="number of rounds over all rows")
    options = parser.parse_args()
    folder = options.work / "start"
    tile = folder / "tile.png"
    if not tile.exists():
        measure_part(__file__, "make", tile=tile)
    commands = {
        "python": ("-c", "pass"),
        "numpy": ("-c", "import numpy"),
        "import": ("-c", "import rooftrace"),
        "load": ("-c", "from rooftrace import load"),
        "version": (*_ROOFTRACE, "--version"),
        "help": (*_ROOFTRACE, "--help"),
        "tile": (*_ROOFTRACE, "predict", tile, "--gsd", str(_GSD_M), "-o", folder / "out"),
    }
    runs = by_turns(
        commands, options.repeats, lambda name: _run(*map(str, commands[name])), "cpu_s"
    )
    return {
        "tile_px": _TILE_PX,
        "rows": {
            name: {figure: rounded(min(run[figure] for run in found)) for figure in found[0]}
            for name, found in runs.items()
        },
    }


def _run(*arguments: str) -> dict[str, float]:
    """Run Python with the arguments of a row, in a process of its own."""
    command = [sys.executable, *arguments]
    # Without compiled modules, each start would compile all of them.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise ChildFailed(command, process.returncode, "")
    cpu = usage.ru_utime + usage.ru_stime
    return {"cpu_s": cpu, "seconds": seconds, "peak_rss_mb": peak_mb(usage)}


def make(tile: str) -> dict[str, Any]:
    """Write the tile, as a PNG without a georeference."""
    import numpy as np
    from PIL import Image

    from town import generate_scene

    image = generate_scene(_SEED, (_TILE_PX, _TILE_PX), _GSD_M).image
    Path(tile).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.moveaxis(image, 0, -1)).save(tile)
    return {"tile": tile}


if __name__ == "__main__":
    start(main, make)
