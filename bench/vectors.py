"""Cost of each stage from mask to vector file, and rate and memory compared with GeoPandas."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import ChildFailed, argument_parser, measure_part, rounded, say, start

if TYPE_CHECKING:
    from rooftrace.core.types import Footprints

SUFFIXES = (".gpkg", ".geojson", ".fgb", ".parquet", ".shp")
MASKS = ("town", "noise")
CHUNK = 20_000


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--buildings", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", default=list(SUFFIXES), choices=SUFFIXES)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"buildings": options.buildings}
    folder = Path(tempfile.mkdtemp(dir=options.work))
    try:
        given = {"count": options.buildings, "folder": folder}
        report["stages"] = {
            kind: measure_part(__file__, "stages", kind=kind).report for kind in MASKS
        }
        report["formats"] = {suffix: _format(suffix, given) for suffix in options.formats}
        report["assemble"] = measure_part(__file__, "assemble", **given).row
    finally:
        shutil.rmtree(folder)
    return report


def _format(suffix: str, given: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    rate = {}
    for row in ("ours", "geopandas"):
        try:
            run = measure_part(__file__, row, suffix=suffix, **given)
        except ChildFailed as error:
            say(f"{suffix} {row}: {error}")
            answer[row] = {"failed": str(error)}
            continue
        rate[row] = given["count"] / run.report["seconds"]
        answer[row] = {
            "seconds": rounded(run.report["seconds"]),
            "buildings_per_s": rounded(rate[row]),
            "peak_rss_mb": run.peak_rss_mb,
            "file_mb": run.report["file_mb"],
        }
        say(f"{suffix} {row}: {answer[row]}")
    if len(rate) == 2:
        answer["ours/geopandas"] = {
            "speed": rounded(rate["ours"] / rate["geopandas"]),
            "memory": rounded(answer["ours"]["peak_rss_mb"] / answer["geopandas"]["peak_rss_mb"]),
        }
    return answer


def buildings(count: int) -> Iterator[Footprints]:
    """Houses of eight corners, each turned another way, row by row."""
    import numpy as np
    import shapely
    from pyproj import CRS

    from rooftrace.core.types import Footprints

    outline = np.array(
        [[0, 0], [12, 0], [12, 8], [7, 8], [7, 12], [4, 12], [4, 10], [0, 10]], float
    )
    across = int(np.sqrt(count))
    rng = np.random.default_rng(0)
    for first in range(0, count, CHUNK):
        number = np.arange(first, min(first + CHUNK, count))
        angle, share, size = rng.random((3, len(number)))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corner = np.stack([500_000 + number % across * 30, 5e6 - number // across * 30], axis=1)
        vertices = np.einsum("ijn,kj->nki", turn, outline) + corner[:, None]
        yield Footprints(
            np.asarray(shapely.polygons(vertices), np.object_), share.astype(np.float32),
            100 * size, CRS(32633), perimeter_m=40 * size, orientation_deg=180 * angle,
            rectangularity=share,
        )  # fmt: skip


def ours(count: int, folder: str, suffix: str) -> dict[str, Any]:
    from rooftrace.io.vector_write import write_footprints

    path = Path(folder) / f"ours{suffix}"
    making = 0.0

    def chunks() -> Iterator[Footprints]:
        nonlocal making
        made = buildings(count)
        while True:
            began = time.perf_counter()
            chunk = next(made, None)
            making += time.perf_counter() - began
            if chunk is None:
                return
            yield chunk

    started = time.perf_counter()
    write_footprints(path, chunks())
    # To make the buildings is no part of writing them.
    return _written(path, time.perf_counter() - started - making)


def geopandas(count: int, folder: str, suffix: str) -> dict[str, Any]:
    from rooftrace.core.types import Footprints

    path = Path(folder) / f"geopandas{suffix}"
    table = Footprints.joined(list(buildings(count))).to_geodataframe()
    started = time.perf_counter()
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        # A Shapefile has no room for the names of three columns.
        table.rename(columns=lambda name: name[:10]).to_file(path)
    return _written(path, time.perf_counter() - started)


def _written(path: Path, seconds: float) -> dict[str, Any]:
    made = list(path.parent.glob(f"{path.stem}.*"))
    size = sum(file.stat().st_size for file in made) / 1e6
    for file in made:
        file.unlink()
    return {"seconds": seconds, "file_mb": rounded(size)}


def stages(kind: str) -> dict[str, Any]:
    """Processor time of each stage, all regions at once: of a dense town, or of blurred noise."""
    import cv2
    import numpy as np
    import shapely

    from rooftrace.vector.footprints import make_footprints
    from rooftrace.vector.prepare import VectorOptions
    from rooftrace.vector.regularize import regularize
    from rooftrace.vector.resolve_overlaps import resolve_overlaps
    from rooftrace.vector.trace import trace
    from rooftrace.vector.watershed import WatershedOptions, separate_by_watershed
    from town import generate_scene

    shape = (2048, 2048)
    scene = generate_scene(101, shape, 0.35)
    mask = scene.mask()
    if kind == "noise":
        wave = np.random.default_rng(0).standard_normal(shape, np.float32)
        smooth = cv2.GaussianBlur(wave, (0, 0), 1.2)
        mask = (smooth > 0.9 * smooth.std()).astype(np.uint8)
    score = np.full(shape, 200, np.uint8)
    options, seconds = VectorOptions(), {}
    # What runs for the first time loads what it needs.
    for _ in range(2):
        clock = [time.process_time()]

        def lap(clock: list[float] = clock) -> float:
            clock.append(time.process_time())
            return clock[-1] - clock[-2]

        traced = trace(mask, prob=score)
        traced = traced.of(traced.area_px >= options.min_area_px)
        seconds["trace"] = lap()
        cut = separate_by_watershed(traced, WatershedOptions())
        seconds["separate"] = lap()
        regular = regularize(cut.polygons, options.simplify_px)
        seconds["regularize"] = lap()
        settled = resolve_overlaps(cut.polygons, regular.polygons)
        seconds["resolve overlaps"] = lap()
        made = make_footprints(settled, cut.score, scene.grid)
        seconds["make_footprints"] = lap()
        shapely.to_wkb(made.geometry)
        seconds["wkb"] = lap()
    mpx, total = mask.size / 1e6, sum(seconds.values())
    return {
        "buildings_per_mpx": rounded(len(made) / mpx),
        "cpu_s_per_mpx": {stage: rounded(spent / mpx) for stage, spent in seconds.items()},
        "cpu_s_per_mpx_together": rounded(total / mpx),
        "cpu_s_per_1000": rounded(1000 * total / max(len(made), 1)),
    }


def assemble(count: int, folder: str) -> dict[str, Any]:
    """Assemble footprints from the blocks of a mask: a generated town, tile beside tile."""
    import numpy as np

    from rooftrace.core.types import GeoGrid, Window
    from rooftrace.vector.assemble import FootprintAssembler
    from rooftrace.vector.prepare import VectorOptions
    from rooftrace.vector.watershed import WatershedOptions
    from town import generate_scene

    side = 2048
    scene = generate_scene(101, (side, side), 0.3)
    mask = scene.mask()
    score = np.full(mask.shape, 200, np.uint8)
    tiles = max(1, round((count / max(len(scene.buildings), 1)) ** 0.5))
    grid = GeoGrid((side * tiles, side * tiles), scene.grid.transform, scene.grid.crs)
    options = VectorOptions(watershed=WatershedOptions())
    started, spent = time.perf_counter(), time.process_time()
    with FootprintAssembler(grid, [1], 1, options, folder=Path(folder)) as assembler:
        for row in range(tiles):
            for col in range(tiles):
                window = Window(row * side, col * side, side, side)
                assembler.feed(window, mask, score, [0, 1])
        fed = time.perf_counter()
        found = assembler.finish()
    with found:
        finished = time.perf_counter()
        made = sum(len(chunk) for chunk in found.chunks(CHUNK))
        done = time.perf_counter()
    seconds = done - started
    return {
        "buildings": made,
        "mpx": grid.height * grid.width / 1e6,
        "mpx_per_s": rounded(grid.height * grid.width / 1e6 / seconds),
        "buildings_per_s": rounded(made / seconds),
        "seconds": {
            "feed": rounded(fed - started),
            "finish": rounded(finished - fed),
            "chunks": rounded(done - finished),
        },
        "cpu_s": rounded(time.process_time() - spent),
        "regularized": rounded(found.regularized / max(found.considered, 1)),
    }


if __name__ == "__main__":
    start(main, ours, geopandas, stages, assemble)
