"""The job page: upload a scene, follow its progress, see it on the map, and download it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import rasterio
from affine import Affine

from browser_drop import drop_file
from rooftrace.app.server import create_server
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.jobs.store import JobFile, JobStore
from rooftrace.service.jobs.training import BUNDLE, START, TrainingProgress
from rooftrace.service.service import Service
from rooftrace.service.versions import TrainingSettings
from tiny_models import write_tiny_bundle

pytestmark = pytest.mark.campaign

PATIENCE_MS = 60_000


@pytest.fixture
def url(tmp_path: Path, store: JobStore, serve_app: Callable[[Any], str]) -> Iterator[str]:
    model = tmp_path / "tiny.rooftrace"
    write_tiny_bundle(model, gsd_m=0.5)
    runner = JobRunner(store, model)
    runner.start()
    try:
        settings = TrainingSettings(10.0)
        yield serve_app(create_server(Service.load(model), runner, training=settings))
    finally:
        runner.stop()


def town(path: Path, side: int) -> Path:
    image = np.full((3, side, side), 30, np.uint8)
    for row in range(20, side - 40, 90):
        image[:, row : row + 40, 20 : side - 40 : 90] = 220
        image[:, row : row + 40, 40 : side - 20 : 90] = 220
        for col in range(20, side - 40, 90):
            image[:, row : row + 40, col : col + 40] = 220
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=3, dtype="uint8", compress="zstd",
        crs="EPSG:32636", transform=Affine(0.5, 0, 500_000, 0, -0.5, 9_000_000),
    ) as file:  # fmt: skip
        file.write(image)
    return path


def test_a_scene_from_the_upload_to_the_map(page: Any, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/jobs")
    page.get_by_text("There are no jobs yet.").wait_for()
    drop_file(page, ".drop", town(tmp_path / "town <b>.tif", 4500))
    row = page.locator("li", has_text="town")
    bar = row.locator("progress")
    # The progress moves before the end: each block is reported.
    page.wait_for_function(
        "() => { const bar = document.querySelector('li progress');"
        " return bar && !bar.hidden && bar.value > 0 && bar.value < 1; }",
        timeout=PATIENCE_MS,
    )
    assert re.fullmatch(r"running · \d+ %( · about .+ left)?", row.locator(".state").inner_text())
    page.wait_for_selector("li[data-state=done]", timeout=PATIENCE_MS)
    assert not bar.is_visible()
    assert "2,500 buildings" in row.locator(".figures").inner_text()
    assert row.locator("b").count() == 0
    with page.expect_download() as download:
        row.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.endswith("_results.zip")
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert {"scene_mask.tif", "scene_buildings.gpkg"} <= set(names)
    # The job is listed again after a reload, and its results are on the map.
    page.reload()
    page.wait_for_selector("li[data-state=done]")
    page.locator("li").get_by_role("link", name="Map").click()
    page.get_by_text("2,500 of 2,500 pass the filters").wait_for(timeout=PATIENCE_MS)
    page.wait_for_load_state("networkidle")
    page.get_by_role("link", name="Jobs").click()
    page.locator("li").get_by_role("link", name="Review").click()
    page.get_by_text("0 of 2500 reviewed").wait_for(timeout=PATIENCE_MS)
    page.wait_for_load_state("networkidle")


def test_a_job_is_cancelled_and_removed(page: Any, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/jobs")
    page.set_input_files("#file", town(tmp_path / "long.tif", 9000))
    page.wait_for_selector("li[data-state=running]", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("li[data-state=cancelled]", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Remove").click()
    page.get_by_text("There are no jobs yet.").wait_for()


def test_a_training_is_followed_and_its_version_is_taken_and_taken_back(
    page: Any, url: str, store: JobStore
) -> None:
    event = {"action": "START_TRAINING", "project": {"id": 3, "title": "Zanzibar <b>"}}
    job_id = httpx.post(f"{url}/webhook", json=event, timeout=60).json()["job"]
    page.goto(f"{url}/jobs")
    row = page.locator("li", has_text="Fine-tuning on project 3, Zanzibar <b>")
    row.get_by_text("up to 10 minutes, from brightness-").wait_for()
    # The runner of this server fetches no labels, so the test does the work of the process.
    assert store.claim(training=True)
    row.get_by_text("fetching the labels").wait_for()
    store.training_progress(job_id, TrainingProgress("training", 7, 38, 2.4, 0.7123))
    row.get_by_text("epoch 7 of at most 38 · 2.4 of 10 minutes · best IoU 0.712").wait_for()
    folder = store.folder_of(job_id)
    (folder / "results").mkdir()
    (folder / START).rename(folder / "results" / BUNDLE)
    figures = {
        "version": "tiny-project3-1a2b3c4d", "verdict": "worse", "difference": -0.02,
        "interval": [-0.03, -0.01], "scenes": 12, "epochs": 9, "figures": {}, "notes": [],
    }  # fmt: skip
    store.finish(job_id, figures, [JobFile(BUNDLE, 4)])
    row.get_by_text("tiny-project3-1a2b3c4d: worse than its start model · IoU −0.020").wait_for()
    row.get_by_role("button", name="Use for Label Studio").click()
    row.get_by_text("in use for Label Studio").wait_for()
    assert not row.get_by_role("button", name="Remove").is_visible()
    page.reload()
    row.get_by_role("button", name="Back to the version before").click()
    row.get_by_text("proposed").wait_for()
    row.get_by_role("button", name="Remove").click()
    page.get_by_text("There are no jobs yet.").wait_for()


def test_the_fields_go_with_the_upload(
    page: Any, url: str, store: JobStore, tmp_path: Path
) -> None:
    page.goto(f"{url}/jobs")
    for field, text in (("Metres", "0.5"), ("Threshold", "0.6"), ("Bands", " 3,2,1 "),
                        ("Values", "0,200")):  # fmt: skip
        page.get_by_label(field).fill(text)
    page.set_input_files("#file", town(tmp_path / "town.tif", 300))
    page.wait_for_selector("li[data-state=done]", timeout=PATIENCE_MS)
    (job,) = store.newest(9)
    asked = job.options
    assert (asked.gsd_m, asked.threshold) == (0.5, 0.6)
    assert (asked.bands, asked.stretch) == ("3,2,1", "0,200")


def test_errors_are_sentences(browser: Any, url: str, tmp_path: Path) -> None:
    (tmp_path / "notes.tif").write_text("no image")
    # The page is a separate one, because the expected 4xx answer is an error in the console.
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/jobs")
    page.set_input_files("#file", tmp_path / "notes.tif")
    message = page.locator("#message")
    message.wait_for(timeout=PATIENCE_MS)
    assert "notes.tif has none of the supported image formats" in message.inner_text()
    assert page.locator("li").count() == 0
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((64, 64, 3), np.uint8))
    page.fill("#gsd", "0.5")
    page.set_input_files("#file", tmp_path / "small.png")
    page.wait_for_selector("li[data-state=done]", timeout=PATIENCE_MS)
    assert "0 buildings" in page.locator("li .figures").inner_text()
    assert not message.is_visible()
    context.close()
