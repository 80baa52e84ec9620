"""Several models as one: by hand, and as invariants."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.engines.base import ConstantEngine, Engine, PointwiseEngine
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.ensemble import Combine, combine
from rooftrace.predict.predictor import Predictor

BATCH = np.zeros((2, 3, 4, 5), dtype=np.uint8)


def model(engine: Engine, threshold: float = 0.5, **spec: Any) -> Predictor:
    settings: dict[str, Any] = {
        "name": "model",
        "bands": ("red", "green", "blue"),
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
        "classes": ("background", "building"),
        "threshold": threshold,
        **spec,
    }
    return Predictor(ModelBundle(BundleSpec(**settings), {}, "model.rooftrace"), engine)


class FixedEngine:
    """The same probabilities of several classes everywhere."""

    name = "fixed"
    precision = "fp32"

    def __init__(self, *probabilities: float) -> None:
        self._values = np.array(probabilities, dtype=np.float32)[:, None, None]

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        n, _, height, width = batch.shape
        return np.broadcast_to(self._values, (n, len(self._values), height, width)).copy()


@pytest.mark.parametrize(
    ("how", "expected", "threshold"),
    [
        # (0.2 + 0.9 + 0.7) / 3; the thresholds' mean.
        ("average", 0.6, 0.6),
        # 0.2 < 0.5, 0.9 >= 0.5, 0.7 < 0.8: one of three.
        ("vote", 1 / 3, 0.5),
    ],
)
def test_two_classes_by_hand(how: Combine, expected: float, threshold: float) -> None:
    members = [
        model(ConstantEngine(0.2)),
        model(ConstantEngine(0.9)),
        model(ConstantEngine(0.7), threshold=0.8),
    ]
    for order in permutations(members):
        made = combine(order, how)
        answer = made.engine.run(BATCH)
        assert answer.shape == (2, 1, 4, 5)
        np.testing.assert_allclose(answer, expected, rtol=1e-6)
        assert made.bundle.spec.threshold == pytest.approx(threshold)


def test_a_tie_of_votes_is_for_the_building() -> None:
    made = combine([model(ConstantEngine(0.1)), model(ConstantEngine(0.9))], "vote")
    assert (made.predict(np.zeros((3, 40, 40), np.uint8)).mask.data == 1).all()


@pytest.mark.parametrize(
    ("how", "expected"),
    [("average", [0.3, 0.4, 0.3]), ("vote", [1 / 3, 1 / 3, 1 / 3])],
)
def test_more_classes_by_hand(how: Combine, expected: list[float]) -> None:
    classes = {"classes": ("background", "building", "road")}
    members = [
        model(FixedEngine(0.6, 0.3, 0.1), **classes),
        model(FixedEngine(0.2, 0.7, 0.1), **classes),
        model(FixedEngine(0.1, 0.2, 0.7), **classes),
    ]
    answer = combine(members, how).engine.run(BATCH)
    np.testing.assert_allclose(answer[1, :, 2, 3], expected, rtol=1e-6)


def test_a_model_with_itself_is_that_model() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 150, 170), dtype=np.uint8)
    alone = model(PointwiseEngine())
    both = combine([model(PointwiseEngine()), model(PointwiseEngine())])
    assert np.array_equal(both.predict(image).mask.data, alone.predict(image).mask.data)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"gsd_m": 0.4}, "gsd_m"),
        ({"classes": ("background", "roof")}, "classes"),
        ({"dtype": "uint16"}, "dtype"),
    ],
)
def test_models_of_another_contract_are_refused(other: dict[str, Any], named: str) -> None:
    with pytest.raises(BundleError, match=named):
        combine([model(ConstantEngine()), model(ConstantEngine(), **other)])


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([{"input_multiple_px": 16}, {"input_multiple_px": 24}], (48, None)),
        ([{"input_multiple_px": 32}, {"input_multiple_px": 8, "input_px": 224}], (32, 224)),
        ([{"input_multiple_px": 32}, {"input_multiple_px": 8, "input_px": 200}], None),
        ([{"input_px": 224}, {"input_px": 256}], None),
    ],
)
def test_the_size_of_a_tile_suits_all(
    sizes: list[dict[str, int]], expected: tuple[int, int | None] | None
) -> None:
    members = [model(ConstantEngine(), **size) for size in sizes]
    if expected is None:
        with pytest.raises(BundleError, match="No size of tile suits all"):
            combine(members)
        return
    spec = combine(members).bundle.spec
    assert (spec.input_multiple_px, spec.input_px) == expected


def test_what_took_part_is_on_record() -> None:
    members = [model(ConstantEngine(0.2), name="one"), model(ConstantEngine(0.4), name="two")]
    made = combine(members, "vote")
    assert [m["name"] for m in made.engine.settings["members"]] == ["one", "two"]  # type: ignore[attr-defined]
    assert made.bundle.spec.name == "vote of one, two"
    assert made.bundle.sha256 != combine(members[::-1], "vote").bundle.sha256


def test_no_model_is_no_ensemble() -> None:
    with pytest.raises(ConfigError, match="no models"):
        combine([])
