"""Clicks of a review over HTTP, with an engine that takes every bright pixel for a building."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

pytest.importorskip("fastapi")

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from pyproj import CRS

from clicked_town import GRID, HALL, ObedientEngine, click_model, roof, write_results
from rest_service import app_with
from rooftrace.app.map import review as module
from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.app.map.review import MAX_CLICKS, ClickSessions, clicks_router, review_router
from rooftrace.core.errors import BusyError
from rooftrace.io.reproject import transform_points
from rooftrace.models.clicks import Click
from rooftrace.predict.clicks import ClickSegmenter
from town import generate_scene

TOWN = "/v1/results/out/images/town/review"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_results(tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def engine() -> ObedientEngine:
    return ObedientEngine()


def client_of(folder: Path, engine: ObedientEngine) -> TestClient:
    catalogue = ResultsCatalogue([folder])
    clicks = clicks_router(catalogue, lambda: click_model(engine))
    return TestClient(app_with(review_router(catalogue), clicks))


@pytest.fixture
def client(folder: Path, engine: ObedientEngine) -> TestClient:
    return client_of(folder, engine)


def at(row: float, col: float) -> list[float]:
    """Return the longitude and latitude of a pixel."""
    x, y = GRID.to_world(np.array([col]), np.array([row]))
    lonlat = transform_points(np.stack([x, y], axis=1), GRID.crs, CRS(4326))
    return [float(value) for value in lonlat[0]]


def pixels_of(outline: dict[str, Any]) -> shapely.Geometry:
    def moved(lonlat: np.ndarray) -> np.ndarray:
        return GRID.to_pixels(transform_points(lonlat, CRS(4326), GRID.crs))

    return shapely.transform(shapely.geometry.shape(outline), moved)


def ask(client: TestClient, *clicks: tuple[list[float], bool], of: str = TOWN) -> Any:
    body = {"clicks": [{"position": position, "inside": inside} for position, inside in clicks]}
    return client.post(f"{of}/clicks", json=body)


def test_a_click_gives_the_outline_and_saves_nothing(client: TestClient, folder: Path) -> None:
    answer = ask(client, (at(145, 85), True))
    assert answer.status_code == 200
    found = answer.json()
    assert found["parts"] == 1
    assert found["score"] > 0.5
    drawn, hall = pixels_of(found["outline"]), roof(HALL)
    assert drawn.intersection(hall).area / drawn.union(hall).area > 0.95
    assert not list(folder.glob("*_review.gpkg"))


def test_the_outline_is_added_or_replaces_another_and_can_be_undone(
    client: TestClient, folder: Path
) -> None:
    outline = ask(client, (at(145, 85), True)).json()["outline"]
    change = {"action": "add", "reviewer": "Ada", "outline": outline}
    added = client.post(f"{TOWN}/changes", json=change).json()["buildings"][0]
    assert added["status"] == "added"
    smaller = ask(client, (at(30, 210), True), (at(36, 222), False)).json()["outline"]
    redraw = {
        "action": "redraw", "reviewer": "Ada", "outline": smaller,
        "buildings": [{"id": 1, "revision": 0}],
    }  # fmt: skip
    assert client.post(f"{TOWN}/changes", json=redraw).json()["buildings"][0]["status"] == "changed"
    # Another reviewer who has not seen it is refused, as for an outline that was drawn.
    late = client.post(f"{TOWN}/changes", json=redraw | {"reviewer": "Bo"})
    assert (late.status_code, late.json()["type"]) == (409, "/problems/review-conflict")
    for counts in ({"changed": 0, "added": 1}, {"changed": 0, "added": 0}):
        client.post(f"{TOWN}/undo", json={"reviewer": "Ada"})
        now = client.get(TOWN).json()["counts"]
        assert {name: now[name] for name in counts} == counts


def test_a_further_click_takes_away_and_costs_only_its_own_views(
    client: TestClient, engine: ObedientEngine
) -> None:
    first = (at(145, 85), True)
    whole = pixels_of(ask(client, first).json()["outline"]).area
    once, beside = engine.calls, (at(145, 125), False)
    less = pixels_of(ask(client, first, beside).json()["outline"]).area
    assert less < whole - 100
    further = engine.calls - once
    # The same clicks again run nothing; a click that was taken back begins anew.
    ask(client, first, beside)
    assert engine.calls == once + further
    assert pixels_of(ask(client, first).json()["outline"]).area == pytest.approx(whole)


def test_clicks_on_two_roofs_give_the_larger_part(client: TestClient) -> None:
    found = ask(client, (at(30, 210), True), (at(145, 85), True)).json()
    assert found["parts"] == 2
    assert pixels_of(found["outline"]).intersects(roof(HALL))


def test_dark_ground_has_no_outline(client: TestClient) -> None:
    found = ask(client, (at(80, 60), True)).json()
    assert found["outline"] is None
    assert (found["parts"], found["score"]) == (0, 0.0)


def test_too_many_clicks_and_a_first_one_beside_the_building(
    client: TestClient, engine: ObedientEngine
) -> None:
    many = ask(client, *[(at(145, 85), True)] * (MAX_CLICKS + 1))
    assert (many.status_code, many.json()["type"]) == (422, "/problems/invalid-request")
    beside = ask(client, (at(80, 60), False))
    assert beside.status_code == 422
    assert "Click on the building first" in beside.json()["remedy"]
    assert engine.calls == 0


def test_names_are_looked_up(client: TestClient) -> None:
    for of in (
        TOWN.replace("out", "job-0123456789abcdef"), TOWN.replace("town", "city"),
        TOWN.replace("town", "..%2Ftown"),
    ):  # fmt: skip
        assert ask(client, (at(145, 85), True), of=of).status_code == 404


def test_an_image_without_a_place(tmp_path: Path, engine: ObedientEngine) -> None:
    write_results(tmp_path / "out", georeferenced=False)
    client = client_of(tmp_path / "out", engine)
    # One pixel is one metre of the map, and the middle of the image is at 0, 0.
    turn = 360 / 40_075_016.685578488
    position = [(85 - 150) * turn, (100 - 145) * turn]
    found = ask(client, (position, True)).json()
    corners = np.array(found["outline"]["coordinates"][0]) / turn
    assert np.ptp(corners[:, 0]) == pytest.approx(90, abs=2)
    assert np.ptp(corners[:, 1]) == pytest.approx(50, abs=2)
    assert corners[:, 0].min() == pytest.approx(40 - 150, abs=2)
    added = client.post(
        f"{TOWN}/changes", json={"action": "add", "reviewer": "A", "outline": found["outline"]}
    )
    assert added.status_code == 200


CLICKS = [Click(30, 30), Click(34, 30), Click(60, 60, positive=False)]


class WaitingEngine(ObedientEngine):
    """An engine that waits until the test opens it."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def run(self, batch):  # type: ignore[no-untyped-def]
        self.begun.set()
        assert self.go.wait(60)
        return super().run(batch)


def test_too_many_requests_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAITING", 2)
    engine, sessions = WaitingEngine(), ClickSessions(4)
    model, image = click_model(engine), generate_scene(1, (96, 96), 0.3).image

    def answer(name: str) -> float:
        return sessions.answer(name, lambda: ClickSegmenter(image, model), CLICKS).score

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(answer, "first")
        assert engine.begun.wait(60)
        second = pool.submit(answer, "second")
        # The second request waits for the first, and then a third one has no room.
        while sessions._room._value:
            assert not second.done()
        with pytest.raises(BusyError, match="Too many clicks wait"):
            answer("third")
        engine.go.set()
        assert first.result(60) == second.result(60)
    assert answer("third") == first.result()
