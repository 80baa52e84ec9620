"""Mpx/s of each stage of a prediction alone, one after the other in one process.

    python bench/stages.py                   # see bench/README.md

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import WORK, load_bundle, machine, measure_part, rounded, say, start, write_scene

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLED_BY = 1.5
"""Source pixels to one of the model's, in the stages that bring an image to another scale."""


def main() -> dict[str, Any]:
    options = _options()
    before = machine()
    say("running each stage alone, then all together")
    run = measure_part(
        __file__, "stages", work=str(options.work), model=options.model, size_px=options.size,
        compress=options.compress, precision=options.precision,
    )  # fmt: skip
    return {
        "benchmark": "stages",
        "machine": before,
        "scene": {"size_px": options.size, "compress": options.compress},
        **run.report,
        "peak_rss_mb": run.peak_rss_mb,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096, help="side of the scene, in pixels")
    parser.add_argument("--model", help="a .rooftrace file; default: the bundled model")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"))
    parser.add_argument("--compress", choices=("deflate", "jpeg"), default="deflate")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for scenes and results")
    options = parser.parse_args()
    if options.size < 64:
        parser.error("--size starts at 64")
    return options


# What follows runs in a process of its own.


class Clock:
    """Seconds and Mpx/s of stages, by name."""

    def __init__(self, mpx: float) -> None:
        self._mpx = mpx
        self.stages: dict[str, dict[str, float]] = {}

    def time(self, name: str, work: Callable[[], Any], mpx: float | None = None) -> None:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        rate = (self._mpx if mpx is None else mpx) / seconds
        self.stages[name] = {"seconds": round(seconds, 4), "mpx_per_s": rounded(rate)}


def stages(
    *, work: str, model: str | None, size_px: int, compress: str, precision: str | None
) -> dict[str, Any]:
    """All stages over one scene; each is handed what it needs in memory."""
    import numpy as np

    from rooftrace.core.types import Window
    from rooftrace.engines.select import load_engine
    from rooftrace.io.masks import mask_sink
    from rooftrace.io.raster import open_raster
    from rooftrace.io.resample import Resampler, enlarge, scaling_for
    from rooftrace.io.vector import write_footprints
    from rooftrace.predict.predictor import Predictor
    from rooftrace.predict.work import SIMPLIFY_PX, SMALLEST_PX
    from rooftrace.predict.scene import plan_scene
    from rooftrace.testing import ArraySource
    from rooftrace.tiling.blend import BLEND_ONE, Blender, quantise
    from rooftrace.vector.blocks import BlockPolygonizer
    from rooftrace.vector.footprints import make_footprints
    from rooftrace.vector.regularize import regularize
    from rooftrace.vector.settle import settle

    bundle = load_bundle(model)
    spec = bundle.spec
    engine = load_engine(bundle, precision=precision)
    path = write_scene(Path(work), size_px, spec.gsd_m or 0.3, compress)
    out = Path(work) / "out" / "stages"
    out.mkdir(parents=True, exist_ok=True)
    source = open_raster(path)
    whole = Window.whole(source.grid.shape)
    plan = plan_scene(source, spec)
    indices = [(r, c) for r in range(plan.tiles.rows.count) for c in range(plan.tiles.cols.count)]
    reads = {index: plan.tiles.tile(index).read for index in indices}
    clock = Clock(whole.area_px / 1e6)

    def read() -> None:
        for window in reads.values():
            inside = window.intersection(whole)
            assert inside is not None
            source.read(inside)

    read()  # so that the file is in the page cache
    source.close()
    clock.time("read", read)

    image = source.read().data
    known_gsd_m = source.grid.gsd_m or 0.3
    scaling = scaling_for(source.grid, known_gsd_m * RESAMPLED_BY)
    resampler = Resampler(ArraySource(image, source.grid), scaling, spec.mean)
    small = Window.whole(resampler.shape_yx)
    clock.time("resample", lambda: resampler.read(small))

    def tile(index: tuple[int, int]) -> NDArray[Any]:
        window = reads[index]
        rows, cols = (
            np.minimum(np.arange(start, stop), length - 1)
            for start, stop, length in (
                (window.row, window.row_stop, whole.height),
                (window.col, window.col_stop, whole.width),
            )
        )
        return np.ascontiguousarray(image[:, rows[:, None], cols])[None]

    tiles = {index: tile(index) for index in indices}
    run: Callable[[NDArray[Any]], NDArray[np.uint8]] = getattr(
        engine, "run_quantised", lambda batch: quantise(engine.run(batch))
    )
    answers: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def infer() -> None:
        for index, pixels in tiles.items():
            answers[index] = run(pixels)[0]

    run(tiles[indices[0]])  # which compiles the network
    clock.time("engine", infer, sum(t[0, 0].size for t in tiles.values()) / 1e6)

    blended: list[NDArray[np.uint16]] = []

    def blend() -> None:
        for window in plan.blocks:
            blender = Blender(plan.tiles, window, spec.channels)
            for index in plan.tiles.tiles_for(window):
                blender.feed(index, answers[index])
            blended.append(blender.finish())

    clock.time("blend", blend)
    channel = spec.building_channel
    coarse = np.zeros((1, *small.shape_yx), np.uint16)

    def widen() -> None:
        for window in plan.blocks:
            origin = scaling.to_model(window, whole.shape_yx)
            rows, cols = origin.slices()
            enlarge(coarse[:, rows, cols], origin, window, scaling)

    clock.time("enlarge", widen)

    limit = int(np.ceil(spec.threshold * BLEND_ONE))
    masks = [(values[channel] >= limit).view(np.uint8) for values in blended]
    scores = [(values[channel] >> 8).astype(np.uint8) for values in blended]

    def write_mask() -> None:
        with mask_sink(out / "mask.tif", source.grid) as sink:
            for window, mask in zip(plan.blocks, masks):
                sink.write(window, mask)

    clock.time("mask write", write_mask)

    def polygonise() -> None:
        polygonizer = BlockPolygonizer(whole.shape_yx)
        for window, mask, score in zip(plan.blocks, masks, scores):
            polygonizer.feed(window, mask, score)
        traced = polygonizer.finish()
        large = traced.area_px >= SMALLEST_PX
        raw = traced.polygons[large]
        outlines = settle(raw, regularize(raw, SIMPLIFY_PX).polygons)
        footprints = make_footprints(outlines, traced.score[large], source.grid)
        write_footprints(out / "buildings.gpkg", footprints)

    clock.time("polygonise", polygonise)

    predictor = Predictor(bundle, engine)
    clock.time("end to end", lambda: predictor.predict_to_files(path, out))
    share = clock.stages["end to end"]["mpx_per_s"] / clock.stages["engine"]["mpx_per_s"]
    return {
        "model": {"name": spec.name, "engine": engine.name, "precision": engine.precision},
        "tiles": {"count": len(tiles), "shape_yx": list(plan.tiles.tile_shape_yx)},
        "resampled_by": RESAMPLED_BY,
        "stages": clock.stages,
        "end_to_end_share_of_engine": rounded(share),
    }


if __name__ == "__main__":
    start(main, {"stages": stages})
