"""Learning curves as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rooftrace.io.atomic import replacing

__all__ = ["plot_curves"]

_COARSE = "_coarse"
"""Ends the names of what a refinement began with; drawn beside what it came to."""

_TITLES = {"loss": "Loss", "iou": "IoU", "dice": "Dice", "accuracy": "Pixel accuracy"}
_TRAIN, _VAL, _RATE = "#4C72B0", "#C44E52", "#444444"
_FOLDERS = ("#E69F00", "#009E73", "#CC79A7", "#8C6BB1", "#0072B2", "#8B5A2B", "#56B4E9", "#7A7A7A")
"""Thin lines that are told from one another and from the two thick ones; then again, dotted."""

_COLUMNS = 3
_WITH_MARKS = 40
"""More epochs than that are a line without marks."""

Rows = Sequence[Mapping[str, float]]


def plot_curves(rows: Rows, path: Path) -> None:
    """Loss, IoU, Dice and accuracy over epochs, training against validation, as a PNG.

    What a task records besides (`train_X`, `val_X`) gets a panel of its own.

    Args:
        rows: one mapping an epoch, with `epoch`, `train_*`, `val_*`, `val_iou/FOLDER` and `lr`; a
            figure that an epoch does not have leaves a gap.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    pairs = {name.partition("_")[2] for name in names if name.startswith(("train_", "val_"))}
    more = sorted(
        key for key in pairs - set(_TITLES) if "/" not in key and not key.endswith(_COARSE)
    )
    keys = [key for key in _TITLES if key in pairs] + more
    folders = [name for name in names if name.startswith("val_iou/")]
    # One place more for the names of the folders, where they are several.
    places = len(keys) + 1 + (len(folders) > 1)
    lines = math.ceil(places / _COLUMNS)
    figure = Figure(figsize=(13, 3.7 * lines))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.05, right=0.985, wspace=0.16, hspace=0.32, bottom=0.15 / lines, top=1 - 0.09 / lines
    )
    axes = list(figure.subplots(lines, _COLUMNS, squeeze=False).flat)
    epochs = [row["epoch"] for row in rows]
    marks = {"marker": "o", "markersize": 3} if len(rows) <= _WITH_MARKS else {}
    for one, key in zip(axes, keys):
        if key == "iou":
            _plot_folders(one, epochs, rows, folders)
        for part, colour, told in (("train", _TRAIN, "training"), ("val", _VAL, "validation")):
            values = _values(rows, f"{part}_{key}")
            if any(map(math.isfinite, values)):
                one.plot(epochs, values, color=colour, label=told, linewidth=1.7, **marks)
        coarse = _values(rows, f"val_{key}{_COARSE}")
        if any(map(math.isfinite, coarse)):
            one.plot(epochs, coarse, color=_VAL, label="segmenter", linestyle="--", linewidth=1.3)
        one.set_title(_TITLES.get(key, key) + _best(rows, key))
        if one.get_legend_handles_labels()[1]:
            one.legend(fontsize=8, loc="best", framealpha=0.7)
    rate = axes[len(keys)]
    rate.plot(epochs, _values(rows, "lr"), color=_RATE, linewidth=1.5, **marks)
    rate.set_yscale("log")
    rate.set_title("Learning rate")
    for one in axes[: len(keys) + 1]:
        one.set_xlabel("epoch")
        margin = 0.5 + 0.02 * len(rows)
        one.set_xlim(epochs[0] - margin, epochs[-1] + margin)
        one.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        one.grid(visible=True, which="both", alpha=0.25)
    for one in axes[len(keys) + 1 :]:
        one.set_axis_off()
    if len(folders) > 1:
        _name_folders(axes[len(keys) + 1], rows, folders)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100)


def _values(rows: Rows, name: str) -> list[float]:
    return [row.get(name, math.nan) for row in rows]


def _best(rows: Rows, key: str) -> str:
    """What a title says of the best epoch on validation."""
    known = [row for row in rows if math.isfinite(row.get(f"val_{key}", math.nan))]
    if not known or key not in ("loss", "iou"):
        return ""
    pick = min if key == "loss" else max
    best = pick(known, key=lambda row: row[f"val_{key}"])
    return f" (best {best[f'val_{key}']:.3f}, epoch {best['epoch']:.0f})"


def _style(number: int) -> dict[str, Any]:
    cycle, index = divmod(number, len(_FOLDERS))
    return {
        "color": _FOLDERS[index],
        "linestyle": ("-", ":", "--")[cycle % 3],
        "linewidth": 0.9,
    }


def _plot_folders(axes: Any, epochs: list[float], rows: Rows, folders: Sequence[str]) -> None:
    """Of a single folder the validation line says all."""
    if len(folders) > 1:
        for number, name in enumerate(folders):
            axes.plot(epochs, _values(rows, name), **_style(number))


def _name_folders(axes: Any, rows: Rows, folders: Sequence[str]) -> None:
    """Beside the curves: many names would cover them."""
    last = [_values(rows, name)[-1] for name in folders]
    for number, (name, value) in enumerate(zip(folders, last)):
        label = f"{name.partition('/')[2]}  {value:.3f}".replace("$", r"\$")
        axes.plot([], [], label=label, **_style(number))
    axes.legend(
        loc="upper left",
        fontsize=8,
        title="IoU of each validation folder, last epoch",
        title_fontsize=9,
        alignment="left",
        frameon=False,
        ncols=1 + (len(folders) > 14),
    )
