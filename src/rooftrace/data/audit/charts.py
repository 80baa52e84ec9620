"""Histograms as SVG, drawn into the page: no script, no font and no file from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10

import numpy as np
from markupsafe import Markup

from rooftrace.data.audit.summary import Histogram

__all__ = ["histogram"]

_WIDTH, _HEIGHT = 560, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 20, 10, 38
_INNER_W, _INNER_H = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM


def histogram(
    shown: Histogram,
    other: Histogram | None = None,
    *,
    x: str,
    y: str = "images",
    logarithmic: bool = False,
    percent: bool = False,
) -> Markup:
    """One distribution as bars, and a second one over it as a line.

    Both are drawn in shares of their own sum where there are two, so that sets of different size
    can be compared.

    Args:
        shown: the bars.
        other: over the same edges.
        x, y: names of the axes.
        logarithmic: whether `x` is.
        percent: whether `x` is a share to be written in per cent.
    """
    counts = [np.array(h.counts, dtype=float) for h in (shown, other) if h is not None]
    if other is not None:
        counts = [100 * c / max(c.sum(), 1) for c in counts]
        y = f"% of {y}"
    highest = max(float(c.max(initial=0)) for c in counts) or 1.0
    ticks = _round_ticks(highest)
    top = ticks[-1]
    edges = np.log10(shown.edges) if logarithmic else np.array(shown.edges)
    across = _LEFT + _INNER_W * (edges - edges[0]) / (edges[-1] - edges[0])
    name = _escaped(f"Histogram: {y} by {x}")
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">']
    for tick in ticks:
        at = _down(tick, top)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">'
            f"{_short(tick)}</text>"
        )
    for left, right, count, low, high in zip(
        across, across[1:], counts[0], shown.edges, shown.edges[1:]
    ):
        if not count:
            continue
        at = _down(count, top)
        told = f"{_value(low, percent)} to {_value(high, percent)}: {_short(count)} {y}"
        parts.append(
            f'<rect class="bar" x="{left + 0.5:.1f}" y="{at:.1f}" '
            f'width="{max(right - left - 1, 0.8):.1f}" height="{_TOP + _INNER_H - at:.1f}">'
            f"<title>{_escaped(told)}</title></rect>"
        )
    if other is not None:
        parts.append(_outline(across, counts[1], top))
    base = _TOP + _INNER_H
    parts.append(
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    )
    for value in _x_ticks(shown.edges, logarithmic):
        place = np.log10(value) if logarithmic else value
        at = _LEFT + _INNER_W * (place - edges[0]) / (edges[-1] - edges[0])
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{base + 14}" text-anchor="middle">'
            f"{_escaped(_value(value, percent))}</text>"
        )
    parts.append(
        f'<text class="label" x="{_LEFT + _INNER_W / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{_escaped(x)}</text>"
        f'<text class="label" transform="translate(11 {_TOP + _INNER_H / 2}) rotate(-90)" '
        f'text-anchor="middle">{_escaped(y)}</text></svg>'
    )
    return Markup("".join(parts))  # noqa: S704 - every text in it is escaped


def _outline(across: np.ndarray, counts: np.ndarray, top: float) -> str:
    points = []
    for left, right, count in zip(across, across[1:], counts):
        at = _down(count, top)
        points += [f"{left:.1f},{at:.1f}", f"{right:.1f},{at:.1f}"]
    return f'<polyline class="other" points="{" ".join(points)}"/>'


def _down(value: float, top: float) -> float:
    return _TOP + _INNER_H * (1 - value / top)


def _round_ticks(highest: float) -> list[float]:
    """Three to five round values from 0 to at least `highest`."""
    step = _round_step(highest / 3)
    return [step * n for n in range(ceil(highest / step - 1e-9) + 1)]


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below `least`."""
    magnitude: float = 10.0 ** floor(log10(least))
    return next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= least)


def _x_ticks(edges: Sequence[float], logarithmic: bool) -> list[float]:
    low, high = edges[0], edges[-1]
    if not logarithmic:
        step = _round_step((high - low) / 5)
        return [step * n for n in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]
    return [10.0**n for n in range(ceil(log10(low) - 1e-9), floor(log10(high) + 1e-9) + 1)]


def _value(value: float, percent: bool) -> str:
    return f"{value:.0%}" if percent else _short(value)


def _short(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 10 or float(value).is_integer() else f"{value:.2g}"


def _escaped(text: str) -> str:
    return str(Markup.escape(text))
