"""Clicks on roofs in the review of the map, with the mouse and by keyboard alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

from fastapi import FastAPI

from clicked_town import HALL, ObedientEngine, click_model, write_results
from rest_service import app_with
from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.app.map.review import clicks_router, review_router
from rooftrace.app.map.router import map_router
from rooftrace.rest.pages import face_router

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Serve = Callable[[Any], str]

PATIENCE_MS = 240_000

pytestmark = pytest.mark.campaign

REVIEWED = "() => window.rooftrace?.review?.current"
REVIEW = "v1/results/town/images/town/review"
COUNTS = f"async () => (await (await fetch('{REVIEW}')).json()).counts"
MODE = "() => rooftrace.review.mode"
AREA = """() => {
    const [ring] = rooftrace.review.mode.outline.coordinates;
    const twice = (sum, [x, y], at) => sum + ring[at][0] * y - x * ring[at][1];
    return Math.abs(ring.slice(1).reduce(twice, 0));
}"""


def app_of(folder: Path) -> FastAPI:
    catalogue = ResultsCatalogue([folder])
    clicks = clicks_router(catalogue, lambda: click_model(ObedientEngine()))
    return app_with(face_router(), map_router(catalogue), review_router(catalogue), clicks)


@pytest.fixture
def address(tmp_path: Path, serve_app: Serve) -> str:
    write_results(tmp_path / "town")
    return f"{serve_app(app_of(tmp_path / 'town'))}/map#town/town/review"


@pytest.fixture
def other_page(browser: Browser, address: str) -> Iterator[Page]:
    """A page that may be refused; the browser reports such answers as errors."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
    page.evaluate("() => rooftrace.review.settled()")


def place_of(page: Page, row: float, col: float) -> tuple[float, float]:
    """Return the position of a pixel of the image on the page."""
    x, y = page.evaluate(
        """([across, down]) => {
            const [west, south, east, north] = rooftrace.scene.bounds;
            const at = [west + across * (east - west), north - down * (north - south)];
            const {x, y} = rooftrace.map.project(at);
            const {left, top} = rooftrace.map.getCanvas().getBoundingClientRect();
            return [left + x, top + y];
        }""",
        [col / 300, row / 200],
    )
    return x, y


def click(page: Page, row: float, col: float, **more: Any) -> None:
    for key in more.get("modifiers", ()):
        page.keyboard.down(key)
    page.mouse.click(*place_of(page, row, col))
    for key in more.get("modifiers", ()):
        page.keyboard.up(key)
    page.wait_for_timeout(50)
    page.evaluate("() => rooftrace.review.settled()")


def middle(place: tuple[int, int, int, int]) -> tuple[float, float]:
    top, left, height, width = place
    return top + height / 2, left + width / 2


def test_a_roof_is_clicked_corrected_and_added(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_function(REVIEWED)
    page.evaluate("() => rooftrace.map.fitBounds(rooftrace.scene.bounds, {animate: false})")
    hint = page.locator("#review-hint")
    page.locator("[data-do=click]").click()
    click(page, *middle(HALL))
    assert "adds it as a new building" in hint.inner_text()
    whole = page.evaluate(AREA)
    # Shift and Alt take away, and so does the button.
    for key in ("Shift", "Alt"):
        click(page, middle(HALL)[0], 125, modifiers=[key])
        assert page.evaluate(AREA) < 0.97 * whole
        press(page, "Delete")
        assert page.evaluate(AREA) == pytest.approx(whole)
    page.locator("#click-outside").click()
    assert page.locator("#click-outside").get_attribute("aria-pressed") == "true"
    click(page, middle(HALL)[0], 125)
    assert page.evaluate(AREA) < 0.97 * whole
    # A reload keeps the clicks.
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.wait_for_function(REVIEWED)
    page.evaluate("() => rooftrace.review.settled()")
    assert [one["inside"] for one in page.evaluate(MODE)["clicks"]] == [True, False]
    assert page.evaluate(COUNTS)["added"] == 0
    press(page, "Enter")
    assert page.evaluate(COUNTS)["added"] == 1
    assert page.evaluate(MODE) is None
    press(page, "z")
    assert page.evaluate(COUNTS)["reviewed"] == 0
    # Escape gives up.
    press(page, "c")
    click(page, *middle(HALL))
    press(page, "Escape")
    assert page.evaluate(MODE) is None
    assert page.evaluate(COUNTS)["reviewed"] == 0


def test_what_cannot_be_answered_is_said(other_page: Page, address: str, tmp_path: Path) -> None:
    page = other_page
    page.goto(address)
    page.wait_for_function(REVIEWED)
    page.evaluate("() => rooftrace.map.fitBounds(rooftrace.scene.bounds, {animate: false})")
    message = page.locator("#review-message")
    press(page, "c", "Enter")
    assert message.inner_text() == "Click a roof first."
    click(page, 80, 180)
    assert "No building was found there" in page.locator("#review-hint").inner_text()
    press(page, "Delete", "x")
    click(page, 80, 180)
    assert message.inner_text().startswith("Click on the building first")
    press(page, "x")
    # Nothing of a click that was refused stays.
    (tmp_path / "town.tif").rename(tmp_path / "away.tif")
    with page.expect_response("**/clicks") as refused:
        page.mouse.click(*place_of(page, *middle(HALL)))
    assert refused.value.status == 422
    page.evaluate("() => rooftrace.review.settled()")
    assert "is not where it was" in message.inner_text()
    assert page.evaluate(MODE)["clicks"] == []
