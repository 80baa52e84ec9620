"""The shared stylesheet and header: contrast of its colours, and one link marked."""

from __future__ import annotations

import re
from itertools import product

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rooftrace.io.html import read_asset
from rooftrace.rest.face import PAGES, face_router, page_header
from rooftrace.rest.problems import install_problems

COLOURS = {
    name: pair
    for name, *pair in re.findall(
        r"--([a-z-]+): light-dark\((#\w{6}), (#\w{6})\)", read_asset("face.css")
    )
}
TEXT = ("ink", "faint", "strong", "good", "care", "bad")
PAIRS = [
    *product(TEXT, ("ground", "paper", "field"), [4.5]),
    ("on-strong", "strong", 4.5),
    ("alert", "alert-paper", 4.5),
    ("edge", "paper", 3.0),
]


def luminance(colour: str) -> float:
    """Return the relative luminance of `#RRGGBB`, as WCAG 2.2 defines it."""
    channels = [one / 255 for one in bytes.fromhex(colour[1:])]
    red, green, blue = (
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("text", "ground", "least"), PAIRS)
@pytest.mark.parametrize("mode", [0, 1])
def test_colours_have_the_contrast_of_aa(text: str, ground: str, least: float, mode: int) -> None:
    low, high = sorted(luminance(COLOURS[name][mode]) for name in (text, ground))
    assert (high + 0.05) / (low + 0.05) >= least


def test_the_header_links_all_pages_and_marks_one() -> None:
    html = page_header("map", "../", live=True)
    assert [f'href="../{address}"' in html for _, address in PAGES.values()] == [True] * len(PAGES)
    assert html.count('class="face-theme"') == 1
    assert re.findall(r'<a href="([^"]+)" aria-current="page">', html) == ["../map"]


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    install_problems(app)
    app.include_router(face_router())
    return TestClient(app)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br", "gzip"),
        ("gzip", "gzip"),
        ("identity", None),
    ],
)
def test_files_are_compressed_as_the_browser_reads_them(
    client: TestClient, accepted: str, encoding: str | None
) -> None:
    answer = client.get("/face.css", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.text == read_asset("face.css")
    if encoding is not None:
        assert int(answer.headers["content-length"]) < len(read_asset("face.css")) / 2
