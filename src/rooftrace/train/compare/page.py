"""The comparison as one HTML page that needs no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from markupsafe import Markup

from rooftrace.io.page import read_asset, render_page
from rooftrace.train.compare.chart import curves, swatch
from rooftrace.train.compare.comparison import ABSENT, Comparison, as_text
from rooftrace.train.compare.reading import Run

__all__ = ["render"]

_FIRST = ("val_iou", "val_loss", "val_dice", "val_accuracy", "train_loss", "train_iou", "lr")
_MOST_CHARTS = 40
_LONGEST_VALUE = 120


@dataclass(frozen=True)
class _Cell:
    """What a table shows, and what it is sorted by; empty: it has none, and comes last."""

    text: str
    order: str = ""


def render(comparison: Comparison) -> str:
    """The whole page, text in UTF-8."""
    script = read_asset("runs.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    figures = [name for name in _FIRST if name in comparison.figures]
    figures += [name for name in comparison.figures if name not in figures]
    return render_page(
        "runs.html",
        {},
        comparison=comparison,
        rows=[(run, _row(run)) for run in comparison.runs],
        heads=("run", "state", "val IoU", "epoch", "val loss", "epoch", "Dice", "epochs",
               "minutes", "images/s"),
        differing=[(key, _values(comparison, key)) for key in comparison.keys],
        charts=[(name, curves(comparison.runs, name)) for name in figures[:_MOST_CHARTS]],
        swatches=[swatch(number) for number in range(len(comparison.runs))],
        script=Markup(script),  # noqa: S704 - a file of this package
        script_hash=f"sha256-{digest}",
        version=metadata.version("rooftrace"),
    )  # fmt: skip


def _row(run: Run) -> Sequence[_Cell]:
    iou, loss = run.best("val_iou"), run.best("val_loss")
    return (
        _Cell(run.name, run.name),
        _Cell(run.status, run.status),
        _number(None if iou is None else iou.value, 4),
        _number(None if iou is None else iou.epoch, 0),
        _number(None if loss is None else loss.value, 4),
        _number(None if loss is None else loss.epoch, 0),
        _number(None if iou is None else run.at(iou.epoch, "val_dice"), 4),
        _number(run.epochs, 0),
        _number(run.minutes, 1),
        _number(run.images_per_s, 1),
    )


def _number(value: float | None, digits: int) -> _Cell:
    return _Cell("–") if value is None else _Cell(f"{value:,.{digits}f}", repr(value))


def _values(comparison: Comparison, key: str) -> list[tuple[str, bool]]:
    """Of each run, and whether it is another than that of most; `?` where it cannot be read."""
    usual = comparison.usual.get(key)
    cells = []
    for run in comparison.runs:
        text = as_text(run.config.get(key, ABSENT)) if run.config else "?"
        cells.append((text[:_LONGEST_VALUE], bool(run.config) and usual not in (None, text)))
    return cells
