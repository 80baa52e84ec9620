"""The pages have no serious finding of axe-core, in light and in dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from axe_playwright_python.sync_playwright import Axe

from rooftrace.app.server import create_server
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.live import CameraSource, LiveCameras
from rooftrace.service.service import Service
from tiny_models import write_tiny_bundle
from video_files import town as frame
from video_files import write_video

pytestmark = [
    pytest.mark.campaign,
    # Gradio uses options that pandas has deprecated.
    pytest.mark.filterwarnings("ignore:.*no_silent_downcasting"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]

GROUND = """() => [...document.querySelectorAll("gradio-app, .gradio-container"), document.body]
  .map((it) => getComputedStyle(it).backgroundColor).find((it) => it !== "rgba(0, 0, 0, 0)")"""
LIGHT, DARK = "rgb(236, 239, 242)", "rgb(20, 22, 26)"

IDLE = "() => window.rooftrace?.scene && rooftrace.map.loaded() && rooftrace.map.areTilesLoaded()"

GRADIO_UPLOAD = '[aria-label="common.upload"]'
"""Gradio's own button around a file input, which is another control inside a control."""


@pytest.fixture
def url(
    tmp_path: Path, store: JobStore, town: Path, two_dates: Path, serve_app: Callable[[Any], str]
) -> Iterator[str]:
    """A server with results, a comparison, jobs and a camera."""
    model = write_tiny_bundle(tmp_path / "tiny.rooftrace", gsd_m=0.5)
    clip = write_video(tmp_path / "flight.mp4", (frame(n, (180, 320)) for n in range(20)))
    service, runner = Service.load(model), JobRunner(store, model)
    cameras = LiveCameras([CameraSource("Yard", str(clip))], service.predictor, max_viewers=2)
    runner.start()
    try:
        yield serve_app(create_server(service, runner, results=[town, two_dates], cameras=cameras))
    finally:
        cameras.close(60)
        runner.stop()


def check_page(page: Any, name: str) -> list[str]:
    """Return the serious findings of axe-core, and the parts of the page that have them."""
    found = Axe().run(page, {"exclude": [GRADIO_UPLOAD]}).response["violations"]
    return [
        f"{name}: {one['id']}: {node['target']}: {node['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_finding(page: Any, url: str, tmp_path: Path, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    image = tmp_path / "field.png"
    Image.fromarray(np.full((200, 300, 3), 30, np.uint8)).save(image)
    found = []
    page.goto(f"{url}/map#town/scene")
    page.wait_for_function(IDLE)
    found += check_page(page, "map")
    page.get_by_role("button", name="Review the buildings").click()
    page.wait_for_function("() => rooftrace.review.current")
    found += check_page(page, "review")
    page.goto("about:blank")
    page.goto(f"{url}/map#dates/scene")
    page.wait_for_function(f"{IDLE} && rooftrace.swipe.map?.loaded()")
    found += check_page(page, "compare")
    page.goto(f"{url}/jobs")
    page.set_input_files("#file", image)
    page.wait_for_selector("li[data-state=done]")
    found += check_page(page, "jobs")
    page.goto(f"{url}/live")
    page.wait_for_function("() => document.getElementById('picture').naturalWidth === 320")
    found += check_page(page, "live")
    page.goto(url)
    page.set_input_files("#rt-files input[type=file]", image)
    page.wait_for_selector(".rt-stage[data-state=ready]")
    found += check_page(page, "page")
    assert not found, "\n".join(found)


def test_the_choice_of_light_or_dark_holds_on_other_pages(page: Any, url: str) -> None:
    pages = {
        "map#town/scene": "#panel", "jobs": "#form", "live": "#bar", "v1/docs": "article",
        "problems/too-large": ".verdict", "": "#rt-samples button",
    }  # fmt: skip

    def ground_of(name: str) -> str:
        page.goto("about:blank")
        page.goto(f"{url}/{name}")
        page.wait_for_selector(pages[name])
        page.wait_for_load_state()
        ground = str(page.evaluate(GROUND))
        if name == "":
            # Gradio sets its own class once more when it has started.
            page.wait_for_timeout(300)
            assert page.locator("body.dark").count() == (ground == DARK)
        return ground

    now, after = LIGHT, DARK
    for name, other in zip(pages, [*pages][1:] + [*pages][:1]):
        assert ground_of(name) == now, name
        page.click(".face-theme")
        assert page.evaluate(GROUND) == after, name
        assert ground_of(other) == after, (name, other)
        now, after = after, now
    # A choice of light holds where the browser wishes dark.
    assert now == LIGHT
    page.emulate_media(color_scheme="dark")
    for name in pages:
        assert ground_of(name) == LIGHT, name
    page.goto("about:blank")
