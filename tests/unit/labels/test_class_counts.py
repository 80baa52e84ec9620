"""The pixels of each class in a set are counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_sets import scene_of, set_of
from rooftrace.core.types import Window
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels import source as module
from rooftrace.labels.source import BLOCK_PX, count_classes


@given(
    st.integers(1, 2 * BLOCK_PX + 9),
    st.integers(1, 2 * BLOCK_PX + 9),
    st.sampled_from([2, 3, 256]),
    st.integers(0, 99),
)
def test_counts_are_those_of_the_pixels_that_image_and_label_know(
    height: int, width: int, classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (height, width)).astype(np.uint8)
    known, valid = rng.random((2, height, width)) < 0.8
    counted = count_classes(set_of(scene_of("a", label, known, valid), classes=classes))
    whole = np.bincount(label[known & valid], minlength=classes)
    np.testing.assert_array_equal(counted["a"].sum(axis=(0, 1)), whole)
    blocks = counted["a"]
    assert blocks.shape == (-(-height // BLOCK_PX), -(-width // BLOCK_PX), classes)
    last = (slice((blocks.shape[0] - 1) * BLOCK_PX, None), slice(0, BLOCK_PX))
    corner = np.bincount(label[last][(known & valid)[last]], minlength=classes)
    np.testing.assert_array_equal(blocks[-1, 0], corner)


def test_a_large_scene_is_counted_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.random.default_rng(0).integers(0, 2, (5 * BLOCK_PX + 30, 300)).astype(np.uint8)
    source = set_of(scene_of("a", label))
    whole = count_classes(source)["a"]
    windows: list[Window] = []
    read = ArraySource.read

    def noted(self: ArraySource, window: Window | None = None) -> object:
        assert window is not None
        windows.append(window)
        return read(self, window)

    monkeypatch.setattr(ArraySource, "read", noted)
    monkeypatch.setattr(module, "_STRIP_PX", 2 * BLOCK_PX * 300)
    np.testing.assert_array_equal(count_classes(source)["a"], whole)
    assert [(w.row, w.height) for w in windows] == [(0, 512), (512, 512), (1024, 286)]
