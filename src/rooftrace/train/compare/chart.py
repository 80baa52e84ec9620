"""One figure of many runs over their epochs, as SVG: no script, no font, no file from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from rooftrace.train.compare.reading import Run

__all__ = ["curves", "swatch"]

_WIDTH, _HEIGHT = 1060, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 40, 12, 40
_INNER_W, _INNER_H = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_APART_PX = 12
"""Between the numbers at the ends of two lines."""

# Colours that also dichromats can tell from their neighbours; the dashes tell the next round.
_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b5a2b", "#7a5195",
)  # fmt: skip
_DASHES = ("", "7 3", "2 3", "10 3 2 3")

Point = tuple[float, float]


def curves(runs: Sequence[Run], figure: str) -> Markup:
    """A line for each run that has the figure, with the run's number (from 1) at its end.

    The axis is logarithmic where all values are positive and the largest is more than 50 times the
    smallest, as learning rates are.
    """
    lines = {
        number: [(row["epoch"], row[figure]) for row in run.rows if figure in row]
        for number, run in enumerate(runs)
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return Markup("")
    values = [value for _, value in points]
    logarithmic = min(values) > 0 and max(values) > 50 * min(values)
    low, high, ticks = _axis(min(values), max(values), logarithmic)
    last = max(epoch for epoch, _ in points)

    def place(point: Point) -> Point:
        along = (point[0] - 1) / max(last - 1, 1) if last > 1 else 0.5
        value = math.log10(point[1]) if logarithmic else point[1]
        return _LEFT + _INNER_W * along, _TOP + _INNER_H * (1 - (value - low) / (high - low))

    name = Markup.escape(f"{figure} over epochs")
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">']
    for value, told in ticks:
        y = place((1, value))[1]
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{told}</text>'
        )
    base = _TOP + _INNER_H
    parts.append(
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    )
    for epoch in _epochs(int(last)):
        x = place((epoch, ticks[0][0]))[0]
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{base + 15}" text-anchor="middle">{epoch}</text>'
        )
    parts.append(
        f'<text class="label" x="{_LEFT + _INNER_W / 2}" y="{_HEIGHT - 6}" '
        'text-anchor="middle">epoch</text>'
    )
    drawn = {number: [place(p) for p in line] for number, line in lines.items() if line}
    # The best run, which is the first, lies over the others.
    for number, line in reversed(drawn.items()):
        parts.append(_line(number, runs[number].name, line))
    parts += _numbers({number: line[-1] for number, line in drawn.items()})
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - every text in it is escaped


def swatch(number: int) -> Markup:
    """What a run's line looks like, for the legend."""
    return Markup(  # noqa: S704 - of numbers and of this module's own colours
        f'<svg class="swatch" viewBox="0 0 34 10" width="34" height="10" aria-hidden="true">'
        f'<line x1="1" x2="33" y1="5" y2="5" {_stroke(number)}/></svg>'
    )


def _line(number: int, name: str, line: Sequence[Point]) -> str:
    title = f"<title>{Markup.escape(f'{number + 1}  {name}')}</title>"
    if len(line) == 1:
        (x, y) = line[0]
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_colour(number)}"/>'
    else:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        shape = f'<polyline points="{path}" {_stroke(number)}/>'
    return f'<g class="run" data-run="{number}">{shape}{title}</g>'


def _numbers(ends: dict[int, Point]) -> list[str]:
    """At the ends of the lines, pushed apart where lines end side by side."""
    parts = []
    taken: list[Point] = []
    for number, (x, y) in sorted(ends.items(), key=lambda item: item[1][1]):
        beside = [other for at, other in taken if abs(at - x) < 2 * _APART_PX]
        y = max([y, *(other + _APART_PX for other in beside)])
        taken.append((x, y))
        parts.append(
            f'<text class="run end" data-run="{number}" x="{x + 6:.1f}" y="{y + 4:.1f}" '
            f'fill="{_colour(number)}">{number + 1}</text>'
        )
    return parts


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _stroke(number: int) -> str:
    dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="{_colour(number)}" stroke-width="2"{dashed}'


def _axis(
    low: float, high: float, logarithmic: bool
) -> tuple[float, float, list[tuple[float, str]]]:
    """Where an axis begins and ends, as it is drawn, and its ticks with their texts."""
    if logarithmic:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        exponents = range(first, last + 1, max(1, (last - first) // 6))
        return first, max(last, first + 1), [(10.0**n, f"{10.0**n:.0e}") for n in exponents]
    step = _round_step(((high - low) or abs(high) or 1.0) / 5)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    ticks = [(n * step, f"{n * step:.6g}") for n in range(first, last + 1)]
    return first * step, last * step, ticks


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    magnitude: float = 10.0 ** math.floor(math.log10(least))
    return next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= least)


def _epochs(last: int) -> list[int]:
    step = max(1, round(_round_step(max(last - 1, 1) / 10)))
    return sorted({1, *range(step, last + 1, step)} - ({step} if step == 2 else set()))
