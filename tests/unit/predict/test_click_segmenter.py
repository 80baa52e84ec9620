"""Clicks on images, with an engine that takes every bright pixel for a building."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clicked_town import ObedientEngine, click_model
from rooftrace.core.errors import BundleError, DataError
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.io.georeferenced import ArraySource
from rooftrace.models.bundle import write_bundle
from rooftrace.models.clicks import Click
from rooftrace.predict.clicks import ClickAnswer, ClickModel, ClickSegmenter, load_clicks

SHAPE = (300, 400)
HOUSES = {"shed": (20, 30, 12, 10), "house": (120, 180, 40, 60), "hall": (200, 20, 90, 140)}
"""Top, left, height and width."""


def model() -> ClickModel:
    return click_model(ObedientEngine())


def picture() -> np.ndarray:
    pixels = np.full((3, *SHAPE), 20, np.uint8)
    for top, left, height, width in HOUSES.values():
        pixels[:, top : top + height, left : left + width] = 240
    return pixels


def whole(answer: ClickAnswer) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[answer.window.slices()] = answer.mask
    return mask


def truth(*names: str) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    for top, left, height, width in map(HOUSES.__getitem__, names):
        mask[top : top + height, left : left + width] = True
    return mask


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def centre(name: str) -> tuple[float, float]:
    top, left, height, width = HOUSES[name]
    return top + height / 2, left + width / 2


@pytest.mark.parametrize("gsd_m", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("name", HOUSES)
def test_a_click_gives_the_outline_of_its_building(name: str, gsd_m: float) -> None:
    answer = ClickSegmenter(picture(), model(), gsd_m=gsd_m).click(*centre(name))
    assert iou(whole(answer), truth(name)) > 0.93
    [outline] = answer.outlines
    top, left, height, width = HOUSES[name]
    assert outline.bounds == pytest.approx((left, top, left + width, top + height), abs=1.5)
    assert answer.score > 0.8


def test_more_clicks_add_and_remove() -> None:
    segmenter = ClickSegmenter(picture(), model(), gsd_m=0.3)
    segmenter.click(*centre("house"))
    both = segmenter.click(*centre("hall"))
    assert iou(whole(both), truth("house", "hall")) > 0.95
    less = segmenter.click(130, 190, positive=False)
    assert not whole(less)[130, 190]
    assert whole(less)[150, 230]
    assert segmenter.clicks == (
        Click(*centre("house")), Click(*centre("hall")), Click(130, 190, positive=False)
    )  # fmt: skip
    assert np.array_equal(segmenter.answer().mask, less.mask)


def test_at_the_edge_and_on_nodata() -> None:
    pixels, valid = picture(), np.ones(SHAPE, np.bool_)
    pixels[:, :40, :40] = 240
    valid[:, 200:] = False
    source = ArraySource(pixels, valid=valid)
    corner = ClickSegmenter(source, model(), gsd_m=0.3).click(0, 0)
    assert whole(corner)[:40, :40].mean() > 0.95
    half = ClickSegmenter(source, model(), gsd_m=0.3).click(140, 190)
    assert whole(half)[125:155, 185:198].all()
    assert not whole(half)[:, 202:].any()
    nothing = ClickSegmenter(source, model(), gsd_m=0.3).click(10, 390)
    assert (nothing.score, len(nothing.outlines)) == (0.0, 0)


class GuessingEngine(ObedientEngine):
    """Obedient engine that also takes for buildings what is beyond the image, black in views."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        beyond = (batch[:, :3] == 0).all(axis=1, keepdims=True)
        return np.where(beyond, 1, super().run(batch)).astype(np.float32)


def test_roofs_are_not_joined_beyond_the_edge_of_the_image() -> None:
    # With nearly the whole range of values the image is not stretched.
    pixels = np.full((3, *SHAPE), 60, np.uint8)
    pixels[:, 200:220], pixels[:, 230:250] = 1, 255
    pixels[:, :20, 100:130] = pixels[:, :20, 140:170] = 240
    guessing = replace(model(), engine=GuessingEngine())
    answer = ClickSegmenter(pixels, guessing, gsd_m=0.3).click(8, 115)
    [outline] = answer.outlines
    assert outline.bounds == pytest.approx((100, 0, 130, 20), abs=1.5)


def test_clicks_that_cannot_be() -> None:
    segmenter = ClickSegmenter(picture(), model())
    for row, col in ((-1, 5), (5, 400.5), (float("nan"), 5)):
        with pytest.raises(DataError, match="lies outside of array, which has 300 rows and 400"):
            segmenter.click(row, col)
    with pytest.raises(DataError, match="The first click says what is not in the building"):
        segmenter.click(5, 5, positive=False)
    with pytest.raises(DataError, match="There was no click on array yet"):
        segmenter.answer()
    assert segmenter.clicks == ()


def test_a_model_without_clicks_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle()
    path = tmp_path / "tiny.rooftrace"
    write_bundle(path, bundle.spec, bundle.parts)
    with pytest.raises(BundleError, match="expected one that takes earlier_answer, positive"):
        load_clicks(str(path))
