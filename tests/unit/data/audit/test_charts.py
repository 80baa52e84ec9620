"""A chart is well-formed SVG with a bar for each bin that holds something."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.data.audit.charts import histogram
from rooftrace.data.audit.summary import Histogram

COUNTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=20)


def parts(svg: str, tag: str, kind: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(svg).iter(tag) if e.get("class") == kind]


@given(COUNTS, st.booleans())
def test_a_bar_for_each_bin_that_holds_something(counts: list[int], logarithmic: bool) -> None:
    edges = np.logspace(-1, 3, len(counts) + 1) if logarithmic else np.arange(len(counts) + 1.0)
    shown = Histogram(tuple(edges), tuple(counts))
    bars = parts(histogram(shown, x="area", logarithmic=logarithmic), "rect", "bar")
    assert len(bars) == sum(count > 0 for count in counts)
    heights = [float(bar.get("height", "0")) for bar in bars]
    # The order of heights is that of the counts, to the tenth of a pixel that is written.
    present = [count for count in counts if count]
    for (a, b), (p, q) in zip(pairwise(heights), pairwise(present)):
        assert a == pytest.approx(b, abs=0.11) or (a < b) == (p < q)


@given(COUNTS)
def test_two_sets_are_drawn_in_shares(counts: list[int]) -> None:
    edges = tuple(np.arange(len(counts) + 1.0))
    one = Histogram(edges, tuple(counts))
    ten = Histogram(edges, tuple(10 * count for count in counts))
    drawn = histogram(one, ten, x="share")
    (line,) = parts(drawn, "polyline", "other")
    # The same distribution, whatever the size of the set: the line runs along the bars' tops.
    tops = {round(float(bar.get("y", "0")), 1) for bar in parts(drawn, "rect", "bar")}
    assert tops <= {float(point.split(",")[1]) for point in line.get("points", "").split()}


def test_names_are_text_and_not_markup() -> None:
    svg = histogram(Histogram((0, 1), (3,)), x="<script>", y='"images" & more')
    assert "<script>" not in svg
    assert ElementTree.fromstring(svg) is not None
