"""Prediction with a model of an earlier version, whose second head located walls."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.engines.base import Engine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.model_set import combine
from rooftrace.predict.predictor import Predictor


class FirstBands(Engine):
    """A fake whose outputs are the first bands."""

    name = "first bands"
    precision = "fp32"

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return batch[:, : self.outputs].astype(np.float32) / 255


def test_a_second_head_is_ignored_with_a_note() -> None:
    one_head = tiny_bundle().spec
    old = {**one_head.model_dump(), "separation": "border", "separation_threshold": 0.4}
    specs = one_head, BundleSpec.model_validate(old)
    image = np.random.default_rng(0).integers(0, 256, (3, 120, 160), np.uint8)
    image[0] = np.kron(image[0, :10, :10] > 90, np.full((12, 16), 255))
    plain, headed = (
        Predictor(ModelBundle(spec, {}, "made"), FirstBands(spec.outputs)) for spec in specs
    )
    expected, *others = (
        one.predict(image) for one in (plain, headed, combine([plain, headed], "average"))
    )
    assert "second head" in " ".join(others[0].summary.notes)
    for found in others:
        np.testing.assert_array_equal(found.mask.data, expected.mask.data)
        assert [*found.footprints.geometry] == [*expected.footprints.geometry]
