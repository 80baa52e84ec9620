"""One network for many threads: equal results, shared batches, errors only for their cause."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rooftrace.core.errors import PredictError
from rooftrace.engines.base import PointwiseEngine
from rooftrace.service.batching import BatchingEngine
from rooftrace.tiling.blend import quantise


class Slow(PointwiseEngine):
    """A slow engine, so that requests queue up; it fails on a tile that begins with 13."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.begun = threading.Event()
        self.go = threading.Event()

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.shapes.append(batch.shape)
        self.begun.set()
        assert self.go.wait(60)
        if (batch[:, 0, 0, 0] == 13).any():
            raise ValueError("thirteen")
        return super().run(batch)


@pytest.fixture
def slow():
    engine = Slow()
    batching = BatchingEngine(engine)
    yield engine, batching
    engine.go.set()
    batching.close()


def tile(seed: int, side: int = 32) -> NDArray[np.uint8]:
    image = np.random.default_rng(seed).integers(0, 256, (1, 3, side, side), dtype=np.uint8)
    image[0, 0, 0, 0] = 1
    return image


def gathered(batching: BatchingEngine, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(batching._queue) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_waits_goes_together_and_each_gets_its_own(slow) -> None:
    engine, batching = slow
    tiles = [tile(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(batching.run_quantised, tiles[0])]
        assert engine.begun.wait(60)
        answers += [pool.submit(batching.run_quantised, one) for one in tiles[1:]]
        gathered(batching, 7)
        engine.go.set()
        found = [answer.result(60) for answer in answers]
    for one, answer in zip(tiles, found):
        assert np.array_equal(answer, quantise(PointwiseEngine().run(one)))
    # Seven requests arrived while the first ran; they are split into powers of two.
    assert [shape[0] for shape in engine.shapes] == [1, 4, 2, 1]
    assert batching.figures.batches == 4
    assert batching.figures.tiles == 8
    assert batching.figures.pixels == 8 * 32 * 32


def test_other_shapes_run_separately_in_order(slow) -> None:
    engine, batching = slow
    with ThreadPoolExecutor(5) as pool:
        pool.submit(batching.run_quantised, tile(0))
        assert engine.begun.wait(60)
        for waiting, side in enumerate((64, 32, 64, 32)):
            pool.submit(batching.run_quantised, tile(1, side))
            gathered(batching, waiting + 1)
        engine.go.set()
    assert [shape[::3] for shape in engine.shapes] == [(1, 32), (2, 64), (2, 32)]


def test_only_the_request_with_the_bad_tile_fails(slow) -> None:
    engine, batching = slow
    bad = tile(3)
    bad[0, 0, 0, 0] = 13
    with ThreadPoolExecutor(5) as pool:
        pool.submit(batching.run_quantised, tile(0))
        assert engine.begun.wait(60)
        good = [pool.submit(batching.run_quantised, tile(seed)) for seed in (1, 2, 4)]
        wrong = pool.submit(batching.run_quantised, bad)
        gathered(batching, 4)
        engine.go.set()
        for seed, answer in zip((1, 2, 4), good):
            assert np.array_equal(answer.result(60), quantise(PointwiseEngine().run(tile(seed))))
        with pytest.raises(ValueError, match="thirteen"):
            wrong.result(60)


def test_large_tiles_go_alone(slow) -> None:
    engine, batching = slow
    with ThreadPoolExecutor(3) as pool:
        pool.submit(batching.run_quantised, tile(0))
        assert engine.begun.wait(60)
        for seed in (1, 2):
            pool.submit(batching.run_quantised, tile(seed, 512))
        gathered(batching, 2)
        engine.go.set()
    assert [shape[0] for shape in engine.shapes] == [1, 1, 1]


def test_a_batch_that_comes_as_one_stays_one() -> None:
    batching = BatchingEngine(PointwiseEngine())
    batch = np.concatenate([tile(seed) for seed in range(3)])
    assert np.array_equal(batching.run_quantised(batch), quantise(PointwiseEngine().run(batch)))
    assert np.allclose(batching.run(batch), PointwiseEngine().run(batch), atol=0.5 / 255)
    assert (batching.figures.batches, batching.figures.tiles) == (2, 6)
    batching.close()


def test_waiting_requests_fail_when_it_closes(slow) -> None:
    engine, batching = slow
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batching.run_quantised, tile(0))
        assert engine.begun.wait(60)
        second = pool.submit(batching.run_quantised, tile(1))
        gathered(batching, 1)
        closing = pool.submit(batching.close)
        time.sleep(0.05)
        engine.go.set()
        closing.result(60)
        assert first.result(60).shape == (1, 1, 32, 32)
        with pytest.raises(PredictError, match="stopping"):
            second.result(60)
    with pytest.raises(PredictError, match="stopping"):
        batching.run_quantised(tile(0))
