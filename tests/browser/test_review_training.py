"""The button "Train on these corrections" of the review, and the progress of its job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

from fastapi import FastAPI

from clicked_town import write_results
from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.app.map.review import review_router
from rooftrace.app.map.router import map_router
from rooftrace.app.map.training import training_router
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.rest.face import face_router
from rooftrace.rest.problems import install_problems
from rooftrace.service.jobs.job import TrainingProgress
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.service import Service
from rooftrace.service.versions import ModelVersions

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.campaign

PATIENCE_MS = 240_000
REVIEWED = "() => window.rooftrace?.review?.current"
FIGURES = {
    "version": "brightness-review-12345678", "verdict": "better", "difference": 0.0612,
    "interval": [0.021, 0.099], "scenes": 7, "epochs": 9, "figures": {}, "notes": [],
}  # fmt: skip


@pytest.fixture
def page(browser: Browser, serve_app: Callable[[Any], str]) -> Any:
    """A page that may be refused; the browser reports such answers as errors."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


def test_the_training_is_started_and_its_verdict_is_shown(
    page: Page, serve_app: Callable[[Any], str], tmp_path: Path, store: JobStore
) -> None:
    write_results(tmp_path / "town")
    service = Service(Predictor(tiny_bundle(), PointwiseEngine()))
    versions = ModelVersions(service, store, 2.0)
    app = FastAPI()
    install_problems(app)
    catalogue = ResultsCatalogue([tmp_path / "town"])
    app.include_router(face_router())
    app.include_router(map_router(catalogue, trains=True))
    app.include_router(review_router(catalogue))
    app.include_router(training_router(catalogue, versions))
    address = serve_app(app)
    page.goto(f"{address}/map#town/town/review")
    page.wait_for_function(REVIEWED)
    button, state = page.locator("#training-start"), page.locator("#training-state")
    page.wait_for_function("() => document.querySelector('#training-state').textContent")
    assert state.inner_text() == "Decide about some buildings first."
    assert button.is_disabled()
    change = {"action": "accept", "reviewer": "Ada", "buildings": [{"id": 1, "revision": 0}]}
    review = f"{address}/v1/results/town/images/town/review"
    assert httpx.post(f"{review}/changes", json=change).status_code == 200
    page.reload()
    has_text = "(text) => document.querySelector('#training-state').textContent.includes(text)"
    page.wait_for_function(has_text, arg="up to 2 minutes")
    assert button.is_enabled()
    # One building is not enough.
    button.click()
    message = page.locator("#review-message")
    message.wait_for()
    assert "lie on 1 chip of ground; expected at least 4" in message.inner_text()
    # Houses are added in other corners.
    corners = page.evaluate("rooftrace.scene.bounds")
    west, south, east, north = corners
    across, down = (east - west) / 30, (north - south) / 30
    for x, y in ((0, 0), (26, 0), (0, 26), (14, 26)):
        left, top = west + x * across, north - y * down
        ring = [[left + dx * across, top - dy * down] for dx, dy in
                ((0.5, 0.5), (0.5, 2), (2, 2), (2, 0.5), (0.5, 0.5))]  # fmt: skip
        outline = {"type": "Polygon", "coordinates": [ring]}
        change = {"action": "add", "reviewer": "Ada", "outline": outline}
        assert httpx.post(f"{review}/changes", json=change).status_code == 200
    button.click()
    page.wait_for_function("() => document.querySelector('#training-state a')")
    assert state.inner_text().startswith("The training waits for its turn.")
    assert button.is_disabled()
    job = store.claim(training=True)
    assert job is not None
    store.training_progress(job.id, TrainingProgress("training", 2, 9, 0.5, 0.25))
    page.wait_for_function(has_text, arg="epoch 2 of at most 9")
    store.finish(job.id, FIGURES, [])
    page.wait_for_function(has_text, arg="is better than the model before")
    assert "IoU +0.061 (+0.021 to +0.099) on 7 held-out pieces of ground" in state.inner_text()
    assert state.locator("a").get_attribute("href") == "jobs"
    assert button.is_enabled()
    service.close()
