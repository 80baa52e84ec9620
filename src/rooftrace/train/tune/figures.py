"""What a study has come to, as pictures in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rooftrace.train.tune.space import Choices, Parameter
from rooftrace.train.tune.study import Outcome
from rooftrace.train.tune.summary import Summary, Tried

__all__ = ["draw"]

_DONE, _BEST, _PRUNED = "#4C72B0", "#C44E52", "0.6"
_DPI = 120
_ACROSS = 3
_LABEL = 28
"""So many letters of a choice are written at an axis."""


def draw(summary: Summary) -> dict[str, str]:
    """Pictures by name, as `data:` addresses of PNGs; without those that would be empty.

    `history`: the value of each trial, and the best so far; `curves`: the figure by epoch;
    `importance`; `slices`: the value by each parameter; `parallel`: one line a trial, from
    parameter to parameter.
    """
    valued = [t for t in summary.trials if t.value is not None]
    complete = [t for t in valued if t.outcome == Outcome.complete]
    drawn: dict[str, str] = {}
    if valued:
        drawn["history"] = _picture(7.2, 3.6, lambda figure: _history(figure, summary, valued))
        drawn["curves"] = _picture(7.2, 3.6, lambda figure: _curves(figure, summary))
        rows = ceil(len(summary.parameters) / _ACROSS)
        drawn["slices"] = _picture(
            13, 3.4 * rows, lambda figure: _slices(figure, summary, valued, rows)
        )
    if summary.importance:
        height = 1.1 + 0.36 * len(summary.importance)
        drawn["importance"] = _picture(7.2, height, lambda figure: _importance(figure, summary))
    if len(complete) > 1:
        drawn["parallel"] = _picture(13, 4.4, lambda figure: _parallel(figure, summary, complete))
    return drawn


def _picture(width: float, height: float, paint: Callable[[Figure], None]) -> str:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    paint(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _history(figure: Figure, summary: Summary, valued: Sequence[Tried]) -> None:
    axes = figure.subplots()
    _scatter(axes, valued, lambda trial: trial.number)
    numbers = [t.number for t in summary.trials]
    best = [np.nan if v is None else v for v in summary.best_so_far()]
    axes.plot(numbers, best, color=_BEST, linewidth=1.6, drawstyle="steps-post", label="best")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, "trial", summary.monitor)
    axes.legend(fontsize=8)


def _curves(figure: Figure, summary: Summary) -> None:
    axes = figure.subplots()
    for trial in summary.trials:
        if not trial.curve:
            continue
        is_best = summary.best is not None and trial.number == summary.best.number
        whole = trial.outcome == Outcome.complete
        colour = _BEST if is_best else _DONE if whole else _PRUNED
        epochs, values = list(trial.curve), list(trial.curve.values())
        axes.plot(
            epochs,
            values,
            color=colour,
            linewidth=2.0 if is_best else 0.9,
            alpha=1.0 if is_best else 0.7,
            zorder=3 if is_best else 2,
            label=f"trial {trial.number}" if is_best else None,
        )
        if not whole:
            axes.plot(epochs[-1], values[-1], "x", color=colour, markersize=6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, "epoch", summary.monitor)
    if summary.best is not None:
        axes.legend(fontsize=8)


def _importance(figure: Figure, summary: Summary) -> None:
    axes = figure.subplots()
    shares = dict(sorted(summary.importance.items(), key=lambda item: item[1]))
    bars = axes.barh(list(shares), list(shares.values()), color=_DONE, height=0.62)
    axes.bar_label(bars, labels=[f"{v:.0%}" for v in shares.values()], padding=4, fontsize=9)
    axes.set_xlim(0, 1.08 * max(shares.values()))
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _slices(figure: Figure, summary: Summary, valued: Sequence[Tried], rows: int) -> None:
    across = min(_ACROSS, len(summary.parameters))
    grid = figure.subplots(rows, across, squeeze=False, sharey=True)
    for axes, parameter in zip(grid.flat, summary.parameters):
        _scatter(axes, valued, _place_of(parameter))
        _scale(axes.xaxis, axes.set_xscale, parameter)
        _finish(axes, parameter.name, summary.monitor if axes in grid[:, 0] else "")
    for axes in list(grid.flat)[len(summary.parameters) :]:
        axes.set_visible(False)


def _parallel(figure: Figure, summary: Summary, complete: Sequence[Tried]) -> None:
    axes = figure.subplots()
    values = [t.value or 0.0 for t in complete]
    shade = Normalize(min(values), max(values) if max(values) > min(values) else min(values) + 1)
    map_ = colormaps["viridis" if summary.maximises else "viridis_r"]
    places = [_share(p, complete) for p in summary.parameters]
    # The best is drawn last, over the others.
    for trial in sorted(
        complete, key=lambda t: (t.value or 0.0) * (1 if summary.maximises else -1)
    ):
        ys = [at(trial.params[p.name]) for p, at in zip(summary.parameters, places)]
        ys.append(float(shade(trial.value or 0.0)))
        axes.plot(
            range(len(ys)), ys, color=map_(shade(trial.value or 0.0)), linewidth=1.6, alpha=0.85
        )
    names = [p.name for p in summary.parameters] + [summary.monitor]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_xlim(-0.15, len(names) - 0.85)
    axes.set_ylim(-0.06, 1.06)
    axes.spines[:].set_visible(False)
    for at in range(len(names)):
        axes.axvline(at, color="0.8", linewidth=0.8, zorder=0)
    for at, (parameter, place) in enumerate(zip(summary.parameters, places)):
        for value in _marks(parameter, complete):
            axes.text(
                at + 0.03,
                place(value),
                _short(value),
                fontsize=8,
                va="center",
                zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
            )
    figure.colorbar(
        ScalarMappable(shade, map_), ax=axes, label=summary.monitor, fraction=0.03, pad=0.01
    )


def _scatter(axes: Axes, trials: Sequence[Tried], x: Callable[[Tried], float]) -> None:
    for end, marker, colour in (
        (Outcome.complete, "o", _DONE),
        (Outcome.pruned, "x", _PRUNED),
    ):
        some = [t for t in trials if t.outcome == end]
        if some:
            axes.scatter(
                [x(t) for t in some],
                [t.value or 0.0 for t in some],
                s=26,
                marker=marker,
                color=colour,
                label=str(end),
                zorder=3,
            )


def _place_of(parameter: Parameter) -> Callable[[Tried], float]:
    """Where a trial lies on the axis of a parameter."""
    place = _placed(parameter)
    return lambda trial: place(trial.params[parameter.name])


def _placed(parameter: Parameter) -> Callable[[Any], float]:
    """Where on an axis of its own a value of a parameter lies."""
    if isinstance(parameter, Choices):
        return lambda value: float(parameter.labels.index(value))
    return float


def _share(parameter: Parameter, trials: Sequence[Tried]) -> Callable[[Any], float]:
    """Where between the lowest and the highest value that was tried."""
    place = _placed(parameter)
    if isinstance(parameter, Choices):
        return lambda value: place(value) / max(1, len(parameter.labels) - 1)
    bend = np.log if parameter.log else np.asarray
    tried = [float(bend(place(t.params[parameter.name]))) for t in trials]
    low, width = min(tried), (max(tried) - min(tried)) or 1.0
    return lambda value: float(bend(place(value)) - low) / width


def _marks(parameter: Parameter, trials: Sequence[Tried]) -> list[Any]:
    """Values that are written at an axis."""
    if isinstance(parameter, Choices):
        return list(parameter.labels)
    tried = sorted({t.params[parameter.name] for t in trials})
    return [tried[0], tried[-1]] if len(tried) > 1 else tried


def _scale(axis: Any, set_scale: Callable[[str], None], parameter: Parameter) -> None:
    if isinstance(parameter, Choices):
        places = range(len(parameter.labels))
        axis.set_ticks(places, [_short(label) for label in parameter.labels], fontsize=8)
        axis.axes.set_xlim(-0.5, len(parameter.labels) - 0.5)
    elif parameter.log:
        set_scale("log")


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.3)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = str(value)
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"
