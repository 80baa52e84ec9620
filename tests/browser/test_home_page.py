"""The page `/`: see the buildings of a small image at once, follow jobs, and find all results."""

import asyncio
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from affine import Affine

from browser_drop import drop_file
from jobs_server import GATED_CHILD, JobGate
from raster_files import write_geotiff
from rooftrace.app.server import create_server
from rooftrace.service.job_runner import JobRunner
from rooftrace.service.job_store import JobStore
from rooftrace.service.service import Service
from tiny_models import write_tiny_bundle

pytestmark = pytest.mark.campaign

PATIENCE_MS = 240_000


@pytest.fixture
def page(store: JobStore, page: Any) -> Any:
    """Return a page that is closed before the jobs that it polls."""
    return page


@contextmanager
def running(runner: JobRunner, model: Path, serve_app: Callable[[Any], str]) -> Iterator[str]:
    runner.start()
    try:
        yield serve_app(create_server(Service.load(model), runner))
    finally:
        runner.stop()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.rooftrace"
    write_tiny_bundle(path, gsd_m=0.5)
    return path


@pytest.fixture
def url(model: Path, store: JobStore, serve_app: Callable[[Any], str]) -> Iterator[str]:
    with running(JobRunner(store, model), model, serve_app) as address:
        yield address


@pytest.fixture
def gated_url(model: Path, store: JobStore, serve_app: Callable[[Any], str]) -> Iterator[str]:
    """Yield the address of a server whose jobs run only as many tiles as the test allows."""
    runner = JobRunner(store, model, command=(sys.executable, "-c", GATED_CHILD))
    with running(runner, model, serve_app) as address:
        yield address


def town(path: Path, side: int) -> Path:
    image = np.full((3, side, side), 30, np.uint8)
    for row in range(20, side - 40, 90):
        image[:, row : row + 40, 20 : side - 40 : 90] = 220
        image[:, row : row + 40, 40 : side - 20 : 90] = 220
        for col in range(20, side - 40, 90):
            image[:, row : row + 40, col : col + 40] = 220
    write_geotiff(
        path, image, compress="zstd", crs="EPSG:32636",
        transform=Affine(0.5, 0, 500_000, 0, -0.5, 9_000_000),
    )  # fmt: skip
    return path


DONE = "#cards li[data-state=done]"


def test_an_image_from_the_drop_to_the_review(
    page: Any, gated_url: str, store: JobStore, tmp_path: Path
) -> None:
    page.goto(gated_url)
    page.wait_for_selector("main[data-state=empty]")
    # A small image shows its buildings at once.
    drop_file(page, ".drop", town(tmp_path / "town <b>.tif", 900))
    page.wait_for_selector(".rt-stage[data-state=ready]", timeout=PATIENCE_MS)
    assert page.inner_text(".rt-figure.buildings dd") == "100"
    assert page.locator("#now h2").inner_text() == "town <b>.tif"
    assert store.newest(1) == []
    # Kept, it is a job with progress, then a card.
    page.get_by_role("button", name="Keep it").click()
    row = page.locator("#cards li", has_text="town")
    page.wait_for_selector("li[data-state=running]", timeout=PATIENCE_MS)
    (job,) = store.newest(1)
    gate = JobGate(store.folder_of(job.id))

    def half_done() -> bool:
        now = store.get(job.id)
        return now is not None and 0 < now.pixels_done < now.pixels

    # The progress moves before the end: each block is reported.
    gate.step_until(half_done, "a part of the scene")
    page.wait_for_function(
        "() => { const bar = document.querySelector('#cards progress');"
        " return bar && bar.value > 0 && bar.value < 1; }"
    )
    assert re.fullmatch(r"running · \d+ %( · about .+ left)?", row.locator(".state").inner_text())
    gate.open()
    page.wait_for_selector(f"{DONE} .picture img.there", timeout=PATIENCE_MS)
    assert "100 buildings" in row.locator(".figures").inner_text()
    assert row.locator("h3 b").count() == 0
    with page.expect_download() as download:
        row.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.endswith("_results.zip")
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert {"town _b__mask.tif", "town _b__buildings.gpkg"} <= set(names)
    row.get_by_role("link", name="Map").click()
    page.get_by_text("100 of 100 pass the filters").wait_for(timeout=PATIENCE_MS)
    page.wait_for_load_state("networkidle")
    page.get_by_role("link", name="Home").click()
    page.locator(DONE).get_by_role("link", name="Review").click()
    page.get_by_text("0 of 100 reviewed").wait_for(timeout=PATIENCE_MS)
    page.wait_for_load_state("networkidle")


