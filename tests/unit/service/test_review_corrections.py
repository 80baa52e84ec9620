"""Corrections of a review as labelled chips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from raster_files import write_geotiff
from rooftrace.core.errors import DataError
from rooftrace.core.types import Window
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.labels.kinds import open_source
from rooftrace.service.review.corrections import (
    CHIP_PX,
    SMALL_CHIP_PX,
    CorrectedImage,
    chip_side,
    decided_windows,
    write_corrections,
    write_labelled_chips,
)

SHAPE = (300, 520)
SPEC = tiny_bundle().spec.model_copy(update={"gsd_m": 0.5})
HOUSE, OPEN, FAR = (shapely.box(x, y, x + 20, y + 10) for x, y in ((30, 40), (60, 40), (400, 280)))


@pytest.fixture
def image(tmp_path: Path) -> CorrectedImage:
    pixels = np.arange(3 * SHAPE[0] * SHAPE[1], dtype=np.uint32).reshape(3, *SHAPE) % 251
    path = tmp_path / "town.tif"
    write_geotiff(
        path, pixels.astype(np.uint8), crs="EPSG:32736",
        transform=Affine(0.5, 0, 524_000, 0, -0.5, 9_318_000),
    )  # fmt: skip
    return CorrectedImage(
        "town", path, SHAPE, 0.5,
        {"nodata": None, "zoom": None, "bands": None, "stretch": None, "gsd_m": None},
        np.array([HOUSE], np.object_), np.array([HOUSE, OPEN, FAR], np.object_),
        np.array([1, -1, 1]), shapely.box(0, 0, SHAPE[1], 250),
    )  # fmt: skip


@given(
    height=st.integers(1, 90), width=st.integers(1, 90), chip=st.integers(16, 64),
    x=st.floats(0, 80), y=st.floats(0, 80),
)  # fmt: skip
def test_chips_are_disjoint_and_cover_each_decision(
    height: int, width: int, chip: int, x: float, y: float
) -> None:
    decided = shapely.box(x, y, x + 9, y + 9)
    windows = decided_windows((height, width), chip, np.array([decided], np.object_))
    count = np.zeros((height, width), int)
    for window in windows:
        count[window.slices()] += 1
    assert count.max(initial=0) <= 1
    rows, cols = np.mgrid[:height, :width] + 0.5
    assert count[shapely.contains_xy(decided, cols, rows)].all()


def test_only_ground_with_a_decision_becomes_labels(image: CorrectedImage, tmp_path: Path) -> None:
    write_corrections(tmp_path / "c.json", [image], 128, SPEC.gsd_m)
    source = open_source(write_labelled_chips(tmp_path / "c.json", tmp_path / "out", SPEC))
    assert source.ids == ("town@0_0",)
    (scene,) = source
    assert scene.label is not None
    mask = scene.label.read()
    assert mask.data.shape == (128, 128)
    # The house is a building, the open one is unknown, and the rest is ground.
    assert mask.data[40:50, 30:50].all()
    assert mask.data[mask.valid].sum() == 200
    assert not mask.valid[40:50, 60:80].any()
    assert (~mask.valid).sum() == 200
    assert scene.image.grid.gsd_m == pytest.approx(0.5, rel=1e-3)
    written = scene.image.read().data
    expected = np.arange(3 * SHAPE[0] * SHAPE[1]).reshape(3, *SHAPE) % 251
    np.testing.assert_array_equal(written, expected[:, :128, :128])


def test_chips_have_the_scale_of_the_prediction(image: CorrectedImage, tmp_path: Path) -> None:
    """A value that was given for the prediction overrides the georeference."""
    given = replace(image, gsd_m=0.7, reading=image.reading | {"gsd_m": 0.7})
    for name, one, expected_m in (("plain", image, 0.5), ("given", given, 0.7)):
        write_corrections(tmp_path / "c.json", [one], 128, SPEC.gsd_m)
        (scene,) = open_source(write_labelled_chips(tmp_path / "c.json", tmp_path / name, SPEC))
        assert scene.gsd_m == pytest.approx(expected_m, rel=1e-3)
        # The georeference is more exact than one figure for both axes.
        assert (scene.stated_gsd_m is None) == (name == "plain")


def test_ground_that_was_not_predicted_is_unknown(image: CorrectedImage, tmp_path: Path) -> None:
    lower = replace(image, decided=np.array([FAR], np.object_))
    write_corrections(tmp_path / "c.json", [lower], 256, SPEC.gsd_m)
    (scene,) = open_source(write_labelled_chips(tmp_path / "c.json", tmp_path / "out", SPEC))
    assert scene.id == "town@256_256"
    assert scene.label is not None
    mask = scene.label.read()
    # Below row 250, only the building that was added there is known.
    assert mask.valid.sum() == mask.data.sum() == 200


def test_chips_are_as_large_as_the_model_sees_them(image: CorrectedImage) -> None:
    fine = replace(image, gsd_m=0.125)
    assert fine.chips(32, 0.5)[0] == Window(0, 0, 128, 128)
    assert replace(image, gsd_m=None).chips(32, 0.5)[0] == Window(32, 0, 32, 32)
    assert chip_side([image], 0.5, 1) == (CHIP_PX, 1)
    assert chip_side([image, fine], 0.5, 3) == (SMALL_CHIP_PX, 2)


def test_an_image_that_was_replaced(image: CorrectedImage, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    write_corrections(path, [image], 128, SPEC.gsd_m)
    record = json.loads(path.read_text())
    record["images"][0]["shape"] = [300, 521]
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="has been replaced since it was reviewed"):
        write_labelled_chips(path, tmp_path / "out", SPEC)
    image.path.unlink()
    with pytest.raises(DataError, match=r"town\.tif is not where it was"):
        write_labelled_chips(path, tmp_path / "out", SPEC)
