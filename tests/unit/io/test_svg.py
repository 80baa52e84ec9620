"""Curves in a page."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from rooftrace.io.svg import SERIES, Curve, curves

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*lines: Curve, **options: object) -> ElementTree.Element:
    text = curves(lines, x="a < b", y="c & d", **options)  # type: ignore[arg-type]
    return ElementTree.fromstring(text)


def points(line: ElementTree.Element) -> list[list[float]]:
    return [[float(v) for v in pair.split(",")] for pair in line.attrib["points"].split()]


def test_higher_is_up_and_more_is_right() -> None:
    page = drawn(Curve("one", [0, 1], [0, 1]))
    ((left, low), (right, high)) = points(page.find("polyline"))  # type: ignore[arg-type]
    assert right > left
    assert high < low
    texts = [text.text for text in page.iter("text")]
    assert texts[-2:] == ["a < b", "c & d"]


def test_a_line_is_broken_where_nothing_is_known() -> None:
    page = drawn(Curve("one", [0, 0.2, 0.4, 0.6], [0.1, math.nan, 0.3, 0.4], mark=(0.4, 0.3)))
    assert [len(points(line)) for line in page.iter("polyline")] == [1, 2]
    (mark,) = page.iter("circle")
    assert "0.4, 0.300" in "".join(mark.itertext())


def test_there_are_as_many_lines_as_colours() -> None:
    page = drawn(*(Curve(str(n), [0, 1], [n, n]) for n in range(9)), y_range=(0, 9), diagonal=True)
    lines = list(page.iter("polyline"))
    assert [line.attrib["class"] for line in lines] == [f"curve s{n}" for n in range(SERIES)]
    assert sum(line.attrib["class"] == "axis" for line in page.iter("line")) == 2
