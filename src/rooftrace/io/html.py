"""HTML pages that need no network: rendered templates, and charts drawn as SVG by a template.

A chart is a line chart or a histogram as SVG text, for a page or as a file. It needs no script, no
font and no file from elsewhere. Its colours come from the assets `face.css` and `page.css`, which a
page with charts must include; `compose_svg` puts them into the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from itertools import groupby
from math import ceil, floor, isnan, log10
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from rooftrace.core.errors import ConfigError


def render_page(template: str, filters: Mapping[str, Callable[..., str]], **values: Any) -> str:
    """Return a page as text.

    All values are escaped, except in Markdown and text, because names may come from other
    people's files. An unknown name in the template is an error; `version` is that of rooftrace.

    Args:
        template: Name of the template among the assets; it may include other assets.
        filters: Functions that format values, by name; besides, there are `number` and `share`,
            with a number of digits.
    """
    environment = _environment(template)
    environment.filters.update(number=_number, share=_share, **filters)
    return environment.get_template(template).render(
        version=metadata.version("rooftrace"), **values
    )


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None or isnan(value) else f"{value:,.{digits}f}"


def _share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or isnan(value) else f"{value:.{digits}%}"


@cache
def _environment(template: str) -> jinja2.Environment:
    """Return the environment of a template, which keeps it compiled."""
    return jinja2.Environment(
        autoescape=jinja2.select_autoescape(disabled_extensions=("md", "txt"), default=True),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(read_asset),
    )


_PAGE_SUFFIXES = (".html", ".htm")


def check_page_path(out: Path, name: str) -> None:
    """Check that a path is that of a page, so that no page replaces a file of another kind."""
    if out.is_dir() or out.suffix.lower() not in _PAGE_SUFFIXES:
        page = out / name if out.is_dir() else out.with_name(f"{out.name}.html")
        raise ConfigError(
            f"-o received {out}; expected the name of an HTML page, which ends in .html.",
            remedy=f"For example: -o {page}",
        )


def read_asset(name: str) -> str:
    """Return the text of an asset."""
    return (resources.files("rooftrace") / "assets" / name).read_text(encoding="utf-8")


_WIDTH, _HEIGHT = 560, 330
_COLUMNS = 3
"""Number of charts beside each other in a file."""


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Args:
        low, high: First and last value of the axis.
        ticks: Value and text of each tick.
        logarithmic: True if distances on the axis stand for factors; `low` is then above 0.
    """

    name: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()
    logarithmic: bool = False

    @classmethod
    def between(cls, name: str, low: float = 0.0, high: float = 1.0) -> Axis:
        """Return an axis of a fixed range, with a tick at each fifth of it."""
        values = [low + (high - low) * step / 5 for step in range(6)]
        return cls(name, low, high, tuple((value, f"{value:.3g}") for value in values))

    @classmethod
    def around(cls, name: str, values: Sequence[float]) -> Axis:
        """Return an axis that holds all values and begins and ends at round numbers."""
        low, high = min(values), max(values)
        step = _round_step((high - low) or abs(high) or 1.0, 5)
        first = floor(low / step)
        last = max(ceil(high / step), first + 1)
        ticks = tuple((n * step, f"{n * step:.6g}") for n in range(first, last + 1))
        return cls(name, first * step, last * step, ticks)

    @classmethod
    def numbered(cls, name: str, first: int, last: int) -> Axis:
        """Return an axis of whole numbers, such as epochs or trials."""
        step = max(1, round(_round_step(max(last - first, 1), 10)))
        numbers = sorted({first, *range(ceil((first + 1) / step) * step, last + 1, step)})
        if len(numbers) > 2 and numbers[1] - first <= step / 2:
            del numbers[1]
        ticks = tuple((float(number), str(number)) for number in numbers)
        return cls(name, first, max(last, first + 1), ticks)

    def position(self, value: float) -> float:
        """Return where a value lies: 0 at the beginning of the axis, 1 at its end."""
        if self.logarithmic:
            first = log10(self.low)  # the quotient of the ends may overflow
            return (log10(max(value, self.low)) - first) / (log10(self.high) - first)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        name: Name that the tooltip shows.
        x, y: Coordinates of the points, in order; a line has a gap where one is NaN.
        mark: One more point to draw, such as the value that was chosen.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False
    mark: tuple[float, float] | None = None
    thin: bool = False
    dashed: bool = False

    @property
    def runs(self) -> list[list[tuple[float, float]]]:
        """Pieces of the line between its gaps."""
        gaps = groupby(zip(self.x, self.y), key=lambda point: any(map(isnan, point)))
        return [list(points) for is_gap, points in gaps if not is_gap]


