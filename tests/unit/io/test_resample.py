"""Resampled pixels depend on where they lie, never on the window that asked for them."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from rooftrace.core.errors import ConfigError, GeoreferenceError, GsdMismatch
from rooftrace.core.scales import WorkingScales
from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.resample import Resampler, Scaling, enlarge, scaling_for

steps = st.sampled_from([64, 100, 128, 200, 256, 300, 333, 512, 777, 1024, 1357, 5120])


@st.composite
def parts(draw: st.DrawFn, shape: tuple[int, int]) -> Window:
    row, col = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
    height, width = draw(st.integers(1, shape[0] - row)), draw(st.integers(1, shape[1] - col))
    return Window(row, col, height, width)


def noise(shape: tuple[int, int], dtype: type = np.uint8, holes: bool = True) -> ArraySource:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 255, (2, *shape)).astype(dtype)
    valid = np.ones(shape, dtype=bool)
    if holes:
        valid[: shape[0] // 3, : shape[1] // 2] = False
    return ArraySource(data, valid=valid)


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(steps, steps),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.data(),
)
def test_a_window_is_that_part_of_the_whole(
    shape: tuple[int, int], steps_yx: tuple[int, int], dtype: type, data: st.DataObject
) -> None:
    source = noise(shape, dtype)
    resampler = Resampler(source, Scaling(steps_yx))
    whole, valid = resampler.read(Window.whole(resampler.shape_yx))
    assert whole.dtype == dtype
    window = data.draw(parts(resampler.shape_yx))
    part, part_valid = resampler.read(window)
    np.testing.assert_array_equal(part, whole[:, *window.slices()])
    np.testing.assert_array_equal(part_valid, valid[window.slices()])


@given(st.tuples(st.integers(1, 120), st.integers(1, 120)), st.tuples(steps, steps), st.data())
def test_back_again_is_that_part_of_the_whole(
    shape: tuple[int, int], steps_yx: tuple[int, int], data: st.DataObject
) -> None:
    scaling = Scaling(steps_yx)
    model = Window.whole(scaling.model_shape(shape))
    rng = np.random.default_rng(1)
    values = rng.integers(0, 65_280, (1, *model.shape_yx), dtype=np.uint16)
    scene = Window.whole(shape)

    def back(window: Window) -> np.ndarray:
        needed = scaling.to_model(window, shape)
        return enlarge(values[:, *needed.slices()], needed, window, scaling)

    whole = back(scene)
    window = data.draw(parts(shape))
    np.testing.assert_array_equal(back(window), whole[:, *window.slices()])


@pytest.mark.parametrize("step", [100, 200, 384, 777])
def test_a_ramp_keeps_its_place(step: int) -> None:
    """There and back, a linear gradient is where it was: no half-pixel shift."""
    shape = (200, 300)
    ramp = np.add.outer(np.arange(200.0), np.arange(300.0)).astype(np.float32)[None]
    scaling = Scaling((step, step))
    resampler = Resampler(ArraySource(ramp), scaling)
    model = Window.whole(resampler.shape_yx)
    small, _ = resampler.read(model)
    back = enlarge((small * 100).round().astype(np.uint16), model, Window.whole(shape), scaling)
    inside = (0, slice(10, -10), slice(10, -10))
    np.testing.assert_allclose(back[inside] / 100, ramp[inside], atol=2 * step / 256 / 32 + 0.02)


def test_nodata_does_not_bleed_far() -> None:
    source = noise((64, 64))
    data, valid = Resampler(source, Scaling((512, 512))).read(Window(0, 0, 32, 32))
    assert not valid[:10, :16].any()
    assert valid[11:].all()
    # Networks are trained with nodata of this value, see `samples.augment.warp`.
    assert (data[:, :10, :15] == 0).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("step", [100, 333, 700])
def test_nodata_does_not_darken_its_neighbours(dtype: type, step: int) -> None:
    valid = noise((64, 64)).read().valid
    source = ArraySource(np.full((2, 64, 64), 200, dtype), valid=valid)
    resampler = Resampler(source, Scaling((step, step)))
    data, known = resampler.read(Window.whole(resampler.shape_yx))
    assert 0 < known.mean() < 1
    np.testing.assert_allclose(data[:, known], 200, atol=3)
    assert not data[:, ~known].any()


def test_pixels_that_are_watched_cover_the_source() -> None:
    source = noise((100, 120))
    seen = np.zeros((100, 120), dtype=bool)
    scaling = Scaling((300, 333))
    watched = Resampler(source, scaling)
    watched.read(
        Window.whole(watched.shape_yx),
        watch=lambda window, _: seen.__setitem__(window.slices(), True),
    )
    assert seen.all()


def utm(gsd_m: float) -> GeoGrid:
    return GeoGrid(
        (100, 100), Affine(gsd_m, 0, 500_000, 0, -gsd_m, 9_000_000), CRS.from_epsg(32737)
    )


def test_scaling_follows_metres() -> None:
    assert scaling_for(utm(0.4), WorkingScales(0.4)).is_identity
    assert scaling_for(utm(0.41), WorkingScales(0.4)).is_identity
    assert scaling_for(utm(0.2), WorkingScales(0.4)).scale_yx == pytest.approx((2, 2), rel=5e-3)
    assert scaling_for(utm(0.2), None).is_identity
    assert scaling_for(utm(0.2), WorkingScales(0.4), gsd_m=0.8).scale_yx == (0.5, 0.5)


@pytest.mark.parametrize(
    ("own_m", "scale"),
    [(0.1, 2.5), (0.2, 1.25), (0.25, 1), (0.3, 1), (0.4, 1), (0.5, 0.8), (1.0, 0.4)],
)
def test_a_model_of_several_scales_takes_the_images_own(own_m: float, scale: float) -> None:
    scaling = scaling_for(utm(own_m), WorkingScales(0.4, 0.25))
    assert scaling.scale_yx == pytest.approx((scale, scale), rel=5e-3)
    assert scaling_for(GeoGrid((9, 9)), WorkingScales(0.4, 0.25), gsd_m=own_m) == scaling
    assert scaling_for(utm(own_m), WorkingScales(0.4, 0.25), scale=2).scale_yx == (0.5, 0.5)


@pytest.mark.parametrize(
    ("own_m", "working_m"),
    [(0.1, 0.25), (0.3, 0.3), (0.4, 0.4), (0.415, 0.4), (0.43, 0.25), (1.0, 0.25), (1.6, 0.25)],
)
def test_coarser_images_may_be_interpolated_to_a_finer_scale(
    own_m: float, working_m: float
) -> None:
    scales = WorkingScales(0.4, 0.25, interpolated_gsd_m=0.25)
    assert scales.for_image(own_m) == working_m
    expected = 1 if abs(working_m / own_m - 1) < 0.05 else working_m / own_m
    assert scaling_for(utm(own_m), scales).scale_yx[0] == pytest.approx(expected, rel=5e-3)


def test_degrees_are_not_metres() -> None:
    """A degree of longitude at 60° north is half as long as a degree of latitude."""
    step = 0.4 / 111_412
    grid = GeoGrid((100, 100), Affine(step, 0, 10, 0, -step, 60), CRS.from_epsg(4326))
    scale_y, scale_x = scaling_for(grid, WorkingScales(0.4)).scale_yx
    assert scale_y == 1
    assert scale_x == pytest.approx(2, rel=0.01)


def test_unknown_metres_are_reported() -> None:
    scaling = scaling_for(GeoGrid((10, 10)), WorkingScales(0.4), name="a.png")
    assert scaling.is_identity
    assert "a.png has no metres per pixel" in scaling.note
    scaling = scaling_for(GeoGrid((9, 9), Affine.scale(0.15, -0.15)), WorkingScales(0.4))
    assert scaling.note.endswith("0.15 units per pixel; if these are metres: --gsd 0.15")
    # Germany's eastings with the number of the zone before them.
    place = Affine(0.15, 0, 32_500_000, 0, -0.15, 5_700_000)
    with pytest.raises(GeoreferenceError, match=r"32500000 to 32500001.*EPSG:25832.*EPSG:4647"):
        scaling_for(GeoGrid((9, 9), place, CRS.from_epsg(25832)), WorkingScales(0.4))
    scaling = scaling_for(GeoGrid((9, 9), place, CRS.from_epsg(4647)), WorkingScales(0.4))
    assert scaling.steps_yx != (1, 1)


@pytest.mark.parametrize(
    ("gsd_m", "expected", "remedy"),
    [
        (1.69, "at most 1.6 m, 4 times as coarse as the model", "Use finer imagery"),
        (120.4, "has 120 m per pixel", "give the right one with --gsd"),
        (0.0029, "at least 0.00313 m, 128 times as fine as the model", "Check the unit"),
        (0.00002, "has 0.00002 m per pixel", "Check the unit"),
    ],
)
def test_too_coarse_and_impossibly_fine_are_refused(
    gsd_m: float, expected: str, remedy: str
) -> None:
    with pytest.raises(GsdMismatch, match=r"the model (was trained|works) at 0\.4 m") as caught:
        scaling_for(utm(gsd_m), WorkingScales(0.4))
    assert expected in caught.value.message
    assert remedy in caught.value.remedy
    assert "e-0" not in str(caught.value)
    assert "e+0" not in str(caught.value)


@pytest.mark.parametrize("finer", [2.0, 2.5, 5.3, 20.0, 100.0])
def test_finer_pixels_are_averaged_at_any_factor(finer: float) -> None:
    scaling = scaling_for(utm(0.4 / finer), WorkingScales(0.4))
    assert scaling.scale_yx == pytest.approx((finer, finer), rel=2e-3)
    stripes = np.zeros((1, 900, 900), np.uint8)
    stripes[:, :, ::2] = 200
    data, valid = Resampler(ArraySource(stripes), scaling).read(Window(1, 1, 5, 5))
    assert valid.all()
    np.testing.assert_allclose(data, 100, atol=20 / finer)


def test_a_scale_outweighs_metres() -> None:
    assert scaling_for(utm(0.1), WorkingScales(0.4), scale=1).is_identity
    assert scaling_for(utm(0.1), WorkingScales(0.4), gsd_m=0.2, scale=0.5).scale_yx == (2, 2)
    assert scaling_for(GeoGrid((10, 10)), None, scale=4).model_shape((10, 10)) == (40, 40)
    # More than four times, since somebody asked for it.
    assert scaling_for(utm(0.01), WorkingScales(0.4), scale=1 / 16).model_shape((320, 160)) == (
        20,
        10,
    )


@pytest.mark.parametrize("scale", [0, -1, 16.1, 0.0078, float("nan"), float("inf")])
def test_a_scale_that_makes_no_sense_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="between 1/128 and 16"):
        scaling_for(utm(0.4), WorkingScales(0.4), scale=scale)


def test_what_is_resampled_by_much_is_said() -> None:
    note = scaling_for(utm(0.1), WorkingScales(0.4), name="a.tif").note
    assert "a.tif has 0.1 m per pixel and is resampled to 0.4 m." in note
    transform = Affine(0.1, 0, 500_000, 0, -0.05, 9_000_000)
    oblong = GeoGrid((100, 100), transform, CRS.from_epsg(32737))
    note = scaling_for(oblong, WorkingScales(0.4)).note
    assert "0.05 × 0.1 (height × width) m per pixel" in note
    assert "0.8 m per pixel" in scaling_for(utm(0.1), WorkingScales(0.4), gsd_m=0.8).note
    assert scaling_for(utm(0.3), WorkingScales(0.4)).note == ""
    assert "0.25 times" in scaling_for(utm(0.4), WorkingScales(0.4), scale=0.25).note
    assert scaling_for(utm(0.4), WorkingScales(0.4), scale=1.2).note == ""


class Sparse(ArraySource):
    """Nodata but for a few pixels, and it knows."""

    def is_empty(self, window: Window) -> bool:
        return not self.read(window).valid.any()


@pytest.mark.campaign
@given(st.integers(0, 90), st.integers(0, 90), st.sampled_from([0.4, 1.0, 1.7, 4.0]))
def test_what_is_known_to_be_empty_would_be_read_as_nodata(
    row: int, col: int, source_px: float
) -> None:
    valid = np.zeros((100, 100), bool)
    valid[row : row + 10, col : col + 10] = True
    source = Sparse(np.full((1, 100, 100), 9, np.uint8), valid=valid)
    step = round(256 * source_px)
    resampler = Resampler(source, Scaling((step, step)))
    rows, cols = resampler.shape_yx
    empty = 0
    for top in range(0, rows, 12):
        for left in range(0, cols, 12):
            window = Window(top, left, min(12, rows - top), min(12, cols - left))
            reach = resampler.reach(window)
            assert reach.intersection(Window.whole((100, 100))) == reach
            if source.is_empty(reach):
                empty += 1
                assert not resampler.read(window)[1].any()
    assert empty
