"""Images that are much finer than the model: the same result however they are divided."""

import numpy as np
import pytest
from affine import Affine
from pyproj import CRS

import rooftrace
from rooftrace.core.types import GeoGrid
from rooftrace.engines.base import PointwiseEngine
from rooftrace.io.georeferenced import ArraySource
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.pipeline import run
from rooftrace.predict.plan import SceneOptions, plan_scene
from town import generate_scene

SPEC = BundleSpec(
    name="fake", bands=("red", "green", "blue"), mean=(120.0, 120.0, 120.0), std=(60.0, 60.0, 60.0),
    classes=("background", "building"), gsd_m=0.4, input_multiple_px=32, context_px=32,
)  # fmt: skip


class Huge(ArraySource):
    """A scene of any size, of which only the grid exists."""

    def __init__(self, side_px: int, gsd_m: float) -> None:
        super().__init__(np.zeros((3, 1, 1), np.uint8))
        transform = Affine(gsd_m, 0, 500_000, 0, -gsd_m, 9_000_000)
        self.grid = GeoGrid((side_px, side_px), transform, CRS.from_epsg(32737))


@pytest.mark.parametrize("finer", [1, 2, 4, 4.2, 4.3, 5.3, 8.5, 13, 20, 40, 52, 100, 128])
def test_a_block_does_not_grow_with_the_factor(finer: float) -> None:
    plan = plan_scene(Huge(200_000, 0.4 / finer), SPEC)
    most = max(max(block.shape_yx) for block in plan.blocks)
    # 3,072 px of the model at 4.2 times are 12,900 px; a block begins at a tile of the mask.
    assert most <= 15_000
    tile_px = plan.tiles.rows.tile_px
    assert tile_px >= 128
    assert tile_px * finer <= 128 * 128
    if finer <= 4.2:
        assert tile_px >= 1600


@pytest.mark.parametrize("finer", [5.3, 20.0])
def test_blocks_do_not_show(finer: float) -> None:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (3, 75, 60), dtype=np.uint8)
    pixels = coarse.repeat(20, axis=1).repeat(20, axis=2)
    valid = np.ones(pixels.shape[1:], bool)
    valid[100:700, :333] = False
    source = ArraySource(pixels, valid=valid)
    found = []
    for block_px in (32, 96, 4096):
        options = SceneOptions(scale=1 / finer)
        plan = plan_scene(source, SPEC, options, tile_px=64, block_px=block_px)
        mask = np.full(valid.shape, 77, np.uint8)
        score = mask.copy()
        for block in run(plan, PointwiseEngine()):
            mask[block.window.slices()], score[block.window.slices()] = block.mask, block.score
        found.append((len(plan.blocks), mask, score))
    assert found[0][0] > found[1][0] >= found[2][0] == 1
    for _, mask, score in found[1:]:
        np.testing.assert_array_equal(mask, found[0][1])
        np.testing.assert_array_equal(score, found[0][2])
    np.testing.assert_array_equal(found[0][1] == 255, ~valid)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(((mask == 1) & (truth == 1)).sum() / ((mask == 1) | (truth == 1)).sum())


@pytest.mark.campaign
@pytest.mark.parametrize("finer", [2.0, 2.5, 5.3, 20.0])
def test_a_town_is_mapped_at_any_factor(finer: float) -> None:
    model = rooftrace.load()
    # The truth is drawn at no less than 0.1 m per pixel: 1,200 pixels a side at most.
    side_m = 120 if finer > 5 else 200
    drawn_m = max(0.4 / finer, 0.1)
    scene = generate_scene(3, (int(side_m / drawn_m),) * 2, drawn_m)
    again = round(drawn_m * finer / 0.4)
    pixels, truth = scene.image, scene.mask()
    if again > 1:
        pixels = pixels.repeat(again, axis=1).repeat(again, axis=2)
        truth = truth.repeat(again, axis=0).repeat(again, axis=1)
    transform = Affine(0.4 / finer, 0, 500_000, 0, -0.4 / finer, 9_000_000)
    grid = GeoGrid(truth.shape, transform, CRS.from_epsg(32737))
    found = model.predict(ArraySource(pixels, grid))
    assert found.mask.data.shape == truth.shape
    assert iou(found.mask.data, truth) > 0.7
    built = sum(found.footprints.area_m2)
    assert built == pytest.approx((found.mask.data == 1).sum() * (0.4 / finer) ** 2, rel=0.05)
