"""A tiled, blended, block-wise prediction is that of the whole scene."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from rooftrace.core.errors import DataError, ExportError, PredictError
from rooftrace.core.types import GeoGrid, Raster, RasterSource, Window
from rooftrace.engines.base import ConstantEngine, Engine, PointwiseEngine
from rooftrace.io.area import Area, AreaSource
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.legend import NODATA
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.block import Block, TileStats, most_probable
from rooftrace.predict.outputs import OutputPaths, SceneOutputs
from rooftrace.predict.pipeline import SceneBlocks, run, run_scenes
from rooftrace.predict.plan import SceneOptions, ScenePlan, plan_scene

SPEC = BundleSpec(
    name="fake", bands=("red", "green", "blue"), mean=(120.0, 120.0, 120.0), std=(60.0, 60.0, 60.0),
    classes=("background", "building"), input_multiple_px=8, context_px=16,
)  # fmt: skip


def scene(shape: tuple[int, int], holes: bool = True, gsd_m: float | None = None) -> ArraySource:
    rng = np.random.default_rng(7)
    valid = np.ones(shape, dtype=bool)
    if holes:
        valid[shape[0] // 4 : shape[0] // 2, : shape[1] // 3] = False
    grid = None
    if gsd_m is not None:
        transform = Affine(gsd_m, 0, 500_000, 0, -gsd_m, 9_000_000)
        grid = GeoGrid(shape, transform, CRS.from_epsg(32737))
    return ArraySource(rng.integers(0, 256, (3, *shape), dtype=np.uint8), grid, valid)


class Collected:
    """The whole scene, put together from its blocks."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.mask = np.full(shape, 77, dtype=np.uint8)
        self.score = np.full(shape, 77, dtype=np.uint8)
        self.windows: list[Window] = []
        self.tiles = TileStats()
        self.class_px = np.zeros(256, dtype=np.int64)

    def feed(self, block: Block) -> None:
        where = block.window.slices()
        self.mask[where], self.score[where] = block.mask, block.score
        self.windows.append(block.window)
        self.tiles = self.tiles.plus(block.tiles)
        self.class_px += block.count


def predict(source: RasterSource, plan: ScenePlan, engine: Engine | None = None) -> Collected:
    collected = Collected(source.grid.shape)
    for block in run(plan, engine or PointwiseEngine()):
        collected.feed(block)
    return collected


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.sampled_from([64, 128, 256]),
    st.booleans(),
)
def test_tiled_equals_whole(shape: tuple[int, int], tile_px: int, holes: bool) -> None:
    source = scene(shape, holes)
    raster = source.read()
    tiled = predict(source, plan_scene(source, SPEC, tile_px=tile_px, block_px=64))
    expected = np.where(raster.valid, raster.data[0] >= 128, NODATA)
    np.testing.assert_array_equal(tiled.mask, expected)
    np.testing.assert_array_equal(tiled.score[raster.valid], raster.data[0][raster.valid])
    assert tiled.class_px[:NODATA].sum() == raster.valid.sum()
    np.testing.assert_array_equal(tiled.class_px, np.bincount(expected.ravel(), minlength=256))


class EdgyEngine(Engine):
    """A network whose answer differs with the place in the tile, as near a real tile's edge."""

    name, precision = "edgy", "fp32"

    def run(self, batch: np.ndarray) -> np.ndarray:
        height, width = batch.shape[2:]
        place = np.add.outer(np.arange(height), np.arange(width)) / (height + width)
        scaled = batch[:, :1].astype(np.float32) / 255
        return (0.5 * scaled + 0.5 * place).astype(np.float32)


@pytest.mark.campaign
@settings(max_examples=15)
@given(st.tuples(st.integers(1, 1500), st.integers(1, 700)), st.sampled_from([0.2, 0.4, 0.7, 1.3]))
def test_blocks_do_not_show(shape: tuple[int, int], gsd_m: float) -> None:
    spec = SPEC.model_copy(update={"gsd_m": 0.4})
    source = scene(shape, gsd_m=gsd_m)
    results = []
    for block_px in (64, 512, 4096):
        plan = plan_scene(source, spec, tile_px=160, block_px=block_px)
        results.append(predict(source, plan, EdgyEngine()))
    assert len(results[0].windows) >= len(results[-1].windows)
    for result in results[1:]:
        np.testing.assert_array_equal(result.mask, results[0].mask)
        np.testing.assert_array_equal(result.score, results[0].score)