@dataclass(frozen=True)
class _Frame:
    """Axes of a chart, its size and its margins in SVG units."""

    x: Axis
    y: Axis
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = 54
    right: int = 28
    top: int = 12
    bottom: int = 42

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the SVG coordinates of a point."""
        return (
            self.left + (self.width - self.left - self.right) * self.x.position(x),
            self.top + (self.height - self.top - self.bottom) * (1 - self.y.position(y)),
        )


@cache
def _macros() -> Any:
    """Return the macros of the template of charts, which escape every text."""

    def points(values: Iterable[tuple[float, float]], frame: _Frame) -> str:
        return " ".join("{:.1f},{:.1f}".format(*frame.place(*value)) for value in values)

    environment = _environment("charts.svg")
    environment.filters.update(px="{:.1f}".format, points=points)
    return environment.get_template("charts.svg").module


def draw_chart(series: Sequence[Series], x: Axis, y: Axis, *, diagonal: bool = False) -> Markup:
    """Return a chart of several series; the first lies on top of the others.

    Args:
        series: Series to draw. Each is a group of the class `series` with its index, from 0, in
            `data-series`.
        diagonal: True to draw the line on which x equals y.
    """
    drawn: Markup = _macros().chart(
        _Frame(x, y), f"{y.name} over {x.name}", series, diagonal=diagonal
    )
    return drawn


def draw_histogram(
    edges: Sequence[float],
    counts: Sequence[float],
    other: Sequence[float] | None = None,
    *,
    x: str,
    y: str = "images",
    logarithmic: bool = False,
    percent: bool = False,
) -> Markup:
    """Return a histogram as bars, with a second one over it as an outline.

    Two histograms are drawn in per cent of their own sums, so that sets of different sizes can be
    compared.

    Args:
        edges: (n + 1,) edges of the bins, increasing.
        counts: (n,) counts of the bars.
        other: (n,) counts of the outline, or None.
        percent: True if x is a share that is written in per cent.
    """
    drawn = [np.asarray(one, dtype=float) for one in (counts, other) if one is not None]
    if other is not None:
        drawn = [100 * one / max(one.sum(), 1) for one in drawn]
        y = f"% of {y}"
    write = "{:.0%}".format if percent else _short
    highest = max(float(one.max(initial=0)) for one in drawn) or 1.0
    step = _round_step(highest, 3)
    rows = [step * n for n in range(ceil(highest / step - 1e-9) + 1)]
    frame = _Frame(
        Axis(x, edges[0], edges[-1], _histogram_ticks(edges, logarithmic, write), logarithmic),
        Axis(y, 0, rows[-1], tuple((value, _short(value)) for value in rows)),
        height=190,
    )
    bars = [
        (low, high, count, f"{write(low)} to {write(high)}: {_short(count)} {y}")
        for low, high, count in zip(edges, edges[1:], drawn[0].tolist())
    ]
    outline = [
        (edge, count)
        for low, high, count in zip(edges, edges[1:], drawn[1] if other is not None else ())
        for edge in (low, high)
    ]
    chart: Markup = _macros().chart(frame, f"Histogram: {y} by {x}", bars=bars, outline=outline)
    return chart


def draw_legend(names: Sequence[str]) -> Markup:
    """Return a paragraph with the line sample and the name of each series."""
    legend: Markup = _macros().legend(names)
    return legend


def compose_svg(charts: Mapping[str, Markup], names: Sequence[str], *, dashed: str = "") -> str:
    """Return an SVG file that shows charts of the usual size on white.

    Args:
        charts: Charts by title.
        names: Names of the series, which are the same in all charts, for the legend below.
        dashed: Name of a series whose line is dashed.
    """
    style = read_asset("face.css") + read_asset("page.css")
    columns = min(_COLUMNS, len(charts))
    return str(_macros().sheet(charts, names, dashed, style, columns, _WIDTH, _HEIGHT, _Frame.left))


def _round_step(span: float, least: int) -> float:
    """Return a round step that divides a span into at most `least` parts, one more at its ends.

    A round step is 1, 2, 2.5 or 5 times a power of ten.
    """
    step = max(span / least, 1e-300)
    magnitude: float = 10.0 ** floor(log10(step))
    return next(m * magnitude for m in (1, 2, 2.5, 5, 10, 20) if m * magnitude >= step)


def _histogram_ticks(
    edges: Sequence[float], logarithmic: bool, write: Callable[[float], str]
) -> tuple[tuple[float, str], ...]:
    low, high = edges[0], edges[-1]
    if logarithmic:
        exponents = range(ceil(log10(low) - 1e-9), floor(log10(high) + 1e-9) + 1)
        values = [10.0**n for n in exponents]
    else:
        step = _round_step(high - low, 5)
        first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
        values = [step * n for n in range(first, last + 1)]
    return tuple((value, write(value)) for value in values)


def _short(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 10 or float(value).is_integer() else f"{value:.2g}"
