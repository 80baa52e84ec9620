"""Image, target and validity go through one map; colours stay in range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.core.types import Sample
from rooftrace.data.augment import AugmentConfig, change_colours, crop_transform, warp

HEIGHT, WIDTH, CROP = 90, 120, 24
# Beyond the rounding of warpAffine, 1/32 of a pixel.
CLOSE = 0.07

CONFIGS = st.builds(
    AugmentConfig, rotate=st.sampled_from(["none", "90", "any"]), flip=st.booleans()
)
CENTRES = st.tuples(st.floats(-5, HEIGHT + 5), st.floats(-5, WIDTH + 5))
SEEDS = st.integers(0, 10_000)


def coded() -> Sample:
    """A scene whose image says its row and column, as its target and validity do."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([rows, cols, rows + cols]).astype(np.float32)
    return Sample(image, target_at(rows, cols), valid_at(rows, cols))


def target_at(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    return ((rows // 7 + cols // 5) % 3).astype(np.uint8)


def valid_at(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    return np.asarray((rows % 31 < 25) & (cols % 37 < 30))


def places(to_scene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, cols) of the scene that the pixels of a crop should show."""
    ys, xs = np.mgrid[:CROP, :CROP]
    cols, rows = np.tensordot(to_scene[:, :2], np.stack([xs, ys]), 1) + to_scene[:, 2, None, None]
    return rows, cols


@given(CENTRES, st.floats(0.3, 6), CONFIGS, SEEDS)
def test_the_map_is_a_similarity_about_the_centre(
    centre: tuple[float, float], scale: float, config: AugmentConfig, seed: int
) -> None:
    to_scene = crop_transform(centre, scale, CROP, config, np.random.default_rng(seed))
    linear = to_scene[:, :2]
    np.testing.assert_allclose(linear.T @ linear, np.eye(2) * scale**2, atol=1e-9)
    middle = linear @ np.full(2, (CROP - 1) / 2) + to_scene[:, 2]
    np.testing.assert_allclose(middle[::-1], centre, atol=1e-9)
    if not config.flip:
        assert np.linalg.det(linear) > 0
    if config.rotate == "none":
        assert linear[1, 1] == pytest.approx(scale)
    if config.rotate == "90":
        assert (
            np.isclose(np.abs(linear) / scale, [[0, 1], [1, 0]]).all()
            or np.isclose(np.abs(linear) / scale, np.eye(2)).all()
        )


def test_half_are_mirrored_and_all_angles_come() -> None:
    rng = np.random.default_rng(0)
    config = AugmentConfig(rotate="any", flip=True)
    maps = np.array([crop_transform((0, 0), 1, CROP, config, rng)[:, :2] for _ in range(400)])
    assert 150 < (np.linalg.det(maps) < 0).sum() < 250
    angles = np.arctan2(-maps[:, 0, 1], maps[:, 1, 1])
    counts, _ = np.histogram(angles, bins=8, range=(-np.pi, np.pi))
    assert counts.min() > 20


@given(CENTRES, st.floats(0.3, 1.95), CONFIGS, SEEDS)
def test_image_target_and_validity_go_through_the_same_map(
    centre: tuple[float, float], scale: float, config: AugmentConfig, seed: int
) -> None:
    to_scene = crop_transform(centre, scale, CROP, config, np.random.default_rng(seed))
    crop = warp(coded(), to_scene, CROP)
    rows, cols = places(to_scene)
    # Where the nearest pixel is not in doubt.
    sure = (np.abs(rows % 1 - 0.5) > CLOSE) & (np.abs(cols % 1 - 0.5) > CLOSE)
    near = np.round(rows).astype(int), np.round(cols).astype(int)
    inside = (near[0] >= 0) & (near[0] < HEIGHT) & (near[1] >= 0) & (near[1] < WIDTH)
    np.testing.assert_array_equal(crop.valid[sure], (inside & valid_at(*near))[sure])
    seen = crop.valid & sure
    np.testing.assert_array_equal(crop.target[seen], target_at(*near)[seen])
    expected = np.stack([rows.clip(0, HEIGHT - 1), cols.clip(0, WIDTH - 1)])
    np.testing.assert_allclose(crop.image[:2][:, seen], expected[:, seen], atol=CLOSE)
    np.testing.assert_allclose(crop.image[2][seen], expected.sum(axis=0)[seen], atol=2 * CLOSE)
    assert not crop.image[:, ~crop.valid].any()
    assert not crop.target[~crop.valid].any()


@given(st.floats(2, 5), CONFIGS, SEEDS)
def test_a_coarse_crop_is_averaged_in_its_place(
    scale: float, config: AugmentConfig, seed: int
) -> None:
    scene = coded()
    row_numbers = np.repeat(np.arange(HEIGHT, dtype=np.uint8)[:, None], WIDTH, axis=1)
    everywhere = Sample(scene.image, row_numbers, np.ones_like(scene.valid))
    centre = (HEIGHT / 2, WIDTH / 2)
    to_scene = crop_transform(centre, scale, CROP, config, np.random.default_rng(seed))
    crop = warp(everywhere, to_scene, CROP)
    rows, cols = places(to_scene)
    reach = 2 * scale
    deep = (
        (rows > reach) & (rows < HEIGHT - 1 - reach) & (cols > reach) & (cols < WIDTH - 1 - reach)
    )
    assert crop.valid[deep].all()
    np.testing.assert_allclose(crop.image[0][deep], rows[deep], atol=scale * CLOSE)
    np.testing.assert_allclose(crop.image[1][deep], cols[deep], atol=scale * CLOSE)
    # A label is that of one of the pixels that were averaged.
    assert (np.abs(crop.target[deep] - rows[deep]) <= scale).all()


def test_averaging_leaves_no_pattern() -> None:
    stripes = np.zeros((1, 96, 96), np.uint8)
    stripes[:, :, ::2] = 200
    sample = Sample(stripes, np.zeros((96, 96), np.uint8), np.ones((96, 96), bool))
    to_scene = np.array([[4.0, 0, 1.5], [0, 4.0, 1.5]])
    assert set(np.unique(warp(sample, to_scene, 24).image)) == {100}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("bands", [1, 3, 4, 5, 9])
def test_any_number_of_bands_and_dtype(bands: int, dtype: type) -> None:
    image = np.random.default_rng(bands).integers(0, 255, (bands, 30, 30)).astype(dtype)
    sample = Sample(image, np.ones((30, 30), np.uint8), np.ones((30, 30), bool))
    crop = warp(sample, np.array([[1.0, 0, 3], [0, 1.0, 5]]), 20)
    assert crop.image.dtype == dtype
    np.testing.assert_array_equal(crop.image, image[:, 5:25, 3:23])


@given(SEEDS, st.sampled_from([255.0, 65535.0, 1.0]))
def test_without_changes_colours_stay(seed: int, full: float) -> None:
    rng = np.random.default_rng(seed)
    image = (rng.random((3, 8, 8)) * full).astype(np.float32)
    np.testing.assert_allclose(
        change_colours(image, full, AugmentConfig(), rng), image, atol=full * 1e-6
    )


@given(
    SEEDS,
    st.builds(
        AugmentConfig,
        gamma=st.floats(1, 3), brightness=st.floats(0, 1), contrast=st.floats(1, 3),
        channels=st.floats(1, 3), grey=st.floats(0, 1), blur=st.floats(0, 1),
        noise=st.floats(0, 1),
    ),
)  # fmt: skip
def test_changed_colours_stay_in_range_and_depend_on_the_seed_alone(
    seed: int, config: AugmentConfig
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (4, 9, 7), np.uint8)
    before = image.copy()
    changed = [change_colours(image, 255.0, config, np.random.default_rng(seed)) for _ in range(2)]
    np.testing.assert_array_equal(changed[0], changed[1])
    np.testing.assert_array_equal(image, before)
    assert changed[0].dtype == np.float32
    assert changed[0].shape == image.shape
    assert changed[0].min() >= 0
    assert changed[0].max() <= 255


FLAT = np.full((3, 8, 8), 100, np.uint8)
NOISY = np.random.default_rng(0).integers(60, 190, (3, 40, 40), np.uint8)


def changes(image: np.ndarray, config: AugmentConfig, count: int = 60) -> np.ndarray:
    """(sample, band, y, x) of several draws."""
    rng = np.random.default_rng(1)
    return np.stack([change_colours(image, 255.0, config, rng) for _ in range(count)])


def test_each_setting_does_what_it_says() -> None:
    shift = changes(FLAT, AugmentConfig(brightness=0.2)).mean(axis=(1, 2, 3)) - 100
    assert shift.min() < -30
    assert shift.max() > 30
    assert np.abs(shift).max() <= 0.2 * 255 + 1e-3
    factors = changes(FLAT, AugmentConfig(channels=1.5)).mean(axis=(2, 3)) / 100
    assert factors.std(axis=1).min() > 0
    assert factors.min() >= 1 / 1.5 - 1e-4
    assert factors.max() <= 1.5 + 1e-4
    spread = changes(NOISY, AugmentConfig(contrast=1.4)).std(axis=(1, 2, 3)) / NOISY.std()
    assert spread.min() < 0.8
    assert 1.2 < spread.max() <= 1.4 + 1e-3
    means = changes(NOISY, AugmentConfig(contrast=1.4)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, NOISY.mean(), rtol=1e-2)
    grey = changes(NOISY, AugmentConfig(grey=1.0))
    np.testing.assert_allclose(grey[:, 0], grey[:, 2], atol=1e-3)
    some = changes(NOISY, AugmentConfig(grey=0.5), 200)
    assert 60 < np.isclose(some[:, 0], some[:, 1], atol=1e-3).all(axis=(1, 2)).sum() < 140
    blurred = changes(NOISY, AugmentConfig(blur=1.0, blur_sigma_px=2.0)).std(axis=(1, 2, 3))
    assert blurred.min() < 0.5 * NOISY.std()
    noise = changes(FLAT, AugmentConfig(noise=0.1)).std(axis=(1, 2, 3))
    assert 15 < noise.max() < 0.1 * 255 * 1.2
    gamma = changes(FLAT, AugmentConfig(gamma=2.0)).mean(axis=(1, 2, 3)) / 255
    assert gamma.min() >= (100 / 255) ** 2 - 1e-4
    assert gamma.max() <= (100 / 255) ** 0.5 + 1e-4
    assert gamma.std() > 0.05


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"gsd_range_m": [0.6, 0.2]}, "gsd_range_m = [0.6, 0.2] is not an ascending range"),
        ({"scale_range": [0, 1]}, "is not an ascending range above 0"),
        ({"scale_range": [1, 2], "gsd_range_m": [1, 2]}, "give one of them"),
        ({"rotate": "180"}, "rotate"),
        ({"gamma": 0.5}, "gamma"),
        ({"blurr": 0.5}, "Did you mean 'blur'"),
    ],
)
def test_a_setting_that_is_none(raw: dict, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, AugmentConfig, source="c.toml")
    assert told in caught.value.message
