"""R-trees that are packed at one go."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from rooftrace.io import geopackage
from rooftrace.io.geopackage import fill_rtree, outward_boxes


def boxes(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    low = rng.random((count, 2)) * 1e6 + 4e6 + 1 / 3
    return np.concatenate([low, low + rng.random((count, 2)) * 40], axis=1)


@pytest.mark.parametrize("count", [0, 1, 51, 52, 102, 2601, 2602, 9000])
def test_a_tree_is_whole_and_finds_what_is_there(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geopackage, "_ROWS_AT_ONCE", 1000)
    bounds = boxes(count)
    with closing(sqlite3.connect(":memory:")) as file:
        file.execute('CREATE VIRTUAL TABLE "a ""b""" USING rtree(id, minx, maxx, miny, maxy)')
        fill_rtree(file, 'a "b"', outward_boxes(bounds))
        assert file.execute("SELECT rtreecheck('a \"b\"')").fetchone() == ("ok",)
        assert file.execute('SELECT count(*) FROM "a ""b"""').fetchone() == (count,)
        low, high = np.array([4.2e6, 4.3e6]), np.array([4.5e6, 4.8e6])
        inside = (bounds[:, :2] < high).all(axis=1) & (bounds[:, 2:] > low).all(axis=1)
        found = file.execute(
            'SELECT id FROM "a ""b""" WHERE minx < ? AND miny < ? AND maxx > ? AND maxy > ?',
            (*high, *low),
        ).fetchall()
        assert sorted(row for (row,) in found) == (np.flatnonzero(inside) + 1).tolist()
        # It goes on as a tree of SQLite's own.
        file.execute('INSERT INTO "a ""b""" VALUES (?, 0, 1, 0, 1)', (count + 1,))
        if count:
            file.execute('DELETE FROM "a ""b""" WHERE id <= ?', (count // 2,))
        assert file.execute("SELECT rtreecheck('a \"b\"')").fetchone() == ("ok",)
        left = file.execute('SELECT count(*) FROM "a ""b"""').fetchone()
        assert left == (count + 1 - count // 2,)


def test_single_precision_never_cuts_a_box() -> None:
    bounds = boxes(500)
    with closing(sqlite3.connect(":memory:")) as file:
        file.execute("CREATE VIRTUAL TABLE a USING rtree(id, minx, maxx, miny, maxy)")
        fill_rtree(file, "a", outward_boxes(bounds))
        rows = np.array(file.execute("SELECT * FROM a ORDER BY id").fetchall())
    assert (rows[:, [1, 3]] <= bounds[:, :2]).all()
    assert (rows[:, [2, 4]] >= bounds[:, 2:]).all()
    assert np.abs(rows[:, 1:] - bounds[:, [0, 2, 1, 3]]).max() < 1


def test_nodes_of_another_size_are_not_written_over() -> None:
    with closing(sqlite3.connect(":memory:")) as file:
        file.execute("PRAGMA page_size = 512")
        file.execute("CREATE VIRTUAL TABLE a USING rtree(id, minx, maxx, miny, maxy)")
        with pytest.raises(ValueError, match="448 bytes, 1228 were expected"):
            fill_rtree(file, "a", outward_boxes(boxes(5)))
