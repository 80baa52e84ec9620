"""A study as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from rooftrace.io.page import render_page
from rooftrace.train.tune.figures import draw
from rooftrace.train.tune.study import Outcome
from rooftrace.train.tune.summary import Summary, Tried

__all__ = ["render"]


def render(summary: Summary, *, best_config: str, notes: tuple[str, ...] = ()) -> str:
    """The whole page, text in UTF-8.

    Args:
        best_config: the configuration of the best trial, as TOML; empty without one.
        notes: what is to be said besides.
    """
    return render_page(
        "tune.html",
        {"figure": _figure, "value": _value, "minutes": _minutes},
        summary=summary,
        counts=summary.counts,
        rows=_ranked(summary),
        pictures=draw(summary),
        best_config=best_config,
        notes=notes,
        minutes=sum(trial.seconds or 0.0 for trial in summary.trials) / 60,
        version=metadata.version("rooftrace"),
    )


def _ranked(summary: Summary) -> list[Tried]:
    """Complete trials from the best to the worst, then pruned ones, then the others."""
    sign = -1 if summary.maximises else 1
    places = {Outcome.complete: 0, Outcome.pruned: 1, Outcome.failed: 2}

    def rank(trial: Tried) -> tuple[int, float, int]:
        value = 0.0 if trial.value is None else sign * trial.value
        return places.get(trial.outcome, 3), value, trial.number

    return sorted(summary.trials, key=rank)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _value(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name)
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _minutes(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 60:.1f}"
