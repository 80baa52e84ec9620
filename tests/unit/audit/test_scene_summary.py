"""Summaries of scenes: thumbnails, built-up shares and outlines."""

from __future__ import annotations

import numpy as np
import pytest

from rooftrace.audit import duplicates as glance
from rooftrace.core.types import GeoGrid, Mask, Window
from rooftrace.flows.split import built_up_of


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
