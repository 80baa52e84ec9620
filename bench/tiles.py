"""A folder of small tiles: `rooftrace predict` against its network alone on the same tiles.

    python bench/tiles.py                    # 60,000 PNG of 224 x 224; see bench/README.md
    python bench/tiles.py --tiles 6000

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import (
    WORK,
    Measured,
    load_bundle,
    machine,
    measure,
    measure_part,
    rounded,
    say,
    start,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rooftrace.engines.base import Engine

    Run = Callable[[NDArray[Any]], NDArray[Any]]

OUTPUTS = {"mask": ["--outputs", "mask"], "all": []}
ROWS = ("engine", *OUTPUTS, "rle")
_TILE_PX = 224
_DISTINCT = 300
_GSD_M = 0.3
_SEEDS = (301, 302, 303)
_AT_MOST = 6000
"""Tiles for the network alone, whose rate does not depend on how many there are."""

_IN_STEPS = 500
_BATCHES = (1, 4, 8, 16, 32)


def main() -> dict[str, Any]:
    options = _options()
    before = machine()
    folder = options.work / f"tiles_{options.tiles}_{_TILE_PX}px"
    if not folder.exists():
        say(f"making {options.tiles} tiles")
        measure_part(__file__, "make", folder=str(folder), tiles=options.tiles)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.rows}
    for turn in range(options.repeats):
        for name in options.rows:
            run = _run(name, folder, options)
            runs[name].append(run)
            say(f"{turn + 1}/{options.repeats} {name}: {run['tiles_per_s']:.0f} tiles/s")
    rows = {name: max(of, key=lambda run: run["tiles_per_s"]) for name, of in runs.items()}
    done = measure_part(__file__, "steps", folder=str(folder), model=options.model).report
    if options.clean:
        shutil.rmtree(folder)
    return {
        "benchmark": "tiles",
        "machine": before,
        "tiles": {"count": options.tiles, "side_px": _TILE_PX},
        "rows": rows,
        "ratios": _ratios(rows),
        **done,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=60_000)
    parser.add_argument("--model", help="a .rooftrace file; default: the bundled model")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--repeats", type=int, default=1, help="rows take turns, so many times")
    parser.add_argument("--clean", action="store_true", help="remove the tiles afterwards")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for tiles and results")
    options = parser.parse_args()
    if options.tiles < 1 or options.repeats < 1:
        parser.error("at least one tile and one repeat")
    return options


def _run(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    arguments = {"folder": str(folder), "model": options.model, "tiles": options.tiles}
    if name == "engine":
        done = measure_part(__file__, "engine", **arguments)
        return {**done.report, "peak_rss_mb": rounded(done.peak_rss_mb)}
    out = options.work / "out" / "tiles"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        # Its answer names every tile: whoever reads it here would be large when it starts others.
        return measure_part(__file__, "command", row=name, out=str(out), **arguments).report
    finally:
        shutil.rmtree(out)


def _ratios(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Which part of the network's own rate each row reaches."""
    engine = rows.get("engine")
    return {} if engine is None else {
        f"{name}/engine": {
            "speed": rounded(row["tiles_per_s"] / engine["tiles_per_s"]),
            "speed_with_start": rounded(row["tiles_per_s_with_start"] / engine["tiles_per_s"]),
            "by_cpu": rounded(engine["cpu_ms_per_tile"] / row["cpu_ms_per_tile"]),
        }
        for name, row in rows.items()
        if name != "engine"
    }  # fmt: skip


# What follows runs in processes of its own.


