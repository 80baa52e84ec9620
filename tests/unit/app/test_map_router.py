"""The map over HTTP, on results folders as `rooftrace predict` leaves them."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely

pytest.importorskip("fastapi")

from affine import Affine
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.testclient import TestClient
from markupsafe import escape
from PIL import Image
from pyproj import CRS

from raster_files import write_geotiff
from rest_service import app_with
from rooftrace.app.map import router as routing
from rooftrace.app.map.results import ResultsCatalogue, read_results
from rooftrace.app.map.router import Basemap, map_router
from rooftrace.app.map.scene import find_image
from rooftrace.core.errors import ConfigError
from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.io.html import read_asset
from rooftrace.io.masks import mask_sink
from rooftrace.io.partitions import PartitionedLayer
from rooftrace.io.vector_write import write_footprints
from rooftrace.io.web_mercator import unit_position
from town import generate_scene

GRID = GeoGrid((128, 128), Affine(0.5, 0, 524_000, 0, -0.5, 9_318_000), CRS(32736))


def write_results(folder: Path, name: str = "town", *, grid: GeoGrid = GRID) -> None:
    """One image of four buildings, and a record of the run."""
    folder.mkdir(exist_ok=True)
    image = folder.parent / f"{name}.tif"
    generate_scene(1, (128, 128), 0.5).write(folder.parent, name)
    with mask_sink(folder / f"{name}_mask.tif", grid) as sink:
        mask = np.zeros(grid.shape, np.uint8)
        mask[10:40, 10:40] = 1
        sink.write(Window.whole(grid.shape), mask)
    left, _, _, top = grid.bounds_xy
    houses = [shapely.box(left + x, top - 20, left + x + 8, top - 10) for x in (5, 20, 35, 50)]
    write_footprints(
        folder / f"{name}_buildings.gpkg",
        Footprints(
            np.array(houses), np.array([0.2, 0.4, 0.6996, 0.7], np.float32),
            np.array([80.0, 90, 100, 110]), grid.crs,
        ),
    )  # fmt: skip
    record = {
        "created": "2026-01-02T03:04:05+00:00",
        "bundle": {"name": "<b>mine</b>", "sha256": "0" * 64, "file": "gone.rooftrace"},
        "outputs": [{"input": str(image), "mask": f"elsewhere/{name}_mask.tif", "buildings": 4,
                     "provenance": {"source": "© <Town>"}}],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_results(tmp_path / "out")
    return tmp_path / "out"


def client_of(*folders: Path) -> TestClient:
    return TestClient(app_with(map_router(ResultsCatalogue(folders))))


@pytest.fixture
def client(folder: Path) -> TestClient:
    return client_of(folder)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """A client of results that no test changes."""
    folder = tmp_path_factory.mktemp("shared") / "out"
    write_results(folder)
    return client_of(folder)


TOWN = "/map/folders/out/images/town"


def tile_of(client: TestClient, zoom: int) -> str:
    west, south, east, north = client.get(TOWN).json()["bounds"]
    x, y = unit_position((west + east) / 2, (south + north) / 2)
    return f"{zoom}/{int(x * 2**zoom)}/{int(y * 2**zoom)}"


def test_the_page_and_its_files(shared: TestClient) -> None:
    page = shared.get("/map")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    static = Path(routing.__file__).parent / "static"
    names = [path.name for path in static.iterdir() if path.is_file()]
    for name in (*names, "vendor/maplibre-gl.js"):
        file = shared.get(f"/map/static/{name}")
        assert file.status_code == 200, name
        # Nothing is fetched from elsewhere.
        assert name.startswith("vendor/") or "http" not in file.text, name
    assert shared.get("/map/static/map.js").headers["content-type"].startswith("text/javascript")


def test_only_the_basemap_of_the_operator_is_asked(folder: Path, client: TestClient) -> None:
    assert client.get("/map/settings").json() == {"basemaps": []}
    assert "connect-src" not in client.get("/map").headers["content-security-policy"]
    app = FastAPI()
    address = "https://tiles.example.org:8443/{z}/{x}/{y}.png?key=1"
    app.include_router(
        map_router(ResultsCatalogue([folder]), [Basemap.parse(f"Streets={address}", "© somebody")])
    )
    other = TestClient(app)
    basemap = other.get("/map/settings").json()["basemaps"]
    assert basemap == [{"url": address, "credit": "© somebody", "name": "Streets"}]
    assert Basemap.parse(address).name == "tiles.example.org:8443"
    policy = other.get("/map").headers["content-security-policy"]
    assert policy.count(" https://tiles.example.org:8443") == 2
    assert "connect-src 'self' https://tiles.example.org:8443" in policy


@pytest.mark.parametrize("layer", ["buildings", "image"])
def test_tilejson_leads_to_tiles(shared: TestClient, layer: str) -> None:
    described = shared.get(f"{TOWN}/tiles.json", params={"layer": layer}).json()
    assert described["bounds"] == shared.get(TOWN).json()["bounds"]
    place = dict(zip("zxy", tile_of(shared, described["maxzoom"]).split("/")))
    tile = shared.get(described["tiles"][0].format(**place))
    assert len(tile.content) > 50
    assert tile.headers["cache-control"] == "private, max-age=86400"
    assert ("vector_layers" in described) == (layer == "buildings")
    credit = f'href="http://testserver/map/folders/out">{escape("<b>mine</b>")}, sources'
    assert (credit in described["attribution"]) == (layer == "buildings")
    assert described["attribution"].startswith("© &lt;Town&gt;")
    assert shared.get(f"{TOWN}/tiles.json?layer=density").status_code == 404


def test_a_download_holds_what_passes_the_filters(shared: TestClient, tmp_path: Path) -> None:
    for kind in ("gpkg", "fgb", "shp.zip", "xlsx", "kmz"):
        answer = shared.get(f"{TOWN}/download", params={"format": kind, "score": 500})
        assert f"town_buildings.{kind}" in answer.headers["content-disposition"]
        (tmp_path / f"x.{kind}").write_bytes(answer.content)
        found = pyogrio.read_dataframe(tmp_path / f"x.{kind}")
        assert sorted(found.get("id2", found["id"]).astype(int)) == [3, 4]
    assert shared.get(f"{TOWN}/download?format=osm&score=500").text.count('v="yes"') == 2
    # 0.6996 is less than 0.7, and the 0.7 of float32, which is a little less, is not.
    for least in ("size=1050", "score=700"):
        found = shared.get(f"{TOWN}/download?format=geojson&{least}").json()
        assert [one["properties"]["id"] for one in found["features"]] == [4]


def test_zones_have_the_figures_of_their_buildings(shared: TestClient) -> None:
    left, bottom, _, top = GRID.bounds_xy
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32736"}}
    ward = dict(shapely.geometry.mapping(shapely.box(left, bottom, left + 30, top)), crs=crs)
    answer = shared.post(f"{TOWN}/zones", json=ward).json()
    assert answer["features"][0]["properties"]["buildings"] == 2
    assert answer["notes"] == ["Buildings in no zone: 2 of 4."]
    assert "zones.json has no GeoJSON" in shared.post(f"{TOWN}/zones", json={}).text
    link = {"Type": "Link", "properties": {"href": "http://127.0.0.1:9/epsg"}}
    linked = shared.post(
        f"{TOWN}/zones", json={"type": "Feature", "geometry": ward | {"crs": None, "CRS": link}}
    ).json()
    assert linked["detail"] == "zones.json has an unknown crs: http://127.0.0.1:9/epsg."
    wrong = shared.post(f"{TOWN}/zones?value=tallness", json=ward).json()
    assert "town_buildings.gpkg has no attribute 'tallness'" in wrong["detail"]
    assert wrong["remedy"].endswith("such as value=height.")


def test_a_download_follows_its_file(
    folder: Path, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, path = f"{TOWN}/download?format=geojson", folder / "town_buildings.gpkg"
    known = {"If-None-Match": client.get(url).headers["etag"]}
    assert client.get(url, headers=known).status_code == 304
    whole = client.get(url).content
    for asked, part in (("5-9", whole[5:10]), ("7-", whole[7:]), ("-4", whole[-4:])):
        answer = client.get(url, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, part)
    statuses = [client.get(url, headers={"Range": f"bytes={asked}"}).status_code
                for asked in ("999999-", "5-3", "x")]  # fmt: skip
    assert statuses == [416, 200, 200]
    # A download in parts does not evict the tiles.
    monkeypatch.setattr(routing, "_TILE_BYTES", len(whole))
    client, tile = client_of(folder), f"{TOWN}/image/{tile_of(client, 17)}"
    shown = client.get(tile).content
    assert client.get(url, headers={"Range": "bytes=0-9"}).status_code == 206
    monkeypatch.setattr(routing, "_tile_bytes", None)
    assert client.get(tile).content == shown
    pyogrio.write_dataframe(pyogrio.read_dataframe(path).iloc[[3, 2, 1, 0, 0]], path)
    assert len(client.get(url, headers=known).json()["features"]) == 5


def test_the_page_offers_all_formats_of_the_api(shared: TestClient) -> None:
    url = "/map/folders/{results_id}/images/{name}/download"
    described = get_openapi(title="", version="", routes=shared.app.routes)["paths"][url]["get"]  # type: ignore[attr-defined]
    (formats,) = (one["schema"] for one in described["parameters"] if one["name"] == "format")
    lists = re.findall(
        r"<select[^>]+Format of the download.*?</select>", shared.get("/map").text, re.S
    )
    assert [re.findall('value="(.*?)"', one) for one in lists] == [formats["enum"]] * 2
    # The page of the API fills in the first result.
    assert all(f'["{one}", ' in read_asset("api.js") for one in re.findall(r"{(\w+)}", url))
    refusals = described["responses"]["422"]["description"]
    assert refusals == "The image cannot be used; the format cannot hold the buildings"


def test_a_folder_is_one_download(folder: Path, client: TestClient) -> None:
    write_results(folder, "harbour")
    drawn = "density.png", "density.tif", "density.qml", "heights.city.json", "roof_planes.gpkg"
    for name in drawn:
        (folder / f"harbour_{name}").write_bytes(b"drawn")
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}
    assert client.get("/map/folders/out").json()["images"][0]["city_model"]
    answer = client.get("/map/folders/out/results.zip")
    assert answer.headers["content-disposition"].endswith('"out.zip"')
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == kept


@pytest.mark.parametrize("address", [
    "https://tiles.example.org/{z}/{x}.png",
    "https://{s}.example.org/{z}/{x}/{y}.png",
    "https://example.org;script-src/{z}/{x}/{y}",
])  # fmt: skip
def test_addresses_that_are_no_basemap(address: str) -> None:
    with pytest.raises(ConfigError, match="basemap received"):
        Basemap(address)


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def test_vendored_files_are_those_that_are_listed() -> None:
    vendor = Path(routing.__file__).parent / "static" / "vendor"
    reported = dict(
        line.split()[::-1] for line in (vendor / "VERSION.txt").read_text().splitlines()[4:]
    )
    found = {
        path.name.removesuffix(".gz"): hashlib.sha256(_content(path)).hexdigest()
        for path in vendor.iterdir() if path.name != "VERSION.txt"
    }  # fmt: skip
    assert reported == found
    assert "BSD" in (vendor / "LICENSE.txt").read_text()


def test_folders_and_images(shared: TestClient) -> None:
    assert shared.get("/map/folders").json() == [{"id": "out", "title": "out"}]
    reported = shared.get("/map/folders/out").json()
    assert routing.FolderSummary.model_validate(reported).state == "ready"
    assert reported["message"] == ""
    (image,) = reported["images"]
    assert image == {
        "name": "town", "buildings": 4, "changes": [], "notes": [],
        **dict.fromkeys(("built_up_share", "measured")),
        **dict.fromkeys(("comparison", "city_model", "reviewed"), False),
    }  # fmt: skip
    assert reported["model"] == {"name": "<b>mine</b>", "licence": "", "attribution": ""}


def test_counts_follow_the_filters(shared: TestClient) -> None:
    west, south, east, north = shared.get(TOWN).json()["bounds"]
    middle = (west + east) / 2
    view = {"west": west, "south": south, "east": middle, "north": north}
    reported = shared.get(f"{TOWN}/count", params={**view, "score": 400}).json()
    west, south, east, north = reported.pop("bounds")
    assert view["west"] < west < east < 2 * middle
    assert view["south"] < south < north < view["north"]
    assert reported == {"shown": 3, "total": 4, "shown_in_view": 1, "in_view": 2}
    reported = shared.get(f"{TOWN}/count", params={**view, "score": 400, "size": 1000}).json()
    reported.pop("bounds")
    assert reported == {"shown": 2, "total": 4, "shown_in_view": 0, "in_view": 2}


@pytest.mark.campaign
@pytest.mark.parametrize("address", [
    "/map/folders/other",
    "/map/folders/out/images/other",
    "/map/static/../router.py",
    *(f"{TOWN}/{end}" for end in ("buildings/99", "image/2/4/0", "buildings/99/0/0")),
])  # fmt: skip
def test_what_is_not_there(address: str, shared: TestClient) -> None:
    answer = shared.get(address)
    assert (answer.status_code, "def " in answer.text) == (404, False)


def break_image(folder: Path) -> None:
    with (folder.parent / "town.tif").open("r+b") as image:
        image.seek(image.seek(0, os.SEEK_END) // 3)
        image.write(bytes(4000))


@pytest.mark.parametrize(
    ("change", "note", "missing"),
    [
        (lambda folder: (folder.parent / "town.tif").unlink(),
         "The image town.tif is not where it was.", "image"),
        (lambda folder: Image.new("RGB", (40, 30)).save(folder.parent / "town.tif"),
         "has 40 × 30 pixels, but its mask has 128 × 128", "image"),
        (lambda folder: (folder / "town_buildings.gpkg").write_bytes(b"SQLite format 3\0 no"),
         "cannot be read", "buildings"),
    ],
    ids=["gone", "replaced", "polygons"],
)  # fmt: skip
def test_what_cannot_be_shown_is_a_note(
    folder: Path, client: TestClient, change: Callable[[Path], object], note: str, missing: str
) -> None:
    change(folder)
    scene = client.get(TOWN).json()
    assert (scene[missing], scene["mask"] is None) == (None, False)
    assert note in scene["notes"][0]
    assert str(folder.parent) not in scene["notes"][0]
    if missing == "buildings":
        assert client.get(f"{TOWN}/buildings/{tile_of(client, 15)}").content == b""


@pytest.mark.parametrize(
    ("change", "path", "start"),
    [
        (break_image, "image", "town.tif cannot be read"),
        (lambda folder: (folder / "town_mask.tif").write_bytes(b"II*\0 no more"), "", ""),
    ],
    ids=["image", "mask"],
)
def test_what_is_damaged_is_an_error_without_folders(
    folder: Path, client: TestClient, change: Callable[[Path], object], path: str, start: str
) -> None:
    address = f"{TOWN}/{path}/{tile_of(client, 17)}" if path else TOWN
    change(folder)
    answer = client.get(address)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/data-error")
    assert answer.json()["detail"].startswith(start)
    assert "town" in answer.json()["detail"]
    assert str(folder.parent) not in answer.text


def test_tiles_without_a_crs_have_that_of_their_mask(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "1.tif", np.ones(GRID.shape, "u1"), crs=None, transform=GRID.transform)
    source, reason = find_image(str(tmp_path), {}, tmp_path, GRID)
    assert (source and source.grid, reason) == (GRID, "")


def test_a_scene_without_its_mask(folder: Path, client: TestClient) -> None:
    (folder / "town_mask.tif").unlink()
    record = json.loads((folder / "run.json").read_text())
    record["outputs"][0]["polygons"] = "town_buildings.gpkg"
    (folder / "run.json").write_text(json.dumps(record))
    scene = client.get(TOWN).json()
    assert (scene["mask"], scene["shape"]) == (None, [128, 128])
    (folder.parent / "town.tif").unlink()
    (folder / "town_buildings.gpkg").touch()
    # The polygons have a place of their own.
    alone = client_of(folder).get(TOWN).json()
    assert alone["buildings"]["count"] == scene["buildings"]["count"]
    (folder / "town_buildings.gpkg").rename(folder / "town_preview.png")
    assert "nothing says where it lies" in client_of(folder).get(TOWN).json()["detail"]


def test_a_folder_is_read_again_when_it_has_changed(folder: Path) -> None:
    def settle(seconds: int) -> None:
        for path in (folder / "run.json", folder):
            os.utime(path, (seconds, seconds))

    settle(1_000)
    before = read_results(folder)
    assert read_results(folder) is before
    (folder / "new_mask.tif").touch()
    assert list(read_results(folder).images) == ["new", "town"]
    settle(2_000)
    (folder / "run.json").write_text(json.dumps({"created": "later"}))
    assert read_results(folder).run == {"created": "later"}


def test_images_that_are_called_alike(tmp_path: Path) -> None:
    for name in ("a_mask.tif", "a_density_mask.png", "a_density.tif", "a_polygons.geojson",
                 "b_preview.png", "c_density.tif", "readme.txt"):  # fmt: skip
        (tmp_path / name).touch()
    images = read_results(tmp_path).images
    assert list(images) == ["a", "a_density", "b"]
    assert images["a"].density == tmp_path / "a_density.tif"
    assert images["a_density"].mask == tmp_path / "a_density_mask.png"


def test_the_layer_of_a_catalogue_comes_before_its_scenes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "region/scenes")
    score = {"score": np.array([0.5, 0.9])}
    with PartitionedLayer(tmp_path / "region", 11) as target:
        target.add(shapely.box([33, 33.001], -6, [33.0002, 33.0012], -5.9998), score)
        target.finish({})
    client = client_of(tmp_path / "region")
    assert [one["title"] for one in client.get("/map/folders").json()] == ["region", "scenes"]
    about = client.get("/map/folders/region").json()
    assert [(one["name"], one["buildings"]) for one in about["images"]] == [("buildings", 2)]
    assert about["model"]["name"] == "<b>mine</b>"
    scene = client.get("/map/folders/region/images/buildings").json()
    assert scene["bounds"] == pytest.approx([33, -6, 33.0012, -5.9998], abs=1e-4)
    assert (scene["buildings"]["count"], scene["credit"]) == (2, "© <Town>")
    download = client.get("/map/folders/region/images/buildings/download")
    assert 'filename="region_buildings.gpkg"' in download.headers["content-disposition"]


def test_results_of_several_cities_in_one_folder(folder: Path, tmp_path: Path) -> None:
    for city in ("lagos", "accra"):
        shutil.copytree(folder, tmp_path / "cities" / city)
    (tmp_path / "cities" / "notes").mkdir()
    (tmp_path / "cities" / "tall").mkdir()
    shutil.copy(folder / "town_buildings.gpkg", tmp_path / "cities/tall/town_heights.gpkg")
    figures = {"buildings": 4, "measured": 3}
    record = {**figures, "created": "2026-02-03T04:05:06+00:00"}
    (tmp_path / "cities/tall/town_heights.json").write_text(json.dumps(record))
    # A catalogue keeps its journal when it is finished.
    work = tmp_path / "cities" / "accra" / ".rooftrace"
    work.mkdir()
    (work / "journal.jsonl").touch()
    client = client_of(tmp_path / "cities")
    listed = client.get("/map/folders").json()
    assert [one["title"] for one in listed] == ["accra", "lagos", "tall"]
    assert client.get(f"/map/folders/{listed[0]['id']}").json()["state"] == "running"
    os.utime(work / "journal.jsonl", (1_000, 1_000))
    for one in listed:
        shown = client.get(f"/map/folders/{one['id']}").json()
        assert (shown["state"], [image["name"] for image in shown["images"]]) == ("ready", ["town"])
        assert client.get(f"/map/folders/{one['id']}/images/town").status_code == 200
    assert {name: shown["images"][0][name] for name in figures} == figures
    assert shown["created"] == record["created"]
    # A folder with results of its own is listed before those inside it.
    shutil.copytree(folder, tmp_path / "out2")
    shutil.copytree(folder, tmp_path / "out2" / "later")
    titles = [one["title"] for one in client_of(tmp_path / "out2").get("/map/folders").json()]
    assert titles == ["out2", "later"]


@pytest.mark.parametrize("known", ["name", "record", "option"])
def test_an_image_is_shown_in_its_colours(folder: Path, known: str) -> None:
    # As in images of Planet: blue, green, red, infrared.
    names = ("blue", "green", "red", "nir") if known == "name" else ()
    write_geotiff(
        folder.parent / "town.tif",
        np.zeros((4, 128, 128), np.uint8) + np.array([40, 80, 120, 160], np.uint8)[:, None, None],
        crs=GRID.crs, transform=GRID.transform, photometric="minisblack", descriptions=names,
    )  # fmt: skip
    record = json.loads((folder / "run.json").read_text())
    if known == "record":
        image = record["outputs"][0]["input"]
        record["figures"] = [{"input": image, "values": {"bands": [3, 2, 1]}}]
    elif known == "option":
        record["options"] = {"bands": "3,2,1"}
    (folder / "run.json").write_text(json.dumps(record))
    client = client_of(folder)
    tile = client.get(f"{TOWN}/image/{tile_of(client, 19)}")
    with Image.open(io.BytesIO(tile.content)) as picture:
        pixels = np.asarray(picture.convert("RGBA")).astype(int)
    shown = pixels[pixels[..., 3] == 255]
    assert len(shown) > 1000
    assert np.abs(np.median(shown[:, :3], axis=0) - [120, 80, 40]).max() < 4
