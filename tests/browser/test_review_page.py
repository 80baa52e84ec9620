"""The review of the map in a browser, by keyboard alone, with a server that is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

import shapely
from fastapi import FastAPI

from rest_service import app_with
from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.app.map.review import review_router
from rooftrace.app.map.router import map_router
from rooftrace.core.types import Footprints, Window
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector_read import VectorFile
from rooftrace.io.vector_write import write_footprints
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.rest.pages import face_router
from town import generate_scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.campaign

Serve = Callable[[Any], str]

REVIEWED = "() => window.rooftrace?.review?.current"
PROGRAM = """
import sys, threading, time, uvicorn
from pathlib import Path
from test_review_page import app_of
app = app_of(Path(sys.argv[1]))
server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, ws="none"))
threading.Thread(target=server.run).start()
while not server.started:
    time.sleep(0.02)
print(server.servers[0].sockets[0].getsockname()[1], flush=True)
"""


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """Results of a small scene, without compression of the scores."""
    folder = tmp_path / "town"
    folder.mkdir()
    scene = generate_scene(3, (256, 256), 0.3)
    image, _ = scene.write(tmp_path, "scene")
    geometry = np.array(scene.buildings, np.object_)
    assert len(geometry) > 12
    buildings = Footprints(
        geometry, np.linspace(0.3, 0.9, len(geometry), dtype=np.float32), shapely.area(geometry),
        scene.grid.crs,
    )  # fmt: skip
    write_footprints(folder / "scene_buildings.gpkg", buildings)
    with mask_sink(folder / "scene_mask.tif", scene.grid) as sink:
        sink.write(Window.whole(scene.grid.shape), scene.mask())
    outputs = [{"input": str(image), "mask": "scene_mask.tif", "buildings": len(geometry)}]
    record = {"outputs": outputs, "options": {"threshold": 0.3}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def app_of(folder: Path) -> FastAPI:
    catalogue = ResultsCatalogue([folder])
    return app_with(face_router(), map_router(catalogue), review_router(catalogue))


@contextmanager
def killed_server(folder: Path) -> Iterator[str]:
    """Run a server that is killed at the end of the block, and yield its address."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.send_signal(signal.SIGKILL)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
    page.evaluate("() => rooftrace.review.settled()")


def progress(page: Page) -> str:
    return page.locator("#review-progress").inner_text()


