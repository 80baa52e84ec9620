"""A comparison on the map: its images, its layers and its statuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import shapely.affinity

pytest.importorskip("fastapi")

from affine import Affine
from fastapi.testclient import TestClient
from pyproj import CRS

from rest_service import app_with
from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.app.map.review import review_router
from rooftrace.app.map.router import map_router
from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.flows.compare.options import CompareOptions
from rooftrace.flows.compare.outputs import COLOURS
from rooftrace.flows.compare.run import run_compare
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector_write import write_footprints
from rooftrace.io.web_mercator import unit_position
from town import generate_scene

LEFT, TOP = 524_000, 9_318_000
GRID = GeoGrid((128, 128), Affine(0.5, 0, LEFT, 0, -0.5, TOP), CRS(32736))
HOUSES = [shapely.box(LEFT + x, TOP - 20, LEFT + x + 8, TOP - 10) for x in (5, 20, 35, 50)]
COMPARE = "/map/folders/out--compared/images/compare"


def write_date(folder: Path, name: str, houses: list[Any]) -> Path:
    """Results of one date of the scene, and its image beside the folder."""
    folder.mkdir(exist_ok=True)
    scene = generate_scene(1, (128, 128), 0.5)
    image, _ = scene.write(folder.parent, name)
    with mask_sink(folder / f"{name}_mask.tif", scene.grid) as sink:
        sink.write(Window.whole(scene.grid.shape), np.zeros(scene.grid.shape, np.uint8))
    moved = [
        shapely.affinity.translate(
            one, scene.grid.bounds_xy[0] - LEFT, scene.grid.bounds_xy[3] - TOP
        )
        for one in houses
    ]
    buildings = Footprints(
        np.array(moved), np.full(len(houses), 0.9, np.float32), np.full(len(houses), 80.0),
        scene.grid.crs,
    )  # fmt: skip
    write_footprints(folder / f"{name}_buildings.gpkg", buildings)
    record = {"outputs": [{"input": str(image), "mask": f"{name}_mask.tif"}]}
    (folder / "run.json").write_text(json.dumps(record))
    return folder / f"{name}_buildings.gpkg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison in which two buildings are the same, one is new and two are gone."""
    place = tmp_path_factory.mktemp("compared")
    south = [shapely.affinity.translate(house, 0, -20) for house in HOUSES[:2]]
    new = write_date(place / "out", "today", HOUSES[:3])
    old = write_date(place / "before", "then", [*HOUSES[:2], *south])
    run_compare(new, old, place / "out" / "compared")
    return place / "out"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The same comparison, for a test that changes it."""
    shutil.copytree(folder.parent, tmp_path / "copy")
    return tmp_path / "copy" / "out"


@pytest.fixture(scope="module")
def client(folder: Path) -> TestClient:
    return client_of(folder)


def client_of(folder: Path) -> TestClient:
    catalogue = ResultsCatalogue([folder])
    return TestClient(app_with(map_router(catalogue), review_router(catalogue)))


def test_a_comparison_below_a_results_folder_is_listed(client: TestClient) -> None:
    assert client.get("/map/folders").json() == [
        {"id": "out", "title": "out"}, {"id": "out--compared", "title": "compared"}
    ]  # fmt: skip
    reported = client.get("/map/folders/out--compared").json()
    [image] = reported["images"]
    assert (reported["state"], image["name"], image["comparison"]) == ("ready", "compare", True)
    assert image["changes"] == ["1 new", "2 gone"]
    assert reported["created"].endswith("+00:00")  # its making, as the cards of predictions
    # Notes name files, without the folders of the server.
    assert "today_mask.tif" in " ".join(image["notes"])
    assert "/" not in " ".join(image["notes"])


def test_a_comparison_with_a_map_has_its_own_words(folder: Path, tmp_path: Path) -> None:
    old = folder.parent / "before" / "then_buildings.gpkg"
    options = CompareOptions(reference=True)
    run_compare(folder, old, tmp_path / "map", options)
    client = client_of(tmp_path / "map")
    [image] = client.get("/map/folders/map").json()["images"]
    assert image["changes"] == ["1 only found", "2 only in the map"]
    scene = client.get("/map/folders/map/images/compare").json()
    assert scene["image"] is not None  # that of the folder of a prediction
    found = {name: scene["buildings"]["class_counts"][index]
             for index, name in scene["buildings"]["classes"].items()}  # fmt: skip
    assert found == {"same": 2, "only found": 1, "only in the map": 2}


def test_statuses_are_classes_with_the_colours_of_the_report(client: TestClient) -> None:
    scene = client.get(COMPARE).json()
    found = {name: scene["buildings"]["class_counts"][index]
             for index, name in scene["buildings"]["classes"].items()}  # fmt: skip
    assert found == {"same": 2, "new": 1, "gone": 2}
    world = "west=-180&south=-85&east=180&north=85"
    counts = client.get(f"{COMPARE}/count?{world}").json()
    assert (counts["total"], counts["shown_in_view"]) == (5, 5)
    assert scene["colours"] == {
        index: COLOURS[name] for index, name in scene["buildings"]["classes"].items()
    }
    assert scene["comparison"] == {"new": "today_buildings.gpkg", "old": "then_buildings.gpkg"}
    assert scene["buildings"]["scores"] is None


def test_both_images_are_shown(client: TestClient) -> None:
    scene = client.get(COMPARE).json()
    assert scene["image"] is not None
    west, south, east, north = scene["old"]["bounds"]
    x, y = unit_position((west + east) / 2, (south + north) / 2)
    for layer in ("image", "old"):
        tile = client.get(f"{COMPARE}/{layer}/19/{int(x * 2**19)}/{int(y * 2**19)}")
        assert tile.headers["content-type"] == "image/webp"
        assert len(tile.content) > 1000


def test_a_layer_of_another_tool(copied: Path) -> None:
    client, layer = client_of(copied), copied / "compared" / "compare.gpkg"
    layer.unlink()
    other = Footprints(np.array(HOUSES[:1]), np.ones(1, np.float32), np.full(1, 80.0), GRID.crs)
    write_footprints(layer, other)
    scene = client.get(COMPARE).json()
    assert scene["buildings"] is None
    assert "has no" in scene["notes"][-1]
    layer.unlink()
    write_footprints(layer, Footprints(np.array(HOUSES[:1]), np.ones(1, np.float32),
                                       np.full(1, 80.0), None))  # fmt: skip
    assert "has no CRS" in client.get(COMPARE).json()["detail"]
