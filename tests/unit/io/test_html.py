"""Charts are well-formed SVG that shows each value at its place."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.io.html import (
    Axis,
    Series,
    compose_svg,
    draw_chart,
    draw_histogram,
    draw_legend,
)

COUNTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=20)


def parse(*series: Series, y_high: float = 1.0, **options: bool) -> ElementTree.Element:
    x, y = Axis.between("a < b"), Axis.between("c & d", 0, y_high)
    return ElementTree.fromstring(draw_chart(series, x, y, **options))


def points(line: ElementTree.Element) -> list[list[float]]:
    return [[float(v) for v in pair.split(",")] for pair in line.attrib["points"].split()]


def elements(svg: str, tag: str, kind: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(svg).iter(tag) if e.get("class") == kind]


def test_higher_is_up_and_more_is_right() -> None:
    (line,) = (page := parse(Series("one", [0, 1], [0, 1]))).iter("polyline")
    (left, low), (right, high) = points(line)
    assert right > left
    assert high < low
    texts = [text.text for text in page.iter("text")]
    assert texts[-2:] == ["a < b", "c & d"]


def test_a_line_has_a_gap_where_a_value_is_unknown() -> None:
    page = parse(Series("one", [0, 0.2, 0.4, 0.6], [0.1, math.nan, 0.3, 0.4], mark=(0.4, 0.3)))
    assert [len(points(line)) for line in page.iter("polyline")] == [2]
    # A point between two gaps is a dot: a line of one point would be invisible.
    lone, mark = page.iter("circle")
    assert "0, 0.100" in "".join(lone.itertext())
    assert "0.4, 0.300" in "".join(mark.itertext())


def test_a_file_holds_charts_their_titles_and_a_legend() -> None:
    lines = [Series(name, [0, 1], [0, 1]) for name in ("a & b", "c")]
    chart = draw_chart(lines, Axis.between("x"), Axis.between("y"))
    root = ElementTree.fromstring(
        compose_svg({f"<{n}>": chart for n in range(4)}, [line.name for line in lines])
    )
    space = "{http://www.w3.org/2000/svg}"
    assert "--s0" in (root.findtext(f"{space}style") or "")
    titles = [one.text for one in root.findall(f"{space}text")]
    assert titles == ["<0>", "<1>", "<2>", "<3>"]
    frames = [(one.get("x"), one.get("y")) for one in root.findall(f"{space}svg")]
    assert frames == [("0", "30"), ("560", "30"), ("1120", "30"), ("0", "390")]
    assert [one.findtext(f"{space}text") for one in root.findall(f"{space}g")] == ["a & b", "c"]
    # All of it lies inside the view.
    *_, height = map(float, root.attrib["viewBox"].split())
    assert max(float(y or 0) for _, y in frames) + 330 < height


@pytest.mark.parametrize(
    ("axis", "texts", "middle"),
    [
        (Axis.between("x", 0.5), ["0.5", "0.6", "0.7", "0.8", "0.9", "1"], 0.75),
        (Axis.around("x", [0.31, 0.9]), ["0.2", "0.4", "0.6", "0.8", "1"], 0.6),
        (Axis.numbered("x", 1, 30), ["1", "5", "10", "15", "20", "25", "30"], 15.5),
        (Axis.numbered("x", 1, 12), ["1", "4", "6", "8", "10", "12"], 6.5),
        (Axis.numbered("x", 0, 4), ["0", "1", "2", "3", "4"], 2),
        (Axis.numbered("x", 1, 1), ["1"], 1.5),
    ],
)  # fmt: skip
def test_axes(axis: Axis, texts: list[str], middle: float) -> None:
    assert [text for _, text in axis.ticks] == texts
    assert axis.position(axis.low) == pytest.approx(0)
    assert axis.position(axis.high) == pytest.approx(1)
    assert axis.position(middle) == pytest.approx(0.5)


@given(COUNTS, st.booleans())
def test_a_bar_for_each_bin_that_holds_something(counts: list[int], logarithmic: bool) -> None:
    edges = np.logspace(-1, 3, len(counts) + 1) if logarithmic else np.arange(len(counts) + 1.0)
    drawn = draw_histogram(edges.tolist(), counts, x="area", logarithmic=logarithmic)
    bars = elements(drawn, "rect", "bar")
    assert len(bars) == sum(count > 0 for count in counts)
    heights = [float(bar.get("height", "0")) for bar in bars]
    # The order of heights is that of the counts, to the tenth of a pixel that is written.
    present = [count for count in counts if count]
    for (a, b), (p, q) in zip(pairwise(heights), pairwise(present)):
        assert a == pytest.approx(b, abs=0.11) or (a < b) == (p < q)


def test_names_are_text_and_not_markup() -> None:
    for svg in (
        draw_histogram((0, 1), (3,), x="<script>", y='"images" & more'),
        draw_chart([Series("<script>", [0], [0])], Axis.between("<script>"), Axis.between("&")),
        draw_legend(["<script>", "b"]),
    ):
        assert "<script>" not in svg
        assert ElementTree.fromstring(svg) is not None
