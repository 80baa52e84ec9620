"""Test-time augmentation: mirrored in, mirrored out, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rooftrace.engines.base import ConstantEngine, Engine
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec, Tta
from rooftrace.predict.model_set import combine
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.predictor import Predictor, TtaEngine

WAYS: dict[Tta, list[Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "mirror": [lambda a: a[..., ::-1]],
    "flips": [lambda a: a[..., ::-1], lambda a: a[..., ::-1, :], lambda a: a[..., ::-1, ::-1]],
    "d4": [lambda a: a.swapaxes(-1, -2), lambda a: np.rot90(a, axes=(-2, -1)),
           lambda a: np.rot90(a, 3, axes=(-2, -1)),
           lambda a: np.rot90(a, 2, axes=(-2, -1)).swapaxes(-1, -2)],
}  # fmt: skip
WAYS["d4"] = WAYS["flips"] + WAYS["d4"]


class SlantedEngine(Engine):
    """Answers by the pixel, its neighbours and its place, none of them symmetrically.

    Three classes and a channel besides; what it was asked is kept.
    """

    name = "slanted"
    precision = "fp32"
    settings = {"hint": "none"}  # noqa: RUF012

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.released = False

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        assert batch.flags.c_contiguous
        self.shapes.append(batch.shape)
        height, width = batch.shape[2:]
        rng = np.random.default_rng(height * 1000 + width)
        bias = rng.random((4, height, width), np.float32)
        seen = batch[:, :1].astype(np.float32) / 255
        seen = seen + np.roll(seen, 1, axis=-1) / 3 + np.roll(seen, 2, axis=-2) / 7
        return np.asarray(seen / 2 * bias, dtype=np.float32)

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize("tta", ["mirror", "flips", "d4"])
@pytest.mark.parametrize("shape_yx", [(32, 32), (24, 40)])
def test_a_mirrored_tile_has_the_mirrored_answer(tta: Tta, shape_yx: tuple[int, int]) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 3, *shape_yx), np.uint8)
    inner = SlantedEngine()
    engine = TtaEngine(inner, tta)
    answer = engine.run(batch)
    assert answer.shape == (2, 4, *shape_yx)
    assert answer.dtype == np.float32
    assert len(inner.shapes) == {"mirror": 2, "flips": 4, "d4": 8}[tta]
    for way in WAYS[tta]:
        assert np.array_equal(engine.run(way(batch)), way(answer))
        assert not np.array_equal(inner.run(np.ascontiguousarray(way(batch))),
                                  way(inner.run(batch)))  # fmt: skip


@pytest.mark.parametrize("tta", ["mirror", "flips", "d4"])
def test_it_is_the_mean_of_all_ways(tta: Tta) -> None:
    batch = np.random.default_rng(1).integers(0, 256, (1, 3, 16, 24), np.uint8)
    inner = SlantedEngine()
    answers = [inner.run(batch)]
    for way in WAYS[tta]:
        asked = inner.run(np.ascontiguousarray(way(batch)))
        # Of the eight ways two undo one another; the rest undo themselves.
        undone = [back(asked) for back in WAYS[tta] if np.array_equal(back(way(batch)), batch)]
        answers.append(undone[0])
    np.testing.assert_allclose(TtaEngine(inner, tta).run(batch), np.mean(answers, 0), rtol=1e-6)


@given(st.floats(0, 1, width=32), st.sampled_from(["mirror", "flips", "d4"]))
def test_an_engine_without_a_place_is_left_as_it_is(probability: float, tta: Tta) -> None:
    batch = np.zeros((1, 3, 4, 6), np.uint8)
    plain = ConstantEngine(probability).run(batch)
    assert np.array_equal(TtaEngine(ConstantEngine(probability), tta).run(batch), plain)


class SharedEngine(SlantedEngine):
    """A fake engine that runs several batches at a time and rounds by itself."""

    def __init__(self, threads: int = 1) -> None:
        super().__init__()
        self.threads = threads
        self.asked: list[int] = []

    def parallel(self, count: int) -> SharedEngine:
        self.asked.append(count)
        return SharedEngine(count)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        return np.asarray(np.rint(self.run(batch) * 255), dtype=np.uint8)


@pytest.mark.parametrize("tta", ["mirror", "flips", "d4"])
def test_rounded_outputs_are_averaged_and_rounded_once_more(tta: Tta) -> None:
    batch = np.random.default_rng(3).integers(0, 256, (2, 3, 24, 40), np.uint8)
    engine = TtaEngine(SharedEngine(), tta)
    answer = engine.run_quantised(batch)
    assert answer.dtype == np.uint8
    exact = engine.run(batch) * 255
    assert np.abs(answer - exact).max() <= 1
    # Rounding half up once more moves the mean by no more than a quarter of a 255th.
    assert abs(float(np.mean(answer - exact))) < 0.27
    for way in WAYS[tta]:
        assert np.array_equal(engine.run_quantised(way(batch)), way(answer))


SPEC = BundleSpec(
    name="m", bands=("red", "green", "blue"), mean=(0.0,) * 3, std=(1.0,) * 3,
    classes=("ground", "building", "road"), separation="border", input_multiple_px=8,
)  # fmt: skip


def slanted() -> Predictor:
    return Predictor(ModelBundle(SPEC, {}, "m.rooftrace"), TtaEngine(SlantedEngine(), "d4"))


@pytest.mark.parametrize("together", [False, True])
def test_an_image_of_one_tile_is_predicted_alike_from_all_sides(together: bool) -> None:
    """Several classes and a second head, which is ignored; alone and as members of an ensemble."""
    predictor = combine([slanted(), slanted()]) if together else slanted()
    image = np.random.default_rng(3).integers(0, 256, (3, 64, 96), np.uint8)
    options = SceneOptions(outputs=("mask",))
    mask = predictor.predict(image, options=options).mask
    assert len(np.unique(mask.data)) > 1
    for way in WAYS["d4"]:
        turned = np.ascontiguousarray(way(image))
        mirrored = predictor.predict(turned, options=options).mask
        assert np.array_equal(mirrored.data, way(mask.data))