def test_ten_buildings_by_keyboard_alone_survive_a_reload_and_a_kill(
    page: Page, serve_app: Serve, town: Path, tmp_path: Path
) -> None:
    total = len(VectorFile(town / "scene_buildings.gpkg").read())
    before = (town / "scene_buildings.gpkg").read_bytes()
    with killed_server(town) as address:
        page.goto(f"{address}/map")
        page.locator("#review-on").wait_for()
        page.locator("#review-on").focus()
        page.keyboard.press("Enter")
        page.wait_for_function(REVIEWED)
        # The lowest score is nearest to the threshold.
        assert page.evaluate("rooftrace.review.current.id") == 1
        press(page, *"aaaarraaa")
        # One corner of the tenth is moved.
        press(page, "e", "n", *["ArrowRight"] * 5, "Enter")
        assert progress(page) == f"10 of {total} reviewed"
        assert "corrected" in page.locator("#review-now").inner_text()
        press(page, "n", "r")
        assert progress(page) == f"11 of {total} reviewed"
        press(page, "z")
        assert progress(page) == f"10 of {total} reviewed"
        page.reload()
        page.wait_for_function(REVIEWED)
        assert progress(page) == f"10 of {total} reviewed"
        # The page looks for changes of others, and must not do so while there is no server.
        page.goto("about:blank")
    page.goto(f"{serve_app(app_of(town))}/map#town/scene/review")
    page.wait_for_function(REVIEWED)
    assert progress(page) == f"10 of {total} reviewed"
    # Keys wait for a slow answer, and none is lost.
    held: list[Any] = []
    page.route("**/review/next?*", lambda route: held.append(route))
    with page.expect_request("**/review/next?*"):
        page.keyboard.press("n")
    for key in ("s", "Space", "Enter"):
        page.keyboard.press(key)
    held[0].continue_()
    press(page)
    page.unroute("**/review/next?*")
    assert "at least 2 corners" in page.locator("#review-message").inner_text()
    press(page, "Escape", "?")
    assert page.locator("#review-keys").is_visible()
    page.keyboard.press("Escape")
    path = tmp_path / "labels.gpkg"

    def exported(link: str) -> list[str]:
        with page.expect_download() as download:
            page.locator(link).focus()
            page.keyboard.press("Enter")
        download.value.save_as(path)
        return sorted(VectorFile(path).read(("review",)).values["review"].tolist())

    # What was not rejected is exported, and the page says what that is.
    shown = page.locator("#review-export").inner_text()
    assert f"Download {total - 2} buildings" in shown
    assert f"(2 rejected, {total - 10} not reviewed)" in shown
    assert exported("[data-open^=inc]") == ["accepted"] * 7 + ["changed"] + ["open"] * (total - 10)
    assert page.locator("[data-open=leave-out]").get_attribute("href") is None
    # Many at once: those in a rectangle, those that the model is sure of, and the rest.
    press(page, "v", *["Shift+ArrowLeft"] * 8, *["Shift+ArrowUp"] * 8, "Space")
    press(page, *["Shift+ArrowRight"] * 16, *["Shift+ArrowDown"] * 16, "Space")
    inside = int(progress(page).split()[0])
    assert 10 < inside < total
    press(page, "z")
    assert progress(page) == f"10 of {total} reviewed"
    page.locator("#review-many summary").click()
    for button in ("sure", "rest"):
        page.locator(f"[data-do={button}]").click()
        page.evaluate("() => rooftrace.review.settled()")
    assert progress(page) == f"{total} of {total} reviewed"
    assert exported("[data-open=leave-out]") == ["accepted"] * (total - 3) + ["changed"]
    assert (town / "scene_buildings.gpkg").read_bytes() == before
    # The export is labels for the next training.
    (scene,) = open_source(SourceConfig(path=str(path), images=str(tmp_path / "scene.tif")))
    assert scene.label is not None
    assert scene.label.read().data.any()
    # The map, which shows the prediction, leads to the reviewed buildings.
    page.click("#review-on")
    assert len(exported("#unreviewed a")) == total - 2


