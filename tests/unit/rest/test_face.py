"""The shared stylesheet and header: contrast of its colours, and one link marked."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rooftrace.io.html import read_asset
from rooftrace.rest.face import PAGES, face_router, page_header
from rooftrace.rest.problems import install_problems


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
