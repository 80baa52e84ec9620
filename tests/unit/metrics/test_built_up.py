"""Errors of density: by hand, against a plain loop, and on scenes that no cell fits."""

import json
import math

import numpy as np
import pytest

from rooftrace.metrics.image_counts import BuiltUpCounts

NOWHERE = np.zeros((0, 2))


def mask(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Buildings from row and column to row and column."""
    made = np.zeros(shape, bool)
    for top, left, bottom, right in boxes:
        made[top:bottom, left:right] = True
    return made


def counted(truth: np.ndarray, predicted: np.ndarray, valid=None, **options) -> BuiltUpCounts:  # type: ignore[no-untyped-def]
    places = options.pop("truth_yx", NOWHERE), options.pop("predicted_yx", NOWHERE)
    return BuiltUpCounts.of(
        truth, predicted, valid, *places, **{"cell_px": 10, "threshold": 0.2, **options}
    )


# Two cells, 10 by 10: shares 0.30 and 0.10; predicted 0.10 and 0.25.
TRUTH = mask((10, 20), (0, 0, 3, 10), (0, 10, 1, 20))
GUESS = mask((10, 20), (0, 0, 1, 10), (0, 10, 5, 15))


def test_by_hand() -> None:
    counts = counted(
        TRUTH, GUESS,
        truth_yx=[(1.5, 2), (1.5, 8), (0.5, 15)],
        predicted_yx=[(0.5, 5), (1, 11), (2, 12), (4, 13)],
    )  # fmt: skip
    assert counts.cells == 2
    # Cell by cell -0.20 and +0.15 of the area, 1 instead of 2 buildings and 3 instead of 1.
    assert counts.figures() == {
        "share_mae": pytest.approx(0.175),
        "share_bias": pytest.approx(-0.025),
        "share_rmse": pytest.approx(math.sqrt((0.2**2 + 0.15**2) / 2)),
        "buildings_per_cell_mae": 1.5,
        "buildings_per_cell_bias": 0.5,
        "buildings_per_cell_rmse": pytest.approx(math.sqrt(5 / 2)),
        "buildings_per_scene_mae": 1,
        "buildings_excess": pytest.approx(1 / 3),
        "sparse_dense_accuracy": 0,
    }
    # The dense cell is called sparse, and the sparse one dense.
    assert counts.confusion.tolist() == [[0, 1], [1, 0]]
    assert (counts.count("labelled"), counts.count("predicted")) == (3, 4)
    plain = counts.to_json()
    assert (plain["cells"], plain["labelled"], plain["dense_from"]) == (2, 3, 0.2)
    assert plain["confusion"] == [[0, 1], [1, 0]]
    json.dumps(plain, allow_nan=False)