def test_nodata_stays_nodata_when_resampled() -> None:
    spec = SPEC.model_copy(update={"gsd_m": 0.4})
    source = scene((300, 400), gsd_m=0.2)
    collected = predict(source, plan_scene(source, spec), ConstantEngine(0.9))
    np.testing.assert_array_equal(collected.mask == NODATA, ~source.read().valid)
    assert (collected.mask[source.read().valid] == 1).all()


class WideEngine(Engine):
    """A network that sees the whole tile: half of its answer is the tile's mean."""

    name, precision = "wide", "fp32"

    def run(self, batch: np.ndarray) -> np.ndarray:
        scaled = batch[:, :1].astype(np.float32) / 255
        return (scaled + scaled.mean(axis=(2, 3), keepdims=True)) / 2


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("gsd_m", [0.2, 0.4, 0.9])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inside_an_area_the_prediction_is_that_of_the_whole_scene(
    dtype: type[np.unsignedinteger], gsd_m: float, holes: bool
) -> None:
    """The network sees what lies around the area; the stretch is that of the whole image, too."""
    spec = SPEC.model_copy(update={"gsd_m": 0.4})
    pixels = scene((700, 900) if gsd_m < 0.4 else (400, 500), holes, gsd_m)
    whole = pixels.read()
    source = ArraySource(whole.data.astype(dtype) * (255 if dtype == np.uint16 else 1), whole.grid,
                         whole.valid)  # fmt: skip
    left, bottom, right, top = whole.grid.bounds_xy
    half = shapely.Polygon([(left, top), (right, top), (left, bottom)])
    # A pixel by itself, far from the rest.
    alone = shapely.box(right - 20 * gsd_m, bottom + 15 * gsd_m, right - 19 * gsd_m,
                        bottom + 16 * gsd_m)  # fmt: skip
    area = AreaSource(source, Area(np.array([half, alone]), whole.grid.crs, "half"))
    inside = area.read().valid
    made = [
        predict(one, plan_scene(one, spec, tile_px=128, block_px=256), WideEngine())
        for one in (source, area)
    ]
    np.testing.assert_array_equal(made[1].mask, np.where(inside, made[0].mask, NODATA))
    np.testing.assert_array_equal(made[1].score[inside], made[0].score[inside])
    assert 0 < inside.sum() < whole.valid.sum()
    assert made[1].tiles.tiles_run < made[0].tiles.tiles_run


def test_tiles_without_a_pixel_of_the_area_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    source = scene((900, 900), holes=False)
    area = AreaSource(source, Area(np.array([shapely.box(300, 300, 420, 310)]), None, "street"))
    read: list[Window | None] = []
    whole = source.read
    monkeypatch.setattr(source, "read", lambda window=None: (read.append(window), whole(window))[1])
    plan = plan_scene(area, SPEC, SceneOptions(stretch="none"), tile_px=128)
    made = predict(area, plan)
    # The whole image is read once for its sample: a small one shows undeclared fill only so.
    tiles = [window for window in read if window is not None]
    assert made.tiles.tiles_run == len(tiles) == len(read) - 1 == 2
    assert all(window.area_px <= 128 * 128 for window in tiles)
    assert (made.mask != NODATA).sum() == 120 * 10


def test_empty_tiles_never_reach_the_network() -> None:
    source = ArraySource(
        np.zeros((3, 600, 600), dtype=np.uint8), valid=np.arange(360_000).reshape(600, 600) < 60_000
    )
    seen = []

    class Counting(PointwiseEngine):
        def run(self, batch: np.ndarray) -> np.ndarray:
            seen.append(batch.shape)
            return super().run(batch)

    plan = plan_scene(source, SPEC, tile_px=128, block_px=64)
    collected = predict(source, plan, Counting())
    stats = collected.tiles
    assert len(plan.blocks) > 1
    assert stats.tiles_empty > 0
    assert sum(shape[0] for shape in seen) == stats.tiles_run
    # No tile is computed twice.
    assert stats.tiles_run + stats.tiles_empty == len(plan.tiles)
    assert (collected.mask[100:] == NODATA).all()
    assert (collected.mask[:100] == 0).all()


