"""COCO annotations are read as separate instances."""

import numpy as np
import pytest
from pycocotools import mask as tools

from rooftrace.core.types import GeoGrid, InstanceReader, Window
from rooftrace.labels.coco_label import CocoAnnotation, CocoLabel
from rooftrace.labels.mask_values import IGNORED

# What pycocotools does with NumPy 2 when it decodes; rooftrace leaves that to itself.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (20, 30)


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    return [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]


def label(*drawn: tuple[int, object], shape: tuple[int, int] = SHAPE) -> CocoLabel:
    made = tuple(CocoAnnotation(f"a[{n}]", index, what) for n, (index, what) in enumerate(drawn))
    return CocoLabel(made, shape, GeoGrid(SHAPE), "labels.json", "image.png")


def runs(mask: np.ndarray) -> dict[str, object]:
    return tools.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_annotations_that_touch_or_overlap_are_apart() -> None:
    made = label((1, [box(2, 2, 8, 10)]), (1, [box(8, 2, 14, 10)]), (1, [box(12, 4, 20, 8)]))
    ids = made.read_instances()
    assert isinstance(made, InstanceReader)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids > 0, made.read().data == 1)
    assert ids[5, [7, 8, 11, 12, 19, 20]].tolist() == [1, 2, 2, 3, 3, 0]


def test_the_parts_of_one_annotation_are_one() -> None:
    made = label((1, [box(2, 2, 8, 10), box(12, 2, 16, 10)]), (2, [box(20, 2, 25, 9)]))
    ids = made.read_instances()
    assert set(ids[5].tolist()) == {0, 1, 2}
    assert ids[5, 3] == ids[5, 13] == 1


def test_background_and_what_is_ignored_are_no_objects() -> None:
    hole = np.zeros(SHAPE, bool)
    hole[4:6] = True
    made = label((1, [box(2, 2, 20, 10)]), (0, runs(hole)), (IGNORED, [box(10, 0, 12, 20)]))
    ids = made.read_instances()
    assert not ids[4:6].any()
    assert not ids[:, 10:12].any()
    np.testing.assert_array_equal(ids == 1, made.read().data == 1)


def test_numbers_do_not_depend_on_the_window() -> None:
    rng = np.random.default_rng(0)
    made = label(*((1, runs(rng.random(SHAPE) < 0.2)) for _ in range(4)))
    whole = made.read_instances()
    assert set(np.unique(whole)) == {0, 1, 2, 3, 4}
    for window in (Window(0, 0, 20, 30), Window(3, 5, 7, 9), Window(19, 29, 1, 1)):
        np.testing.assert_array_equal(made.read_instances(window), whole[window.slices()])
