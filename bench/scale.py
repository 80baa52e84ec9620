"""Prediction of ever larger scenes: memory, and time for each pixel.

    python bench/scale.py                 # see bench/README.md

Prints one JSON object. The scenes are sparse GeoTIFFs: a generated town stands in one corner of
every cell of 5120 pixels, the rest is nodata and not even stored.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from common import WORK, load_bundle, machine, measure, rounded, say, start, write_scene

CELL_PX, TOWN_PX = 5120, 2560


def main() -> dict[str, Any]:
    options = _options()
    before = machine()
    gsd_m = load_bundle(options.model).spec.gsd_m or 0.4
    rows = {}
    for side in options.sizes:
        scene = sparse_scene(options.work, side, gsd_m)
        command = [sys.executable, "-m", "rooftrace", "predict", str(scene),
                   "-o", str(options.work / f"out_{side}"), "--json"]  # fmt: skip
        if options.model is not None:
            command += ["-m", options.model]
        done = measure(command)
        (output,) = done.report["outputs"]
        towns_px = max(side // CELL_PX, 1) ** 2 * TOWN_PX**2
        rows[str(side)] = {
            "seconds": rounded(done.seconds),
            "scene_mpx": rounded(side * side / 1e6),
            "data_mpx": rounded(towns_px / 1e6),
            "data_mpx_per_s": rounded(towns_px / 1e6 / done.seconds),
            "peak_rss_mb": rounded(done.peak_rss_mb),
            "buildings": output["buildings"],
        }
        say(f"{side}: {rows[str(side)]}")
    first = rows[str(options.sizes[0])]
    return {
        "benchmark": "scale",
        "machine": before,
        "rows": rows,
        "memory_of_the_first": {
            side: rounded(row["peak_rss_mb"] / first["peak_rss_mb"]) for side, row in rows.items()
        },
        "rate_of_the_first": {
            side: rounded(row["data_mpx_per_s"] / first["data_mpx_per_s"])
            for side, row in rows.items()
        },
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_480, 40_960, 81_920, 102_400])
    parser.add_argument("--model")
    parser.add_argument("--work", type=Path, default=WORK)
    return parser.parse_args()


def sparse_scene(folder: Path, side: int, gsd_m: float) -> Path:
    """A scene of towns far apart; kept between runs."""
    import rasterio
    from rasterio.windows import Window

    path = folder / f"sparse_{side}px.tif"
    if path.exists():
        return path
    with rasterio.open(write_scene(folder, TOWN_PX, gsd_m, "jpeg")) as source:
        town, profile = source.read(), source.profile
    town = town.clip(1, 255)
    partial = path.with_suffix(".partial.tif")
    with rasterio.open(
        partial, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", nodata=0,
        crs=profile["crs"], transform=profile["transform"], tiled=True, blockxsize=512,
        blockysize=512, compress="zstd", sparse_ok=True, bigtiff="yes",
    ) as target:  # fmt: skip
        for row in range(0, max(side - CELL_PX + 1, 1), CELL_PX):
            for col in range(0, max(side - CELL_PX + 1, 1), CELL_PX):
                target.write(town, window=Window(col, row, TOWN_PX, TOWN_PX))
    partial.rename(path)
    return path


if __name__ == "__main__":
    start(main, {})