def test_more_classes_take_themost_probable() -> None:
    spec = SPEC.model_copy(update={"classes": ("land", "road", "roof"), "building_class": 2})

    class ByBand(PointwiseEngine):
        def run(self, batch: np.ndarray) -> np.ndarray:
            return batch.astype(np.float32) / 255

    source = scene((200, 150))
    raster = source.read()
    collected = predict(source, plan_scene(source, spec), ByBand())
    expected = np.where(raster.valid, raster.data.argmax(axis=0), NODATA)
    np.testing.assert_array_equal(collected.mask, expected)
    best = raster.data.max(axis=0)
    np.testing.assert_array_equal(collected.score[raster.valid], best[raster.valid])
    np.testing.assert_array_equal(collected.class_px, np.bincount(expected.ravel(), minlength=256))


@given(
    st.integers(3, 255),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 65280),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=20)
def test_of_classes_that_are_alike_the_first_is_taken(
    classes: int, shape: tuple[int, int], levels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    blended = rng.integers(0, levels, (classes, *shape), dtype=np.uint16)
    mask, best = most_probable(blended)
    np.testing.assert_array_equal(mask, blended.argmax(axis=0))
    np.testing.assert_array_equal(best, blended.max(axis=0))


def test_many_classes_are_predicted_in_smaller_parts() -> None:
    """Memory holds the answers of tiles, one value for each class and pixel."""
    source = ArraySource(np.zeros((3, 4096, 4096), dtype=np.uint8))
    few, many = (
        plan_scene(source, SPEC.model_copy(update={"classes": tuple("abcdefghij"[:count])}))
        for count in (3, 10)
    )
    assert max(block.area_px for block in many.blocks) * 2 <= few.blocks[0].area_px
    assert len(many.tiles) > 3 * len(few.tiles)


class Failing(PointwiseEngine):
    """A network that one tile is too much for."""

    def __init__(self, tile: np.ndarray) -> None:
        super().__init__()
        self._tile = tile

    def run(self, batch: np.ndarray) -> np.ndarray:
        if any(np.array_equal(tile, self._tile) for tile in batch):
            raise RuntimeError("out of luck")
        return super().run(batch)


class ParallelEngine(PointwiseEngine):
    """An engine that runs batches at the same time, and of two the first one longer."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._second = threading.Event()
        self._lock = threading.Lock()

    def parallel(self, count: int) -> ParallelEngine:
        assert count == 2
        return self

    def run(self, batch: np.ndarray) -> np.ndarray:
        with self._lock:
            self.count += 1
            is_first = self.count == 1
        if is_first:
            assert self._second.wait(10)
        else:
            self._second.set()
        return super().run(batch)


def test_batches_that_run_at_the_same_time_keep_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rooftrace.predict.pipeline.BATCH_PX", 2**15)
    source = scene((900, 700))
    plan = plan_scene(source, SPEC, tile_px=128, block_px=256)
    engine = ParallelEngine()
    found, expected = predict(source, plan, engine), predict(source, plan)
    assert engine.count > 2
    assert found.windows == expected.windows
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.score, expected.score)


class SlowEngine(PointwiseEngine):
    """An engine that runs until too many scenes are read, or long enough to read them all."""

    def __init__(self) -> None:
        super().__init__()
        self.too_many = threading.Event()

    def parallel(self, count: int) -> SlowEngine:
        assert count == 2
        return self

    def run(self, batch: np.ndarray) -> np.ndarray:
        assert not self.too_many.wait(0.5)
        return super().run(batch)


@pytest.mark.parametrize("batch_px", [1, 2**20], ids=["full batch", "batch that is not full"])
def test_nodata_is_not_collected_behind_a_batch(
    monkeypatch: pytest.MonkeyPatch, batch_px: int
) -> None:
    """Each block keeps its validity until it is finished: many of them would fill the memory."""
    monkeypatch.setattr("rooftrace.predict.pipeline.BATCH_PX", batch_px)
    monkeypatch.setattr("rooftrace.predict.pipeline._FINISHING_PX", 8 * 64**2)
    engine = SlowEngine()

    def scenes() -> Iterator[SceneBlocks]:
        yield SceneBlocks(plan_scene(scene((64, 64), holes=False), SPEC))
        for number in range(300):
            if number == 100:
                engine.too_many.set()
            nothing = ArraySource(np.zeros((3, 64, 64), np.uint8), valid=np.zeros((64, 64), bool))
            yield SceneBlocks(plan_scene(nothing, SPEC))

    for number, one in enumerate(run_scenes(scenes(), engine)):
        assert [block.mask.min() == NODATA for block in one.blocks] == [number > 0]
        assert one.error is None


def test_a_failing_tile_fails_the_run_with_its_window() -> None:
    source = scene((400, 400), holes=False)
    plan = plan_scene(source, SPEC, tile_px=128)
    window = plan.tiles.tile((0, 2)).read
    engine = Failing(source.read(window).data)
    with pytest.raises(PredictError, match=rf"tile at {window}.*out of luck"):
        predict(source, plan, engine)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_a_failing_tile_of_a_batch_fails_its_own_scene_alone() -> None:
    sources = [scene((128, 128), holes=False), scene((128, 120)), scene((100, 128), holes=False)]
    scenes = [SceneBlocks(plan_scene(source, SPEC)) for source in sources]
    collected = []
    for one in run_scenes(scenes, Failing(sources[0].read().data)):
        taken = Collected(one.plan.source.grid.shape)
        with suppress(PredictError):
            for block in one.blocks:
                taken.feed(block)
        collected.append(taken)
    assert [one.error is None for one in scenes] == [False, True, True]
    for source, taken in zip(sources[1:], collected[1:]):
        np.testing.assert_array_equal(taken.mask, predict(source, plan_scene(source, SPEC)).mask)


@pytest.mark.parametrize("block_px", [64, 4096])
def test_forgiven_tiles_become_nodata_where_they_count(block_px: int) -> None:
    source = scene((400, 400), holes=False)
    plan = plan_scene(source, SPEC, tile_px=128, block_px=block_px)
    forgiving = replace(plan, options=SceneOptions(forgiving=True))
    window = plan.tiles.tile((0, 2)).read
    collected = predict(source, forgiving, Failing(source.read(window).data))
    assert len(collected.tiles.errors) == collected.tiles.tiles_failed == 1
    assert str(window) in collected.tiles.errors[0]
    lost = plan.tiles.tile((0, 2)).write
    expected = predict(source, plan).mask
    expected[lost.slices()] = NODATA
    np.testing.assert_array_equal(collected.mask, expected)


def test_a_failing_read_fails_the_run() -> None:
    class Torn(ArraySource):
        def read(self, window: Window | None = None) -> Raster:
            if window is None or window.row > 100:
                raise DataError("torn.tif cannot be read")
            return super().read(window)

    source = Torn(np.zeros((3, 400, 400), dtype=np.uint8))
    with pytest.raises(DataError, match="torn"):
        predict(source, plan_scene(source, SPEC, tile_px=128))


def test_a_mask_that_cannot_be_finished_fails_the_scene_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask of several blocks is completed in a thread of its own."""
    source = scene((700, 700), gsd_m=0.3)
    plan = plan_scene(source, SPEC, SceneOptions(outputs=("mask",)), tile_px=128, block_px=512)
    assert len(plan.blocks) > 1
    named = {name: tmp_path / f"a_{name}" for name in ("preview", "density")}
    paths = OutputPaths(mask=tmp_path / "a.tif", polygons=tmp_path / "a.gpkg", **named)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        with SceneOutputs(plan, paths) as outputs:
            for block in run(plan, PointwiseEngine()):
                outputs.feed(block)
            outputs.finish()

    with monkeypatch.context() as patch:
        patch.setattr("rooftrace.io.masks._GeoTiffMask._check_complete", full)
        with pytest.raises(ExportError, match=r"a\.tif could not be written: No space left"):
            write()
    assert not (tmp_path / "a.tif").exists()
    write()
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.overviews(1) == [2]


def test_threshold_is_on_the_probability() -> None:
    source = scene((100, 100), holes=False)
    red = source.read().data[0]
    for threshold, expected in ((0, True), (1, red == 255), (100 / 255, red >= 100)):
        plan = plan_scene(source, SPEC, SceneOptions(threshold=threshold))
        collected = predict(source, plan)
        np.testing.assert_array_equal(collected.mask, np.broadcast_to(expected, red.shape))
