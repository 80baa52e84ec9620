"""Image, target and validity use one affine map; colours stay in range."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.core.types import Sample, Window
from rooftrace.samples.augment import (
    POLICIES,
    AugmentConfig,
    change_colours,
    crop_transform,
    warp,
    window_under,
)

HEIGHT, WIDTH, CROP = 90, 120, 24
# Beyond the rounding of warpAffine, 1/32 of a pixel.
CLOSE = 0.07

CONFIGS = st.builds(
    AugmentConfig,
    rotate_90=st.sampled_from([0.0, 0.5, 1.0]),
    rotate_deg=st.sampled_from([0.0, 20.0, 180.0]),
    flip_horizontal=st.sampled_from([0.0, 0.5]),
    flip_vertical=st.sampled_from([0.0, 0.5]),
)
BENT = st.builds(
    AugmentConfig,
    rotate_deg=st.just(180.0),
    flip_vertical=st.just(0.5),
    ratio_range=st.sampled_from([None, (0.6, 1.7)]),
    shear_deg=st.sampled_from([0.0, 15.0]),
)
CENTRES = st.tuples(st.floats(-5, HEIGHT + 5), st.floats(-5, WIDTH + 5))
SEEDS = st.integers(0, 10_000)


def coded() -> Sample:
    """Return a scene whose image, target and validity encode row and column."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([rows, cols, rows + cols]).astype(np.float32)
    return Sample(image, target_at(rows, cols), valid_at(rows, cols))


