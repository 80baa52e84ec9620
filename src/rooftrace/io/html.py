"""HTML pages that need no network: rendered templates, and charts drawn as SVG.

A chart is a line chart or a histogram as SVG text, for a page or as a file. It needs no script, no
font and no file from elsewhere. Its colours come from the assets `face.css` and `page.css`, which a
page with charts must include; `compose_svg` puts them into the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from math import ceil, floor, isnan, log10
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from rooftrace.core.errors import ConfigError


def render_page(template: str, filters: Mapping[str, Callable[..., str]], **values: Any) -> str:
    """Return a page as text.

    All values are escaped, because names may come from other people's files. An unknown name in the
    template is an error.

    Args:
        template: Name of the template among the assets; it may include other assets.
        filters: Functions that format values, by name.
        values: Values that the template shows.
    """
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(read_asset),
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(**values)


_PAGE_SUFFIXES = (".html", ".htm")


def check_page_path(out: Path, name: str) -> None:
    """Check that a path is that of a page, so that no page replaces a file of another kind.

    Args:
        out: File to write.
        name: Usual name of the page, for the remedy.

    Raises:
        ConfigError: It is a folder, or it has another suffix.
    """
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
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 28, 12, 42
"""Margins around the plotted area, in SVG units."""

_COLOURS = 8
"""Number of series colours: `--s0` to `--s7` in page.css."""

_DASHES = ("", "7 3", "2 3", "10 3 2 3")
"""Dash pattern of each group of `_COLOURS` series, so that 32 series look different."""

_COLUMNS, _TITLE, _LEGEND_LINE = 3, 30, 20
"""Charts beside each other in a file, and the heights of a title and of a line of its legend."""


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Args:
        name: Label of the axis.
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
    def around(cls, name: str, values: Sequence[float], *, logarithmic: bool = False) -> Axis:
        """Return an axis that holds all values and begins and ends at round numbers."""
        low, high = min(values), max(values)
        if logarithmic:
            first = max(floor(log10(low)), -307)  # the smallest normal power of ten
            last = max(ceil(log10(high)), first + 1)
            powers = [10.0**n for n in range(first, last + 1, max(1, (last - first) // 6))]
            ticks = tuple((value, f"{value:.0e}") for value in powers)
            return cls(name, 10.0**first, 10.0**last, ticks, logarithmic=True)
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
        dots: True to draw each point.
        mark: One more point to draw, such as the value that was chosen.
        colour: CSS colour; empty for the colour and the dashes of the place among the series.
        thin: True to draw a thin line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False
    mark: tuple[float, float] | None = None
    colour: str = ""
    thin: bool = False


def draw_chart(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    diagonal: bool = False,
    width: int = _WIDTH,
    height: int = _HEIGHT,
) -> Markup:
    """Return a chart of several series; the first lies on top of the others.

    Args:
        series: Series to draw. Each is a group of the class `series` with its index, from 0, in
            `data-series`.
        x, y: Axes.
        diagonal: True to draw the line on which x equals y.
        width, height: Size in SVG units; the page scales the chart to its own width.
    """
    frame = _Frame(x, y, width, height)
    if diagonal:
        (x1, y1), (x2, y2) = frame.place(x.low, y.low), frame.place(x.high, y.high)
        frame.add(f'<line class="axis" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for number, one in reversed(list(enumerate(series))):
        frame.add(_draw_series(frame, number, one))
    return frame.finish(f"{y.name} over {x.name}")


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
        x, y: Names of the axes.
        logarithmic: True if the x axis is logarithmic.
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
    for low, high, count in zip(edges, edges[1:], drawn[0]):
        if count:
            (left, top), (right, base) = frame.place(low, count), frame.place(high, 0)
            title = _escape(f"{write(low)} to {write(high)}: {_short(count)} {y}")
            frame.add(
                f'<rect class="bar" x="{left + 0.5:.1f}" y="{top:.1f}" '
                f'width="{max(right - left - 1, 0.8):.1f}" height="{base - top:.1f}">'
                f"<title>{title}</title></rect>"
            )
    if other is not None:
        corners = [
            frame.place(edge, count)
            for low, high, count in zip(edges, edges[1:], drawn[1])
            for edge in (low, high)
        ]
        frame.add(f'<polyline class="other" points="{_points(corners)}"/>')
    return frame.finish(f"Histogram: {y} by {x}")


def draw_legend(names: Sequence[str]) -> Markup:
    """Return a paragraph with the line sample and the name of each series."""
    entries = "".join(f"{line_sample(number)}{_escape(name)} " for number, name in enumerate(names))
    # The names are escaped.
    return Markup(f'<p class="key soft">{entries}</p>')  # noqa: S704  # nosec B704


def line_sample(number: int) -> Markup:
    """Return a short piece of the line of the series with this index, for a legend."""
    # Made from a number and this module's own colours.
    return Markup(  # noqa: S704  # nosec B704
        '<svg class="line-sample" viewBox="0 0 34 10" width="34" height="10" aria-hidden="true">'
        f'<line x1="1" x2="33" y1="5" y2="5" {_stroke(number)}/></svg>'
    )


def compose_svg(charts: Mapping[str, Markup], names: Sequence[str]) -> str:
    """Return an SVG file that shows charts of the usual size, in light and in dark colours.

    Args:
        charts: Charts by title.
        names: Names of the series, which are the same in all charts, for the legend below.
    """
    parts = []
    columns = min(_COLUMNS, len(charts))
    for number, (title, chart) in enumerate(charts.items()):
        row, column = divmod(number, columns)
        left, top = column * _WIDTH, row * (_HEIGHT + _TITLE)
        parts.append(
            f'<text style="fill:var(--ink);font-size:15px" x="{left + _LEFT}" y="{top + 22}">'
            f'{_escape(title)}</text><svg x="{left}" y="{top + _TITLE}" width="{_WIDTH}" '
            f'height="{_HEIGHT}">{chart}</svg>'
        )
    legend_top = ceil(len(charts) / columns) * (_HEIGHT + _TITLE) + _LEGEND_LINE
    for number, name in enumerate(names):
        row, column = divmod(number, columns)
        parts.append(
            f'<g transform="translate({column * _WIDTH + _LEFT} '
            f'{legend_top + row * _LEGEND_LINE})">{line_sample(number)}'
            f'<text style="fill:var(--ink);font-size:13px" x="42" y="9">{_escape(name)}</text></g>'
        )
    height = legend_top + (ceil(len(names) / columns) + 1) * _LEGEND_LINE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns * _WIDTH} {height}" '
        'style="background:var(--ground)" font-family="system-ui, sans-serif">'
        f"<style>{_escape(read_asset('face.css') + read_asset('page.css'))}</style>"
        f"{''.join(parts)}</svg>\n"
    )


class _Frame:
    """Axes, grid and ticks, and the shapes drawn between them."""

    def __init__(self, x: Axis, y: Axis, width: int = _WIDTH, height: int = _HEIGHT) -> None:
        self._x, self._y = x, y
        self._width, self._height = width, height
        self._inner_width, self._inner_height = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM
        self._parts: list[str] = []
        base = height - _BOTTOM
        for value, text in y.ticks:
            at = self.place(x.low, value)[1]
            self.add(
                f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{at:.1f}" '
                f'y2="{at:.1f}"/>'
                f'<text class="tick" x="{_LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">'
                f"{_escape(text)}</text>"
            )
        for value, text in x.ticks:
            at = self.place(value, y.low)[0]
            self.add(
                f'<text class="tick" x="{at:.1f}" y="{base + 15}" text-anchor="middle">'
                f"{_escape(text)}</text>"
            )
        self.add(f'<line class="axis" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{base}" y2="{base}"/>')

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the SVG coordinates of a point."""
        return (
            _LEFT + self._inner_width * self._x.position(x),
            _TOP + self._inner_height * (1 - self._y.position(y)),
        )

    def add(self, part: str) -> None:
        self._parts.append(part)

    def finish(self, title: str) -> Markup:
        self.add(
            f'<text class="label" x="{_LEFT + self._inner_width / 2}" y="{self._height - 6}" '
            f'text-anchor="middle">{_escape(self._x.name)}</text>'
            f'<text class="label" transform="translate(12 {_TOP + self._inner_height / 2}) '
            f'rotate(-90)" text-anchor="middle">{_escape(self._y.name)}</text>'
        )
        return _svg(self._width, self._height, title, self._parts)


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> Markup:
    # Every text in it is escaped.
    return Markup(  # noqa: S704  # nosec B704
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{_escape(title)}">{"".join(parts)}</svg>'
    )


