"""Heights of buildings: time and memory on 10,000² pixels, beside rasterstats' zonal medians.

`rooftrace` is the whole command: layer, intervals, roof shapes, CityJSON and picture. `rasterstats`
(pip install rasterstats) is `zonal_stats` with the median of the surface and of the terrain, which
people subtract by hand; it runs on --plain-buildings of the same layer. `ground_around` is the
command without a terrain model. With --data, the accuracy on public sets is measured instead,
beside the same medians.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from common import argument_parser, cpu_s, measure_part, measure_rooftrace, rounded, say, start

_TILE = 32
"""Houses along a side of the town that is repeated."""

_PLOT_M = 31.0
_CRS = 32631

_DELFT, _ROTTERDAM = "delft_ahn3/buildings.gpkg", "rotterdam_west/buildings.gpkg"
_GRIDS = ("dsm_from_laz_05m.tif", "dtm_from_laz_05m.tif")
_AROUND = "-ground_ring_p50"
_SETS = (
    ("Delft, points", _DELFT, ("*.laz",), "roof_p99" + _AROUND, "height"),
    ("Delft, 0.5 m and terrain", _DELFT, _GRIDS, "roof_p99" + _AROUND, "height"),
    ("Delft, 0.5 m, ground around", _DELFT, _GRIDS[:1], "roof_p99" + _AROUND, "height"),
    ("Delft, 0.5 m and terrain", _DELFT, _GRIDS, "roof_p90" + _AROUND, "height"),
    ("Rotterdam, 1 m and terrain", _ROTTERDAM, ("dsm.tif", "dtm.tif"), "ref_hmax", "height"),
    ("Rotterdam, 1 m, ground around", _ROTTERDAM, ("dsm.tif",), "ref_hmax", "height"),
    ("Rotterdam, median", _ROTTERDAM, ("dsm.tif", "dtm.tif"), "ref_h70", "height_median"),
    ("Montpellier, 0.5 m and terrain", "ign_montpellier/footprints_derived_class6.gpkg", _GRIDS,
     "h_p90", "height"),
    ("Bresse, 0.5 m and terrain", "ign_bresse/buildings_bduni.gpkg", _GRIDS,
     "roof_p90" + _AROUND, "height"),
)  # fmt: skip
"""Name, layer, surface and terrain (or points), columns of the reference, and of ours."""


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--times", type=int, default=10, help="towns along a side of the scene")
    parser.add_argument("--spread", type=float, default=1, help="leave room for so many towns")
    parser.add_argument("--plain-buildings", type=int, default=5_000)
    parser.add_argument("--data", type=Path, help="folder of public sets: measure accuracy")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.data is not None:
        return measure_part(__file__, "accuracy", data=options.data, work=options.work).report
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
                "cpu_ms_per_building": rounded(run.cpu_s / run.report["buildings"] * 1e3),
            }
            say(f"{name}: {rows[name]}")
        plain = measure_part(__file__, "plain", folder=folder, count=options.plain_buildings)
        rows["rasterstats"] = plain.row
    finally:
        shutil.rmtree(folder)
    slow = rows["rasterstats"]["cpu_ms_per_building"]
    return {
        "scene": made.report,
        "rows": rows,
        "ratios": {
            f"rasterstats/{name}, processor time": rounded(slow / rows[name]["cpu_ms_per_building"])
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
    started, cpu = time.perf_counter(), cpu_s()
    for name in ("surface", "terrain"):
        zonal_stats(layer.geometry, str(Path(folder) / f"{name}.tif"), stats=["median"])
    seconds = time.perf_counter() - started
    return {
        "buildings": len(layer),
        "seconds": rounded(seconds),
        "cpu_ms_per_building": rounded((cpu_s() - cpu) / len(layer) * 1e3),
    }


def accuracy(data: str, work: str) -> dict[str, Any]:
    """Measure the public sets, beside the medians of surface minus terrain by rasterstats."""
    import geopandas as gpd
    import numpy as np
    from rasterstats import zonal_stats

    from rooftrace.flows.heights import HeightOptions, run_heights

    rows = []
    for name, layer, sources, reference, column in _SETS:
        path = Path(data) / layer
        files = [str(file) for source in sources for file in sorted(path.parent.glob(source))]
        points = tuple(map(Path, files)) if sources[0].endswith("laz") else ()
        options = (
            HeightOptions((), (), points)
            if points
            else HeightOptions(tuple(files[:1]), tuple(files[1:]))
        )
        with tempfile.TemporaryDirectory(dir=work) as out:
            run_heights(path, Path(out), options)
            found = gpd.read_file(next(Path(out).glob("*.gpkg")), layer=0)
        found = found[found["inside"] == 1] if "inside" in found else found
        known = found[found[column].notna()]
        truth = known.eval(reference)
        row = {"set": name, "reference": reference, "buildings": len(known)}
        row |= _errors(known[column] - truth)
        inside = (known.height_low <= truth) & (truth <= known.height_high)
        row["inside"] = rounded(inside.mean())
        if len(files) == 2 and not points:
            levels = [
                [one["median"] for one in zonal_stats(found.geometry, file, stats=["median"])]
                for file in files
            ]
            plain = np.subtract(*np.array(levels, np.float64)) - found.eval(reference)
            row["rasterstats"] = _errors(plain[np.isfinite(plain)])
        rows.append(row)
        say(str(row))
    return {"rows": rows}


def _errors(error: Any) -> dict[str, float]:
    away = abs(error)
    return {
        "rmse_m": rounded(float((error**2).mean() ** 0.5)),
        "mae_m": rounded(float(away.mean())),
        "within_1_m": rounded(float((away < 1).mean())),
    }


if __name__ == "__main__":
    start(main, scene, plain, accuracy)
