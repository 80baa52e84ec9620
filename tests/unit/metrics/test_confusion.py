"""A confusion matrix shows shares of rows at any size."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from rooftrace.metrics.pixel import PixelCounts, confusion_csv, draw_confusion


def counts(matrix: object) -> PixelCounts:
    return PixelCounts(np.asarray(matrix, np.int64))


def test_the_table_keeps_names_and_pixels() -> None:
    matrix = counts([[5, 1], [10**12, 3]])
    names = ('land, "bare"', "building")
    header, *rows = csv.reader(io.StringIO(confusion_csv(matrix, names)))
    assert tuple(header[1:]) == names
    assert rows == [[names[0], "5", "1"], [names[1], str(10**12), "3"]]


def test_cells_are_as_dark_as_their_share_of_the_row() -> None:
    """The more a class is predicted as itself, the more ink, however many pixels it has."""
    names = ("land", "roof")
    shares = (0, 100, 500, 1000)
    pictures = [
        np.asarray(draw_confusion(counts([[part, 1000 - part], [1, 0]]), names)) for part in shares
    ]
    # The cell of the first row and column is where they differ, besides the one beside it.
    changed = np.argwhere((pictures[0] != pictures[-1]).any(axis=2))
    row, col = changed.min(axis=0) + 8
    ink = [255 - picture[row, col].mean() for picture in pictures]
    assert ink == sorted(ink)
    assert ink[0] == 0
    assert ink[-1] > 150
    larger = np.asarray(draw_confusion(counts([[5000, 5000], [1, 0]]), names))
    assert larger[row, col].tolist() == pictures[2][row, col].tolist()


@pytest.mark.campaign
@pytest.mark.parametrize("classes", [2, 20, 254])
def test_any_number_of_classes_fits(classes: int) -> None:
    matrix = np.diag(np.arange(classes))
    names = [f"a class with a rather long name {index}" for index in range(classes)]
    picture = draw_confusion(counts(matrix), names)
    assert min(picture.size) > 64 * 2
    assert max(picture.size) < 254 * 12 + 400
    grey = np.asarray(picture)
    # The first class has no pixel: its row differs from one whose shares are 0.
    assert (grey == 235).all(axis=2).any()


def test_without_a_pixel_nothing_is_said() -> None:
    picture = np.asarray(draw_confusion(PixelCounts.zero(3), ("a", "b", "c")))
    assert (picture > 100).mean() > 0.9
