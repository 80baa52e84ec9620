"""Names of uploads and downloads."""

from __future__ import annotations

import pytest

from rooftrace.rest.face import content_disposition


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
        ("a\r\nb.tif", "attachment; filename=\"a__b.tif\"; filename*=UTF-8''a%0D%0Ab.tif"),
    ],
)
def test_a_download_keeps_a_name_in_any_script(name: str, expected: str) -> None:
    assert content_disposition(name) == expected


def test_a_download_may_have_another_name_in_ascii() -> None:
    assert content_disposition("屋根.tif", "inline", plain="7.tif") == (
        "inline; filename=\"7.tif\"; filename*=UTF-8''%E5%B1%8B%E6%A0%B9.tif"
    )
    assert content_disposition("a.tif", "inline", plain="7.tif") == 'inline; filename="a.tif"'