def target_at(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    return ((rows // 7 * 31 + cols // 5 * 17) % 256).astype(np.uint8)


def valid_at(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    return np.asarray((rows % 31 < 25) & (cols % 37 < 30))


def places(to_scene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, cols) of the scene that the pixels of a crop should show."""
    ys, xs = np.mgrid[:CROP, :CROP]
    cols, rows = np.tensordot(to_scene[:, :2], np.stack([xs, ys]), 1) + to_scene[:, 2, None, None]
    return rows, cols


@given(CENTRES, st.floats(0.3, 6), CONFIGS, SEEDS)
def test_the_map_is_a_similarity_about_the_centre(
    centre: tuple[float, float], scale: float, config: AugmentConfig, seed: int
) -> None:
    to_scene = crop_transform(centre, (scale, scale), CROP, config, np.random.default_rng(seed))
    linear = to_scene[:, :2]
    np.testing.assert_allclose(linear.T @ linear, np.eye(2) * scale**2, atol=1e-9)
    middle = linear @ np.full(2, (CROP - 1) / 2) + to_scene[:, 2]
    np.testing.assert_allclose(middle[::-1], centre, atol=1e-9)
    if not config.flip_horizontal + config.flip_vertical:
        assert np.linalg.det(linear) > 0
    if config.rotate_deg == 0:
        turned = np.abs(linear) / scale
        assert np.isclose(turned, [[0, 1], [1, 0]]).all() or np.isclose(turned, np.eye(2)).all()
    if config.rotate_deg + config.rotate_90 == 0:
        assert np.abs(linear[1, 1]) == pytest.approx(scale)


@given(CENTRES, st.floats(0.3, 5), BENT, SEEDS)
# The determinant of this map rounds to that of 2, and pixels are averaged by two.
@example((10.0, 11.0), 1.9999999999999991, AugmentConfig(), 0)
def test_the_window_under_a_crop_is_all_that_it_needs(
    centre: tuple[float, float], scale: float, config: AugmentConfig, seed: int
) -> None:
    scene = coded()
    to_scene = crop_transform(centre, (scale, scale), CROP, config, np.random.default_rng(seed))
    window = window_under(to_scene, CROP).intersection(Window.whole(scene.valid.shape))
    # Averaging goes by blocks, which begin where the window does. Their side is the scale rounded
    # down, with the tolerance that `warp` has for the rounding of its determinant.
    factor = max(1, int(scale + 1e-6))
    if window is None:
        assert not warp(scene, to_scene, CROP).valid.any()
        return
    row, col = window.row // factor * factor, window.col // factor * factor
    rows, cols = slice(row, window.row_stop), slice(col, window.col_stop)
    part = Sample(scene.image[:, rows, cols], scene.target[rows, cols], scene.valid[rows, cols])
    shifted = to_scene.copy()
    shifted[:, 2] -= col, row
    whole, found = warp(scene, to_scene, CROP), warp(part, shifted, CROP)
    np.testing.assert_array_equal(found.valid, whole.valid)
    np.testing.assert_array_equal(found.target, whole.target)
    np.testing.assert_allclose(found.image, whole.image, atol=2 * scale * CLOSE)


@given(st.floats(0.3, 5), BENT, SEEDS, st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_nodata_never_leaks_into_what_is_known(
    scale: float, config: AugmentConfig, seed: int, dtype: type
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 111, (4, HEIGHT, WIDTH)).astype(dtype)
    valid = np.kron(rng.random((15, 20)) < 0.6, np.ones((6, 6), bool))
    image[:, ~valid] = 255
    sample = Sample(image, np.ones((HEIGHT, WIDTH), np.uint8), valid)
    to_scene = crop_transform((HEIGHT / 2, WIDTH / 2), (scale, scale), CROP, config, rng)
    crop = warp(sample, to_scene, CROP)
    assert (crop.image[:, crop.valid] >= 89.99).all()
    assert (crop.image[:, crop.valid] <= 110.01).all()
    assert not crop.image[:, ~crop.valid].any()
    smoothing = AugmentConfig(blur=1.0, blur_sigma_px=4.0, coarsen=0.7, coarsen_factor=5.0)
    smooth = change_colours(crop.image, crop.valid, 255.0, smoothing, rng)
    assert (smooth[:, crop.valid] >= 89.9).all()
    assert (smooth[:, crop.valid] <= 110.1).all()
    # The pixels under nodata do not change the rest.
    other = np.where(crop.valid, crop.image, dtype(rng.integers(256)))
    for part in (smoothing, EVERYTHING):
        one, two = (
            change_colours(pixels, crop.valid, 255.0, part, np.random.default_rng(seed))
            for pixels in (crop.image, other)
        )
        np.testing.assert_allclose(one, two, atol=1e-3)
        assert not one[:, ~crop.valid].any()


@given(CENTRES, st.floats(0.3, 1.95), CONFIGS, SEEDS)
def test_image_target_and_validity_go_through_the_same_map(
    centre: tuple[float, float], scale: float, config: AugmentConfig, seed: int
) -> None:
    to_scene = crop_transform(centre, (scale, scale), CROP, config, np.random.default_rng(seed))
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
    # Beside nodata a pixel is interpolated from what is known, as beside the edge of the scene.
    floor = np.floor(rows).astype(int), np.floor(cols).astype(int)
    around = [valid_at(floor[0] + down, floor[1] + along) for down in (0, 1) for along in (0, 1)]
    deep = seen & np.all(around, axis=0)
    for part, atol in ((deep, CLOSE), (seen, 1.0)):
        np.testing.assert_allclose(crop.image[:2][:, part], expected[:, part], atol=atol)
        total = expected.sum(axis=0)
        np.testing.assert_allclose(crop.image[2][part], total[part], atol=2 * atol)
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
    to_scene = crop_transform(centre, (scale, scale), CROP, config, np.random.default_rng(seed))
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


EVERYTHING = AugmentConfig(
    gamma=2.0, brightness=0.3, contrast=2.0, saturation=2.0, hue_deg=90.0, channels=1.5, grey=0.3,
    blur=0.5, coarsen=0.5, sharpen=0.5, noise=0.1, jpeg=0.5, cutout=0.5,
)  # fmt: skip


@given(
    SEEDS,
    st.integers(1, 6),
    st.sampled_from([(np.uint8, 255.0), (np.uint16, 65535.0), (np.float32, 1.0)]),
    st.builds(
        AugmentConfig,
        gamma=st.floats(1, 3), brightness=st.floats(0, 1), contrast=st.floats(1, 3),
        saturation=st.floats(1, 3), hue_deg=st.floats(0, 180), channels=st.floats(1, 3),
        grey=st.floats(0, 1), blur=st.floats(0, 1), coarsen=st.floats(0, 1),
        sharpen=st.floats(0, 1), sharpen_amount=st.floats(0.1, 3),
        noise=st.floats(0, 1), jpeg=st.floats(0, 1), cutout=st.floats(0, 1),
    ),
)  # fmt: skip
def test_changed_colours_stay_in_range_and_depend_on_the_seed_alone(
    seed: int, bands: int, kind: tuple[type, float], config: AugmentConfig
) -> None:
    dtype, full = kind
    rng = np.random.default_rng(seed)
    image = (rng.random((bands, 9, 7)) * full).astype(dtype)
    valid = rng.random((9, 7)) < 0.8
    before = image.copy(), valid.copy()
    changed = [
        change_colours(image, valid, full, config, np.random.default_rng(seed)) for _ in range(2)
    ]
    np.testing.assert_array_equal(changed[0], changed[1])
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(valid, before[1])
    assert changed[0].dtype == np.float32
    assert changed[0].shape == image.shape
    assert changed[0].min() >= 0
    assert changed[0].max() <= full


NOISY = np.random.default_rng(0).integers(60, 190, (3, 40, 40), np.uint8)


def changes(image: np.ndarray, config: AugmentConfig, count: int = 60) -> np.ndarray:
    """Return (sample, band, y, x) of several draws."""
    rng = np.random.default_rng(1)
    valid = np.ones(image.shape[1:], bool)
    return np.stack([change_colours(image, valid, 255.0, config, rng) for _ in range(count)])


@pytest.mark.parametrize(
    "limits",
    [
        {"gamma": 2.0}, {"brightness": 0.3}, {"contrast": 2.0}, {"saturation": 2.0},
        {"hue_deg": 90.0}, {"channels": 2.0}, {"noise": 0.2},
    ],
    ids=lambda limits: next(iter(limits)),
)  # fmt: skip
def test_a_share_says_how_often(limits: dict[str, float]) -> None:
    name = next(iter(limits)).removesuffix("_deg")
    config = AugmentConfig(**limits, **{f"{name}_p": 0.5})  # type: ignore[arg-type]
    found = changes(NOISY, config, 200)
    same = np.isclose(found, NOISY, atol=1e-2).all(axis=(1, 2, 3)).sum()
    assert 60 < same < 140


def test_policies_are_values_that_others_go_over() -> None:
    assert AugmentConfig() == AugmentConfig(policy="none")
    for name, values in POLICIES.items():
        config = AugmentConfig(policy=name)  # type: ignore[arg-type]
        assert {key: getattr(config, key) for key in values} == values
        assert config.model_fields_set == {"policy", *values}
    over = AugmentConfig(policy="strong", blur=0.0, gsd_range_m=(0.1, 0.2))
    assert (over.blur, over.gsd_range_m, over.scale_range) == (0.0, (0.1, 0.2), None)
    assert over.jpeg == POLICIES["strong"]["jpeg"]
    # A record is whole: it says the same when policies have changed.
    record = over.model_dump(mode="json")
    assert parse_config(record, AugmentConfig, source="record") == over
    assert set(record) == set(AugmentConfig.model_fields)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"gsd_range_m": [0.6, 0.2]}, "gsd_range_m = [0.6, 0.2] is not an ascending range"),
        ({"scale_range": [0, 1]}, "is not an ascending range above 0"),
        ({"jpeg_quality": [90, 40]}, "jpeg_quality = [90, 40] is not an ascending range"),
        ({"scale_range": [1, 2], "gsd_range_m": [1, 2]}, "give only one of them"),
        ({"policy": "arial"}, "policy: it should be 'none', 'light', 'aerial' or 'strong'"),
        ({"rotate": "any"}, "unknown key 'rotate'"),
        ({"rotate_deg": 200}, "rotate_deg"),
        ({"blurr": 0.5}, "Did you mean 'blur'"),
    ],
)
def test_a_setting_that_is_none(raw: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, AugmentConfig, source="c.toml")
    assert message in caught.value.message


PAGE = Path(__file__).parents[3] / "docs" / "augmentation.md"


def test_the_table_of_the_docs_is_what_the_policies_are() -> None:
    table = {}
    for line in re.findall(r"^\| `.*\|$", PAGE.read_text(), re.M):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        keys = re.findall(r"`(\w+)`", cells[0])
        defaults = [cells[1]] if len(keys) == 1 else cells[1].split(", ", len(keys) - 1)
        # The first key of a row has the values of the policies.
        for key, default, changed in zip(keys, defaults, (cells[2:5], [""] * 3, [""] * 3)):
            table[key] = [default, *changed]
    shares = {key for key in AugmentConfig.model_fields if key.endswith("_p")}
    assert {*table} == {*AugmentConfig.model_fields} - shares - {"policy"}
    assert all(getattr(AugmentConfig(), key) == 1 for key in shares)
    for number, policy in enumerate(POLICIES):
        config = AugmentConfig(policy=policy)  # type: ignore[arg-type]
        for key, cells in table.items():
            value = cells[number] or cells[0]
            wanted = getattr(config, key)
            expected = None if value == "–" else json.loads(value)
            assert (list(wanted) if isinstance(wanted, tuple) else wanted) == expected, key
            # What differs from the first is written out, and nothing else is.
            assert number == 0 or bool(cells[number]) == (wanted != getattr(AugmentConfig(), key))
