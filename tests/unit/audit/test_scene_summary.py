"""Summaries of scenes: thumbnails, built-up shares and outlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rooftrace.audit import duplicates as glance
from rooftrace.core.types import GeoGrid, Mask, Window
from rooftrace.flows.split import built_up_of, summarize_scenes
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from town import write_pairs


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
