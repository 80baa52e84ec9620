"""Prediction with a model that separates touching buildings."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from rooftrace.engines.base import Engine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.model_set import combine
from rooftrace.predict.plan import ScenePlan, plan_scene
from rooftrace.predict.predictor import Predictor

WALL = slice(58, 62)


class TwoHeads(Engine):
    """A fake: the first band is the building's probability, the second the other head's."""

    name = "two heads"
    precision = "fp32"

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return batch[:, : self.outputs].astype(np.float32) / 255


def model(separation: Literal["border", "distance"] | None, **changes: Any) -> Predictor:
    spec = tiny_bundle().spec.model_copy(update={"separation": separation, **changes})
    return Predictor(ModelBundle(spec, {}, "made"), TwoHeads(spec.outputs))


def two_houses(head: Literal["border", "distance"] = "border") -> np.ndarray:
    """Two that touch, and one by itself; the wall as the head sees it."""
    image = np.zeros((3, 120, 160), np.uint8)
    image[0, 20:60, 20:100] = image[0, 80:100, 30:50] = 255
    wall = np.zeros((120, 160), bool)
    wall[18:62, WALL] = True
    image[1] = 255 * wall if head == "border" else np.where(wall, 0, image[0])
    return image


@pytest.mark.parametrize("kind", ["border", "distance"])
def test_houses_that_touch_are_two_polygons_and_the_mask_is_whole(kind) -> None:
    result = model(kind).predict(two_houses(kind))
    assert [outline.bounds for outline in result.footprints.geometry] == [
        (20, 20, 60, 60), (60, 20, 100, 60), (30, 80, 50, 100)
    ]  # fmt: skip
    np.testing.assert_array_equal(result.mask.data, two_houses()[0] > 128)
    assert result.summary.buildings == 3


def test_an_ensemble_separates_as_its_members_do() -> None:
    both = combine([model("border", separation_threshold=t) for t in (0.4, 0.6)], "average")
    assert both.bundle.spec.separation_threshold == pytest.approx(0.5)
    result = both.predict(two_houses())
    assert [outline.bounds for outline in result.footprints.geometry] == [
        (20, 20, 60, 60), (60, 20, 100, 60), (30, 80, 50, 100)
    ]  # fmt: skip
    mixed = combine([model("border"), model(None)], "average")
    assert mixed.bundle.spec.separation is None
    assert any("not all models separate" in note for note in mixed.engine.notes)
    assert mixed.predict(two_houses()).summary.buildings > 0


def test_a_border_beside_a_building_cuts_nothing() -> None:
    image = two_houses()
    image[1] = 0
    image[1, 20:60, 98:110] = 255
    assert model("border").predict(image).summary.buildings == 2


def test_polygons_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (3, 15, 20)), np.ones((16, 16), int)).astype(np.uint8)
    whole = model("border").predict(image)

    called = []

    def in_small_blocks(*args: Any, **options: Any) -> ScenePlan:
        plan = plan_scene(*args, **options, tile_px=128, block_px=64)
        called.append(plan)
        assert len(plan.blocks) > 4
        return plan

    monkeypatch.setattr("rooftrace.predict.predictor.plan_scene", in_small_blocks)
    cut = model("border").predict(image)
    assert called
    assert len(whole.footprints) > len(model(None).predict(image).footprints)
    assert shapely.equals(cut.footprints.geometry, whole.footprints.geometry).all()
