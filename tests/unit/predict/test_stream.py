"""A tiled, blended, block-wise prediction is that of the whole scene."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from rooftrace.core.errors import BandMismatch, DataError, PredictError
from rooftrace.core.types import GeoGrid, Raster, Window
from rooftrace.engines.base import ConstantEngine, PointwiseEngine
from rooftrace.io.masks import NODATA
from rooftrace.io.memory import ArraySource
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.block import Block, most_probable
from rooftrace.predict.passage import SceneStream, StreamStats
from rooftrace.predict.scene import ScenePlan, plan_scene
from rooftrace.predict.stream import run_streams, stream

SPEC = BundleSpec(
    name="fake",
    bands=("red", "green", "blue"),
    mean=(120.0, 120.0, 120.0),
    std=(60.0, 60.0, 60.0),
    classes=("background", "building"),
    input_multiple_px=8,
    context_px=16,
)


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
    """What blocks add up to."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.mask = np.full(shape, 77, dtype=np.uint8)
        self.score = np.full(shape, 77, dtype=np.uint8)
        self.windows: list[Window] = []

    def __call__(self, block: Block) -> None:
        where = block.window.slices()
        self.mask[where], self.score[where] = block.mask, block.score
        self.windows.append(block.window)


def predict(source: ArraySource, plan: ScenePlan, engine: object = None, spec: BundleSpec = SPEC,
            threshold: float | None = 0.5) -> tuple[Collected, StreamStats]:  # fmt: skip
    collected = Collected(source.grid.shape)
    stats = stream(source, engine or PointwiseEngine(), spec, plan, collected, threshold=threshold)  # type: ignore[arg-type]
    return collected, stats


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.sampled_from([64, 128, 256]),
    st.booleans(),
)
def test_tiled_equals_whole(shape: tuple[int, int], tile_px: int, holes: bool) -> None:
    source = scene(shape, holes)
    raster = source.read()
    tiled, stats = predict(source, plan_scene(source, SPEC, tile_px=tile_px, block_px=64))
    expected = np.where(raster.valid, raster.data[0] >= 128, NODATA)
    np.testing.assert_array_equal(tiled.mask, expected)
    np.testing.assert_array_equal(tiled.score[raster.valid], raster.data[0][raster.valid])
    assert stats.valid_px == raster.valid.sum()
    np.testing.assert_array_equal(stats.class_px, np.bincount(expected.ravel(), minlength=256))


class EdgyEngine:
    """A network whose answer differs with the place in the tile, as near a real tile's edge."""

    name, precision = "edgy", "fp32"

    def run(self, batch: np.ndarray) -> np.ndarray:
        height, width = batch.shape[2:]
        place = np.add.outer(np.arange(height), np.arange(width)) / (height + width)
        scaled = batch[:, :1].astype(np.float32) / 255
        return (0.5 * scaled + 0.5 * place).astype(np.float32)


@settings(max_examples=15)
@given(
    st.tuples(st.integers(1, 1500), st.integers(1, 700)),
    st.sampled_from([0.2, 0.4, 0.7, 1.3]),
)
def test_blocks_do_not_show(shape: tuple[int, int], gsd_m: float) -> None:
    spec = SPEC.model_copy(update={"gsd_m": 0.4})
    source = scene(shape, gsd_m=gsd_m)
    results = []
    for block_px in (64, 512, 4096):
        plan = plan_scene(source, spec, tile_px=160, block_px=block_px)
        results.append(predict(source, plan, EdgyEngine(), spec)[0])
    assert len(results[0].windows) >= len(results[-1].windows)
    for result in results[1:]:
        np.testing.assert_array_equal(result.mask, results[0].mask)
        np.testing.assert_array_equal(result.score, results[0].score)


def test_nodata_stays_nodata_when_resampled() -> None:
    spec = SPEC.model_copy(update={"gsd_m": 0.4})
    source = scene((300, 400), gsd_m=0.2)
    collected, _ = predict(source, plan_scene(source, spec), ConstantEngine(0.9), spec)
    np.testing.assert_array_equal(collected.mask == NODATA, ~source.read().valid)
    assert (collected.mask[source.read().valid] == 1).all()


def test_empty_tiles_never_reach_the_network() -> None:
    source = ArraySource(
        np.zeros((3, 600, 600), dtype=np.uint8), valid=np.arange(360_000).reshape(600, 600) < 60_000
    )
    seen = []

    class Counting(PointwiseEngine):
        def run(self, batch: np.ndarray) -> np.ndarray:
            seen.append(batch.shape)
            return super().run(batch)

    collected, stats = predict(source, plan_scene(source, SPEC, tile_px=128), Counting())
    assert stats.tiles_empty > 0
    assert sum(shape[0] for shape in seen) == stats.tiles_run
    assert stats.tiles_run + stats.tiles_empty == len(plan_scene(source, SPEC, tile_px=128).tiles)
    assert (collected.mask[100:] == NODATA).all()
    assert (collected.mask[:100] == 0).all()


def test_no_tile_is_computed_twice() -> None:
    source = scene((900, 700), holes=False)
    plan = plan_scene(source, SPEC, tile_px=128, block_px=64)
    _, stats = predict(source, plan)
    assert len(plan.blocks) > 1
    assert stats.tiles_run == len(plan.tiles)


