"""Runs speak against a wrong size of their images, and never against the right one."""

from __future__ import annotations

import numpy as np
import pytest

from rooftrace.labels.rle.codec import Bounds, Order, encode_runs, parse_runs
from rooftrace.labels.rle.order import _changes, doubt_size

ROWS, COLUMNS = 160, 224


def towns(count: int, shape_yx: tuple[int, int] = (ROWS, COLUMNS)) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    masks = []
    for _ in range(count):
        mask = np.zeros(shape_yx, bool)
        for _ in range(12):
            row, col = rng.integers(0, shape_yx[0] - 8), rng.integers(0, shape_yx[1] - 8)
            mask[row : row + rng.integers(8, 30), col : col + rng.integers(8, 30)] = True
        masks.append(mask)
    return masks


def runs(masks: list[np.ndarray], order: Order) -> list[Bounds]:
    return [parse_runs(encode_runs(m, order), (9999, 9999), where="here") for m in masks]


@pytest.mark.campaign
@pytest.mark.parametrize("order", ["row", "column"])
def test_only_a_wrong_size_is_doubted(order: Order) -> None:
    found = runs(towns(24), order)
    line_px = COLUMNS if order == "row" else ROWS
    assert doubt_size(found, (ROWS, COLUMNS), order) == ""
    transposed = doubt_size(found, (COLUMNS, ROWS), order)
    assert f"compact with lines of {line_px} pixels" in transposed
    # Square images of nearly as many pixels, and images that are far too large.
    for wrong in ((190, 190), (512, 512), (ROWS + 40, COLUMNS + 40)):
        assert f"lines of {line_px} pixels, not of {wrong[0 if order == 'column' else 1]}" in (
            doubt_size(found, wrong, order)
        )


def test_too_many_lines_are_doubted_by_what_no_run_reaches() -> None:
    found = runs(towns(24), "row")
    assert doubt_size(found, (2 * ROWS, COLUMNS), "row").startswith("No run of 24 masks reaches")
    # A few masks may all be empty at the end.
    assert doubt_size(found[:19], (2 * ROWS, COLUMNS), "row") == ""


def test_few_runs_prove_nothing() -> None:
    found = runs(towns(1, (40, 40)), "row")
    assert doubt_size(found, (45, 45), "row") == ""
    assert doubt_size([], (45, 45), "row") == ""


def test_changes_against_a_plain_count() -> None:
    masks = towns(3, (20, 30))
    found = _changes(runs(masks, "row"), 600)
    flats = [mask.ravel() for mask in masks]
    for shift in (1, 7, 30, 299):
        plain = np.mean([np.mean(flat[shift:] != flat[:-shift]) for flat in flats])
        assert found[shift] == pytest.approx(plain)
