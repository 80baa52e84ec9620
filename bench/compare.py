"""Two layers of buildings compared: time and memory, and a plain loop with geopandas.overlay."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import argument_parser, measure_part, measure_rooftrace, rounded, say, start

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SPACING_M = 18.0
_CRS = 32633
_CHUNK = 50_000


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--buildings", type=int, default=1_000_000, help="of each layer")
    parser.add_argument("--plain-buildings", type=int, default=100_000, help="of the plain loop")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=options.work))
    rows: dict[str, Any] = {}
    try:
        for count in sorted({options.plain_buildings, options.buildings}):
            say(f"{count:,} buildings against {count:,}")
            measure_part(__file__, "layers", count=count, folder=folder)
            files = [folder / f"{name}_{count}.parquet" for name in ("new", "old")]
            run = measure_rooftrace("compare", *files, "-o", folder / "out")
            rows[f"command_{count}"] = {
                "seconds": rounded(run.seconds),
                "cpu_s": rounded(run.cpu_s),
                "peak_rss_mb": run.peak_rss_mb,
                "statuses": {
                    name: [row["new"], row["old"]] for name, row in run.report["statuses"].items()
                },
            }
            for part in ("ours", "plain"):
                if part == "ours" or count == options.plain_buildings:
                    run = measure_part(__file__, part, count=count, folder=folder)
                    rows[f"{part}_{count}"] = run.row
                    say(f"{part}: {run.row}")
    finally:
        shutil.rmtree(folder)
    ours, plain = (rows[f"{part}_{options.plain_buildings}"] for part in ("ours", "plain"))
    return {
        "rows": rows,
        "ratios": {
            "plain/ours seconds": rounded(plain["seconds"] / ours["seconds"]),
            "ours/plain memory": rounded(ours["peak_rss_mb"] / plain["peak_rss_mb"]),
        },
    }


# The following functions run in child processes.


def layers(count: int, folder: str) -> dict[str, Any]:
    """Write two layers of rectangles with true changes of every kind, in chunks."""
    import numpy as np
    from pyproj import CRS

    from rooftrace.io.vector_write import write_layer
    from rooftrace.io.vector_writers import LayerChunk, LayerSettings

    for name in ("new", "old"):
        parts = (
            LayerChunk(_houses(first, min(first + _CHUNK, count), count, name), {})
            for first in range(0, count, _CHUNK)
        )
        numbered = (
            LayerChunk(part.geometry, {"id": np.arange(len(part.geometry)) + place * _CHUNK})
            for place, part in enumerate(parts)
        )
        path = Path(folder) / f"{name}_{count}.parquet"
        write_layer(path, LayerSettings(CRS.from_epsg(_CRS)), numbered)
    return {}


def _houses(first: int, last: int, count: int, side: str) -> NDArray[np.object_]:
    """Return houses of a layer: of 20, one each is new, moved, smaller, divided and gone."""
    import numpy as np
    import shapely

    number = np.arange(first, last)
    rng = np.random.default_rng([0, first])
    columns = int(np.ceil(np.sqrt(count)))
    corner = np.stack([5e5 + number % columns * _SPACING_M, 5e6 + number // columns * _SPACING_M])
    low = corner + rng.uniform(0, 3, corner.shape)
    size = rng.uniform(6, 10, corner.shape)
    noise = rng.normal(0, 0.25, (4, len(number)))
    box = np.concatenate([low, low + size])
    if side == "old":
        return np.asarray(shapely.box(*box[:, number % 20 != 0]), np.object_)
    kind = number % 20
    box += noise
    box[[0, 2]] += np.where(kind == 1, 5.0, 0.0)
    box[2] -= np.where(kind == 2, 0.45 * (box[2] - box[0]), 0.0)
    middle = (box[0] + box[2]) / 2
    first_half, second_half = box[:, kind == 3].copy(), box[:, kind == 3].copy()
    first_half[2], second_half[0] = middle[kind == 3], middle[kind == 3]
    whole = box[:, (kind != 3) & (kind != 4)]
    made = np.concatenate([whole, first_half, second_half], axis=1)
    return np.asarray(shapely.box(*made), np.object_)


def ours(count: int, folder: str) -> dict[str, Any]:
    """Measure the matching alone, from polygons in memory to statuses."""
    import os

    from rooftrace.vector.compare import compare_layers
    from rooftrace.vector.match import PackedPolygons

    new, old = (PackedPolygons.of(_read(folder, name, count)) for name in ("new", "old"))
    started = time.perf_counter()
    found = compare_layers(new, old, workers=os.cpu_count() or 1)
    return {"seconds": rounded(time.perf_counter() - started), "matched": found.matched}


def plain(count: int, folder: str) -> dict[str, Any]:
    """Measure a loop as people write it: overlay, IoU, and the best pairs one after the other."""
    import geopandas as gpd

    frames = []
    for name in ("new", "old"):
        frame = gpd.GeoDataFrame(geometry=_read(folder, name, count), crs=_CRS)
        frame[f"{name}_index"] = frame.index
        frame[f"{name}_area"] = frame.area
        frames.append(frame)
    started = time.perf_counter()
    pairs = gpd.overlay(frames[0], frames[1], how="intersection", keep_geom_type=True)
    common = pairs.area
    pairs["iou"] = common / (pairs.new_area + pairs.old_area - common)
    pairs = pairs[pairs.iou >= 0.5].sort_values("iou", ascending=False)
    taken_new, taken_old, matched = set(), set(), 0
    for row in pairs.itertuples():
        if row.new_index not in taken_new and row.old_index not in taken_old:
            taken_new.add(row.new_index)
            taken_old.add(row.old_index)
            matched += 1
    return {"seconds": rounded(time.perf_counter() - started), "matched": matched}


def _read(folder: str, name: str, count: int) -> NDArray[np.object_]:
    from rooftrace.io.vector_read import VectorFile

    return VectorFile(Path(folder) / f"{name}_{count}.parquet").read().geometry


if __name__ == "__main__":
    start(main, layers, ours, plain)
