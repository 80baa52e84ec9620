"""Mpx/s of each stage of a prediction alone, one after the other in one process.

    python bench/stages.py                   # see bench/README.md

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from common import argument_parser, load_bundle, measure_part, rounded, say, start, write_scene

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rooftrace.core.types import Footprints, GeoGrid
    from rooftrace.engines.base import Engine
    from rooftrace.models.spec import BundleSpec
    from rooftrace.predict.block import Block
    from rooftrace.predict.plan import ScenePlan, TileIndex
    from rooftrace.predict.predictor import Predictor
    from rooftrace.vector.trace import TracedPolygons

T = TypeVar("T")
Spent = tuple[float, float]

RESAMPLED_BY = 1.5
"""Source pixels to one of the model's, in the stages that bring an image to another scale."""


def main() -> dict[str, Any]:
    options = _options()
    say("running each stage alone, then all together")
    run = measure_part(
        __file__, "stages", work=options.work, model=options.model, size_px=options.size,
        compress=options.compress, precision=options.precision,
        repeats=options.repeats,
    )  # fmt: skip
    return {
        "scene": {"size_px": options.size, "compress": options.compress},
        **run.row,
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("--size", type=int, default=4096, help="side of the scene, in pixels")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"))
    parser.add_argument("--compress", choices=("deflate", "jpeg"), default="deflate")
    parser.add_argument("--repeats", type=int, default=3, help="of each; the fastest counts")
    options = parser.parse_args()
    if options.size < 64 or options.repeats < 1:
        parser.error("--size starts at 64, --repeats at 1")
    return options


# What follows runs in a process of its own.


def _spent(work: Callable[[], None]) -> Spent:
    """Seconds by the clock, and of all processors."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - used


class Clock:
    """Seconds, processor seconds and Mpx/s of stages, by name."""

    def __init__(self, mpx: float, repeats: int) -> None:
        self.mpx = mpx
        self.repeats = repeats
        self.stages: dict[str, dict[str, float]] = {}

    def time(self, name: str, work: Callable[[], T], mpx: float | None = None) -> T:
        """Return the answer of `work`; its fastest run and its least processor time count."""
        answers: list[T] = []

        def run() -> None:
            answers[:] = [work()]

        self.note(name, [_spent(run) for _ in range(self.repeats)], mpx)
        return answers[0]

    def note(self, name: str, spent: list[Spent], mpx: float | None = None) -> None:
        """Record the times of several runs in the same way."""
        mpx = self.mpx if mpx is None else mpx
        seconds, cpu = (min(which) for which in zip(*spent))
        self.stages[name] = {
            "seconds": round(seconds, 4),
            "mpx_per_s": rounded(mpx / seconds),
            "cpu_ms_per_mpx": rounded(cpu * 1e3 / mpx),
        }


@dataclass(frozen=True)
class Setting:
    """Inputs that all stages share."""

    clock: Clock
    path: Path
    grid: GeoGrid
    scene: ScenePlan
    spec: BundleSpec
    out: Path


def stages(
    *, work: str, model: str | None, size_px: int, compress: str, precision: str | None,
    repeats: int,
) -> dict[str, Any]:  # fmt: skip
    """All stages over one scene; each is handed what it needs in memory."""
    from rooftrace.core.system import importing

    # As the command does at its start.
    with importing():
        from rooftrace.core.types import Window
        from rooftrace.engines.select import load_engine
        from rooftrace.io.raster import open_raster
        from rooftrace.predict.plan import plan_scene
        from rooftrace.predict.predictor import Predictor

    bundle = load_bundle(model)
    engine = load_engine(bundle, precision=precision)
    path = write_scene(Path(work), size_px, bundle.spec.gsd_m or 0.3, compress)
    out = Path(work) / "out" / "stages"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with closing(open_raster(path)) as source:
        grid, scene = source.grid, plan_scene(source, bundle.spec)
    clock = Clock(size_px**2 / 1e6, repeats)
    here = Setting(clock, path, grid, scene, bundle.spec, out)
    answers, infer = _pixels(here, engine)
    blocks = _blocks(here, answers)
    buildings = _polygons(here, blocks)
    _pictures(here, blocks, buildings)
    shares = _end_to_end(here, Predictor(bundle, engine), infer)
    given_px = sum(scene.tiles.tile(index).read.area_px for index in answers)
    return {
        "model": {"name": bundle.spec.name, "engine": engine.name, "precision": engine.precision},
        "tiles": {
            "count": len(answers),
            "shape_yx": list(scene.tiles.tile_shape_yx),
            "px_for_each_of_the_scene": rounded(
                given_px / Window.whole(scene.source.grid.shape).area_px
            ),
        },
        "resampled_by": RESAMPLED_BY,
        "buildings": len(buildings),
        "stages": clock.stages,
        **shares,
    }


def _pixels(
    here: Setting, engine: Engine
) -> tuple[dict[TileIndex, NDArray[np.uint8]], Callable[[], None]]:
    """Reading, scaling, and the network: its answers, and it once more."""
    import numpy as np

    from rooftrace.core.scales import WorkingScales
    from rooftrace.core.types import Window
    from rooftrace.io.georeferenced import ArraySource
    from rooftrace.io.raster import open_raster
    from rooftrace.io.resample import Resampler, enlarge, scaling_for
    from rooftrace.tiling.plan import quantise

    scene, clock = here.scene, here.clock
    whole = Window.whole(scene.source.grid.shape)
    indices = [i for number in range(len(scene.blocks)) for i in scene.own_tiles(number)]
    reads = {index: scene.tiles.tile(index).read for index in indices}

    def read() -> None:
        # GDAL keeps the blocks that it decoded for as long as a file is open.
        source = open_raster(here.path)
        for window in reads.values():
            inside = window.intersection(whole)
            assert inside is not None
            source.read(inside)
        source.close()

    clock.time("read", read)
    image = open_raster(here.path).read().data
    coarser = WorkingScales((here.grid.gsd_m or 0.3) * RESAMPLED_BY)
    scaling = scaling_for(here.grid, coarser)
    resampler = Resampler(ArraySource(image, here.grid), scaling)
    small = Window.whole(resampler.shape_yx)
    clock.time("resample", lambda: resampler.read(small))
    coarse = np.zeros((1, *small.shape_yx), np.uint16)

    def widen() -> None:
        for window in scene.blocks:
            origin = scaling.to_model(window, whole.shape_yx)
            rows, cols = origin.slices()
            enlarge(coarse[:, rows, cols], origin, window, scaling)

    clock.time("enlarge", widen)

    def tile(window: Window) -> NDArray[Any]:
        beyond = window.row_stop - whole.height, window.col_stop - whole.width
        rows, cols = window.slices()
        pads = ((0, 0), *((0, max(0, over)) for over in beyond))
        return np.ascontiguousarray(np.pad(image[:, rows, cols], pads, mode="reflect"))[None]

    tiles = {index: tile(window) for index, window in reads.items()}
    run: Callable[[NDArray[Any]], NDArray[np.uint8]] = getattr(
        engine, "run_quantised", lambda batch: quantise(engine.run(batch))
    )
    answers: dict[TileIndex, NDArray[np.uint8]] = {}

    def infer() -> None:
        for index, pixels in tiles.items():
            answers[index] = run(pixels)[0]

    run(tiles[indices[0]])  # which compiles the network
    clock.time("engine", infer, sum(t[0, 0].size for t in tiles.values()) / 1e6)
    return answers, infer


def _blocks(here: Setting, answers: dict[TileIndex, NDArray[np.uint8]]) -> list[Block]:
    """Turn answers into blocks of mask and scores, and write these to disk."""
    from rooftrace.io.masks import mask_sink
    from rooftrace.predict.block import BlockTiles, TileOutput, TileStats
    from rooftrace.predict.checkpoint import Checkpoint, CheckpointStore

    scene, clock = here.scene, here.clock
    outputs: list[list[TileOutput]] = [[] for _ in scene.blocks]
    for index, answer in answers.items():
        read = scene.tiles.tile(index).read
        for number, extent in scene.extents(index):
            outputs[number].append(TileOutput(index, extent, answer[:, *extent.slices(read)]))

    def blend() -> list[Block]:
        return [
            BlockTiles(number, tuple(own), (), None, None, TileStats()).finish(scene, ())
            for number, own in enumerate(outputs)
        ]

    blocks = clock.time("blend", blend)

    def write() -> None:
        with mask_sink(here.out / "mask.tif", here.grid) as sink:
            for block in blocks:
                sink.write(block.window, block.mask)

    clock.time("mask write", write)
    store = CheckpointStore(here.out / "parts", {})

    def save() -> None:
        for number, block in enumerate(blocks):
            store.save(number, Checkpoint(block, ()))

    clock.time("checkpoint save", save)
    clock.time("checkpoint load", lambda: [store.load(number) for number in range(len(blocks))])
    return blocks


def _polygons(here: Setting, blocks: list[Block]) -> Footprints:
    """The steps from blocks to footprints, one after the other, and as predict takes them."""
    import numpy as np

    from rooftrace.io.georeferenced import ArraySource
    from rooftrace.io.vector_write import write_footprints
    from rooftrace.predict.outputs import SceneOutputs
    from rooftrace.predict.plan import SceneOptions, plan_scene
    from rooftrace.vector.footprints import make_footprints
    from rooftrace.vector.prepare import MIN_BUILDING_PX
    from rooftrace.vector.regularize import regularize
    from rooftrace.vector.resolve_overlaps import resolve_overlaps
    from rooftrace.vector.simplify import SIMPLIFY_PX
    from rooftrace.vector.trace_blocks import BlockPolygonizer
    from rooftrace.vector.watershed import WatershedOptions, separate_by_watershed

    grid, spec, clock = here.grid, here.spec, here.clock

    def trace() -> TracedPolygons:
        polygonizer = BlockPolygonizer(grid.shape)
        for block in blocks:
            polygonizer.feed(block.window, block.mask, block.score)
        return polygonizer.finish()

    traced = clock.time("trace", trace)
    parted = clock.time("separate", lambda: separate_by_watershed(traced, WatershedOptions()))
    large = parted.of(parted.area_px >= MIN_BUILDING_PX)
    raw = large.polygons
    regular = clock.time("regularize", lambda: regularize(raw, SIMPLIFY_PX).polygons)
    settled = clock.time("resolve overlaps", lambda: resolve_overlaps(raw, regular))
    made = clock.time("describe", lambda: make_footprints(settled, large.score, grid))
    write_footprints(here.out / "none.gpkg", made.take(np.zeros(0, int)))  # imports what writes
    clock.time("polygon write", lambda: write_footprints(here.out / "buildings.gpkg", made))

    # Its pixels are never read, and no memory is allocated for them.
    picture = ArraySource(
        np.broadcast_to(np.zeros((), spec.numpy_dtype), (len(spec.bands), *grid.shape)), grid
    )
    options = SceneOptions(outputs=("polygons",))

    def assemble() -> None:
        with SceneOutputs(plan_scene(picture, spec, options)) as outputs:
            for block in blocks:
                outputs.feed(block)
            outputs.finish()

    clock.time("polygons in all", assemble)
    return made


def _pictures(here: Setting, blocks: list[Block], buildings: Footprints) -> None:
    """Measure the further outputs: density and the preview."""
    from rooftrace.density.accumulate import DensityAccumulator
    from rooftrace.io.picture import write_png
    from rooftrace.io.raster import open_raster
    from rooftrace.predict.preview import Preview

    spec, clock = here.spec, here.clock

    def density() -> None:
        counter = DensityAccumulator(here.grid, 100.0, building_class=spec.building_class)
        for block in blocks:
            counter.feed(block.window, block.mask)
        counter.add(counter.ground.reproject(buildings.geometry, buildings.crs))
        counter.finish()

    clock.time("density", density)
    with closing(open_raster(here.path)) as source:
        rasters = [(block.window, source.read(block.window)) for block in blocks]

    def preview() -> None:
        seen = Preview(here.grid, source.bands, source.dtype, spec.legend)
        for window, raster in rasters:
            seen.thumbnail.watch(window, raster.data, raster.valid)
        seen.paint(seen.rings(buildings))
        picture = seen.draw((0.0, 0.0), "", here.grid.gsd_m)
        write_png(here.out / "preview.png", picture, photograph=True)

    clock.time("preview", preview)


def _end_to_end(here: Setting, predictor: Predictor, infer: Callable[[], None]) -> dict[str, Any]:
    """Measure the command on a scene, and the network alone on the same tiles, by turns."""
    from rooftrace.io.raster import open_raster
    from rooftrace.predict import pipeline
    from rooftrace.predict.checkpoint import CheckpointStore
    from rooftrace.predict.outputs import OutputPaths, SceneOutputs
    from rooftrace.predict.pipeline import SceneBlocks
    from rooftrace.predict.plan import plan_scene

    out, clock = here.out, here.clock

    def predict() -> None:
        source = open_raster(here.path)
        plan = plan_scene(source, predictor.bundle.spec)
        paths = OutputPaths.of(out, "scene", source.grid, plan.spec.legend)
        store = CheckpointStore(out / "parts", {})
        with SceneOutputs(plan, paths, spill=out) as outputs:
            for scene in pipeline.run_scenes([SceneBlocks(plan, store)], predictor.engine):
                for block in scene.blocks:
                    outputs.feed(block)
            outputs.finish()
        shutil.rmtree(out / "parts")
        source.close()

    shutil.rmtree(out / "parts")
    predict()  # which imports what the others find imported
    turns = [(_spent(predict), _spent(infer)) for _ in range(clock.repeats)]
    clock.note("end to end", [whole for whole, _ in turns])
    # Where no core is idle, this is all that overlapping can reach.
    shares, by_cpu = ([alone[i] / whole[i] for whole, alone in turns] for i in (0, 1))
    return {
        "end_to_end_share_of_engine": rounded(statistics.median(shares)),
        "share_by_cpu": rounded(statistics.median(by_cpu)),
        "by_turn": [rounded(share) for share in shares],
    }


if __name__ == "__main__":
    start(main, stages)
