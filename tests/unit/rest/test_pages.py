"""The shared stylesheet and header: contrast of its colours, and one link marked."""

import re

import pytest
from fastapi.testclient import TestClient

from rest_service import app_with
from rooftrace.io.html import read_asset
from rooftrace.rest.pages import PAGES, face_router, page_header
from rooftrace.rest.transfer import content_disposition


def test_the_header_links_all_pages_and_marks_one() -> None:
    html = page_header("map", "../", live=True)
    assert [f'href="../{address}"' in html for _, address in PAGES.values()] == [True] * len(PAGES)
    assert html.count('class="face-theme"') == 1
    assert re.findall(r'<a href="([^"]+)" aria-current="page">', html) == ["../map"]


@pytest.fixture
def client() -> TestClient:
    return TestClient(app_with(face_router()))


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip, deflate, br", "gzip"), ("gzip;q=0.5", "gzip"), ("br, gzip;q=0", None)],
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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a_reviewed.gpkg", 'attachment; filename="a_reviewed.gpkg"'),
        ("a (1).gpkg", 'attachment; filename="a (1).gpkg"'),
        (
            'Süd "1".gpkg',
            "attachment; filename=\"S_d _1_.gpkg\"; filename*=UTF-8''S%C3%BCd%20%221%22.gpkg",
        ),
        # Some browsers would read `%41` as `A`.
        ("a%41.tif", "attachment; filename=\"a_41.tif\"; filename*=UTF-8''a%2541.tif"),
    ],
)
def test_a_download_keeps_a_name_in_any_script(name: str, expected: str) -> None:
    assert content_disposition(name) == expected


def test_a_download_may_have_another_name_in_ascii() -> None:
    assert content_disposition("屋根.tif", "inline", plain="7.tif") == (
        "inline; filename=\"7.tif\"; filename*=UTF-8''%E5%B1%8B%E6%A0%B9.tif"
    )
    assert content_disposition("a.tif", "inline", plain="7.tif") == 'inline; filename="a.tif"'
