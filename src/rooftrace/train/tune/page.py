"""The page of a study: charts and tables in one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from math import isfinite, log, nan
from typing import Any

from markupsafe import Markup

from rooftrace.io.html import Axis, Series, draw_chart, render_page
from rooftrace.train.tune.results import StudySummary, TrialSummary
from rooftrace.train.tune.space import Choices, Parameter
from rooftrace.train.tune.study import TrialOutcome

__all__ = ["draw_charts", "render"]

_DONE, _BEST, _PRUNED = "var(--s0)", "var(--s1)", "var(--faint)"
_MAX_LABEL_CHARS = 28
"""Maximum number of letters of a choice at an axis."""


def draw_charts(summary: StudySummary) -> dict[str, list[Markup]]:
    """Return charts by name; names without charts are left out.

    `history`: the value of each trial, and the best so far; `curves`: the figure by epoch;
    `slices`: the value by each parameter; `parallel`: one line per trial, from parameter to
    parameter.
    """
    valued = [t for t in summary.trials if t.value is not None and isfinite(t.value)]
    complete = [t for t in valued if t.outcome == TrialOutcome.complete]
    drawn: dict[str, list[Markup]] = {}
    if valued:
        drawn["history"] = [_history(summary, valued)]
        drawn["curves"] = [_curves(summary)]
        drawn["slices"] = [_slice(summary, valued, p) for p in summary.parameters]
    if len(complete) > 1:
        drawn["parallel"] = [_parallel(summary, complete)]
    return drawn


def _history(summary: StudySummary, valued: Sequence[TrialSummary]) -> Markup:
    numbers = [t.number for t in summary.trials]
    best = [nan if v is None or not isfinite(v) else v for v in summary.best_so_far()]
    # Each value of the best lasts until the next trial, so that the line has steps.
    steps = Series(
        "best so far",
        [n for n in numbers for _ in range(2)][1:],
        [v for v in best for _ in range(2)][:-1],
        colour=_BEST,
    )
    return draw_chart(
        [*_dots(valued, lambda trial: trial.number), steps],
        Axis.numbered("trial", numbers[0], numbers[-1]),
        _value_axis(summary, valued),
    )


def _curves(summary: StudySummary) -> Markup:
    """Return the figure of each trial by epoch; the best trial lies on top of the others."""
    lines: list[Series] = []
    for trial in summary.trials:
        epochs = list(trial.curve)
        values = [value if isfinite(value) else nan for value in trial.curve.values()]
        is_best = summary.best is not None and trial.number == summary.best.number
        whole = trial.outcome == TrialOutcome.complete
        line = Series(
            f"trial {trial.number}",
            epochs,
            values,
            mark=None if whole or not epochs else (epochs[-1], values[-1]),
            colour=_BEST if is_best else _DONE if whole else _PRUNED,
            thin=not is_best,
        )
        lines.insert(0 if is_best else len(lines), line)
    return draw_chart(
        lines,
        Axis.numbered("epoch", 1, max((int(e) for line in lines for e in line.x), default=1)),
        Axis.around(summary.monitor, [v for line in lines for v in line.y if isfinite(v)] or [1.0]),
    )


def _slice(summary: StudySummary, valued: Sequence[TrialSummary], parameter: Parameter) -> Markup:
    place = _place_of(parameter)
    if isinstance(parameter, Choices):
        ticks = tuple((float(n), _short(label)) for n, label in enumerate(parameter.labels))
        axis = Axis(parameter.name, -0.5, len(parameter.labels) - 0.5, ticks)
    else:
        tried = [place(t.params[parameter.name]) for t in valued]
        axis = Axis.around(parameter.name, tried, logarithmic=parameter.log)
    dots = _dots(valued, lambda trial: place(trial.params[parameter.name]))
    return draw_chart(dots, axis, _value_axis(summary, valued))


def _parallel(summary: StudySummary, complete: Sequence[TrialSummary]) -> Markup:
    """Return one line per trial, coloured by its value; the best lies on top of the others."""
    values = [t.value or 0.0 for t in complete]
    low, width = min(values), (max(values) - min(values)) or 1.0
    names = [p.name for p in summary.parameters] + [summary.monitor]
    shares = [_share(p, complete) for p in summary.parameters]
    lines = []
    for trial in _ranked(summary, complete):
        height = ((trial.value or 0.0) - low) / width
        rank = height if summary.maximises else 1 - height
        heights = [at(trial.params[p.name]) for p, at in zip(summary.parameters, shares)]
        lines.append(
            Series(
                f"trial {trial.number}: {trial.value:.4f}",
                range(len(names)),
                [*heights, height],
                colour=f"color-mix(in oklab, {_BEST} {100 * rank:.0f}%, {_DONE})",
            )
        )
    scales = [Series(n, [at] * 2, [0, 1], colour="var(--line)") for at, n in enumerate(names)]
    texts = [
        (at + 0.02, share(value), _short(value))
        for at, (parameter, share) in enumerate(zip(summary.parameters, shares))
        for value in _marks(parameter, complete)
    ]
    last = len(names) - 0.98
    texts += [(last, (v - low) / width, f"{v:.4f}") for v in {min(values), max(values)}]
    return draw_chart(
        [*lines, *scales],
        Axis("key", 0, len(names) - 0.85, tuple((float(at), n) for at, n in enumerate(names))),
        Axis("low to high", -0.06, 1.06),
        texts=texts,
        width=1060,
        height=420,
    )


def _dots(trials: Sequence[TrialSummary], x: Callable[[TrialSummary], float]) -> list[Series]:
    """Return a dot for the value of each trial that is complete or pruned."""
    colours = {TrialOutcome.complete: _DONE, TrialOutcome.pruned: _PRUNED}
    return [
        Series(f"trial {t.number}, {t.outcome}", [x(t)], [t.value or 0.0], colour=colour)
        for t in trials
        if (colour := colours.get(t.outcome)) is not None
    ]


def _value_axis(summary: StudySummary, valued: Sequence[TrialSummary]) -> Axis:
    return Axis.around(summary.monitor, [t.value or 0.0 for t in valued])


def _place_of(parameter: Parameter) -> Callable[[Any], float]:
    """Return a function from a value of a parameter to its place on an axis of its own."""
    if isinstance(parameter, Choices):
        return lambda value: float(parameter.labels.index(value))
    return float


def _share(parameter: Parameter, trials: Sequence[TrialSummary]) -> Callable[[Any], float]:
    """Return a function from a value to its place between the lowest and the highest value, in
    0..1.
    """
    place = _place_of(parameter)
    if isinstance(parameter, Choices):
        return lambda value: place(value) / max(1, len(parameter.labels) - 1)
    scale = log if parameter.log else float
    tried = [scale(place(t.params[parameter.name])) for t in trials]
    low, width = min(tried), (max(tried) - min(tried)) or 1.0
    return lambda value: (scale(place(value)) - low) / width


def _marks(parameter: Parameter, trials: Sequence[TrialSummary]) -> list[Any]:
    """Return the values that are written at an axis."""
    if isinstance(parameter, Choices):
        return list(parameter.labels)
    tried = [t.params[parameter.name] for t in trials]
    return sorted({min(tried), max(tried)})


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = str(value)
    return text if len(text) <= _MAX_LABEL_CHARS else text[: _MAX_LABEL_CHARS - 1] + "…"


def render(summary: StudySummary, *, best_config: str, notes: tuple[str, ...] = ()) -> str:
    """Return the whole page.

    Args:
        summary: The study.
        best_config: Configuration of the best trial as TOML; empty if there is none.
        notes: Further sentences for the reader.
    """
    return render_page(
        "tune.html",
        {"figure": _figure, "value": _value, "minutes": _minutes},
        summary=summary,
        counts=summary.counts,
        rows=_ranked(summary, summary.trials),
        charts=draw_charts(summary),
        best_config=best_config,
        notes=notes,
        minutes=sum(trial.seconds or 0.0 for trial in summary.trials) / 60,
        version=metadata.version("rooftrace"),
    )


def _ranked(summary: StudySummary, trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """Sort trials: complete ones from the best to the worst, then pruned ones, then the others."""
    sign = -1 if summary.maximises else 1
    places = {TrialOutcome.complete: 0, TrialOutcome.pruned: 1, TrialOutcome.failed: 2}

    def rank(trial: TrialSummary) -> tuple[int, float, int]:
        value = 0.0 if trial.value is None else sign * trial.value
        return places.get(trial.outcome, 3), value, trial.number

    return sorted(trials, key=rank)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _value(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name)
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _minutes(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 60:.1f}"
