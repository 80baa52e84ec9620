"""The page of jobs: a scene is sent, followed to its end, seen on the map, and taken."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine

from rooftrace.app.server import create_server
from rooftrace.engines.selftest import tiny_bundle
from rooftrace.models.bundle import write_bundle
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.service import Service

PATIENCE_MS = 60_000


@pytest.fixture
def url(tmp_path: Path, serve_app: Callable[[Any], str]) -> Iterator[str]:
    model = tmp_path / "tiny.rooftrace"
    tiny = tiny_bundle()
    write_bundle(model, tiny.spec.model_copy(update={"gsd_m": 0.5}), tiny.parts)
    store = JobStore(tmp_path / "jobs")
    runner = JobRunner(store, model)
    runner.start()
    try:
        yield serve_app(create_server(Service.load(model), runner))
    finally:
        runner.stop()
        store.close()


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
    page.set_input_files("#file", town(tmp_path / "town <b>.tif", 4500))
    page.get_by_role("button", name="Start").click()
    row = page.locator("li", has_text="town")
    bar = row.locator("progress")
    # It moves before it is done: blocks are told one by one.
    page.wait_for_function(
        "() => { const bar = document.querySelector('li progress');"
        " return bar && !bar.hidden && bar.value > 0 && bar.value < 1; }",
        timeout=PATIENCE_MS,
    )
    page.wait_for_selector("li[data-state=done]", timeout=PATIENCE_MS)
    assert not bar.is_visible()
    assert "2,500 buildings" in row.locator(".figures").inner_text()
    assert row.locator("b").count() == 0
    with page.expect_download() as download:
        row.get_by_role("link", name="Download").click()
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert {"scene_mask.tif", "scene_buildings.gpkg"} <= set(names)
    # What is there is shown again, and goes on being so on the map.
    page.reload()
    page.wait_for_selector("li[data-state=done]")
    page.locator("li").get_by_role("link", name="Map").click()
    page.get_by_text("2,500 of 2,500 pass the filters").wait_for(timeout=PATIENCE_MS)
    page.wait_for_load_state("networkidle")


def test_a_job_is_cancelled_and_removed(page: Any, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/jobs")
    page.set_input_files("#file", town(tmp_path / "long.tif", 9000))
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("li[data-state=running]", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("li[data-state=cancelled]", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Remove").click()
    page.get_by_text("There are no jobs yet.").wait_for()


def test_what_is_wrong_is_a_sentence(browser: Any, url: str, tmp_path: Path) -> None:
    (tmp_path / "notes.tif").write_text("no image")
    # A page of its own: to the console an answer of 4xx is an error, and here it is looked for.
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/jobs")
    page.set_input_files("#file", tmp_path / "notes.tif")
    page.get_by_role("button", name="Start").click()
    told = page.locator("#told")
    told.wait_for(timeout=PATIENCE_MS)
    assert "notes.tif is none of the image formats" in told.inner_text()
    assert page.locator("li").count() == 0
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((64, 64, 3), np.uint8))
    page.set_input_files("#file", tmp_path / "small.png")
    page.fill("#gsd", "0.5")
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("li[data-state=done]", timeout=PATIENCE_MS)
    assert "0 buildings" in page.locator("li .figures").inner_text()
    assert not told.is_visible()
    context.close()
