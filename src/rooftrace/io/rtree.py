"""R-trees of SQLite, packed at one go.

Feature by feature SQLite takes ten times as long. The nodes are those of sort-tile-recursive
packing (Leutenegger, Lopez and Edgington 1997, doi:10.1109/ICDE.1997.582015), in the format that
https://www.sqlite.org/rtree.html#shadow_tables and the head of SQLite's rtree.c describe.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill_rtree"]

Bounds = NDArray[np.float32]
Ints = NDArray[np.int64]

_MOST = 51
"""Entries of a node, where a page has 2 KB or more."""

_NODE = np.dtype(
    [
        ("depth", ">u2"),
        ("count", ">u2"),
        ("entry", [("id", ">i8"), ("box", ">f4", 4)], _MOST),
    ]
)
_ROOT = 1


def fill_rtree(file: sqlite3.Connection, name: str, bounds: NDArray[np.float64]) -> None:
    """Fills an empty R-tree of two dimensions.

    Args:
        file: that has it.
        name: of the virtual table.
        bounds: (n, 4) smallest x and y, largest x and y of the rows 1 to n.

    Raises:
        sqlite3.Error: there is no such table.
        ValueError: its nodes have another size.
    """
    table = '"{}"'.format(name.replace('"', '""'))
    node, rowid, parent = (f'{table[:-1]}_{kind}"' for kind in ("node", "rowid", "parent"))
    (size,) = file.execute(f"SELECT length(data) FROM {node}").fetchone()  # noqa: S608
    if size != _NODE.itemsize:
        raise ValueError(f"nodes of {name} have {size} bytes, {_NODE.itemsize} were expected")
    number = np.arange(1, len(bounds) + 1)
    box = _outward(bounds)
    depth, next_node = 0, _ROOT + 1
    while len(number) > _MOST:
        order, starts = _packed(box)
        made = next_node + np.arange(len(starts) - 1)
        owner = np.empty(len(number), np.int64)
        owner[order] = np.repeat(made, np.diff(starts))
        table_of = rowid if depth == 0 else parent
        file.executemany(
            f"INSERT INTO {table_of} VALUES (?, ?)",  # noqa: S608
            zip(number.tolist(), owner.tolist()),
        )
        file.executemany(
            f"INSERT INTO {node} VALUES (?, ?)",  # noqa: S608
            zip(made.tolist(), _nodes(number[order], box[order], starts)),
        )
        low = np.minimum.reduceat(box[order, 0::2], starts[:-1])
        high = np.maximum.reduceat(box[order, 1::2], starts[:-1])
        box = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
        number, next_node, depth = made, next_node + len(made), depth + 1
    file.executemany(
        f"INSERT INTO {rowid if depth == 0 else parent} VALUES (?, {_ROOT})",  # noqa: S608
        ((one,) for one in number.tolist()),
    )
    (root,) = _nodes(number, box, np.array([0, len(number)]), depth)
    file.execute(f"REPLACE INTO {node} VALUES ({_ROOT}, ?)", (root,))  # noqa: S608


def _outward(bounds: NDArray[np.float64]) -> Bounds:
    """(n, 4) smallest and largest x, smallest and largest y, in single precision, not smaller."""
    near = bounds.astype(np.float32)
    low = np.where(near > bounds, np.nextafter(near, np.float32(-np.inf)), near)[:, :2]
    high = np.where(near < bounds, np.nextafter(near, np.float32(np.inf)), near)[:, 2:]
    return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)


def _packed(box: Bounds) -> tuple[Ints, Ints]:
    """An order in which neighbours follow each other, and where its nodes begin, and the last ends.

    Slices from left to right, each of about as many nodes as there are slices, and in each from
    the bottom to the top.
    """
    count = -(-len(box) // _MOST)
    slices = int(np.ceil(np.sqrt(count)))
    across = np.argsort(box[:, 0] + box[:, 1], kind="stable")
    part = np.empty(len(box), np.int64)
    part[across] = np.arange(len(box)) // (_MOST * slices)
    order = np.lexsort((box[:, 2] + box[:, 3], part))
    return order, np.linspace(0, len(box), count + 1).astype(np.int64)


def _nodes(number: Ints, box: Bounds, starts: Ints, depth: int = 0) -> Iterator[bytes]:
    """Each node as it lies in the file; only the root says how deep the tree is."""
    size = np.diff(starts)
    nodes = np.zeros(len(size), _NODE)
    nodes["depth"], nodes["count"] = depth, size
    which = np.repeat(np.arange(len(size)), size)
    place = np.arange(len(number)) - starts[which]
    nodes["entry"]["id"][which, place] = number
    nodes["entry"]["box"][which, place] = box
    return (one.tobytes() for one in nodes)
