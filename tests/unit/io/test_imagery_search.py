"""Test searches for imagery on servers that misbehave, and the order and limits of the items."""

import gzip
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import shapely

from folder_server import Answer, FolderServer, serving_folder
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.io import remote
from rooftrace.io.imagery_search import ImagerySearch, linked_address, search_imagery
from rooftrace.io.remote import Retry
from stac_scenes import collection, write_catalog, write_scenes

SEARCH_CLASS = "https://api.stacspec.org/v1.0.0/item-search"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    retry = Retry(attempts=2, delay_s=0.01, timeout_s=0.3)
    monkeypatch.setattr(remote, "_RETRY", retry)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    with serving_folder(tmp_path) as served:
        yield served


def found(address: str, **more: Any) -> list[str]:
    search = ImagerySearch(address, **more)
    return [str(item["id"]) for item in search_imagery(search).items]


def answer(document: Any, **more: Any) -> Answer:
    return Answer(json.dumps(document).encode(), **more)


def landing(url: str, *conforms_to: str) -> dict[str, Any]:
    links = [{"rel": "search", "href": f"{url}/search", "type": "application/geo+json"},
             {"rel": "data", "href": f"{url}/collections"}]  # fmt: skip
    return {"type": "Catalog", "stac_version": "1.0.0", "id": "x", "description": "x",
            "links": links, "conformsTo": list(conforms_to)}  # fmt: skip


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("served", "message", "remedy"),
    [
        (Answer(b"<!doctype html><p>Hello", kind="text/html"), "is a web page (HTML); expected",
         "first page"),
        (answer([1, 2]), "is not a JSON object; expected", "first page"),
        (answer({"a": 1, "b": 2}), "is a JSON document with a, b; expected a STAC API", "/stac"),
        (Answer(b"no", 401), "the server answered 401", "netrc"),
        (Answer(b"no", 403), "the server answered 403", "netrc"),
        (Answer(b'{"detail": "no bbox"}', 400), '400 Bad Request ({"detail": "no bbox"})', "URL"),
        (Answer(b"gone", 404), "the server answered 404", "Check the URL"),
        (Answer(b"busy", 503), "the server answered 503", "again later"),
        (Answer(b"{}", wait_s=0.8), "sent nothing for", "again later"),
        (answer({"type": "Catalog", "conformsTo": ["https://api.stacspec.org/v1.0.0/core"],
                 "stac_version": "1.0.0", "id": "x", "description": "x", "links": []}),
         "is a STAC API without item search", "static catalog"),
    ],
)  # fmt: skip
def test_answers_that_are_no_search(
    served: Answer, message: str, remedy: str, server: FolderServer
) -> None:
    server.answers["/stac"] = served
    with pytest.raises(DataError) as caught:
        found(f"{server.url}/stac?key=secret")
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert "secret" not in str(caught.value)
    assert len(server.asked) == (2 if served.status == 503 or served.wait_s else 1)


def test_a_server_that_does_not_exist() -> None:
    with pytest.raises(DataError, match="the server cannot be reached"):
        found("http://127.0.0.1:9/stac")
    for address in ("ftp://127.0.0.1/x", "file:///x"):
        with pytest.raises(DataError, match="a URL begins with https"):
            found(address)
    with pytest.raises(DataError, match="without a user name") as caught:
        found("http://user:s3cret@127.0.0.1/stac")
    assert "s3cret" not in str(caught.value)


def test_a_search_that_breaks_off_between_pages(server: FolderServer) -> None:
    page = {"type": "FeatureCollection", "features": [{"id": "a", "type": "Feature"}],
            "links": [{"rel": "next", "href": f"{server.url}/next"}]}  # fmt: skip
    server.answers |= {
        "/stac": answer(landing(server.url, SEARCH_CLASS)), "/search": answer(page),
        "/collections": answer({"collections": []}), "/next": Answer(b"<html>", kind="text/html"),
    }  # fmt: skip
    with pytest.raises(DataError, match="is a web page"):
        found(f"{server.url}/stac")
    # Some servers name a next page after each, also after the last one.
    for last in (page, page | {"features": []}):
        numbers = count(2)
        server.answers["/next"] = lambda _: answer(
            last | {"links": [{"rel": "next", "href": f"/next?page={next(numbers)}"}]}  # noqa: B023
        )
        assert found(f"{server.url}/stac") == ["a"]
        assert next(numbers) == 3


