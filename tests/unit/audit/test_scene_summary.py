"""Summaries of scenes: thumbnails, built-up shares and outlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rooftrace.audit import duplicates as glance
from rooftrace.audit.duplicates import likeness, luma_of, phash, thumbnail_of
from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid, Mask, Window
from rooftrace.flows.split import built_up_of, summarize_scenes
from rooftrace.io.sources import ArraySource
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from town import generate_scene, write_pairs


class Label:
    def __init__(self, data: np.ndarray, valid: np.ndarray) -> None:  # type: ignore[type-arg]
        self.data, self.valid = data, valid

    def read(self, window: Window | None = None) -> Mask:
        assert window is not None
        rows, cols = window.slices()
        return Mask(self.data[rows, cols], self.valid[rows, cols], GeoGrid(window.shape_yx))


@pytest.fixture
def strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "_WHOLE_PX", 5000)


@pytest.mark.campaign
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_by_strips_as_in_one_piece(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    image = generate_scene(2, (640, 500)).image
    image = image if dtype == np.uint8 else (image.astype(np.float32) * 8).astype(dtype)
    valid = np.ones(image.shape[1:], dtype=bool)
    valid[:100, :70] = False
    source = ArraySource(image, valid=valid)
    whole = thumbnail_of(source)
    monkeypatch.setattr(glance, "_WHOLE_PX", 5000)
    assert likeness(whole, thumbnail_of(source)) > 0.99
    assert 0 <= whole.min() <= whole.max() <= 1
    luma = luma_of(source.read())
    assert luma.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert phash(luma, valid) != 0


@pytest.mark.usefixtures("strips")
def test_built_up_share_is_of_known_pixels() -> None:
    data = np.zeros((200, 100), dtype=np.uint8)
    data[:50] = 2
    valid = np.ones(data.shape, dtype=bool)
    valid[100:] = False
    assert built_up_of(Label(data, valid), data.shape, 2) == 0.5
    assert built_up_of(Label(data, valid), data.shape, 1) == 0
    assert built_up_of(Label(data, valid & False), data.shape, 2) is None


@pytest.mark.campaign
def test_summaries_in_the_order_of_the_set(tmp_path: Path) -> None:
    write_pairs(tmp_path, range(7), shape_yx=(64, 64))
    source = open_source(SourceConfig(path=str(tmp_path)))
    calls: list[tuple[int, int]] = []
    found = summarize_scenes(
        source, labels=True, pixels=True, progress=lambda *done: calls.append(done)
    )
    assert [one.id for one in found] == list(source.ids)
    assert calls == [(n, 7) for n in range(1, 8)]
    for one, scene in zip(found, source):
        assert scene.label is not None
        assert one.built_up == scene.label.read().data.mean()
        assert one.thumbnail is not None
        assert one.thumbnail.shape == (32, 32)
        assert one.outline is not None
    headers = summarize_scenes(source, labels=False, pixels=False)
    assert {(one.built_up, one.thumbnail) for one in headers} == {(None, None)}


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_pairs(tmp_path, range(5), shape_yx=(64, 64))
    for number in (1, 3):
        Image.new("L", (5, 5)).save(tmp_path / "masks" / f"synthetic_{number:05d}.tif")
    source = open_source(SourceConfig(path=str(tmp_path)))
    with pytest.raises(DataError, match=r"synthetic_00001\.tif"):
        summarize_scenes(source, labels=True, pixels=False)
