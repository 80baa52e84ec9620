"""The viewer on the page `/` in a real browser: its threshold and options."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from affine import Affine

from raster_files import write_geotiff
from rooftrace.app.server import create_server
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.service.decode import Limits
from rooftrace.service.job_runner import JobRunner
from rooftrace.service.job_store import JobStore
from rooftrace.service.service import Service

pytest.importorskip("playwright")

pytestmark = pytest.mark.campaign

ROOFS = ((20, 30, 250), (20, 120, 200), (90, 30, 160), (90, 120, 140), (90, 180, 140))
"""Row, column and brightness of buildings of 30 by 40 pixels."""


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service(Predictor(tiny_bundle(), PointwiseEngine()), Limits())
    made.warm()
    yield made
    made.close()


@pytest.fixture
def address(service: Service, store: JobStore, serve_app: Callable[[Any], str]) -> str:
    return serve_app(create_server(service, JobRunner(store, Path("tiny.rooftrace"))))


def town() -> np.ndarray:
    image = np.full((3, 150, 240), 30, np.uint8)
    for row, col, bright in ROOFS:
        image[:, row : row + 30, col : col + 40] = bright
    return image


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """`town.tif` at 0.5 m, `flat.png` without a georeference, and the damaged `broken.tif`."""
    place = {"crs": "EPSG:32636", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 100_000)}
    shape = {"driver": "GTiff", "height": 150, "width": 240, "count": 3}
    write_geotiff(tmp_path / "town.tif", town(), **shape, **place)
    cv2.imwrite(str(tmp_path / "flat.png"), np.moveaxis(town(), 0, -1))
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + b"\xff" * 400)
    return tmp_path


def drop(page: Any, *paths: Path) -> None:
    page.set_input_files("#file", [str(path) for path in paths])


def open_page(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("main:not([data-state=loading])")


def ready(page: Any, threshold: float) -> None:
    page.wait_for_selector(f'.rt-stage[data-state="ready"][data-threshold="{threshold:g}"]')
    page.wait_for_function(
        "at => document.querySelector('.rt-figure.buildings .more').textContent.endsWith(at)",
        arg=f" {threshold:g}",
    )


def buildings(page: Any) -> int:
    return int(page.inner_text(".rt-figure.buildings dd"))


def filled(page: Any) -> int:
    return int(page.get_attribute(".rt-stage", "data-filled"))


def pixels(page: Any) -> np.ndarray:
    """Return a screenshot of the picture, (y, x, 3)."""
    shot = page.locator(".rt-frame").screenshot()
    return cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR).astype(int)


def slide(page: Any, value: float) -> None:
    slider = page.locator("#slider")
    slider.evaluate(
        "(one, to) => { one.value = to; one.dispatchEvent(new Event('input', {bubbles: true})); }",
        str(value),
    )


# The address comes first, so that its server stops last, after the browser has closed.
def test_the_threshold_acts_without_the_network(
    address: str, page: Any, images: Path, service: Service
) -> None:
    open_page(page, address)
    drop(page, images / "town.tif")
    ready(page, 0.5)
    assert buildings(page) == 5
    assert filled(page) == 5 * 1200
    assert page.inner_text(".rt-figure.share dd") == "16.7 %"
    assert page.inner_text(".rt-figure.density dd") == "sparse"
    assert page.inner_text(".rt-figure.scale dd") == "0.5 m/px"
    assert page.locator(".rt-scalebar span").inner_text() == "20 m"
    box = page.locator(".rt-frame").bounding_box()
    assert box["y"] + box["height"] < 900, "the first answer is seen without scrolling"
    before = pixels(page)
    asked = service.figures().batches

    slide(page, 0.6)
    # The page changes at once, before the server has answered.
    assert filled(page) == 3 * 1200
    ready(page, 0.6)
    assert buildings(page) == 3
    assert page.inner_text(".rt-figure.share dd") == "10.0 %"
    assert (np.abs(pixels(page) - before).max(axis=-1) > 20).mean() > 0.03

    page.locator("#slider").press("ArrowRight")
    ready(page, 0.605)
    slide(page, 0.1)
    ready(page, 0.1)
    assert buildings(page) == 1
    assert page.inner_text(".rt-figure.density dd") == "dense"
    assert service.figures().batches == asked


def test_metres_can_be_entered(address: str, page: Any, images: Path) -> None:
    open_page(page, address)
    drop(page, images / "flat.png")
    ready(page, 0.5)
    assert page.inner_text(".rt-figure.scale dd") == "not known"
    page.click("#options summary")
    page.fill("#gsd", "0.25")
    page.click("#again")
    page.wait_for_selector("text=0.25 m/px")
    page.wait_for_selector(".rt-scalebar:not([hidden])")


def test_the_example_and_a_narrow_screen(address: str, page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, address)
    page.click("[data-example=streets]")
    ready(page, 0.5)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, "nothing is wider than the screen"
    assert page.inner_text(".rt-figure.scale dd") == "0.3 m/px"
