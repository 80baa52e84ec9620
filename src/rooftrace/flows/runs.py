"""`rooftrace runs`: what differed between training runs, and what came out."""

from __future__ import annotations

from pathlib import Path

from rooftrace.io.atomic import write_atomically
from rooftrace.train.compare.comparison import Comparison, compare
from rooftrace.train.compare.page import render
from rooftrace.train.compare.reading import find_runs

__all__ = ["run_runs"]


def run_runs(folder: Path, out: Path | None = None, *, sort: str = "val_iou") -> Comparison:
    """Compare all runs in a folder, and write the page.

    Args:
        folder: its runs may lie at any depth; one that is not finished, or damaged, is shown as
            such.
        out: the HTML file; None writes none.
        sort: see `train.compare.comparison.compare`.

    Raises:
        DataError: no such folder, or no run in it.
        ConfigError: no run has the figure that they are to be sorted by.
        ExportError: the page cannot be written.
    """
    comparison = compare(find_runs(folder), sort)
    if out is not None:
        write_atomically(out, render(comparison).encode())
    return comparison
