"""Prediction of ever larger scenes: memory, and time for each pixel.

The scenes are sparse GeoTIFFs: a generated town stands in one corner of every cell (5120 pixels),
and the rest is nodata that is not stored.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from common import (
    argument_parser,
    load_bundle,
    measure_part,
    measure_rooftrace,
    rounded,
    say,
    start,
    write_scene,
)


def main() -> dict[str, Any]:
    options = _options()
    rows = {}
    for side in options.sizes:
        made = measure_part(
            __file__, "make", folder=options.work, side=side, cell=options.cell,
            model=options.model,
        )  # fmt: skip
        scene = Path(made.report["scene"])
        rows[str(side)] = _row(scene, side, options)
        say(f"{side}: {rows[str(side)]}")
        if options.clean:
            scene.unlink()
    first = rows[str(options.sizes[0])]
    compared = {
        "memory": "peak_rss_mb", "rate": "data_mpx_per_s", "work": "cpu_ms_per_data_mpx"
    }  # fmt: skip
    return {"rows": rows} | {
        f"{name}_of_the_first": {
            side: rounded(row[figure] / first[figure]) for side, row in rows.items()
        }
        for name, figure in compared.items()
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_480, 40_960, 81_920, 102_400])
    parser.add_argument("--cell", type=int, default=5120, help="from town to town, in pixels")
    parser.add_argument("--engine", help="see `rooftrace predict`")
    parser.add_argument("--precision", help="see `rooftrace predict`")
    parser.add_argument("--clean", action="store_true", help="remove the scenes afterwards")
    options = parser.parse_args()
    if any(side < options.cell for side in options.sizes) or options.cell < 128:
        parser.error("a cell of 128 pixels or more, and no scene smaller than one")
    return options


def _row(scene: Path, side: int, options: argparse.Namespace) -> dict[str, float]:
    out = options.work / "out" / "scale"
    # An earlier run in this folder must not be resumed.
    shutil.rmtree(out, ignore_errors=True)
    given = {"--engine": options.engine, "--precision": options.precision}
    chosen = [part for name, value in given.items() if value for part in (name, value)]
    done = measure_rooftrace("predict", scene, "-o", out, *chosen, model=options.model)
    shutil.rmtree(out)
    (output,) = done.report["outputs"]
    data_mpx = (side // options.cell) ** 2 * (options.cell // 2) ** 2 / 1e6
    return {
        "seconds": rounded(done.seconds),
        # Without the start of the process, which all sizes have in common.
        "seconds_inside": rounded(output["seconds"]),
        "cpu_seconds": rounded(done.cpu_s),
        "scene_mpx": rounded(side * side / 1e6),
        "data_mpx": rounded(data_mpx),
        "data_mpx_per_s": rounded(data_mpx / output["seconds"]),
        "cpu_ms_per_data_mpx": rounded(done.cpu_s * 1e3 / data_mpx),
        "peak_rss_mb": rounded(done.peak_rss_mb),
        "buildings": output["buildings"],
    }


# What follows runs in a process of its own.


def make(*, folder: str, side: int, cell: int, model: str | None) -> dict[str, Any]:
    """A scene of towns far apart; kept between runs."""
    gsd_m = load_bundle(model).spec.gsd_m or 0.4
    return {"scene": str(_sparse_scene(Path(folder), side, cell, gsd_m))}


def _sparse_scene(folder: Path, side: int, cell_px: int, gsd_m: float) -> Path:
    import rasterio
    from rasterio.windows import Window

    town_px = cell_px // 2
    path = folder / f"sparse_{side}px_by_{cell_px}_{gsd_m:g}m.tif"
    if path.exists():
        return path
    with rasterio.open(write_scene(folder, town_px, gsd_m, "jpeg")) as source:
        town, profile = source.read(), source.profile
    town = town.clip(1, 255)  # what is black would be nodata
    partial = path.with_suffix(".partial.tif")
    with rasterio.open(
        partial, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", nodata=0,
        crs=profile["crs"], transform=profile["transform"], tiled=True, blockxsize=512,
        blockysize=512, compress="zstd", sparse_ok=True, bigtiff="yes",
    ) as target:  # fmt: skip
        for row in range(0, side - cell_px + 1, cell_px):
            for col in range(0, side - cell_px + 1, cell_px):
                target.write(town, window=Window(col, row, town_px, town_px))
    partial.rename(path)
    return path


if __name__ == "__main__":
    start(main, make)
