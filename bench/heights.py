"""Heights of buildings: time and memory on 10,000² pixels, beside rasterstats' zonal medians.

`rooftrace` is the whole command: layer, intervals, roof shapes, CityJSON and picture. `rasterstats`
(pip install rasterstats) is `zonal_stats` with the median of the surface and of the terrain, which
people subtract by hand; it runs on --plain-buildings of the same layer. `ground_around` is the
command without a terrain model.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from common import argument_parser, measure_part, measure_rooftrace, rounded, say, start

_TILE = 32
"""Houses along a side of the town that is repeated."""

_PLOT_M = 31.0
_CRS = 32631


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--times", type=int, default=10, help="towns along a side of the scene")
    parser.add_argument("--spread", type=float, default=1, help="leave room for so many towns")
    parser.add_argument("--plain-buildings", type=int, default=5_000)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=options.work))
    try:
        made = measure_part(
            __file__, "scene", folder=folder, times=options.times, spread=options.spread
        )
        say(f"scene: {made.report}")
        layer, surface = folder / "houses.gpkg", ("--surface", folder / "surface.tif")
        rows: dict[str, Any] = {}
        for name, extra in (
            ("rooftrace", ("--terrain", folder / "terrain.tif")),
            ("ground_around", ()),
        ):
            run = measure_rooftrace("heights", layer, *surface, *extra, "-o", folder / name)
            rows[name] = {
                "seconds": rounded(run.seconds),
                "cpu_s": rounded(run.cpu_s),
                "peak_rss_mb": run.peak_rss_mb,
                "measured": run.report["measured"],
                "ms_per_building": rounded(run.seconds / run.report["buildings"] * 1e3),
            }
            say(f"{name}: {rows[name]}")
        plain = measure_part(__file__, "plain", folder=folder, count=options.plain_buildings)
        rows["rasterstats"] = plain.row
    finally:
        shutil.rmtree(folder)
    slow = rows["rasterstats"]["ms_per_building"]
    return {
        "scene": made.report,
        "rows": rows,
        "ratios": {
            f"rasterstats/{name} ms per building": rounded(slow / rows[name]["ms_per_building"])
            for name in ("rooftrace", "ground_around")
        },
    }


# The following functions run in child processes.


def scene(folder: str, times: int, spread: float) -> dict[str, Any]:
    """Write a layer, a surface and a terrain of repeated towns, with gaps where spread is > 1."""
    import geopandas as gpd
    import numpy as np
    import rasterio
    import shapely
    from affine import Affine

    from town.roofs import make_roof_town

    town = make_roof_town(
        _TILE**2, pixel_m=1.0, slope=0.02, plot_m=_PLOT_M, touching=True, trees=400
    )
    side = town.surface.shape[0]
    size = round(side * times * spread)
    starts = [round(number * side * spread) for number in range(times)]
    profile = {
        "driver": "GTiff", "height": size, "width": size, "count": 1, "dtype": "float32",
        "crs": _CRS, "transform": Affine(1, 0, 0, 0, -1, size), "tiled": True,
        "compress": "deflate", "predictor": 3, "nodata": -9999, "sparse_ok": True,
        "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    steps = [(row, col) for row in starts for col in starts]
    for name in ("surface", "terrain"):
        data = np.round(getattr(town, name), 2)
        with rasterio.open(Path(folder) / f"{name}.tif", "w", **profile) as file:
            for row, col in steps:
                window = rasterio.windows.Window(col, row, side, side)
                file.write(data, 1, window=window)
    outlines = [
        shapely.transform(town.outlines, partial(np.add, np.array([col, size - row - side])))
        for row, col in steps
    ]
    layer = gpd.GeoDataFrame(geometry=np.concatenate(outlines), crs=_CRS)
    layer.to_file(Path(folder) / "houses.gpkg")
    return {"size_px": size, "buildings": len(layer)}


def plain(folder: str, count: int) -> dict[str, Any]:
    """Measure the medians of surface and terrain inside the first outlines by rasterstats."""
    import geopandas as gpd
    from rasterstats import zonal_stats

    layer = gpd.read_file(Path(folder) / "houses.gpkg", rows=count)
    started = time.perf_counter()
    for name in ("surface", "terrain"):
        zonal_stats(layer.geometry, str(Path(folder) / f"{name}.tif"), stats=["median"])
    seconds = time.perf_counter() - started
    return {
        "buildings": len(layer),
        "seconds": rounded(seconds),
        "ms_per_building": rounded(seconds / len(layer) * 1e3),
    }


if __name__ == "__main__":
    start(main, scene, plain)
