"""A prediction that is decided anew equals the one that the network would be run for."""

from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import GeoGrid, Window
from rooftrace.engines.base import ConstantEngine, PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.io.georeferenced import ArraySource
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict import predictor as predictor_module
from rooftrace.predict.outputs import Prediction
from rooftrace.predict.plan import ScenePlan, plan_scene
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scores import predict_keeping


class Counting(PointwiseEngine):
    """The first band is the probability; counts how often it is asked."""

    calls = 0

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.calls += 1
        return batch[:, :1].astype(np.float32) / 255


def model(engine: Any, **changes: Any) -> Predictor:
    return Predictor(ModelBundle(tiny_bundle().spec.model_copy(update=changes), {}, "made"), engine)


def image(seed: int, shape_yx: tuple[int, int], cell: int = 12) -> NDArray[np.uint8]:
    """Blocks of all shades, so that every threshold decides some of them otherwise."""
    rows, cols = (-(-length // cell) for length in shape_yx)
    shades = np.random.default_rng(seed).integers(0, 256, (3, rows, cols))
    whole = np.kron(shades, np.ones((cell, cell), int)).astype(np.uint8)
    return whole[:, : shape_yx[0], : shape_yx[1]]


def assert_same(made: Prediction, wanted: Prediction) -> None:
    np.testing.assert_array_equal(made.mask.data, wanted.mask.data)
    np.testing.assert_array_equal(made.mask.valid, wanted.mask.valid)
    assert made.mask.grid == wanted.mask.grid
    assert [*shapely.to_wkb(made.outlines.geometry)] == [*shapely.to_wkb(wanted.outlines.geometry)]
    for name, values in wanted.outlines.columns().items():
        np.testing.assert_array_equal(made.outlines.columns()[name], values)
    picture, expected = made.result.preview, wanted.result.preview
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    timed = ("seconds", "mpx_per_s", "engine_mpx_per_s")
    figures, expected_figures = (
        {**one.summary.to_json(), **dict.fromkeys(timed)} for one in (made, wanted)
    )
    assert figures == expected_figures
    assert made.name == wanted.name


@pytest.mark.campaign
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(40, 150), st.integers(40, 150)),
    gsd_m=st.sampled_from([0.3, 0.5, 0.83]),
    threshold=st.floats(0, 1),
    holes=st.booleans(),
)
@settings(max_examples=25)
def test_any_threshold_gives_what_the_network_would(
    seed: int, shape: tuple[int, int], gsd_m: float, threshold: float, holes: bool,
) -> None:  # fmt: skip
    data = image(seed, shape)
    valid = image(seed + 1, shape, 31)[0] > 90 if holes else None
    grid = GeoGrid(shape, Affine(gsd_m, 0, 5e5, 0, -gsd_m, 9e6), CRS.from_epsg(32737))
    source = ArraySource(data, grid, valid, "town.tif")
    predictor = model(Counting(), gsd_m=0.5)

    def in_small_blocks(*args: Any, **options: Any) -> ScenePlan:
        return plan_scene(*args, **options, tile_px=64, block_px=48)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor_module, "plan_scene", in_small_blocks)
        kept = predict_keeping(predictor, source)
        assert_same(kept.prediction, predictor.predict(source))
        wanted = predictor.predict(source, threshold=threshold)
        assert_same(kept.scores.redecide(threshold), wanted)


def test_the_network_is_not_run_again() -> None:
    engine = Counting()
    kept = predict_keeping(model(engine), image(3, (64, 80)))
    asked = engine.calls
    counts = [kept.scores.redecide(at).summary.buildings for at in (0.2, 0.6, 0.6, 0.95)]
    assert asked == engine.calls == 1
    assert counts[1] == counts[2]
    assert len({*counts}) == 3


def test_a_picture_and_the_scores_at_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rooftrace.predict.preview.LARGEST_PX", 50)
    data = image(5, (64, 110))
    valid = np.ones((64, 110), dtype=bool)
    valid[10:40, 20:70] = False
    seen: list[Window] = []
    kept = predict_keeping(
        model(Counting()), ArraySource(data, valid=valid),
        on_block=lambda block: seen.append(block.window),
    )  # fmt: skip
    scores = kept.scores
    assert scores.step == 3
    np.testing.assert_array_equal(scores.picture, np.moveaxis(data[:, ::3, ::3], 0, -1))
    shown = valid[::3, ::3]
    np.testing.assert_array_equal(scores.score[shown], data[0, ::3, ::3][shown])
    assert seen == [Window(0, 0, 64, 110)]


def test_more_classes_have_no_threshold() -> None:
    changes = {"classes": ("background", "building", "water")}
    kept = predict_keeping(model(ConstantEngine(0.4, 3), **changes), image(9, (40, 50)))
    assert not kept.scores.answers
    with pytest.raises(ConfigError, match="3 classes"):
        kept.scores.redecide(0.5)
