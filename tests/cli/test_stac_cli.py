"""Test `rooftrace catalogue` with a STAC API and a static catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import pytest

from command_line import Finished, command
from folder_server import FolderServer, serving_folder
from stac_scenes import PROVIDERS, collection, with_hrefs, write_area, write_catalog, write_scenes
from tiny_models import write_tiny_bundle

pytest.importorskip("pystac")

Json = dict[str, Any]


class Town(NamedTuple):
    """A server with scenes, and their items with the URLs of the images."""

    server: FolderServer
    items: list[Json]


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    """Serve the scenes, and make `tmp_path` the current folder, with a model and an area."""
    monkeypatch.chdir(tmp_path)
    write_tiny_bundle(tmp_path / "tiny.rooftrace")
    items = write_scenes(tmp_path / "web")
    write_area(tmp_path / "town.geojson", items[:2])
    write_catalog(tmp_path / "web", items)
    with serving_folder(tmp_path / "web") as server:
        yield Town(server, with_hrefs(items, server.url))


def catalogue(*arguments: object) -> Finished:
    return command("catalogue", *arguments, "-m", "tiny.rooftrace", "-o", "out")


def manifest_scenes() -> dict[str, Json]:
    return {one["id"]: one for one in json.loads(Path("out/manifest.json").read_text())["scenes"]}


@pytest.mark.campaign
def test_a_static_catalog_on_a_server_and_on_disk(town: Town) -> None:
    done = catalogue(f"{town.server.url}/catalog.json", "--area", "town.geojson", "--json")
    assert done.code == 0, done.err
    assert (done.json["scenes"], done.json["failed"], done.json["buildings"]) == (2, [], 2)
    scenes = manifest_scenes()
    assert [*scenes] == ["east", "west"]
    assert scenes["west"]["imagery"] == {
        "item": "west", "href": f"{town.server.url}/town/west/item.json", "collection": "town",
        "datetime": "2023-05-01T10:00:00Z", "license": "CC-BY-4.0", "providers": PROVIDERS,
    }  # fmt: skip
    layer = {path.name: path.read_bytes() for path in Path("out/buildings").rglob("*.parquet")}
    again = command(
        "catalogue", "web/catalog.json", "--area", "town.geojson", "-m", "tiny.rooftrace", "-o",
        "disk", "--json",
    )  # fmt: skip
    assert again.code == 0, again.err
    same = {path.name: path.read_bytes() for path in Path("disk/buildings").rglob("*.parquet")}
    assert same == layer


class Api(NamedTuple):
    """A STAC API over the items of a town."""

    url: str
    client: Any
    town: Town


@pytest.fixture
def api(town: Town) -> Iterator[Api]:
    """Serve a STAC API with two collections and pages of one item."""
    pytest.importorskip("stac_fastapi.api")
    from local_server import serving_app
    from stac_server import MemoryClient, stac_app

    collections = {"town": collection(town.items), "sea": collection(town.items, "sea")}
    client = MemoryClient(collections=collections, items=[*town.items], page=1)
    with serving_app(stac_app(client)) as url:
        yield Api(url, client, town)


def test_a_stac_api(api: Api) -> None:
    options = ("--collection", "town", "--area", "town.geojson")
    done = catalogue(api.url, *options, "--json")
    assert done.code == 0, done.err
    assert (done.json["scenes"], done.json["failed"], done.json["buildings"]) == (2, [], 2)
    imagery = manifest_scenes()["east"]["imagery"]
    assert (imagery["license"], imagery["providers"]) == ("CC-BY-4.0", PROVIDERS)
    assert geopandas.read_parquet("out/buildings")["scene"].nunique() >= 1
    # The same command searches again: what it finds no more leaves the layer.
    del api.client.items[0]
    done = catalogue(api.url, *options)
    assert done.code == 0, done.err
    text = " ".join(done.err.split())
    assert "1 image found" in text
    assert "Resumed an earlier run: 1 scene was already finished" in text
    assert [*manifest_scenes()] == ["east"]


@pytest.mark.campaign
def test_a_period_and_a_maximum_of_items(api: Api) -> None:
    asked = (api.url, "--collection", "town", "--no-stac", "--json")
    done = catalogue(*asked, "--datetime", "2023")
    assert done.code == 0, done.err
    assert [*manifest_scenes()] == ["west"]
    assert not Path("out/collection.json").exists()
    done = catalogue(*asked, "--max-items", 2)
    assert done.code == 0, done.err
    assert [*manifest_scenes()] == ["east", "west"]
    done = catalogue(*asked[:-1], "--max-items", 2)
    assert "has more than the 2 images of --max-items" in " ".join(done.err.split())


def test_the_results_are_stac_items(api: Api) -> None:
    pystac = pytest.importorskip("pystac")
    pytest.importorskip("jsonschema")
    outputs = ("--outputs", "mask,polygons,preview,density", "--cell", 20)
    options = ("--collection", "town", *outputs, "--json")
    api.client.items[0]["links"] = [
        {"rel": "self", "href": f"{api.url}/collections/town/items/west"}
    ]
    assert catalogue(api.url, *options).code == 0
    # The schemas of the specification are part of pystac; nothing is fetched.
    found = pystac.Collection.from_file("out/collection.json")
    found.validate_all()
    assert found.license == "CC-BY-4.0"
    assert [one.name for one in found.providers] == ["Survey of Lindi"]
    for asset in found.assets.values():
        assert (Path("out") / asset.href).is_file()
    items = {item.id: item for item in found.get_items()}
    assert {*items} == {"west", "east", "far"}
    west = items["west"]
    assert west.get_parent().id == found.id
    assert west.datetime.isoformat() == "2023-05-01T10:00:00+00:00"
    assert (west.properties["license"], west.properties["providers"]) == ("CC-BY-4.0", PROVIDERS)
    assert west.get_single_link("derived_from").href.endswith("/collections/town/items/west")
    assert west.bbox == pytest.approx(api.town.items[0]["bbox"], abs=2e-5)
    kinds = {key: (asset.media_type, asset.roles) for key, asset in west.assets.items()}
    assert kinds["mask"][0].startswith("image/tiff; application=geotiff")
    assert kinds["polygons"] == ("application/geopackage+sqlite3", ["data"])
    assert kinds["density"][0].startswith("image/tiff; application=geotiff")
    assert kinds["preview"] == ("image/png", ["overview"])
    for asset in west.get_assets().values():
        assert Path(asset.get_absolute_href()).is_file()
    # An item whose scene is no longer in the catalogue is not in the collection.
    assert catalogue(api.url, *options, "--datetime", "2024").code == 0
    found = pystac.Collection.from_file("out/collection.json")
    assert {item.id for item in found.get_items()} == {"east", "far"}


@pytest.mark.campaign
def test_keys_in_addresses_are_not_written(api: Api) -> None:
    server = api.town.server
    server.keys["/"] = "first"
    plain = with_hrefs(write_scenes(server.folder), server.url, "first")
    api.client.items[:] = plain
    assert catalogue(api.url, "--collection", "town", "--json").code == 0
    written = [path for path in Path("out").rglob("*") if path.suffix in (".json", ".jsonl")]
    assert not [path for path in written if "sig=" in path.read_text()]
    # Another run needs new keys, which the same search gives.
    server.keys["/"] = "second"
    api.client.items[:] = with_hrefs(write_scenes(server.folder), server.url, "second")
    done = catalogue(api.url, "--collection", "town", "--json")
    assert done.code == 0, done.err
    assert (done.json["resumed_scenes"], done.json["failed"]) == (3, [])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--collection", "town", "--datetime", "1999"], 3,
         "has no images of town from 1999."),
        (["--collection", "twon"], 2, "has no collection 'twon'; it has town, sea"),
        ([], 2, "has 2 collections: town, sea"),
        (["--collection", "town", "--datetime", "yesterday"], 2, "--datetime yesterday is not a"),
        (["--collection", "sea"], 3, "has no images of sea"),
    ],
)  # fmt: skip
def test_searches_that_fail(options: list[str], code: int, message: str, api: Api) -> None:
    done = catalogue(api.url, *options)
    assert done.code == code
    assert message in " ".join(done.err.split())
    assert not Path("out").exists() or not [*Path("out").iterdir()]


@pytest.mark.campaign
def test_the_results_of_predict_are_stac_items(town: Town) -> None:
    pystac = pytest.importorskip("pystac")
    images = [f"{town.server.url}/west.tif", "web/east.tif"]
    made_with = ("-m", "tiny.rooftrace", "-o", "out")
    dated = ("--imagery-date", "2024-05-17", "--source", "Survey of Lindi, CC BY")
    done = command("predict", *images, *made_with, *dated, "--stac")
    assert done.code == 0, done.err
    found = pystac.Collection.from_file("out/collection.json")
    found.validate_all()
    assert [one.to_dict() for one in found.providers] == [{"name": "Survey of Lindi, CC BY"}]
    assert Path("out", found.assets["run"].href).is_file()
    items = {item.id: item for item in found.get_items()}
    assert {*items} == {"west", "east"}
    west = items["west"]
    assert west.properties["providers"] == [{"name": "Survey of Lindi, CC BY"}]
    assert west.datetime.isoformat() == "2024-05-17T00:00:00+00:00"
    of_year = command("predict", *images, *made_with, "--imagery-date", "2015-02", "--stac")
    assert of_year.code == 0, of_year.err
    february = pystac.Item.from_file("out/west_item.json").properties
    assert february["datetime"] is None
    assert february["start_datetime"] == "2015-02-01T00:00:00Z"
    assert february["end_datetime"] == "2015-02-28T23:59:59Z"
    assert west.bbox == pytest.approx(town.items[0]["bbox"], abs=2e-5)
    assert {*west.assets} == {"mask", "polygons", "preview"}
    for asset in west.get_assets().values():
        assert Path(asset.get_absolute_href()).is_file()
    done = command("predict", *images, *made_with, "--stac")
    assert done.code == 0, done.err
    assert "No STAC item was written for 2 scenes" in " ".join(done.err.split())
    assert "give it with --imagery-date" in " ".join(done.err.split())
    assert not Path("out/collection.json").exists()
    # The name of an image is no provider.
    done = command("predict", *images, *made_with, *dated[:2], "--stac")
    assert pystac.Collection.from_file("out/collection.json").providers is None
