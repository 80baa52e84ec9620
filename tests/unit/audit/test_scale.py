"""Planted scale factors between two sets are found, and uncertain cases are reported as such."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rooftrace.audit.scale import (
    ScaleEstimate,
    ScaleShift,
    estimate_scale,
    moments_of,
)
from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid, Raster, Scene, Window
from rooftrace.io.sources import ArraySource
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneEntry, SceneSet
from town import generate_scene

Image = NDArray[np.uint8]


def set_of(images: Sequence[Image], gsd_m: float | None = None) -> SceneSet:
    """Return a set in memory."""

    def open_scene(entry: SceneEntry) -> Scene:
        return Scene(entry.id, ArraySource(images[entry.key]), gsd_m=gsd_m)

    entries = tuple(SceneEntry(f"{i:03}", None, key=i) for i in range(len(images)))
    return SceneSet("set", "memory", ("no", "yes"), 1, (), open_scene, unlabelled=entries)


@cache
def town(gsd_m: float, first: int = 0, count: int = 5) -> tuple[Image, ...]:
    """Return images of towns of 134 m; a seed gives the same ground at every scale."""
    side = round(134.4 / gsd_m)
    seeds = range(first, first + count)
    return tuple(generate_scene(seed, (side, side), gsd_m).image for seed in seeds)


def images_estimate(a: Sequence[Image], b: Sequence[Image]) -> ScaleEstimate:
    shift = estimate_scale(set_of(a), set_of(b))
    assert [estimate.method for estimate in shift.estimates] == ["images"]
    return shift.estimates[0]


@pytest.mark.campaign
@pytest.mark.parametrize("gsd_m", [0.2, 0.6])
def test_the_same_towns_drawn_at_another_scale(gsd_m: float) -> None:
    found = images_estimate(town(0.3), town(gsd_m))
    assert found.factor == pytest.approx(gsd_m / 0.3, rel=0.2)
    assert found.low <= gsd_m / 0.3 <= found.high


def _darker(image: Image) -> Image:
    return (image * 0.5 + 20).astype(np.uint8)


def _noisy(image: Image) -> Image:
    noise = np.random.default_rng(1).normal(0, 5, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def _compressed(image: Image) -> Image:
    ok, data = cv2.imencode(".jpg", np.moveaxis(image, 0, -1), [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert ok
    return np.moveaxis(cv2.imdecode(data, cv2.IMREAD_COLOR), -1, 0)


def _wide(image: Image) -> NDArray[np.uint16]:
    return image.astype(np.uint16) * 257


def _grey(image: Image) -> Image:
    return image[1:2]


@pytest.mark.campaign
@pytest.mark.parametrize("change", [_darker, _noisy, _compressed, _wide, _grey])
def test_changes_of_pixel_values_keep_the_factor(change: object) -> None:
    assert callable(change)
    found = images_estimate(town(0.3), [change(image) for image in town(0.6)])
    assert found.factor == pytest.approx(2, rel=0.2)


@pytest.mark.campaign
@pytest.mark.parametrize(
    "images",
    [
        [],
        [np.full((3, 256, 256), 7, np.uint8)],
        [np.zeros((3, 256, 256), np.uint8)] * 3,
        [np.random.default_rng(0).integers(0, 255, (3, 20, 20), dtype=np.uint8)] * 3,
        [np.zeros((1, 1, 1), np.uint8)],
    ],
    ids=["none", "constant", "nodata", "tiny", "one pixel"],
)
def test_images_without_detail_give_no_estimate(images: list[Image]) -> None:
    for a, b in ((images, town(0.3)), (town(0.3), images), (images, images)):
        shift = estimate_scale(set_of(a), set_of(b))
        assert shift == ScaleShift()
        assert shift.best is None


def test_noise_has_no_scale_and_no_certainty() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (3, 256, 256), dtype=np.uint8) for _ in range(4)]
    assert not images_estimate(town(0.3), noise).sure


def test_scenes_that_cannot_be_read_are_left_out() -> None:
    class Broken:
        name = "broken"
        grid = GeoGrid((256, 256))
        bands = 3
        dtype = np.dtype(np.uint8)

        def read(self, window: Window | None = None) -> Raster:
            raise DataError("broken.png cannot be read.")

    whole = set_of(town(0.3))

    def open_scene(entry: SceneEntry) -> Scene:
        return Scene("x", Broken()) if entry.key is None else whole.open_scene(entry)

    entries = (SceneEntry("broken", None), *whole.unlabelled)
    broken = SceneSet("set", "memory", ("no", "yes"), 1, (), open_scene, unlabelled=entries)
    (found,) = estimate_scale(broken, set_of(town(0.6))).estimates
    assert found.factor == pytest.approx(2, rel=0.2)


def test_metres_go_before_images() -> None:
    shift = estimate_scale(set_of(town(0.3), 0.3), set_of(town(0.6), 0.6))
    assert [each.method for each in shift.estimates] == ["georeference", "images"]
    for each in shift.estimates:
        assert each.factor == pytest.approx(2, rel=0.2)
        assert each.low <= 2 <= each.high
    assert shift.best == shift.estimates[0]
    assert (shift.gsd_a_m, shift.gsd_b_m) == (0.3, 0.6)
    assert shift.to_json()["best"] == "georeference"


def test_a_set_of_which_some_scenes_know_no_metres_knows_none() -> None:
    images = town(0.6)
    known, unknown = set_of(images, gsd_m=0.6), set_of(images)

    def open_scene(entry: SceneEntry) -> Scene:
        return (unknown if entry.key else known).open_scene(entry)

    mixed = SceneSet("set", "memory", ("no", "yes"), 1, (), open_scene, unlabelled=known.unlabelled)
    shift = estimate_scale(set_of(images, gsd_m=0.6), mixed)
    assert (shift.gsd_a_m, shift.gsd_b_m) == (0.6, None)
    assert [each.method for each in shift.estimates] == ["images"]


@settings(max_examples=15)
@given(seed=st.integers(0, 2**16), gain=st.floats(0.1, 50), shift=st.floats(-100, 100))
def test_moments_scale_with_contrast_and_forget_brightness(
    seed: int, gain: float, shift: float
) -> None:
    luma = np.random.default_rng(seed).normal(0, 10, (96, 96)).astype(np.float32)
    valid = np.ones(luma.shape, bool)
    plain = moments_of(luma, valid)
    changed = moments_of(luma * np.float32(gain) + np.float32(shift), valid)
    assert plain is not None
    assert changed is not None
    powers = gain ** np.array([0, 1, 2, 3, 1, 2])
    # The cube is a difference of large numbers.
    some = np.abs(plain).max(axis=0) * 1e-2 * powers + 1e-6
    near = np.isclose(changed, plain * powers, rtol=1e-2, atol=0) | np.isnan(plain)
    assert (near | (np.abs(changed - plain * powers) < some)).all()


# Real sets


@pytest.mark.campaign
@pytest.mark.realdata
@pytest.mark.parametrize("place", ["kampala", "banepa", "catanduanes", "nairobi"])
def test_the_factor_between_two_zoom_levels_of_a_real_place(realdata: Path, place: str) -> None:
    sets = {
        zoom: open_source(
            SourceConfig(path=str(realdata / "oam" / place / "images"), kind="images", glob=glob)
        )
        for zoom, glob in ((19, "*-19.png"), (20, "*-20.png"))
    }
    (found,) = (
        each for each in estimate_scale(sets[20], sets[19]).estimates if each.method == "images"
    )
    assert found.factor == pytest.approx(2, rel=0.2)
    assert found.low <= 2 <= found.high
    assert found.sure


@pytest.mark.realdata
def test_towns_of_other_houses_are_not_compared_with_certainty(realdata: Path) -> None:
    a = open_source(SourceConfig(path=str(realdata / "khartoum"), gsd_m=0.39))
    b = open_source(SourceConfig(path=str(realdata / "vegas"), gsd_m=0.39))
    georeference, *others = estimate_scale(a, b).estimates
    assert georeference.factor == 1
    assert others
    assert not any(each.sure for each in others)
