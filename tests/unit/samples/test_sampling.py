"""Samples are drawn with the probabilities of the balance, at places that were counted."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from memory_sets import scene_of, set_of
from rooftrace.core.errors import DataError
from rooftrace.labels.source import BLOCK_PX, SceneSet, count_classes
from rooftrace.samples.augment import AugmentConfig
from rooftrace.samples.dataset import TrainSamples
from rooftrace.samples.sampling import STRATA, Balance, Draw, make_sampler

DRAWS = 2000
# Four standard deviations of a share of one half.
NEAR = 4 * 0.5 / DRAWS**0.5


def draws(balance: Balance, *sources: SceneSet) -> list[Draw]:
    scenes = [scene for source in sources for scene in source]
    sampler, rng = make_sampler(sources, scenes, balance), np.random.default_rng(0)
    return [sampler.draw(rng) for _ in range(DRAWS)]


def shares_of(found: list[object]) -> dict[object, float]:
    return {key: count / len(found) for key, count in Counter(found).items()}


def plain(name: str, side: int, gsd_m: float | None = None) -> SceneSet:
    return set_of(scene_of(name, np.zeros((side, side), np.uint8), gsd_m=gsd_m))


def test_area_is_ground_and_image_is_scenes() -> None:
    scenes = [
        scene_of("a", np.zeros((60, 60), np.uint8), gsd_m=1.0),
        scene_of("b", np.zeros((60, 60), np.uint8), gsd_m=2.0),
        scene_of("c", np.zeros((60, 60), np.uint8), gsd_m=1.0),
    ]
    by_area = shares_of([draw.scene for draw in draws("area", set_of(*scenes))])
    assert by_area == pytest.approx({0: 1 / 6, 1: 4 / 6, 2: 1 / 6}, abs=NEAR)
    by_image = shares_of([draw.scene for draw in draws("image", set_of(*scenes))])
    assert by_image == pytest.approx({0: 1 / 3, 1: 1 / 3, 2: 1 / 3}, abs=NEAR)


def test_sets_with_shares_come_first_and_without_all_are_one() -> None:
    small, large = plain("a", 30), plain("b", 60)
    assert shares_of([d.scene for d in draws("image", small, large)])[0] == pytest.approx(
        0.5, abs=NEAR
    )
    given = replace(small, share=3.0), replace(large.subset([]), share=9.0), replace(large, share=1)
    for balance in ("area", "image", "built_up"):
        assert shares_of([d.scene for d in draws(balance, *given)])[0] == pytest.approx(
            0.75, abs=NEAR
        )
    with pytest.raises(DataError, match="some have none"):
        draws("area", given[0], large)


def rare() -> SceneSet:
    """Three classes in two scenes, of which the last is a thousandth; a fourth has no pixel."""
    first = np.zeros((2 * BLOCK_PX, BLOCK_PX + 40), np.uint8)
    first[:100, :100] = 1
    second = np.zeros((300, 300), np.uint8)
    second[290:300, 280:300] = 2
    second[:10, :10] = 1
    known = np.ones(second.shape, bool)
    known[290:, 290:] = False
    return set_of(scene_of("a", first), scene_of("b", second, known), classes=4)


def test_every_class_that_is_there_is_drawn_alike() -> None:
    source = rare()
    found = draws("class", source)
    third = pytest.approx(1 / 3, abs=NEAR)
    assert shares_of([d.class_index for d in found]) == {0: third, 1: third, 2: third}
    # Of a class, every pixel alike.
    of_one = shares_of([d.scene for d in found if d.class_index == 1])
    assert of_one[0] == pytest.approx(10_000 / 10_100, abs=NEAR)
    blocks = count_classes(source)
    for draw in found:
        assert draw.block is not None
        at = draw.block.row // BLOCK_PX, draw.block.col // BLOCK_PX
        assert blocks["ab"[draw.scene]][*at, draw.class_index] > 0


def samples_of(source: SceneSet, balance: Balance, cache_bytes: int = 2**28) -> TrainSamples:
    return TrainSamples(
        [source], crop_px=32, gsd_m=None, augment=AugmentConfig(rotate_deg=180), samples=500,
        seed=1, cache_bytes=cache_bytes, balance=balance,
    )  # fmt: skip


@pytest.mark.campaign
@pytest.mark.parametrize("cache_bytes", [0, 2**28])
def test_the_centre_of_a_sample_is_a_pixel_of_the_class(cache_bytes: int) -> None:
    samples = samples_of(rare(), "class", cache_bytes)
    counts = np.zeros(3)
    for number in range(500):
        sample = samples[number]
        middle = sample.target[15:17, 15:17][sample.valid[15:17, 15:17]]
        counts += np.bincount(middle, minlength=3) / len(middle)
    # The class of two hundred pixels lies in a corner, where too much is outside of the scene.
    assert (counts[1:] / 500 > 0.2).all()
    assert (counts / 500 < 0.5).all()
    by_area = samples_of(rare(), "area")
    assert np.mean([by_area[number].target[16, 16] == 2 for number in range(500)]) < 0.02


def test_strata_of_built_up_share_are_drawn_alike() -> None:
    side = BLOCK_PX
    label = np.zeros((side, 4 * side), np.uint8)
    label[:, side : side + 26] = 1  # a tenth of the second block
    label[:, 3 * side :] = 1  # all of the last; nothing of the first and the third
    source = set_of(scene_of("a", label), scene_of("b", label[:, : side + 100]))
    found = draws("built_up", source)
    counted = count_classes(source)
    strata = []
    for draw in found:
        assert draw.block is not None
        counts = counted["ab"[draw.scene]][0, draw.block.col // side]
        strata.append(int(np.searchsorted(STRATA, counts[1] / counts.sum())))
    # 26 columns of the 100 that the second scene has in its second block are between 15 and 30 %.
    quarter = pytest.approx(0.25, abs=NEAR)
    assert shares_of(strata) == {0: quarter, 3: quarter, 4: quarter, 6: quarter}
    samples = samples_of(source, "built_up")
    built = np.array([samples[number].target.mean() for number in range(400)])
    assert 0.15 < (built > 0.9).mean() < 0.35
    assert all(samples[number].valid[8:24, 8:24].all() for number in range(40))


@pytest.mark.parametrize(
    ("preferred", "expected"), [((), {1}), (("c2",), {2}), (("c1", "c3"), {1, 3})]
)
def test_preferred_classes_come_to_the_centre(
    preferred: tuple[str, ...], expected: set[int]
) -> None:
    label = np.zeros((1200, 1200), np.uint8)
    for number, at in ((1, 100), (2, 500), (3, 900)):
        label[at : at + 200, :] = number
    augment = AugmentConfig(prefer_buildings=1.0, prefer_classes=preferred)
    samples = TrainSamples(
        [set_of(scene_of("a", label), classes=4)], crop_px=64, gsd_m=None, augment=augment,
        samples=60, seed=0, cache_bytes=0,
    )  # fmt: skip
    centres = Counter(int(samples[number].target[32, 32]) for number in range(60))
    # Small things are looked for in 12 places, and one more pixel is off the edge of a class.
    assert {key for key, count in centres.items() if count > 5} == expected
    if len(expected) == 2:
        assert min(centres[key] for key in expected) > 15