def test_a_large_image_is_a_job_and_a_removed_one_comes_back(
    page: Any, url: str, store: JobStore, tmp_path: Path
) -> None:
    page.goto(url)
    page.locator("#options summary").click()
    for field, text in (("Metres", "0.4"), ("Threshold", "0.6"), ("Bands", " 3,2,1 "),
                        ("Values", "0,200")):  # fmt: skip
        page.locator("#options").get_by_label(field).fill(text)
    paths = [town(tmp_path / name, 300) for name in ("north.tif", "south.tif")]
    page.set_input_files("#file", paths)
    page.wait_for_selector(f"{DONE} + li[data-state=done]", timeout=PATIENCE_MS)
    asked = store.newest(9)[0].options
    assert (asked.gsd_m, asked.threshold) == (0.4, 0.6)
    assert (asked.bands, asked.stretch) == ("3,2,1", "0,200")

    def remove() -> None:
        page.locator("#cards li", has_text="north").locator(".menu summary").click()
        page.get_by_role("button", name="Remove").click()
        page.wait_for_function("() => document.querySelectorAll('#cards li').length === 1")

    remove()
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function("() => document.querySelectorAll('#cards li').length === 2")
    assert len(store.newest(9)) == 2
    remove()
    # A page that is left removes at once.
    page.goto("about:blank")
    page.goto(url)
    page.wait_for_selector(DONE)
    assert page.locator("#cards h3").all_inner_texts() == ["south.tif"]
    assert len(store.newest(9)) == 1
    # What was assumed is changed on the card, and the image runs again.
    page.get_by_role("button", name="change").first.click()
    assert page.locator("#threshold").input_value() == "0.6"
    page.locator("#bands").fill("2,3,1")
    page.get_by_role("button", name="Run south.tif again").click()
    page.wait_for_selector(f"{DONE} + li[data-state=done]", timeout=PATIENCE_MS)
    asked = store.newest(9)[0].options
    assert (asked.gsd_m, asked.threshold, asked.bands) == (0.4, 0.6, "2,3,1")


def test_errors_are_sentences(browser: Any, url: str, tmp_path: Path) -> None:
    (tmp_path / "notes.tif").write_text("no image")
    # The page is a separate one, because the expected 4xx answer is an error in the console.
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    page.set_input_files("#file", tmp_path / "notes.tif")
    message = page.locator(".rt-status[role=alert]")
    message.wait_for(timeout=PATIENCE_MS)
    assert "notes.tif has none of the supported image formats" in message.inner_text()
    page.set_input_files("#file", [tmp_path / "notes.tif"] * 2)
    refused = page.locator("#cards .error").get_by_text("none of the supported image formats")
    refused.nth(1).wait_for()
    page.get_by_role("button", name="Try again").first.click()
    refused.nth(1).wait_for()
    # What is too large to be shown at once becomes a job.
    page.set_input_files("#file", town(tmp_path / "long.tif", 9000))
    page.wait_for_selector("li[data-state=running]", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("li[data-state=cancelled]", timeout=PATIENCE_MS)
    context.close()


def test_an_upload_that_stalls_says_so_and_is_not_left_by_accident(
    page: Any, model: Path, store: JobStore, serve_app: Callable[[Any], str], tmp_path: Path
) -> None:
    app, over = create_server(Service.load(model), JobRunner(store, model)), Event()

    async def stalled(scope: Any, receive: Any, send: Any) -> None:
        # Nothing of the body is read.
        while scope.get("method") == "POST" and not over.is_set():
            await asyncio.sleep(0.1)
        await app(scope, receive, send)

    page.goto(serve_app(stalled))
    page.click("h1")  # a browser asks only who has used the page
    (tmp_path / "large.tif").write_bytes(bytes(40_000_000))
    page.set_input_files("#file", tmp_path / "large.tif")
    state = page.locator("#cards .state", has_text="no connection")
    assert re.fullmatch(r"uploading · .+ of 40 MB · no connection for 1\d s", state.inner_text())
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.close(run_before_unload=True)
    page.get_by_role("button", name="Cancel").click()
    assert asked == ["beforeunload"]
    over.set()


def test_an_example_is_shown_at_once(page: Any, url: str) -> None:
    # With the key in the URL, with which a page can fetch nothing.
    page.goto(url.replace("//", "//me:key@"))
    page.get_by_role("button", name="Old streets").click()
    page.wait_for_selector(".rt-stage[data-state=ready]", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Close").click()
    assert page.locator("#now").is_hidden()
    page.get_by_role("button", name="The whole town").click()
    page.locator("#cards li", has_text="town.tif").wait_for()


def test_a_card_of_several_images_and_the_page_of_the_api_show_them(
    page: Any, model: Path, store: JobStore, serve_app: Callable[[Any], str], town: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = shutil.copytree(town, tmp_path / "two")
    shutil.copy(folder / "scene_mask.tif", folder / "another_mask.tif")
    record = json.loads((folder / "run.json").read_text())
    record["outputs"].append({"mask": "another_mask.tif", "notes": ["Another guess."]})
    (folder / "run.json").write_text(json.dumps(record))
    runner = JobRunner(store, model)
    url = serve_app(create_server(Service.load(model), runner, results=[folder]))
    page.goto(url)
    page.locator("#cards summary", has_text="More").click()
    assert page.locator("#cards p.note").all_inner_texts()[0].strip() == "Another guess."
    assert "It matters." in page.locator("#cards details").first.inner_text()
    page.goto(f"{url}/v1/docs")
    page.wait_for_function("() => document.querySelector('input[name=results_id]').value === 'two'")


def test_the_essentials_of_the_api_are_tried_on_their_page(page: Any, url: str) -> None:
    page.goto(f"{url}/v1/docs")
    article = page.locator("article").first
    article.get_by_role("button", name="Python").click()
    assert page.locator("pre[data-language=Python]").first.is_visible()
    assert page.locator("pre[data-language=curl]").first.is_hidden()
    assert f'httpx.post("{url}/v1/predict"' in article.inner_text()
    article.get_by_role("button", name="Try").click()
    page.wait_for_function("() => document.querySelector('output').textContent.startsWith('200')")
    assert "FeatureCollection" in article.locator("output").inner_text()
    # The others are folded, and a link opens one.
    assert page.locator(".op[open]").count() == 0
    page.goto(f"{url}/v1/docs#get/healthz")
    page.wait_for_selector(".op[open]")