def test_a_drawing_that_was_not_saved_survives_a_reload(
    page: Page, serve_app: Serve, town: Path
) -> None:
    address = serve_app(app_of(town))
    asked: list[str] = []

    def answer(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    page.goto(f"{address}/map#town/scene/review")
    page.wait_for_function(REVIEWED)
    shown = "() => JSON.stringify(rooftrace.review.mode?.rings ?? rooftrace.review.mode?.points)"
    message = page.locator("#review-message")

    def reload() -> None:
        page.reload()
        page.wait_for_function(REVIEWED)
        page.evaluate("() => rooftrace.review.settled()")

    # A choice of a corner is no drawing yet.
    press(page, "e", "n")
    reload()
    assert page.evaluate("rooftrace.review.mode") is None
    assert asked == []
    press(page, "n", "e", "n", *["ArrowRight"] * 5)
    number, moved = page.evaluate("rooftrace.review.current.id"), page.evaluate(shown)
    reload()
    assert asked == ["beforeunload"]
    assert (page.evaluate("rooftrace.review.current.id"), page.evaluate(shown)) == (number, moved)
    assert message.inner_text().startswith("Your drawing was not saved")
    # Another reviewer decides about the building before the drawing is saved.
    change = {
        "action": "reject", "reviewer": "Bo", "buildings": [{"id": number, "revision": 0}],
    }  # fmt: skip
    path = "/v1/results/town/images/scene/review"
    assert httpx.post(f"{address}{path}/changes", json=change).status_code == 200
    reload()
    assert message.inner_text().startswith("Bo has changed this building since you drew")
    assert page.evaluate(shown) == moved
    press(page, "Enter")
    assert "corrected" in page.locator("#review-now").inner_text()
    reload()
    assert page.evaluate("rooftrace.review.mode") is None
    # A new building, which is cancelled.
    press(page, "b", "Space", "Shift+ArrowRight", "Space")
    points = page.evaluate(shown)
    reload()
    assert page.evaluate(shown) == points
    press(page, "Delete", "Delete")
    reload()
    assert page.evaluate("rooftrace.review.mode") is None
    press(page, "b", "Space", "Escape")
    reload()
    assert page.evaluate("rooftrace.review.mode") is None
    assert asked == ["beforeunload"] * 3


def test_two_reviewers_at_once_see_the_conflict(
    browser: Browser, page: Page, serve_app: Serve, town: Path
) -> None:
    address = f"{serve_app(app_of(town))}/map#town/scene/review"
    other = browser.new_page()
    for one, name in ((page, "Ada"), (other, "Bo")):
        one.goto(address)
        one.wait_for_function(REVIEWED)
        one.fill("#review-name", name)
        one.locator("#review-name").blur()
    press(page, "a")
    press(other, "r")
    message = other.locator("#review-message").inner_text()
    assert re.match(r"Nothing was saved: Ada has changed building 1.*accepted now", message)
    # The reviewer sees the building as it is now, and may decide again.
    assert "accepted by Ada" in other.locator("#review-now").inner_text()
    press(other, "r")
    assert other.locator("#review-message").is_hidden()
    other.close()


def test_buildings_are_drawn_split_merged_and_added(
    page: Page, serve_app: Serve, town: Path
) -> None:
    page.goto(f"{serve_app(app_of(town))}/map#town/scene/review")
    page.wait_for_function(REVIEWED)
    left, top, right, bottom = page.evaluate(
        """() => {
            const map = rooftrace.map, [ring] = rooftrace.review.current.outline.coordinates;
            const points = ring.map((at) => map.project(at));
            const [x, y] = ["x", "y"].map((axis) => points.map((one) => one[axis]));
            const box = map.getCanvas().getBoundingClientRect();
            return [Math.min(...x) + box.left, Math.min(...y) + box.top,
                    Math.max(...x) + box.left, Math.max(...y) + box.top];
        }"""
    )
    middle = (top + bottom) / 2
    press(page, "s")
    page.mouse.click(left - 20, middle)
    page.mouse.click(right + 20, middle)
    press(page, "Enter")
    counts = """async () =>
        (await (await fetch("v1/results/town/images/scene/review")).json()).counts"""
    found = page.evaluate(counts)
    assert (found["changed"], found["added"]) == (1, 1)
    # Both pieces become one again.
    page.wait_for_function("() => rooftrace.map.loaded()")
    press(page, "m")
    page.wait_for_function("() => rooftrace.review.mode?.kind === 'merge'")
    piece = page.evaluate("rooftrace.review.mode.near.findIndex((one) => one.status === 'added')")
    press(page, *"n" * piece, "Enter")
    assert page.evaluate(counts)["rejected"] == 1
    press(page, "z", "z")
    assert page.evaluate(counts)["reviewed"] == 0
    # A corner is dragged with the mouse.
    press(page, "e")
    page.wait_for_function("() => rooftrace.map.loaded()")
    page.wait_for_timeout(300)
    x, y = page.evaluate(
        """() => {
            const {x, y} = rooftrace.map.project(rooftrace.review.mode.rings[0][2]);
            const {left, top} = rooftrace.map.getCanvas().getBoundingClientRect();
            return [left + x, top + y];
        }"""
    )
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 12, y + 9)
    page.mouse.up()
    press(page, "Enter")
    assert page.evaluate(counts)["changed"] == 1
    # A new building by keyboard: corners under the cross.
    right, down = ["Shift+ArrowRight"] * 3, ["Shift+ArrowDown"] * 3
    press(page, "b", *right, "Space", *right, "Space", *down, "Space", "Enter")
    assert page.evaluate(counts)["added"] == 1
