"""A person's whole way: drop a large scene, review it by keyboard, lose the server, export."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("gradio")
pytest.importorskip("playwright")

import shapely
from pyproj import Transformer

from browser_drop import drop_file
from jobs_server import GATED_CHILD, JobGate, wait_until
from raster_files import write_geotiff
from rooftrace.io.vector_read import VectorFile
from tiny_models import write_tiny_bundle

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.campaign

PATIENCE_MS = 60_000
SERVE = f"""
import runpy, sys
from rooftrace.service.jobs import runner
# The process of a job waits for the test, so that the percent is seen on any machine.
command = (sys.executable, "-c", {GATED_CHILD!r})
runner.JobRunner.__init__.__kwdefaults__["command"] = command
sys.argv[0] = "rooftrace"
runpy.run_module("rooftrace", run_name="__main__")
"""
REVIEWED = "() => window.rooftrace?.review?.current"

Start = Callable[[], str]


class Server:
    """`rooftrace serve` as a process, which the test kills and starts again.

    Args:
        jobs: Folder of the jobs.
        model: Path of the bundle.
    """

    def __init__(self, jobs: Path, model: Path) -> None:
        self._options = ["-m", str(model), "--jobs", str(jobs), "--max-upload", "0.5", "--json"]
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self) -> str:
        """Start it on the port that it had before, and return its address."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve", "--port", str(self.port), *self._options],
            stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert self._process.stdout is not None
        url = str(json.loads(self._process.stdout.readline())["url"])
        self.port = int(url.rpartition(":")[2])
        wait_until(lambda: httpx.get(f"{url}/readyz", timeout=60).status_code == 200, "ready")
        return url

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    model = write_tiny_bundle(tmp_path / "tiny.rooftrace", gsd_m=0.5)
    made = Server(tmp_path / "jobs", model)
    yield made
    made.kill()


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Callable[[], Page]]:
    """Return a function that opens a page as another person, which fails on errors of scripts.

    A page without its server has errors in the console, which are expected here.
    """
    errors: list[str] = []
    with ExitStack() as stack:

        def open_one() -> Page:
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("pageerror", lambda error: errors.append(str(error)))
            return page

        yield open_one
    assert not errors, errors


def write_scene(path: Path) -> Path:
    """Write a GeoTIFF of 2.4 MB at 0.5 m per pixel with 100 roofs."""
    image = np.full((3, 900, 900), 30, np.uint8)
    for row in range(20, 860, 90):
        for col in range(20, 860, 90):
            image[:, row : row + 40, col : col + 40] = 220
    return write_geotiff(path, image)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
    page.evaluate("() => rooftrace.review.settled()")


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the link or button of this name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.textContent.trim()") == name:
            return
    raise AssertionError(f"Tab does not reach {name}")


def name_reviewer(page: Page, name: str) -> None:
    page.fill("#review-name", name)
    page.locator("#review-name").blur()


def current(page: Page) -> int:
    return int(page.evaluate("() => rooftrace.review.current.id"))


def progress(page: Page) -> str:
    return page.locator("#review-progress").inner_text()


def exported(page: Page, path: Path) -> dict[int, tuple[str, str]]:
    """Export what was accepted by keyboard, and return decision and reviewer by building."""
    with page.expect_download() as download:
        page.locator("[data-format=gpkg]").focus()
        page.keyboard.press("Enter")
    download.value.save_as(path)
    values = VectorFile(path).read(("id", "review", "reviewer")).values
    rows = zip(values["id"].tolist(), values["review"].tolist(), values["reviewer"].tolist())
    return {int(number): (review, reviewer) for number, review, reviewer in rows}


