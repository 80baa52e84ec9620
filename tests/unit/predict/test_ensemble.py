"""Several models as one: by hand, and as invariants."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.engines.base import ConstantEngine, Engine, PointwiseEngine
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import (
    BundleSpec,
    Calibration,
    CalibrationData,
    LogisticMap,
    MeasuredMetrics,
)
from rooftrace.predict.model_set import Combine, combine, read_models
from rooftrace.predict.predictor import Predictor

BATCH = np.zeros((2, 3, 4, 5), dtype=np.uint8)


def model(engine: Engine, threshold: float = 0.5, **spec: Any) -> Predictor:
    settings: dict[str, Any] = {
        "name": "model", "bands": ("red", "green", "blue"), "mean": (0.0,) * 3, "std": (1.0,) * 3,
        "classes": ("background", "building"), "threshold": threshold, **spec,
    }  # fmt: skip
    return Predictor(ModelBundle(BundleSpec(**settings), {}, "model.rooftrace"), engine)


class FixedEngine(Engine):
    """Engine with equal probabilities of several classes in every pixel."""

    name = "fixed"
    precision = "fp32"

    def __init__(self, *probabilities: float) -> None:
        self._values = np.array(probabilities, dtype=np.float32)[:, None, None]

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        n, _, height, width = batch.shape
        return np.broadcast_to(self._values, (n, len(self._values), height, width)).copy()


@pytest.mark.parametrize(
    ("how", "weights", "expected"),
    # (0.2 + 2 · 0.9 + 5 · 0.7) / 8, and (3 · 0.5 + 5 · 0.8) / 8.
    [("average", (1.0, 1.0, 1.0), 0.6), ("weighted", (1.0, 2.0, 5.0), 5.5 / 8)],
)
def test_two_classes_by_hand(how: Combine, weights: tuple[float, ...], expected: float) -> None:
    members = [
        model(ConstantEngine(0.2)),
        model(ConstantEngine(0.9)),
        model(ConstantEngine(0.7), threshold=0.8),
    ]
    for order in permutations(zip(members, weights)):
        given = [weight for _, weight in order] if how == "weighted" else None
        made = combine([member for member, _ in order], how, given)
        answer = made.engine.run(BATCH)
        assert answer.shape == (2, 1, 4, 5)
        np.testing.assert_allclose(answer, expected, rtol=1e-6)
        assert made.bundle.spec.threshold == pytest.approx(expected)
    if how == "weighted":
        recorded = combine(members, how, weights).engine.settings["members"]  # type: ignore[attr-defined]
        assert [one["weight"] for one in recorded] == [0.125, 0.25, 0.625]


def test_more_classes_by_hand() -> None:
    classes = {"classes": ("background", "building", "road")}
    members = [
        model(FixedEngine(0.6, 0.3, 0.1), **classes),
        model(FixedEngine(0.2, 0.7, 0.1), **classes),
        model(FixedEngine(0.1, 0.2, 0.7), **classes),
    ]
    answer = combine(members, "average").engine.run(BATCH)
    np.testing.assert_allclose(answer[1, :, 2, 3], [0.3, 0.4, 0.3], rtol=1e-6)


def test_a_model_with_itself_is_that_model() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 150, 170), dtype=np.uint8)
    alone = model(PointwiseEngine())
    both = combine([model(PointwiseEngine()), model(PointwiseEngine())])
    assert np.array_equal(both.predict(image).mask.data, alone.predict(image).mask.data)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"gsd_m": 0.4}, "its gsd_m is 0.4, but None was expected"),
        ({"classes": ("background", "roof")}, "classes"),
        ({"dtype": "uint16"}, "dtype"),
    ],
)
def test_models_of_another_contract_are_refused(other: dict[str, Any], named: str) -> None:
    with pytest.raises(BundleError, match=named):
        combine([model(ConstantEngine()), model(ConstantEngine(), **other)])


def measured(data: str, split: str = "val", **values: float) -> MeasuredMetrics:
    return MeasuredMetrics(data=data, split=split, protocol="pooled", values=values)


def test_without_weights_each_models_own_iou_is_its_weight() -> None:
    one = (measured("a", iou=0.4), measured("b", iou=0.6), measured("a", f1=0.9),
           measured("a", iou=0.1), measured("c", "test", iou=0.9))  # fmt: skip
    members = [
        model(ConstantEngine(0.0), name="one", metrics=one),
        model(ConstantEngine(1.0), name="two", metrics=(measured("a", iou=0.75),)),
    ]
    made = combine(members, "weighted")
    np.testing.assert_allclose(made.engine.run(BATCH), 0.75 / 1.25, rtol=1e-6)
    (note,) = made.engine.notes  # type: ignore[attr-defined]
    assert "one 0.500, two 0.750" in note
    given = combine(members, "weighted", (0.5, 0.75))
    assert np.array_equal(given.engine.run(BATCH), made.engine.run(BATCH))
    assert given.engine.notes == ()  # type: ignore[attr-defined]
    for metrics in ((), (measured("a", "test", iou=0.5),), (measured("a", iou=0.0),)):
        with pytest.raises(ConfigError, match=r"model\.rooftrace contains no IoU on"):
            combine([members[0], model(ConstantEngine(), metrics=metrics)], "weighted")


@pytest.mark.parametrize(
    ("how", "weights", "reported"),
    [
        ("average", (1, 1), "combined by 'average'"),
        ("weighted", (1,), r"1 weight was given \(1\) for 2 models; expected one weight"),
        ("weighted", (1, 2, 3), r"3 weights were given \(1, 2, 3\)"),
        ("weighted", (1, 0), "1, 0 were given; each weight must be above 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    how: Combine, weights: tuple[float, ...], reported: str
) -> None:
    with pytest.raises(ConfigError, match=reported):
        combine([model(ConstantEngine()), model(ConstantEngine())], how, weights)


def test_a_calibration_is_kept_where_all_have_the_same() -> None:
    data = CalibrationData(data="a", split="val", scenes=3, objects=90, right=60)
    one, other = (
        Calibration(
            map=LogisticMap(kind="logistic", slope=slope, intercept=0.5), fitted_on=(data,),
            ece_before=0.2, ece_after=0.1, log_loss_before=0.7, log_loss_after=0.5,
        )
        for slope in (1.0, 2.0)
    )  # fmt: skip

    def kept(how: Combine, *given: Calibration | None) -> Calibration | None:
        members = [model(ConstantEngine(), calibration=c) for c in given]
        return combine(members, how, (1, 2) if how == "weighted" else None).bundle.spec.calibration

    assert kept("average", one, one) == kept("weighted", one, one) == one
    assert kept("average", one, other) is kept("average", one, None) is None


def test_mirrored_tiles_of_each_member() -> None:
    alone = read_models(None, tta="flips", precision="fp32").ready()
    assert alone.engine.settings["tta"] == "flips"  # type: ignore[attr-defined]
    both = read_models([None, None], "average", tta="flips", precision="fp32").ready()
    members = both.engine.settings["members"]  # type: ignore[attr-defined]
    assert [member["settings"]["tta"] for member in members] == ["flips", "flips"]
