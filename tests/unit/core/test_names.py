"""Names that files of results can have, and how other names are shown."""

from __future__ import annotations

import os
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from rooftrace.core.errors import DataError, ExportError
from rooftrace.core.names import check_vector_name, content_disposition, layer_name, result_name
from rooftrace.core.text import escape_surrogates
from rooftrace.io.gdal import check_utf8
from rooftrace.io.vector_layer import LayerChunk, LayerSettings
from rooftrace.io.vector_read import VectorFile
from rooftrace.io.vector_write import check_vector_path, write_layer, write_polygons

LATIN = os.fsdecode(b"caf\xe9")
"""A name that was written on a system with another encoding."""


@pytest.mark.parametrize("name", ["scene", "(1) scene", "-a", "naïve 日本", "a.b", "x_1", "%20"])
def test_a_usual_name_stays(name: str) -> None:
    assert result_name(name) == name
    assert escape_surrogates(name) == name


@pytest.mark.parametrize(
    ("name", "result"), [("a!b", "a_b"), ("a;b", "a_b"), ("a\nb", "a_b"), (LATIN, "caf_")]
)
def test_characters_that_no_result_can_have_are_replaced(name: str, result: str) -> None:
    assert result_name(name) == result


@pytest.mark.parametrize(
    "name", ["http:q/a.gpkg", "s3:a.geojson", "zip:a.parquet", "q/http:a.shp", " a.gpkg"]
)
def test_a_name_that_looks_like_an_address_is_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    write_polygons(Path(name), np.array([shapely.box(0, 0, 9, 9)]), {}, CRS(32633))
    assert (tmp_path / name).is_file()
    assert len(VectorFile(Path(name)).read()) == 1


def test_bytes_that_are_not_utf8_are_shown_as_escapes() -> None:
    assert escape_surrogates(LATIN) == r"caf\xe9"
    assert escape_surrogates("\ud800") == r"\ud800"
    error = DataError(f"{LATIN} is bad.", remedy=f"Remove {LATIN}.")
    assert str(error) == r"caf\xe9 is bad. Remove caf\xe9."


def test_a_name_that_is_not_utf8_is_refused_by_name() -> None:
    check_utf8(Path("été.tif"))
    with pytest.raises(DataError, match=r"caf\\xe9.tif has a name that is not UTF-8"):
        check_utf8(Path(f"{LATIN}.tif"))


@pytest.mark.parametrize(
    ("folder", "shown"), [("a!b", "!"), ("a;b", ";"), ("a\tb", r"\\t"), (LATIN, r"\\xe9")]
)
def test_a_folder_with_such_a_character_is_refused_before_the_work(folder: str, shown: str) -> None:
    with pytest.raises(ExportError, match=f"to a path with {shown}"):
        check_vector_path(Path(folder) / "scene.gpkg")
    with pytest.raises(DataError, match=f"its path has {shown}"):
        check_vector_name(Path(folder) / "scene.gpkg")


@pytest.mark.parametrize("stem", ["a", "a" * 100])
def test_a_path_too_long_for_a_geopackage_is_refused_before_the_work(
    tmp_path: Path, stem: str
) -> None:
    def of_length(count: int) -> Path:
        """Return a path of this number of bytes in the folder in which the layer is made."""
        left = count - len(str(tmp_path)) - len(f"/.{stem}.12345678/{stem}.gpkg")
        return tmp_path.joinpath(*["d" * 99] * (left // 100 - 1), "d" * (left % 100 + 99)) / (
            f"{stem}.gpkg"
        )

    with pytest.raises(ExportError, match="481 bytes; expected up to 480"):
        check_vector_path(of_length(481))
    longest = of_length(480)
    longest.parent.mkdir(parents=True)
    layer = LayerSettings(CRS(3857))
    write_layer(longest, layer, [LayerChunk(np.array([shapely.box(0, 0, 1, 1)]), {})] * 3)
    assert len(VectorFile(longest).read().geometry) == 3


@pytest.mark.parametrize("first", "-([{<.#+@~%$&'=^`|,*:?\"")
def test_a_geopackage_is_written_under_any_first_character(tmp_path: Path, first: str) -> None:
    path = tmp_path / f"{first}1) scene.gpkg"
    write_polygons(path, np.array([shapely.box(0, 0, 1, 1)]), {}, CRS(3857))
    assert len(geopandas.read_file(path)) == 1
    assert layer_name("scene (1)") == "scene (1)"


def test_a_long_name_is_shortened_and_stays_distinct() -> None:
    long = "é" * 110
    names = {result_name(long + end) for end in ("", "a", "b")}
    assert len(names) == 3
    assert all(len(name.encode()) <= 215 for name in names)
    assert result_name("x" * 215) == "x" * 215


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1))
def test_any_name_becomes_one_that_can_be_written(name: str) -> None:
    fit = result_name(name)
    fit.encode()
    assert len(fit.encode()) <= 215
    assert result_name(fit) == fit
    assert fit.isprintable() or not name.isprintable()
    first = layer_name(name)[0]
    assert first.isalnum() or first in "_ "


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
