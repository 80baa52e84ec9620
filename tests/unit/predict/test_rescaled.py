"""Models of different scales and sizes in one ensemble."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rooftrace.core.errors import GsdMismatch
from rooftrace.core.types import GeoGrid
from rooftrace.engines.base import ConstantEngine, Engine, PointwiseEngine
from rooftrace.io.resample import Scaling
from rooftrace.io.sources import ArraySource
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.ensemble import RescaledEngine, combine, context_px
from rooftrace.predict.pipeline import run
from rooftrace.predict.plan import SceneOptions, plan_scene
from rooftrace.predict.predictor import Predictor
from town import generate_scene


def spec_of(gsd_m: float | None = None, **given: Any) -> BundleSpec:
    settings: dict[str, Any] = {
        "name": f"at {gsd_m}",
        "bands": ("red", "green", "blue"),
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
        "classes": ("background", "building"),
        "gsd_m": gsd_m,
        "context_px": 0,
        **given,
    }
    return BundleSpec(**settings)


def model(engine: Engine, gsd_m: float | None = None, **given: Any) -> Predictor:
    return Predictor(ModelBundle(spec_of(gsd_m, **given), {}, f"{gsd_m}.rooftrace"), engine)


class Recording:
    """Notes the sizes that it is asked for."""

    name = "recording"
    precision = "fp32"

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.shapes.append(batch.shape)
        return PointwiseEngine().run(batch)


def test_half_the_scale_by_hand() -> None:
    """One row of a step from 0 to 240, and two engines' worth of arithmetic."""
    tile = np.zeros((1, 3, 4, 8), np.uint8)
    tile[..., 4:] = 240
    engine = RescaledEngine(
        PointwiseEngine(), spec_of(0.6, input_multiple_px=1), Scaling((512,) * 2)
    )
    # Down by a triangle 4 px wide, 1 3 3 1 eighths: the pixel before the step has one eighth of it.
    coarse = np.array([0, 30, 210, 240]) / 255
    # Up, bilinear: three quarters of the nearer and a quarter of the farther one.
    fine = np.empty(8)
    fine[[0, 7]] = coarse[[0, 3]]
    fine[1:7:2] = (3 * coarse[:-1] + coarse[1:]) / 4
    fine[2:8:2] = (coarse[:-1] + 3 * coarse[1:]) / 4
    answer = engine.run(tile)
    assert answer.shape == (1, 1, 4, 8)
    np.testing.assert_allclose(answer[0, 0], np.tile(fine, (4, 1)), atol=0.5 / 255)


@given(
    st.integers(256, 1024), st.integers(1, 90), st.integers(1, 90),
    st.sampled_from([1, 8, 32]), st.floats(0, 1),
)  # fmt: skip
def test_what_is_the_same_everywhere_stays_so(
    step: int, height: int, width: int, multiple: int, probability: float
) -> None:
    spec = spec_of(0.5, input_multiple_px=multiple)
    engine = RescaledEngine(ConstantEngine(probability), spec, Scaling((step, step)))
    answer = engine.run(np.zeros((2, 3, height, width), np.uint8))
    assert answer.shape == (2, 1, height, width)
    np.testing.assert_allclose(answer, probability, atol=1e-4)


def test_the_network_gets_sizes_that_it_takes() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 3, 100, 70), np.uint8)
    seen = Recording()
    RescaledEngine(seen, spec_of(0.5, input_multiple_px=32), Scaling((512, 512))).run(batch)
    RescaledEngine(seen, spec_of(0.5, input_px=128), Scaling()).run(batch)
    assert seen.shapes == [(2, 3, 64, 64), (2, 3, 128, 128)]
    filled = RescaledEngine(PointwiseEngine(), spec_of(input_px=128), Scaling()).run(batch)
    assert np.array_equal(filled, PointwiseEngine().run(batch))
    with pytest.raises(ValueError, match="takes tiles of 64 px, but received 100 px"):
        RescaledEngine(seen, spec_of(input_px=64), Scaling()).run(batch)


def test_the_finest_decides_in_any_order() -> None:
    members = [model(PointwiseEngine(), 0.6), model(ConstantEngine(0.25), 0.3)]
    for order in (members, members[::-1]):
        made = combine(order)
        assert made.bundle.spec.gsd_m == 0.3
        (note,) = made.engine.notes  # type: ignore[attr-defined]
        assert "at 0.6 works at 0.6 m per pixel" in note
    tile = np.full((1, 3, 64, 64), 51, np.uint8)
    np.testing.assert_allclose(combine(members).engine.run(tile), (0.2 + 0.25) / 2, atol=1e-4)
    recorded = combine(members).engine.settings["members"]  # type: ignore[attr-defined]
    assert [one["settings"] for one in recorded] == [{"pixels_of_tile_per_own": 2.0}, {}]


def test_scales_that_hardly_differ_are_alike_and_those_too_far_are_refused() -> None:
    made = combine([model(PointwiseEngine(), 0.3), model(PointwiseEngine(), 0.312)])
    assert made.engine.notes == ()  # type: ignore[attr-defined]
    assert combine([model(PointwiseEngine(), 0.1), model(PointwiseEngine(), 0.4)])
    with pytest.raises(GsdMismatch, match=r"^1\.0\.rooftrace was trained at 1 m .* at 0\.2 m;"):
        combine([model(PointwiseEngine(), 0.2), model(PointwiseEngine(), 1.0)])


def test_the_context_of_a_coarse_model_is_as_many_more_pixels() -> None:
    assert context_px(spec_of(context_px=32), Scaling()) == 32
    assert context_px(spec_of(context_px=32), Scaling((512, 512))) == 67
    members = [model(PointwiseEngine(), 0.3), model(PointwiseEngine(), 0.6, context_px=32)]
    assert combine(members).bundle.spec.context_px == 67


def masks(predictor: Predictor, pixels: NDArray[np.uint8], *tiles_px: int) -> list[Any]:
    """Return the masks of one image with tiles of several sizes."""
    source = ArraySource(pixels, GeoGrid((pixels.shape[1], pixels.shape[2])))
    spec, made = predictor.bundle.spec, []
    for tile_px in tiles_px:
        options = SceneOptions(gsd_m=spec.gsd_m, threshold=0.5)
        plan = plan_scene(source, spec, options, tile_px=tile_px, block_px=tile_px)
        mask = np.empty(pixels.shape[1:], np.uint8)
        for block in run(plan, predictor.engine):
            mask[block.window.slices()] = block.score
        made.append((mask, len(plan.tiles)))
    return made


def test_tiles_equal_the_whole_where_pixels_lie_alike() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, 300, 260), np.uint8)
    team = combine([model(PointwiseEngine(), 0.3), model(PointwiseEngine(), 0.6)])
    (tiled, many), (whole, one) = masks(team, pixels, 64, 512)
    assert many > 9 > one == 1
    assert np.array_equal(tiled, whole)


@pytest.mark.campaign
@pytest.mark.parametrize("gsd_m", [0.37, 0.5, 0.75, 1.13])
def test_tiles_hardly_differ_from_the_whole_at_any_scale(gsd_m: float) -> None:
    pixels = generate_scene(1, shape_yx=(500, 500)).image
    team = combine([model(PointwiseEngine(), 0.3), model(PointwiseEngine(), gsd_m)])
    (tiled, many), (whole, _) = masks(team, pixels, 160, 512)
    assert many > 4
    differs = np.abs(tiled.astype(int) - whole)
    # Half of what there is comes from the finer model, which is the same everywhere.
    assert differs.mean() < 1.0, differs.mean()
    assert np.percentile(differs, 99) < 8