def test_more_classes_take_themost_probable() -> None:
    spec = SPEC.model_copy(update={"classes": ("land", "road", "roof"), "building_class": 2})

    class ByBand(PointwiseEngine):
        def run(self, batch: np.ndarray) -> np.ndarray:
            return batch.astype(np.float32) / 255

    source = scene((200, 150))
    raster = source.read()
    collected, stats = predict(source, plan_scene(source, spec), ByBand(), spec, threshold=None)
    expected = np.where(raster.valid, raster.data.argmax(axis=0), NODATA)
    np.testing.assert_array_equal(collected.mask, expected)
    best = raster.data.max(axis=0)
    np.testing.assert_array_equal(collected.score[raster.valid], best[raster.valid])
    np.testing.assert_array_equal(stats.class_px, np.bincount(expected.ravel(), minlength=256))


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
    """What is held at a time are the answers of tiles, one value for each class and pixel."""
    source = ArraySource(np.zeros((3, 4096, 4096), dtype=np.uint8))
    few, many = (
        plan_scene(source, SPEC.model_copy(update={"classes": tuple("abcdefghij"[:count])}))
        for count in (3, 10)
    )
    assert max(block.area_px for block in many.blocks) * 2 <= few.blocks[0].area_px
    assert len(many.tiles) > 3 * len(few.tiles)


def test_a_model_of_one_size_gets_that_size() -> None:
    spec = SPEC.model_copy(update={"input_px": 96})
    shapes = set()

    class Strict(PointwiseEngine):
        def run(self, batch: np.ndarray) -> np.ndarray:
            shapes.add(batch.shape)
            return super().run(batch)

    source = scene((50, 333))
    predict(source, plan_scene(source, spec), Strict(), spec)
    assert {shape[1:] for shape in shapes} == {(3, 96, 96)}


class Failing(PointwiseEngine):
    """A network that one tile is too much for."""

    def __init__(self, tile: np.ndarray) -> None:
        super().__init__()
        self._tile = tile

    def run(self, batch: np.ndarray) -> np.ndarray:
        if any(np.array_equal(tile, self._tile) for tile in batch):
            raise RuntimeError("out of luck")
        return super().run(batch)


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
    collected = [Collected(source.grid.shape) for source in sources]
    scenes = [
        SceneStream(source, SPEC, plan_scene(source, SPEC), take, threshold=0.5)
        for source, take in zip(sources, collected)
    ]
    run_streams(scenes, Failing(sources[0].read().data))
    assert [one.error is None for one in scenes] == [False, True, True]
    for source, taken in zip(sources[1:], collected[1:]):
        np.testing.assert_array_equal(taken.mask, predict(source, plan_scene(source, SPEC))[0].mask)


@pytest.mark.parametrize("block_px", [64, 4096])
def test_forgiven_tiles_become_nodata_where_they_count(block_px: int) -> None:
    source = scene((400, 400), holes=False)
    plan = plan_scene(source, SPEC, tile_px=128, block_px=block_px)
    collected = Collected(source.grid.shape)
    one = SceneStream(source, SPEC, plan, collected, threshold=0.5, forgiving=True)
    window = plan.tiles.tile((0, 2)).read
    run_streams([one], Failing(source.read(window).data))
    assert one.error is None
    assert len(one.failed) == one.stats.tiles_failed == 1
    assert str(window) in one.failed[0]
    lost = plan.tiles.tile((0, 2)).write
    expected = predict(source, plan)[0].mask
    expected[lost.slices()] = NODATA
    np.testing.assert_array_equal(collected.mask, expected)


def test_a_failing_read_fails_the_run() -> None:
    class Torn(ArraySource):
        def read(self, window: Window | None = None) -> Raster:
            if window is not None and window.row > 100:
                raise DataError("torn.tif cannot be read")
            return super().read(window)

    source = Torn(np.zeros((3, 400, 400), dtype=np.uint8))
    with pytest.raises(DataError, match="torn"):
        predict(source, plan_scene(source, SPEC, tile_px=128))


def test_a_failing_consumer_fails_the_run() -> None:
    source = scene((1200, 600))
    plan = plan_scene(source, SPEC, tile_px=128, block_px=64)

    def full(_: Block) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        stream(source, PointwiseEngine(), SPEC, plan, full, threshold=0.5)


def test_threshold_is_on_the_probability() -> None:
    source = scene((100, 100), holes=False)
    red = source.read().data[0]
    for threshold, expected in ((0, True), (1, red == 255), (100 / 255, red >= 100)):
        collected, _ = predict(source, plan_scene(source, SPEC), threshold=threshold)
        np.testing.assert_array_equal(collected.mask, np.broadcast_to(expected, red.shape))


def test_other_bands_and_values_are_refused() -> None:
    with pytest.raises(BandMismatch, match=r"has 1 bands.* expects 3: red, green, blue") as caught:
        plan_scene(ArraySource(np.zeros((1, 9, 9), dtype=np.uint8), name="a.tif"), SPEC)
    assert caught.value.remedy
    with pytest.raises(DataError, match="holds uint16 values; the model 'fake' expects uint8"):
        plan_scene(ArraySource(np.zeros((3, 9, 9), dtype=np.uint16), name="a.tif"), SPEC)