def _draw_series(frame: _Frame, number: int, series: Series) -> str:
    colour = series.colour or _colour(number)
    stroke = _stroke(number, series.colour, 1 if series.thin else 2)
    shapes = [f"<title>{_escape(series.name)}</title>"]
    dots = _known(series) if series.dots else []
    for run in _runs(series):
        if len(run) == 1 and not series.dots:
            dots.append(run[0])
        elif len(run) > 1:
            points = _points([frame.place(*point) for point in run])
            shapes.append(f'<polyline points="{points}" {stroke}/>')
    shapes += [_draw_dot(frame, series, point, colour, 3.5) for point in dots]
    if series.mark is not None and not any(map(isnan, series.mark)):
        shapes.append(_draw_dot(frame, series, series.mark, colour, 5.5))
    return f'<g class="series" data-series="{number}">{"".join(shapes)}</g>'


def _draw_dot(
    frame: _Frame, series: Series, point: tuple[float, float], colour: str, radius: float
) -> str:
    x, y = frame.place(*point)
    title = f"<title>{_escape(series.name)}: {point[0]:.3g}, {point[1]:.3f}</title>"
    return (
        f'<circle class="dot" style="fill:{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
        f"{title}</circle>"
    )


def _runs(series: Series) -> list[list[tuple[float, float]]]:
    """Return the pieces of a line between its gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in zip(series.x, series.y):
        if isnan(point[0]) or isnan(point[1]):
            runs.append([])
        else:
            runs[-1].append(point)
    return [run for run in runs if run]


def _known(series: Series) -> list[tuple[float, float]]:
    return [point for run in _runs(series) for point in run]


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _colour(number: int) -> str:
    return f"var(--s{number % _COLOURS})"


def _stroke(number: int, colour: str = "", width: int = 2) -> str:
    """Return the attributes of the line of a series."""
    dash = "" if colour else _DASHES[number // _COLOURS % len(_DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    colour = colour or _colour(number)
    return f'class="curve" style="stroke:{colour}" stroke-width="{width}"{dashed}'


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


def _escape(text: str) -> str:
    return str(Markup.escape(text))
