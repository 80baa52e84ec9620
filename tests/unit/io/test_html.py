"""Charts are well-formed SVG that shows each value at its place."""

from xml.etree import ElementTree

import pytest

from rooftrace.io.html import Axis, Series, draw_chart, draw_histogram, draw_legend


def parse(*series: Series, y_high: float = 1.0, **options: bool) -> ElementTree.Element:
    x, y = Axis.between("a < b"), Axis.between("c & d", 0, y_high)
    return ElementTree.fromstring(draw_chart(series, x, y, **options))


def points(line: ElementTree.Element) -> list[list[float]]:
    return [[float(v) for v in pair.split(",")] for pair in line.attrib["points"].split()]


def test_higher_is_up_and_more_is_right() -> None:
    (line,) = (page := parse(Series("one", [0, 1], [0, 1]))).iter("polyline")
    (left, low), (right, high) = points(line)
    assert right > left
    assert high < low
    texts = [text.text for text in page.iter("text")]
    assert texts[-2:] == ["a < b", "c & d"]


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


def test_names_are_text_and_not_markup() -> None:
    for svg in (
        draw_histogram((0, 1), (3,), x="<script>", y='"images" & more'),
        draw_chart([Series("<script>", [0], [0])], Axis.between("<script>"), Axis.between("&")),
        draw_legend(["<script>", "b"]),
    ):
        assert "<script>" not in svg
        assert ElementTree.fromstring(svg) is not None
