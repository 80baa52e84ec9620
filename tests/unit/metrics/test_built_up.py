"""Errors of density: by hand, against a plain loop, and on scenes that no cell fits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rooftrace.metrics.built_up import BuiltUpCounts

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


@given(
    st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(
        lambda shape: st.tuples(*(hnp.arrays(np.bool_, shape) for _ in range(3)))
    ),
    st.floats(1, 30),
    hnp.arrays(np.float64, (6, 2), elements=st.floats(-2, 26)),
)
def test_against_a_plain_loop(
    masks: tuple[np.ndarray, ...], cell_px: float, places: np.ndarray
) -> None:
    truth, guess, valid = masks
    counts = counted(
        truth, guess, valid, truth_yx=places[:3], predicted_yx=places[3:], cell_px=cell_px
    )
    cells: dict[tuple[int, int], list[list[float]]] = {}
    # Centres are compared with edges: a quotient may be rounded across one (16.5 / 1.1 < 15).
    edges = np.arange(25) * cell_px
    for y, x in np.ndindex(truth.shape):
        row, col = (int((edges <= place + 0.5).sum()) - 1 for place in (y, x))
        cell = cells.setdefault((row, col), [])
        inside = [
            sum((math.floor(a), math.floor(b)) == (y, x) for a, b in part)
            for part in (places[:3], places[3:])
        ]
        if valid[y, x]:
            cell.append([truth[y, x], guess[y, x], *inside])
    whole = math.prod(min(cell_px, size) for size in truth.shape)
    judged = [np.array(cell, float) for cell in cells.values() if cell and len(cell) >= whole / 2]
    assert counts.cells == len(judged)
    share = [cell[:, 1].mean() - cell[:, 0].mean() for cell in judged]
    more = [cell[:, 3].sum() - cell[:, 2].sum() for cell in judged]
    figures = counts.figures()
    if judged:
        assert figures["share_mae"] == pytest.approx(np.mean(np.abs(share)))
        assert figures["share_bias"] == pytest.approx(np.mean(share))
        assert figures["share_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(share))))
        assert figures["buildings_per_cell_mae"] == pytest.approx(np.mean(np.abs(more)))
        assert figures["buildings_per_cell_bias"] == pytest.approx(np.mean(more))
        assert figures["buildings_per_cell_rmse"] == pytest.approx(
            np.sqrt(np.mean(np.square(more)))
        )
        assert counts.confusion.sum() == counts.cells
    known = [cell for cell in cells.values() if cell]
    assert counts.count("labelled") == sum(row[2] for cell in known for row in cell)
    assert counts.count("predicted") == sum(row[3] for cell in known for row in cell)