def test_a_password_goes_to_its_host_alone(
    tmp_path: Path, server: FolderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = tmp_path / "netrc"
    account.write_text("machine 127.0.0.1 login me password s3cret")
    account.chmod(0o644)
    monkeypatch.setenv("NETRC", str(account))
    page = {"type": "FeatureCollection", "features": [{"id": "a", "type": "Feature"}]}
    # As object storage sends what was stored compressed.
    server.answers["/stac/"] = Answer(gzip.compress(json.dumps(page).encode()))
    signed = "Basic bWU6czNjcmV0"
    for host, sent in (("127.0.0.1", signed), ("localhost", "")):
        server.signed.clear()
        there = f"http://{host}:{server.server_port}/stac/"
        server.answers["/stac"] = Answer(b"", 307, location=there)
        assert found(f"{server.url}/stac") == ["a"]
        assert server.signed == [signed, sent]
    server.answers["/stac"] = Answer(gzip.compress(b"cut off")[:-9])
    with pytest.raises(DataError, match="the compressed document is damaged"):
        found(f"{server.url}/stac")


@pytest.mark.campaign
def test_only_the_collections_that_may_match_are_read(tmp_path: Path, server: FolderServer) -> None:
    items = write_scenes(tmp_path)
    write_catalog(tmp_path, items)
    address = f"{server.url}/catalog.json"
    assert found(address, datetime="2024") == ["east", "far"]
    # The grid of the scenes is turned a little against degrees.
    inside = shapely.buffer(shapely.box(*items[0]["bbox"]), -1e-4)
    assert found(address, area=inside) == ["west"]
    assert found(address, collections=("town",), max_items=1) == ["west"]
    server.asked.clear()
    for more in ({"datetime": "1999"}, {"area": shapely.box(0, 0, 1, 1)}):
        with pytest.raises(DataError, match="has no images"):
            found(address, **more)
    assert not [path for path in server.asked if "item" in path]
    with pytest.raises(ConfigError, match="has no collection 'twn'; it has town"):
        found(address, collections=("twn",))


@pytest.mark.campaign
def test_catalogs_that_lead_to_themselves_or_to_files(tmp_path: Path, server: FolderServer) -> None:
    write_catalog(tmp_path, write_scenes(tmp_path))
    (tmp_path / "secret.json").write_text('{"type": "Feature", "id": "secret", "assets": {}}')
    file = tmp_path / "catalog.json"
    catalog = json.loads(file.read_text())
    catalog["links"] += [{"rel": "child", "href": "catalog.json"}, {"rel": "child"}]
    file.write_text(json.dumps(catalog))
    address = f"{server.url}/catalog.json"
    assert found(address) == ["east", "far", "west"]
    for href in (f"file://{tmp_path}/secret.json", "ftp://x/y", "gopher:x"):
        file.write_text(json.dumps(catalog | {"links": [{"rel": "item", "href": href}]}))
        with pytest.raises(DataError, match="expected a URL that begins"):
            found(address)
    # The path belongs to the server.
    assert linked_address(address, "/etc/passwd") == f"{server.url}/etc/passwd"
    with pytest.raises(DataError, match="expected a URL"):
        linked_address("s3://bucket/a/catalog.json", "file:///etc/passwd")
    assert linked_address("s3://bucket/a/c.json", "../b.tif") == "s3://bucket/b.tif"
    # A catalog on disk may name any file there.
    assert linked_address("a/c.json", "../b.tif") == "b.tif"
    assert linked_address("a/c.json", "file:///x/b%20c.tif") == "/x/b c.tif"
    assert linked_address("a/c.json", "https://host/b.tif") == "https://host/b.tif"


def test_a_saved_search_on_a_server_is_read_page_by_page(
    tmp_path: Path, server: FolderServer
) -> None:
    items = write_scenes(tmp_path)
    first = {"type": "FeatureCollection", "features": items[:2],
             "links": [{"rel": "next", "href": "more.json"}]}  # fmt: skip
    (tmp_path / "items.json").write_text(json.dumps(first))
    (tmp_path / "more.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items[2:]})
    )
    assert found(f"{server.url}/items.json") == ["east", "far", "west"]
    assert found(f"{server.url}/items.json", datetime="2023-01-01/2023-12-31") == ["west"]


@pytest.mark.parametrize("geometry", ["none", "jumps", "divided"])
def test_items_across_longitude_180_cover_only_their_ground(
    geometry: str, tmp_path: Path, server: FolderServer
) -> None:
    ring = shapely.Polygon([(179, -17), (-179, -17), (-179, -16), (179, -16)])
    sides = shapely.union(shapely.box(179, -17, 180, -16), shapely.box(-180, -17, -179, -16))
    shape = {"none": None, "jumps": ring, "divided": sides}[geometry]
    item = {
        "type": "Feature", "id": "taveuni", "properties": {"datetime": "2024-05-01T00:00:00Z"},
        "bbox": [179, -17, -179, -16],
        "geometry": None if shape is None else json.loads(shapely.to_geojson(shape)),
    }  # fmt: skip
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [item]})
    )
    address = f"{server.url}/items.json"
    for west in (179.5, -179.8):
        assert found(address, area=shapely.box(west, -16.8, west + 0.1, -16.7)) == ["taveuni"]
    with pytest.raises(DataError, match="has no images in the area"):
        found(address, area=shapely.box(20, -16.8, 21, -16.7))


def test_more_items_than_a_search_may_have(
    tmp_path: Path, server: FolderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_catalog(tmp_path, write_scenes(tmp_path))
    monkeypatch.setattr("rooftrace.io.imagery_search.MAX_ITEMS", 2)
    with pytest.raises(DataError, match="has more than 2 images") as caught:
        found(f"{server.url}/catalog.json")
    assert "--max-items" in caught.value.remedy
    assert found(f"{server.url}/catalog.json", datetime="2024") == ["east", "far"]


def test_a_collection_of_an_api_is_searched_by_its_address(server: FolderServer) -> None:
    own = collection([{"bbox": [0, 0, 1, 1]}]) | {"links": [{"rel": "root", "href": "/stac"}]}
    asked = []

    def search(query: dict[str, list[str]]) -> Answer:
        asked.append(query)
        return answer(
            {"type": "FeatureCollection", "features": [{"id": "a", "collection": "town"}]}
        )

    server.answers |= {
        "/stac": answer(landing(server.url, SEARCH_CLASS)), "/search": search,
        "/collections/town": answer(own),
    }  # fmt: skip
    assert found(f"{server.url}/collections/town") == ["a"]
    assert asked[0]["collections"] == ["town"]
