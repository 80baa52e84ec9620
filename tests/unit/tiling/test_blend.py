"""Blending is exact: tiled equals whole, and blocks leave no seams."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.errors import PredictError
from rooftrace.core.types import Window
from rooftrace.tiling.plan import BLEND_ONE, PROB_ONE, Blender, TilePlan, plan_tiles, quantise


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    shape = draw(st.tuples(st.integers(1, 300), st.integers(1, 300)))
    overlap = draw(st.integers(0, 40))
    return plan_tiles(
        shape,
        tile_px=draw(st.sampled_from([32, 64, 128])),
        overlap_px=overlap,
        trim_px=draw(st.integers(0, overlap // 2)),
        multiple_px=8,
    )


def blended(tiles: TilePlan, window: Window, answers: dict[tuple[int, int], np.ndarray],
            reverse: bool = False) -> np.ndarray:  # fmt: skip
    blender = Blender(tiles, window, channels=1)
    for index in sorted(tiles.tiles_for(window), reverse=reverse):
        blender.feed(index, answers[index])
    return blender.blended


def answers_of(tiles: TilePlan, seed: int) -> dict[tuple[int, int], np.ndarray]:
    rng = np.random.default_rng(seed)
    every = tiles.tiles_for(Window.whole(tiles.shape_yx))
    return {
        index: rng.integers(0, 256, (1, *tiles.tile_shape_yx), dtype=np.uint8) for index in every
    }


@given(plans(), st.integers(0, 99))
def test_agreeing_tiles_stay_unchanged(tiles: TilePlan, seed: int) -> None:
    height, width = tiles.shape_yx
    tile_y, tile_x = tiles.tile_shape_yx
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, (height + tile_y, width + tile_x), dtype=np.uint8)
    answers = {
        index: scene[tiles.tile(index).read.slices()][None]
        for index in tiles.tiles_for(Window.whole(tiles.shape_yx))
    }
    result = blended(tiles, Window.whole(tiles.shape_yx), answers)
    expected = scene[:height, :width].astype(np.uint16) * (BLEND_ONE // PROB_ONE)
    np.testing.assert_array_equal(result[0], expected)


@given(plans(), st.integers(0, 99), st.data())
def test_a_window_equals_that_part_of_the_whole(
    tiles: TilePlan, seed: int, data: st.DataObject
) -> None:
    height, width = tiles.shape_yx
    answers = answers_of(tiles, seed)
    whole = blended(tiles, Window.whole(tiles.shape_yx), answers)
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(
        row, col, data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col))
    )
    part = blended(tiles, window, answers, reverse=True)
    np.testing.assert_array_equal(part, whole[:, *window.slices()])


def test_quantise_rounds_to_the_nearest() -> None:
    values = np.array([0, 0.5 / 255 - 1e-6, 0.5 / 255 + 1e-6, 0.5, 1], dtype=np.float32)
    np.testing.assert_array_equal(quantise(values), [0, 0, 1, 128, 255])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1.01, -0.01])
def test_one_answer_that_is_no_probability_is_refused(wrong: float) -> None:
    answer = np.full((1, 1, 40, 40), 0.5, dtype=np.float32)
    answer[0, 0, 17, 3] = wrong
    with pytest.raises(PredictError, match="expected probabilities from 0 to 1"):
        quantise(answer)
