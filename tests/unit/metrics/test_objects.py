"""Objects one by one, against counts made by hand and by pycocotools."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rooftrace.metrics.objects import F1_IOUS, ObjectCounts, match_predicted

maps = arrays(np.int32, (8, 10), elements=st.integers(0, 4))


def ids(*values: int) -> np.ndarray:
    return np.array([values], np.int32)


def count(labelled: np.ndarray, predicted: np.ndarray, *args, **options) -> tuple[int, ...]:
    """Labelled, predicted, matched, split, merged."""
    counts = ObjectCounts.of(labelled, predicted, *args, **options)
    assert (counts.predicted_at[0], counts.matched_at[0]) == (counts.predicted, counts.matched)
    return counts.labelled, counts.predicted, counts.matched, counts.split, counts.merged


def test_merges_and_splits() -> None:
    row = ids(1, 1, 1, 2, 2, 2)
    one = ids(9, 9, 9, 9, 9, 9)
    assert count(row, one) == (2, 1, 0, 0, 1)
    assert count(one, row) == (1, 2, 0, 1, 0)
    # A neighbour's sliver is no merge.
    assert ObjectCounts.of(ids(1, 1, 1, 2, 2, 2), ids(4, 4, 4, 4, 0, 0)).merged == 0


def test_what_is_not_valid_does_not_count() -> None:
    valid = np.array([[True, True, False, True]])
    assert count(ids(1, 1, 1, 0), ids(2, 2, 0, 3), valid) == (1, 2, 1, 0, 0)
    assert ObjectCounts.of(ids(1), ids(1), np.array([[False]])) == ObjectCounts()


def test_what_is_cut_by_nodata_is_neither_right_nor_wrong() -> None:
    # Of the first building two pixels of six are known, of the second four of six; what is
    # predicted in the first covers only a piece of it.
    labelled = ids(1, 1, 1, 1, 1, 1, 0, 2, 2, 2, 2, 2, 2)
    predicted = ids(0, 0, 0, 0, 4, 0, 0, 5, 5, 5, 5, 0, 0)
    valid = ids(0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0) > 0
    counts = ObjectCounts.of(labelled, predicted, valid)
    assert (counts.labelled, counts.predicted, counts.matched) == (1, 1, 1)
    # Where it is known, the same piece is wrong.
    counts = ObjectCounts.of(labelled, predicted)
    assert (counts.labelled, counts.predicted, counts.matched) == (2, 2, 1)
    # What is predicted in the unknown for the most part is as little judged.
    turned = ObjectCounts.of(predicted, labelled, valid)
    assert (turned.labelled, turned.predicted, turned.matched) == (2, 1, 1)
    # A calibration learns from the same objects.
    for sides, expected in (((labelled, predicted), [5]), ((predicted, labelled), [2])):
        numbers, right, _ = match_predicted(*sides, valid)
        assert (numbers.tolist(), right.tolist()) == (expected, [True])


def test_what_is_too_small_is_neither_right_nor_wrong() -> None:
    ground = {"pixel_m2": 2.0, "min_area_m2": 6.0}
    # A label below the minimum, and what matches it, though that is large enough.
    assert count(ids(1, 1, 0, 2, 2, 2), ids(1, 1, 1, 0, 0, 0), **ground) == (1, 0, 0, 0, 0)
    # A predicted one below it that matches what is not counts; one that matches nothing does not.
    assert count(ids(1, 1, 1, 0, 0), ids(1, 1, 0, 0, 5), **ground) == (1, 1, 1, 0, 0)
    # The same where its match is asked to be better.
    strict = ObjectCounts.of(ids(1, 1, 1, 0, 0), ids(1, 1, 0, 0, 5), **ground)
    assert (strict.matched_at, strict.predicted_at) == ((1,) * 4 + (0,) * 6,) * 2
    # Crumbs split nothing.
    assert count(ids(1, 1, 1, 1, 1), ids(1, 1, 1, 2, 2), **ground)[3] == 0
    assert count(ids(1, 1, 1, 1, 1, 1), ids(1, 1, 1, 2, 2, 2), **ground)[3] == 1


def test_by_size_by_hand() -> None:
    # Of 80, 40 and 20 m² against 60, 40, 20 m²: the first two match, the third is elsewhere.
    labelled = ids(1, 1, 1, 1, 0, 2, 2, 0, 3, 0)
    predicted = ids(1, 1, 1, 0, 0, 2, 2, 0, 0, 3)
    counts = ObjectCounts.of(labelled, predicted, pixel_m2=20.0)
    rows = [
        (row.from_m2, row.to_m2, row.labelled, row.found, row.predicted, row.right)
        for row in counts.by_size[:3]
    ]
    assert rows == [(0, 25, 1, 0, 1, 0), (25, 50, 1, 1, 1, 1), (50, 100, 1, 1, 1, 1)]
    assert [row.recall for row in counts.by_size[:3]] == [0, 1, 1]
    assert [row.precision for row in counts.by_size[:3]] == [0, 1, 1]
    assert math.isnan(counts.by_size[3].precision)


@given(maps, maps, st.integers(0, 9))
def test_counts_are_those_of_pycocotools(one, other, least) -> None:
    """pycocotools matches by itself and ignores the objects outside of an area range."""
    tools = pytest.importorskip("pycocotools.mask")
    evaluation = pytest.importorskip("pycocotools.cocoeval").COCOeval(iouType="segm")

    def annotations(image: np.ndarray) -> list[dict[str, object]]:
        masks = [image == number for number in np.unique(image[image > 0])]
        return [
            {
                "id": number, "iscrowd": 0, "ignore": 0, "score": 1, "area": int(mask.sum()),
                "segmentation": tools.encode(np.asfortranarray(mask.astype(np.uint8))),
            }
            for number, mask in enumerate(masks, start=1)
        ]  # fmt: skip

    # Where an IoU is as asked for it matches there; here it must be above.
    evaluation.params.iouThrs = np.nextafter(F1_IOUS, 1)
    evaluation._gts[1, 1], evaluation._dts[1, 1] = annotations(one), annotations(other)
    evaluation.params.catIds = [1]
    evaluation.ious = {(1, 1): evaluation.computeIoU(1, 1)}
    judged = evaluation.evaluateImg(1, 1, (least, 1e9), 100)
    counts = ObjectCounts.of(one, other, pixel_m2=1.0, min_area_m2=float(least))
    if judged is None:
        assert (counts.labelled, counts.predicted) == (0, 0)
        return
    kept = ~judged["dtIgnore"]
    assert counts.labelled == (judged["gtIgnore"] == 0).sum()
    assert counts.predicted_at == tuple(kept.sum(axis=1))
    assert counts.matched_at == tuple(((judged["dtMatches"] > 0) & kept).sum(axis=1))
