"""Fixtures for tests with a real browser and real servers; skipped without chromium."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import shapely
from PIL import Image

from local_server import serving_app
from rooftrace.core.types import Footprints, Window
from rooftrace.density.accumulate import DensityAccumulator
from rooftrace.density.files import DEFAULT_THRESHOLD, write_density
from rooftrace.flows.compare.options import CompareOptions
from rooftrace.flows.compare.run import run_compare
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector_write import write_footprints
from town import generate_scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Software rendering, because the map needs WebGL and test machines have no graphics card.
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
LOCAL = {"127.0.0.1", "localhost"}

PATIENCE_MS = 240_000
"""Time limit of a wait; a machine under load is slow, and a page that works ends it early."""


# The scope is a module and not longer, because a running browser keeps an event loop in this
# thread, and asynchronous tests need their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def serve_app() -> Iterator[Callable[[Any], str]]:
    """Return a function that runs an application during the test and returns its address."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(serving_app(app))


@pytest.fixture
def page(browser: Browser, serve_app: Callable[[Any], str]) -> Iterator[Page]:
    """A page that fails the test on any error and on any request to another machine.

    It needs `serve_app` so that it is closed before the servers that it asks for news.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []

    def check_request(request: Any) -> None:
        address = urlsplit(request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.hostname not in LOCAL:
            problems.append(f"request to another machine: {request.url}")

    def check_message(message: Any) -> None:
        if message.type == "error":
            problems.append(f"console: {message.text}")

    page.on("request", check_request)
    page.on("console", check_message)
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    yield page
    context.close()
    assert not problems, problems


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image without buildings."""
    path = tmp_path_factory.mktemp("field") / "field.png"
    Image.fromarray(np.full((200, 300, 3), 30, np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, town: Path, two_dates: Path, field: Path
) -> Iterator[str]:
    """Address of a whole server: results, a comparison, a finished job and a camera."""
    from rooftrace.app.server import create_server
    from rooftrace.service.job_runner import JobRunner
    from rooftrace.service.job_store import JobStore
    from rooftrace.service.live import CameraSource, LiveCamera
    from rooftrace.service.service import Service
    from tiny_models import write_tiny_bundle
    from video_files import town as frame
    from video_files import write_video

    folder = tmp_path_factory.mktemp("site")
    model = write_tiny_bundle(folder / "tiny.rooftrace", gsd_m=0.5)
    clip = write_video(folder / "flight.mp4", (frame(n, (180, 320)) for n in range(20)))
    service = Service.load(model)
    with ExitStack() as stack:
        store = JobStore(folder / "jobs")
        runner = JobRunner(store, model)
        camera = LiveCamera(CameraSource("Yard", str(clip)), service.predictor)
        runner.start()
        stack.callback(runner.stop)
        stack.callback(camera.close, 60)
        app = create_server(service, runner, results=[town, two_dates], cameras=[camera])
        url = stack.enter_context(serving_app(app))
        sent = httpx.post(
            f"{url}/v1/jobs?filename=field.png&gsd=0.5", content=field.read_bytes(),
            headers={"Content-Type": "application/octet-stream"}, timeout=60,
        ).raise_for_status()  # fmt: skip
        end = time.monotonic() + PATIENCE_MS / 1000
        while store.get(sent.json()["id"]).state != "done":
            assert time.monotonic() < end, "the job is not done"
            time.sleep(0.1)
        yield url


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a small scene in which every other building has a high score."""
    folder = tmp_path_factory.mktemp("map") / "town"
    folder.mkdir()
    scene = generate_scene(3, (512, 512), 0.3)
    image, _ = scene.write(folder.parent, "scene")
    geometry = np.array(scene.buildings, np.object_)
    number = np.arange(len(geometry))
    buildings = Footprints(
        geometry, np.where(number % 2, 0.9, 0.3).astype(np.float32), shapely.area(geometry),
        scene.grid.crs,
    )  # fmt: skip
    write_footprints(folder / "scene_buildings.gpkg", buildings)
    with mask_sink(folder / "scene_mask.tif", scene.grid) as sink:
        sink.write(Window.whole(scene.grid.shape), scene.mask())
    density = DensityAccumulator(scene.grid, 50)
    density.feed(Window.whole(scene.grid.shape), scene.mask())
    density.add(density.ground.reproject(buildings.geometry, buildings.crs))
    write_density(folder / "scene_density", density.finish(), DEFAULT_THRESHOLD, "scene")
    output = {"input": str(image), "mask": "scene_mask.tif", "buildings": len(buildings)}
    notes = ["The scale is a guess. Check it with gsd=0.3. It matters."]
    record = {
        "bundle": {"name": "a model <i>of mine</i>"},
        "outputs": [output | {"notes": notes}],
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def two_dates(town: Path) -> Path:
    """The town, an older map of it with buildings that are gone, and their comparison."""
    scene = generate_scene(3, (512, 512), 0.3)
    number = np.arange(len(scene.buildings))
    for name, kept in (("new", number % 3 != 0), ("old", number % 4 != 0)):
        geometry = np.array(scene.buildings, np.object_)[kept]
        layer = Footprints(
            geometry, np.ones(len(geometry), np.float32), shapely.area(geometry), scene.grid.crs
        )
        write_footprints(town.parent / f"{name}.gpkg", layer)
    results = town.parent / "dates"
    run_compare(
        town.parent / "new.gpkg", town.parent / "old.gpkg", results,
        CompareOptions(imagery=(town.parent / "scene.tif",)),
    )  # fmt: skip
    return results
