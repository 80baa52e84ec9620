"""A folder of small tiles: `rooftrace predict` compared with its network alone on them."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import (
    Measured,
    argument_parser,
    by_turns,
    load_bundle,
    measure_part,
    measure_rooftrace,
    rounded,
    say,
    start,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rooftrace.engines.base import Engine

    Run = Callable[[NDArray[Any]], NDArray[Any]]

OUTPUTS = {"mask": ["--outputs", "mask"], "all": [], "rle": ["--outputs", "rle"]}
ROWS = ("engine", *OUTPUTS)
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
    folder = options.work / f"tiles_{options.tiles}_{_TILE_PX}px"
    if not folder.exists():
        say(f"making {options.tiles} tiles")
        measure_part(__file__, "make", folder=folder, tiles=options.tiles)
    runs = by_turns(
        options.rows, options.repeats, lambda name: _run(name, folder, options), "tiles_per_s"
    )
    rows = {name: max(of, key=lambda run: run["tiles_per_s"]) for name, of in runs.items()}
    done = measure_part(__file__, "steps", folder=folder, model=options.model).report
    if options.clean:
        shutil.rmtree(folder)
    return {
        "tiles": {"count": options.tiles, "side_px": _TILE_PX},
        "rows": rows,
        "ratios": _ratios(rows),
        **done,
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("--tiles", type=int, default=60_000)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--repeats", type=int, default=1, help="number of rounds over all rows")
    parser.add_argument("--clean", action="store_true", help="remove the tiles afterwards")
    options = parser.parse_args()
    if options.tiles < 1 or options.repeats < 1:
        parser.error("at least one tile and one repeat")
    return options


def _run(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    arguments = {"folder": folder, "model": options.model, "tiles": options.tiles}
    if name == "engine":
        return measure_part(__file__, "engine", **arguments).row
    out = options.work / "out" / "tiles"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        # Its answer names every tile: reading it here would enlarge this process before it forks.
        return measure_part(__file__, "command", row=name, out=out, **arguments).report
    finally:
        shutil.rmtree(out)


def _ratios(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the share of the network's own rate that each row reaches."""
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

    from town import generate_scene

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

    def predict(image: Path, out: Path) -> Measured:
        return measure_rooftrace("predict", image, "-o", out, *OUTPUTS[row], model=model)

    cpu_of_start_s = predict(min(Path(folder).iterdir()), Path(out, "one")).cpu_s
    done = predict(Path(folder), Path(out, "all"))
    rate = done.report["mpx_per_s"] * 1e6 / _TILE_PX**2
    return {
        "tiles_per_s": rounded(rate),
        "tiles_per_s_with_start": rounded(tiles / done.seconds),
        "mpx_per_s": rounded(rate * _TILE_PX**2 / 1e6),
        "cpu_ms_per_tile": rounded((done.cpu_s - cpu_of_start_s) * 1e3 / tiles),
        "peak_rss_mb": rounded(done.peak_rss_mb),
    }


def engine(*, folder: str, model: str | None, tiles: int) -> dict[str, Any]:
    """The network alone, in the batches that predict makes, and in others by turns."""
    from rooftrace.engines.select import load_engine
    from rooftrace.predict.pipeline import BATCH_PX

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
    """Return wall-clock and processor seconds, for at least `tiles` tiles."""
    run(batch)  # which compiles the network for this shape
    started, used = time.perf_counter(), time.process_time()
    for _ in range(_calls(tiles, len(batch))):
        run(batch)
    return time.perf_counter() - started, time.process_time() - used


def _runner(engine: Engine) -> Run:
    from rooftrace.tiling.plan import quantise

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
    from rooftrace.flows.predict.inputs import find_inputs
    from rooftrace.flows.predict.run_folder import FinishedImage, RunFolder
    from rooftrace.predict.block import BlockTiles, TileOutput, TileStats
    from rooftrace.predict.outputs import OutputPaths, SceneOutputs
    from rooftrace.predict.plan import SceneOptions, plan_scene
    from rooftrace.predict.predictor import Predictor

    spent: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        spent[name] = spent.get(name, 0.0) + time.process_time() - started

    bundle = load_bundle(model)
    predictor = Predictor(bundle, load_engine(bundle))
    options = SceneOptions(outputs=("mask",))
    out = Path(folder + ".out")
    with step("find"):
        jobs = find_inputs([Path(folder)], trusted=True).scenes
    found = len(jobs)
    with RunFolder(out, {}) as run:
        for number, job in enumerate(jobs[: _IN_STEPS + 1]):
            if number == 1:
                # The first image also imports modules.
                spent = {"find": spent["find"]}
            with step("look up in the journal"):
                run.finished(job)
            with step("read the header"):
                grid = job.source.grid
            with step("plan"):
                paths = OutputPaths.of(out, job.name, job.source.grid, predictor.bundle.spec.legend)
                plan = plan_scene(job.source, bundle.spec, options)
            with step("read the pixels"):
                data = plan.source.read().data
            answer = np.full((bundle.spec.outputs, *grid.shape), 128, np.uint8)
            # As smooth as masks are, for the PNG.
            answer[:, 50:90, 40:150] = 255
            answer[:, 120:, :90] = 0
            whole = Window.whole(data.shape[1:])
            with step("make the block"):
                output = TileOutput((0, 0), whole, answer)
                tiles = BlockTiles(0, (output,), (), None, None, TileStats())
                block = tiles.finish(plan, ())
            with step("write the mask"), SceneOutputs(plan, paths) as outputs:
                outputs.feed(block)
                result = outputs.finish()
            with step("note in the journal"):
                record = {"figures": result.summary.to_json()}
                run.add(job, FinishedImage([str(paths.mask)], record))
            with step("close"):
                job.source.close()
        run.discard()
    shutil.rmtree(out)
    done = max(1, min(_IN_STEPS, found - 1))
    spent["find"] *= done / found
    return {"step_cpu_ms_per_tile": {name: rounded(s * 1e3 / done) for name, s in spent.items()}}


if __name__ == "__main__":
    start(main, make, command, engine, steps)