def test_the_whole_way_of_a_scene_loses_nothing(
    server: Server, open_page: Callable[[], Page], tmp_path: Path
) -> None:
    url = server.start()
    page = open_page()
    # A scene over the page's limit becomes a job by itself.
    page.goto(f"{url}/demo")
    page.wait_for_selector(".rt-empty")
    drop_file(page, ".rt-empty", write_scene(tmp_path / "city.tif"))

    def jobs() -> list[dict[str, Any]]:
        return list(httpx.get(f"{url}/v1/jobs", timeout=60).json()["jobs"])

    wait_until(lambda: len(jobs()) == 1, "the scene is a job")
    job_id = jobs()[0]["id"]
    folder = tmp_path / "jobs" / "jobs" / job_id
    page.goto(f"{url}/jobs")
    page.wait_for_selector("#jobs [data-state=running]")
    gate = JobGate(folder)
    gate.step_until(lambda: 0 < jobs()[0]["progress"]["share"] < 1, "a part of the scene")
    page.wait_for_function(
        "() => /running · [1-9]\\d* %/.test(document.querySelector('.state').textContent)"
    )
    gate.open()
    page.wait_for_selector("#jobs [data-state=done]")
    predicted = folder / "results" / "scene_buildings.gpkg"
    before = predicted.read_bytes()

    # Ten buildings by keyboard alone, of which one gets another outline.
    tab_to(page, "Review")
    page.keyboard.press("Enter")
    page.wait_for_function(REVIEWED)
    name_reviewer(page, "Ada")
    decided: dict[int, tuple[str, str]] = {}
    rejected: set[int] = set()
    for key in "aaraararaa":
        if key == "r":
            rejected.add(current(page))
        else:
            decided[current(page)] = ("accepted", "Ada")
        press(page, key)
    assert progress(page) == "10 of 100 reviewed"
    press(page, "p")
    fixed = current(page)
    press(page, "e", "n", *["Shift+ArrowRight"] * 2)
    ring = page.evaluate("() => rooftrace.review.mode.rings[0]")
    press(page, "Enter")
    decided[fixed] = ("changed", "Ada")
    page.reload()
    page.wait_for_function(REVIEWED)
    assert progress(page).endswith("of 100 reviewed")

    # The server is killed while the page is open: what is decided meanwhile is not lost unnoticed.
    reviewed = progress(page)
    server.kill()
    at = current(page)
    press(page, "a")
    assert "server does not answer" in page.locator("#review-message").inner_text()
    assert (current(page), progress(page)) == (at, reviewed)
    assert server.start() == url
    press(page, "a")
    assert page.locator("#review-message").is_hidden()
    decided[at] = ("accepted", "Ada")

    # Two people at once: the second one sees what the first one did, and decides again.
    other = open_page()
    other.goto(page.url)
    other.wait_for_function(REVIEWED)
    name_reviewer(other, "Bo")
    press(page, "n")
    shared = current(other)
    while current(page) != shared:
        press(page, "n")
    press(page, "a")
    press(other, "r")
    assert "Ada has changed building" in other.locator("#review-message").inner_text()
    press(other, "r")
    rejected.add(shared)
    decided[current(other)] = ("accepted", "Bo")
    press(other, "a")

    # Another program holds the review: the page says so, and saves when it can.
    review = folder / "results" / "scene_review.gpkg"
    mine = current(page)
    while mine in decided or mine in rejected:
        press(page, "n")
        mine = current(page)
    with closing(sqlite3.connect(review, isolation_level=None)) as program:
        program.execute("BEGIN EXCLUSIVE")
        page.keyboard.press("a")
        page.get_by_text("held by another program").wait_for()
    page.evaluate("() => rooftrace.review.settled()")
    assert page.locator("#review-message").is_hidden()
    decided[mine] = ("accepted", "Ada")

    # All decisions are in the export and in the zip, and the prediction is as it was.
    path = tmp_path / "city_reviewed.gpkg"
    assert exported(page, path) == decided
    found = VectorFile(path).read(("id",))
    outline = found.geometry[[int(number) for number in found.values["id"]].index(fixed)]
    to_layer = Transformer.from_crs(4326, found.crs, always_xy=True)
    drawn = shapely.Polygon(np.transpose(to_layer.transform(*np.transpose(ring))))
    assert shapely.hausdorff_distance(outline, drawn) < 0.01
    assert predicted.read_bytes() == before
    packed = httpx.get(f"{url}/v1/jobs/{job_id}/results.zip", timeout=60).content
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        (tmp_path / "copy.gpkg").write_bytes(archive.read("scene_review.gpkg"))
    with closing(sqlite3.connect(tmp_path / "copy.gpkg")) as file:
        (layer,) = file.execute("SELECT table_name FROM gpkg_geometry_columns").fetchone()
        rows = file.execute(f"SELECT fid FROM {layer} WHERE status = 'rejected'").fetchall()
    assert {row[0] for row in rows} == rejected
    page.goto(f"{url}/jobs")
    page.get_by_text("reviewed: kept until you remove it").wait_for()
