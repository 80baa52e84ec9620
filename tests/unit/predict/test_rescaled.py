"""Models of different scales and sizes in one ensemble."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rooftrace.core.errors import GsdMismatch
from rooftrace.core.types import GeoGrid
from rooftrace.engines.base import ConstantEngine, Engine, PointwiseEngine
from rooftrace.io.resample import Scaling
from rooftrace.io.sources import ArraySource
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.ensemble import RescaledEngine, combine
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