def make(*, folder: str, tiles: int) -> dict[str, Any]:
    """Tiles cut at random out of generated towns; each of some hundred has many names."""
    import cv2
    import numpy as np

    from rooftrace.testing import generate_scene

    # Named at the end, so that what is half made is made anew.
    partial = Path(folder + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    side_px = 4 * _TILE_PX
    towns = [generate_scene(seed, (side_px, side_px), _GSD_M).image[::-1] for seed in _SEEDS]
    generator = np.random.default_rng(0)
    for number in range(tiles):
        path = partial / f"{number:06d}.png"
        if number >= _DISTINCT:
            os.link(partial / f"{number % _DISTINCT:06d}.png", path)
            continue
        row, col = generator.integers(0, side_px - _TILE_PX, 2)
        tile = towns[number % len(towns)][:, row : row + _TILE_PX, col : col + _TILE_PX]
        cv2.imwrite(str(path), np.ascontiguousarray(tile.transpose(1, 2, 0)))
    partial.rename(folder)
    return {}


def command(*, row: str, out: str, folder: str, model: str | None, tiles: int) -> dict[str, Any]:
    """`rooftrace predict` on the folder, and on one tile for what a start takes."""

    def predict(image: Path, out: Path) -> tuple[Measured, float]:
        wanted = ["--rle", f"{out}.csv"] if row == "rle" else ["-o", str(out), *OUTPUTS[row]]
        line = [sys.executable, "-m", "rooftrace", "predict", str(image), *wanted, "--json"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = measure(line if model is None else [*line, "-m", model])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    _, cpu_of_start = predict(min(Path(folder).iterdir()), Path(out, "one"))
    done, cpu = predict(Path(folder), Path(out, "all"))
    if row == "rle":
        rate = done.report["images_per_s"]
    else:
        rate = done.report["mpx_per_s"] * 1e6 / _TILE_PX**2
    return {
        "tiles_per_s": rounded(rate),
        "tiles_per_s_with_start": rounded(tiles / done.seconds),
        "mpx_per_s": rounded(rate * _TILE_PX**2 / 1e6),
        "cpu_ms_per_tile": rounded((cpu - cpu_of_start) * 1e3 / tiles),
        "peak_rss_mb": rounded(done.peak_rss_mb),
    }


def engine(*, folder: str, model: str | None, tiles: int) -> dict[str, Any]:
    """The network alone, in the batches that predict makes, and in others by turns."""
    from rooftrace.engines.select import load_engine
    from rooftrace.predict.stream import BATCH_PX

    run = _runner(load_engine(load_bundle(model)))
    batch = max(1, BATCH_PX // _TILE_PX**2)
    pixels = _pixels(folder, max(batch, *_BATCHES))
    count = min(tiles, _AT_MOST)
    seconds, cpu = _timed(run, pixels[:batch], count)
    others = {size: [0.0, 0.0] for size in sorted({batch, *_BATCHES})}
    for _ in range(4):
        for size, sums in others.items():
            for index, value in enumerate(_timed(run, pixels[:size], count // 10)):
                sums[index] += value / 4
    return {
        "batch": batch,
        "tiles_per_s": rounded(count / seconds),
        "mpx_per_s": rounded(count / seconds * _TILE_PX**2 / 1e6),
        "cpu_ms_per_tile": rounded(cpu * 1e3 / count),
        "by_batch": {
            str(size): {
                "mpx_per_s": rounded(_calls(count // 10, size) * size * _TILE_PX**2 / 1e6 / clock),
                "cpu_ms_per_tile": rounded(own * 1e3 / (_calls(count // 10, size) * size)),
            }
            for size, (clock, own) in others.items()
        },
    }


def _calls(tiles: int, batch: int) -> int:
    return -(-max(tiles, 1) // batch)


def _timed(run: Run, batch: NDArray[Any], tiles: int) -> tuple[float, float]:
    """Seconds by the clock and of processors, of at least so many tiles."""
    run(batch)  # which compiles the network for this shape
    started, used = time.perf_counter(), time.process_time()
    for _ in range(_calls(tiles, len(batch))):
        run(batch)
    return time.perf_counter() - started, time.process_time() - used


def _runner(engine: Engine) -> Run:
    from rooftrace.tiling.blend import quantise

    return getattr(engine, "run_quantised", lambda batch: quantise(engine.run(batch)))


def _pixels(folder: str, count: int) -> NDArray[np.uint8]:
    """(n, band, y, x) of the first tiles, and these again where there are fewer."""
    import numpy as np

    from rooftrace.io.raster import open_raster

    paths = sorted(Path(folder).iterdir())[:count]
    tiles = [open_raster(path).read().data for path in paths]
    return np.stack([tiles[index % len(tiles)] for index in range(count)])


def steps(*, folder: str, model: str | None) -> dict[str, Any]:
    """Processor milliseconds for each tile of what `--outputs mask` does beside the network."""
    import numpy as np

    from rooftrace.core.types import Window
    from rooftrace.engines.select import load_engine
    from rooftrace.flows.inputs import find_jobs
    from rooftrace.flows.runfolder import RunFolder
    from rooftrace.predict.block import Piece, make_block
    from rooftrace.predict.options import SceneOptions
    from rooftrace.predict.predictor import Predictor

    spent: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        spent[name] = spent.get(name, 0.0) + time.process_time() - started

    bundle = load_bundle(model)
    predictor = Predictor(bundle, load_engine(bundle))
    threshold = bundle.spec.threshold
    options = SceneOptions(outputs=("mask",))
    out = Path(folder + ".out")
    with step("find"):
        jobs, _ = find_jobs([Path(folder)])
    found = len(jobs)
    with RunFolder(out, {}) as run:
        for job in jobs[:_IN_STEPS]:
            with step("look up in the journal"):
                run.finished(job)
            with step("read the header"):
                grid = job.source.grid
            with step("plan"):
                paths = predictor.paths_for(job.source, out, job.name)
                sink = predictor.sink_for(job.source, paths, options)
                scene, work = predictor.start(job.source, options, sink)
            with step("read the pixels"):
                data = job.source.read().data
            answer = np.full((bundle.spec.outputs, *grid.shape), 128, np.uint8)
            # As smooth as masks are, for the PNG.
            answer[:, 50:90, 40:150] = 255
            answer[:, 120:, :90] = 0
            whole = Window.whole(data.shape[1:])
            with step("make the block"):
                piece = Piece((0, 0), whole, answer)
                block = make_block(work.plan, bundle.spec, 0, [piece], None, threshold)
            with step("write the mask"):
                work.consume(block)
                scene.stats.class_px += block.count
                result = work.finish(scene.stats, *paths.writers(options))
            with step("note in the journal"):
                run.add(job, [str(paths.mask)], {"figures": result.summary.to_json()})
            with step("close"):
                job.source.close()
        run.discard()
    shutil.rmtree(out)
    done = min(_IN_STEPS, found)
    spent["find"] *= done / found
    return {"step_cpu_ms_per_tile": {name: rounded(s * 1e3 / done) for name, s in spent.items()}}


if __name__ == "__main__":
    start(main, {part.__name__: part for part in (make, command, engine, steps)})
