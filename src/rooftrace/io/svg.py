"""Curves as SVG, drawn into a page: no script, no font and no file from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from markupsafe import Markup

__all__ = ["SERIES", "Curve", "curves"]

SERIES = 6
"""So many curves can be told apart; the page has the colours `--s0` to `--s5`."""

_WIDTH, _HEIGHT = 560, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 16, 12, 42
_INNER_W, _INNER_H = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Args:
        name: what it is of.
        x, y: of its points, in order; where one is NaN the line is broken.
        mark: a point of its own, such as what was chosen; None for none.
        dots: whether every point is shown.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    mark: tuple[float, float] | None = None
    dots: bool = False


def curves(
    lines: Sequence[Curve],
    *,
    x: str,
    y: str,
    x_range: tuple[float, float] = (0.0, 1.0),
    y_range: tuple[float, float] = (0.0, 1.0),
    diagonal: bool = False,
) -> Markup:
    """Several curves over each other.

    Args:
        lines: the first `SERIES` have colours of their own.
        x, y: names of the axes.
        x_range, y_range: what the axes show; a fifth of it from tick to tick.
        diagonal: a line from corner to corner, on which x is y.
    """

    def place(px: float, py: float) -> tuple[float, float]:
        across = (px - x_range[0]) / (x_range[1] - x_range[0])
        up = (py - y_range[0]) / (y_range[1] - y_range[0])
        return _LEFT + _INNER_W * across, _TOP + _INNER_H * (1 - up)

    name = Markup.escape(f"{y} over {x}")
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">']
    for step in range(6):
        value = y_range[0] + (y_range[1] - y_range[0]) * step / 5
        at = place(x_range[0], value)[1]
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">'
            f"{value:.3g}</text>"
        )
        value = x_range[0] + (x_range[1] - x_range[0]) * step / 5
        at = place(value, y_range[0])[0]
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
            f"{value:.3g}</text>"
        )
    base = _HEIGHT - _BOTTOM
    parts.append(
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    )
    if diagonal:
        (x1, y1), (x2, y2) = place(x_range[0], y_range[0]), place(x_range[1], y_range[1])
        parts.append(f'<line class="axis" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for number, line in enumerate(lines[:SERIES]):
        title = f"<title>{Markup.escape(line.name)}</title>"
        for run in _runs(line):
            points = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in run)
            parts.append(f'<polyline class="curve s{number}" points="{points}">{title}</polyline>')
        shown = [point for run in _runs(line) for point in run] if line.dots else []
        mark = line.mark
        if mark is not None and not (isnan(mark[0]) or isnan(mark[1])):
            shown.append(mark)
        for point in shown:
            at_x, at_y = place(*point)
            told = f"<title>{Markup.escape(line.name)}: {point[0]:.3g}, {point[1]:.3f}</title>"
            parts.append(
                f'<circle class="dot s{number}" cx="{at_x:.1f}" cy="{at_y:.1f}" '
                f'r="{4 if line.dots else 5.5}">{told}</circle>'
            )
    parts.append(
        f'<text class="label" x="{_LEFT + _INNER_W / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{Markup.escape(x)}</text>"
        f'<text class="label" transform="translate(12 {_TOP + _INNER_H / 2}) rotate(-90)" '
        f'text-anchor="middle">{Markup.escape(y)}</text></svg>'
    )
    return Markup("".join(parts))  # noqa: S704 - every text in it is escaped


def _runs(line: Curve) -> list[list[tuple[float, float]]]:
    """Neighbouring points that are known."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in zip(line.x, line.y):
        if isnan(point[0]) or isnan(point[1]):
            runs.append([])
        else:
            runs[-1].append(point)
    return [run for run in runs if run]
