"""A catalogue of scenes on one process and on workers of a cluster; a part of bench/cluster.py.

Measured are whole scenes by each worker, until the buildings of all scenes are one layer.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from common import (
    argument_parser,
    by_turns,
    measure_part,
    measure_rooftrace,
    rounded,
    start,
    write_scene,
)

_OVERLAP = 0.1


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--scene-side", type=int, default=5000)
    return measured(parser.parse_args())


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Runs of a catalogue in turns."""
    folder = options.work / "cluster_catalogue"
    measure_part(
        __file__, "tiles", folder=folder, work=options.work, scenes=options.scenes,
        side=options.scene_side,
    )  # fmt: skip
    out = options.work / "cluster_out"
    workers_of = {"alone": 0} | {f"workers_{count}": count for count in options.workers}
    runs = by_turns(
        workers_of, options.repeat, lambda row: _run(folder, out, workers_of[row]), "mpx_per_s"
    )
    best = {name: max(made, key=lambda row: row["mpx_per_s"]) for name, made in runs.items()}
    one = best[f"workers_{options.workers[0]}"]
    answer = {
        "scenes": options.scenes,
        "scene_mpx": rounded(options.scene_side**2 / 1e6),
        **best,
    }
    for workers in options.workers[1:]:
        gain = best[f"workers_{workers}"]["mpx_per_s"] / one["mpx_per_s"]
        answer[f"efficiency_{workers}"] = rounded(gain / workers)
    shutil.rmtree(out, ignore_errors=True)
    return answer


def _run(folder: Path, out: Path, workers: int) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    cluster = ["--cluster", "ray", "--workers", str(workers)] if workers else []
    made = measure_rooftrace("catalogue", folder, "-o", out, *cluster)
    return {
        "mpx_per_s": rounded(made.report["mpx_per_s"]),
        "seconds": rounded(made.seconds),
        "driver_peak_mb": made.peak_rss_mb,
        "buildings": made.report["buildings"],
        "found": made.report["found"],
    }


def tiles(*, folder: str, work: str, scenes: int, side: int) -> dict[str, Any]:
    """Write copies of one town, each a bit further east."""
    import rasterio
    from affine import Affine

    town = write_scene(Path(work), side, 0.3, "deflate")
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(parents=True)
    for number in range(scenes):
        path = Path(folder) / f"{number:03d}.tif"
        shutil.copyfile(town, path)
        with rasterio.open(path, "r+") as image:
            image.transform @= Affine.translation(number * side * (1 - _OVERLAP), 0)
    return {}


if __name__ == "__main__":
    start(main, tiles)
