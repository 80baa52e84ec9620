"""The review of a results folder over HTTP."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

pytest.importorskip("fastapi")

from affine import Affine
from fastapi.testclient import TestClient
from pyproj import CRS

from rest_service import app_with
from rooftrace.app.map.results import ResultsCatalogue, read_results
from rooftrace.app.map.review import review_router
from rooftrace.app.map.review_scene import reviewed_layers
from rooftrace.app.map.router import map_router
from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector_read import VectorFile
from rooftrace.io.vector_write import write_footprints
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from town import generate_scene

GRID = GeoGrid((128, 128), Affine(0.5, 0, 524_000, 0, -0.5, 9_318_000), CRS(32736))
SCORES = (0.95, 0.4, 0.6, 0.8)
LEFT, TOP = 524_000, 9_318_000
HOUSES = [shapely.box(LEFT + x, TOP - 20, LEFT + x + 8, TOP - 10) for x in (5, 20, 35, 50)]
TOWN = "/v1/results/out/images/town/review"


def write_results(folder: Path, grid: GeoGrid = GRID, houses: list[Any] = HOUSES) -> None:
    folder.mkdir(exist_ok=True)
    generate_scene(1, (128, 128), 0.5).write(folder.parent, "town")
    with mask_sink(folder / "town_mask.tif", grid) as sink:
        sink.write(Window.whole(grid.shape), np.zeros(grid.shape, np.uint8))
    buildings = Footprints(
        np.array(houses), np.array(SCORES, np.float32), np.array([80.0] * 4), grid.crs,
        perimeter_m=np.array([36.0] * 4),
    )  # fmt: skip
    write_footprints(folder / "town_buildings.gpkg", buildings)
    record = {"outputs": [{"mask": "town_mask.tif"}], "options": {"threshold": 0.45}}
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_results(tmp_path / "out")
    return tmp_path / "out"


def client_of(folder: Path) -> TestClient:
    catalogue = ResultsCatalogue([folder])
    return TestClient(app_with(review_router(catalogue), map_router(catalogue)))


@pytest.fixture
def client(folder: Path) -> TestClient:
    return client_of(folder)


def decide(client: TestClient, action: str, *seen: tuple[int, int], **more: Any) -> Any:
    body = {
        "action": action, "reviewer": "Ada",
        "buildings": [{"id": number, "revision": revision} for number, revision in seen], **more,
    }  # fmt: skip
    return client.post(f"{TOWN}/changes", json=body)


def following(client: TestClient, **query: Any) -> int | None:
    found = client.get(f"{TOWN}/next", params=query).json()["building"]
    return None if found is None else found["id"]


def test_the_most_doubtful_come_first(client: TestClient) -> None:
    order = [following(client)]
    for _ in range(4):
        order.append(following(client, start=order[-1]))
    # Scores 0.4, 0.6, 0.8 and 0.95 against the threshold 0.45; then it begins again.
    assert order == [2, 3, 4, 1, 2]
    assert following(client, start=2, backwards=True) == 1
    assert following(client, status="rejected") is None
    decide(client, "reject", (3, 0))
    assert following(client, start=2) == 4
    assert following(client, status="rejected") == 3
    assert following(client, status="accepted") is None


def test_accept_reject_and_undo(client: TestClient, folder: Path) -> None:
    before = (folder / "town_buildings.gpkg").read_bytes()
    answer = decide(client, "accept", (1, 0)).json()
    assert answer["buildings"][0]["status"] == "accepted"
    decide(client, "reject", (2, 0), (3, 0))
    state = client.get(TOWN).json()
    assert state["counts"] == {
        "total": 4, "reviewed": 3, "open": 1, "accepted": 1, "rejected": 2, "changed": 0,
        "added": 0,
    }  # fmt: skip
    assert [(one["id"], one["row"]) for one in state["buildings"]] == [(1, 0), (2, 1), (3, 2)]
    assert state["buildings"][0]["outline"] is None
    assert [one["id"] for one in client.get(TOWN, params={"after": 1}).json()["buildings"]] == [
        2,
        3,
    ]
    undone = client.post(f"{TOWN}/undo", json={"reviewer": "Ada"}).json()
    assert [one["status"] for one in undone["buildings"]] == ["open", "open"]
    assert client.post(f"{TOWN}/undo", json={"reviewer": "Bo"}).json()["buildings"] == []
    assert (folder / "town_buildings.gpkg").read_bytes() == before


def test_a_conflict_shows_the_state_of_the_other(client: TestClient) -> None:
    decide(client, "accept", (1, 0))
    answer = decide(client, "reject", (1, 0))
    assert answer.status_code == 409
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "/problems/review-conflict"
    assert "Ada has changed building 1" in problem["detail"]
    (other,) = problem["buildings"]
    assert (other["status"], other["revision"], other["reviewer"]) == ("accepted", 1, "Ada")
    assert decide(client, "reject", (1, 1)).status_code == 200


def outline_of(client: TestClient, number: int) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{TOWN}/buildings/{number}").json()["outline"]
    return found


def test_one_corner_is_moved(folder: Path) -> None:
    layer = gpd.read_file(folder / "town_buildings.gpkg", layer="town_buildings")
    measured = layer.assign(height=5.5, samples=900, height_reason=None, num_floors=2)
    measured["units"] = measured["id"].where(measured["id"] > 1).astype("Int64")
    measured.to_file(folder / "town_buildings.gpkg", layer="town_buildings")
    client = client_of(folder)
    outline = outline_of(client, 1)
    ring = [list(xy) for xy in outline["coordinates"][0]]
    ring[1][0] += 1e-5
    outline["coordinates"] = [ring]
    answer = decide(client, "redraw", (1, 0), outline=outline)
    assert answer.json()["buildings"][0]["status"] == "changed"
    state = client.get(TOWN).json()["buildings"]
    assert state[0]["outline"]["type"] == "Polygon"
    data = client.get(f"{TOWN}/export", params={"format": "geojson", "open": "leave-out"}).json()
    (feature,) = data["features"]
    assert feature["properties"]["review"] == "changed"
    assert feature["properties"]["perimeter_m"] is None
    # A height is that of an outline; floors that a map states are those of the building.
    kept = [feature["properties"][name] for name in ("height", "samples", "num_floors", "units")]
    assert kept == [None, None, 2, None]
    assert feature["properties"]["height_reason"] == "outline drawn in the review"
    # The house has 8 × 10 metres, and a corner was moved by 1.1 m.
    assert feature["properties"]["area_m2"] == pytest.approx(80, abs=6)
    assert feature["properties"]["area_m2"] != 80


@pytest.mark.parametrize(("outer", "inner"), [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_the_area_of_a_courtyard_house_for_rings_of_any_direction(
    client: TestClient, outer: int, inner: int
) -> None:
    outline = outline_of(client, 1)
    corners = np.array(outline["coordinates"][0])[:4]
    (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
    ring = np.array([(west, south), (east, south), (east, north), (west, north), (west, south)])
    middle = corners.mean(axis=0)
    hole = middle + (ring - middle) / 2
    outline["coordinates"] = [ring[::outer].tolist(), hole[::inner].tolist()]
    assert decide(client, "redraw", (1, 0), outline=outline).status_code == 200
    data = client.get(f"{TOWN}/export", params={"format": "geojson", "open": "leave-out"}).json()
    # The house has 80 m², and half of either side makes a quarter of them.
    assert data["features"][0]["properties"]["area_m2"] == pytest.approx(60, rel=0.03)


@pytest.mark.parametrize(
    ("action", "seen", "more", "status", "words"),
    [
        ("redraw", [(1, 0)], {}, 422, "needs outline"),
        ("accept", [], {}, 422, "expected 1 to 1000"),
        ("add", [(1, 0)], {}, 422, "expected 0"),
        ("accept", [(99, 0)], {}, 409, "no longer exists"),
        ("add", [], {"outline": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 0]]]}},
         422, "outline"),
        ("add", [], {"outline": {"type": "Polygon",
         "coordinates": [[[0, 0], [1e-4, 0], [0, 1e-4], [0, 0]]]}}, 422, "outside of the scene"),
        ("add", [], {"outline": {"type": "Polygon",
         "coordinates": [[[0, 90], [1, 90], [0, -90], [0, 0]]]}}, 422, "outline"),
    ],
)  # fmt: skip
def test_changes_that_are_refused(
    client: TestClient, folder: Path, action: str, seen: list[Any], more: Any, status: int,
    words: str,
) -> None:  # fmt: skip
    answer = decide(client, action, *seen, **more)
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert client.get(TOWN).json()["revision"] == 0


def test_a_first_change_names_the_polygons_that_it_saw(client: TestClient, folder: Path) -> None:
    seen = client.get(TOWN).json()["polygons"]
    write_results(folder, houses=HOUSES[::-1])
    answer = decide(client, "accept", (1, 0), polygons=seen)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/review-error")
    assert "predicted again" in answer.json()["detail"]
    assert not read_results(folder).images["town"].reviewed
    now = client.get(TOWN).json()["polygons"]
    assert decide(client, "accept", (1, 0), polygons=now).status_code == 200
    # A review says nothing about polygons of a later prediction.
    assert list(reviewed_layers(folder)) == ["town_reviewed.gpkg"]
    write_results(folder)
    assert reviewed_layers(folder) == {}


@pytest.mark.filterwarnings("ignore:The given matrix")
def test_a_flat_scene(tmp_path: Path) -> None:
    houses = [shapely.box(x, 20, x + 8, 30) for x in (5, 20, 35, 50)]
    write_results(tmp_path / "out", GeoGrid((128, 128), Affine.identity()), houses)
    client = client_of(tmp_path / "out")
    answer = decide(client, "redraw", (1, 0), outline=outline_of(client, 1)).json()
    assert answer["buildings"][0]["status"] == "accepted"
    data = client.get(f"{TOWN}/export", params={"format": "geojson", "open": "leave-out"}).json()
    assert shapely.geometry.shape(data["features"][0]["geometry"]).bounds == (5, 20, 13, 30)
    refused = client.get(f"{TOWN}/export", params={"format": "pmtiles", "open": "leave-out"})
    assert refused.status_code == 422
    assert refused.json()["type"] == "/problems/unfit-format"
    assert "town_reviewed.pmtiles: " in refused.json()["detail"]


def test_many_open_buildings_are_decided_at_once(client: TestClient) -> None:
    decide(client, "reject", (2, 0))

    def counts(**change: Any) -> tuple[int, dict[str, int]]:
        made = client.post(f"{TOWN}/bulk", json={"reviewer": "Ada", **change})
        assert made.status_code == 200, made.text
        return made.json()["changed"], client.get(TOWN).json()["counts"]

    scores = [one["score"] for one in (client.get(f"{TOWN}/buildings/{n}").json() for n in (1, 3))]
    changed, now = counts(min_score=max(scores))
    assert 1 <= changed < 3
    assert (now["accepted"], now["rejected"]) == (changed, 1)
    # One undo takes all of them back, and they can be decided again.
    client.post(f"{TOWN}/undo", json={"reviewer": "Ada"})
    west, south, east, north = shapely.geometry.shape(outline_of(client, 3)).bounds
    assert counts(bounds=[west, south, east, north])[0] == 1
    changed, now = counts()
    assert (changed, now["open"], now["accepted"], now["rejected"]) == (2, 0, 3, 1)
    assert counts()[0] == 0
    assert client.post(f"{TOWN}/bulk", json={"bounds": [1, 2]}).status_code == 422


def test_an_export_is_labels(client: TestClient, folder: Path, tmp_path: Path) -> None:
    decide(client, "accept", (1, 0))
    decide(client, "reject", (2, 0))
    ring = outline_of(client, 3)["coordinates"][0]
    south = [[x, y - 1.5e-4] for x, y in ring]
    made = decide(client, "add", outline={"type": "Polygon", "coordinates": [south]})
    assert made.json()["buildings"][0]["id"] == 5
    for treated, ids in (("leave-out", [1, 5]), ("include", [1, 3, 4, 5])):
        answer = client.get(f"{TOWN}/export", params={"open": treated})
        assert answer.headers["content-disposition"].endswith('"town_reviewed.gpkg"')
        path = tmp_path / "labels.gpkg"
        path.write_bytes(answer.content)
        assert VectorFile(path).read(("id",), typed=True).values["id"].tolist() == ids
    # The zip of the folder has the same file.
    packed = client.get("/map/folders/out/results.zip").content
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        path = Path(archive.extract("town_reviewed.gpkg", tmp_path))
    read = VectorFile(path).read(("id", "review", "score", "reviewer"), typed=True)
    assert (read.values["id"].tolist(), read.crs) == (ids, GRID.crs)
    assert read.values["review"].tolist() == ["accepted", "open", "open", "added"]
    assert read.values["reviewer"].tolist() == ["Ada", None, None, "Ada"]
    assert np.isnan(read.values["score"][-1])
    # An open building has the coordinates of the prediction.
    assert shapely.equals_exact(read.geometry[1], HOUSES[2])
    source = open_source(SourceConfig(path=str(path), images=str(folder / "town_mask.tif")))
    (scene,) = source
    assert scene.label is not None
    # 8 × 10 m are 320 pixels of half a metre.
    assert scene.label.read().data.sum() == pytest.approx(4 * 320, abs=20)


def test_open_buildings_can_be_unknown_ground_in_labels(
    client: TestClient, folder: Path, tmp_path: Path
) -> None:
    decide(client, "accept", (1, 0))
    decide(client, "reject", (2, 0))
    path = tmp_path / "labels.geojson"
    query = {"open": "ignore", "format": "geojson"}
    path.write_bytes(client.get(f"{TOWN}/export", params=query).content)
    (scene,) = open_source(SourceConfig(path=str(path), images=str(folder / "town_mask.tif")))
    assert scene.label is not None
    mask = scene.label.read()
    # House 1 is a building, house 2 is ground, houses 3 and 4 are unknown.
    at = [(30, 25), (30, 50), (30, 80), (30, 110)]
    assert [bool(mask.valid[place]) for place in at] == [True, True, False, False]
    assert [int(mask.data[place]) for place in at[:2]] == [1, 0]
