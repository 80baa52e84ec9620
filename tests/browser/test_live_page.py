"""The page of live video, with a file played as a camera."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_server import PATIENCE_S, wait_until
from rooftrace.app.server import create_server
from rooftrace.service.live import CameraSource, LiveCamera
from rooftrace.service.service import Service
from tiny_models import write_tiny_bundle
from video_files import town, write_video

pytestmark = pytest.mark.campaign


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = (town(n, (360, 640), step_px=2) for n in range(50))
    return write_video(tmp_path / "flight.mp4", frames)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service.load(write_tiny_bundle(tmp_path / "tiny.rooftrace", gsd_m=0.5))


@pytest.fixture
def cameras(service: Service, clip: Path) -> Iterator[list[LiveCamera]]:
    sources = [
        CameraSource("Yard <b>", str(clip)),
        CameraSource("Gate", "rtsp://me:s3cret@127.0.0.1:9/x?token=s3cret"),
    ]
    made = [LiveCamera(one, service.predictor) for one in sources]
    yield made
    for camera in made:
        camera.close(PATIENCE_S)


@pytest.fixture
def url(service: Service, cameras: list[LiveCamera], serve_app: Callable[[Any], str]) -> str:
    return serve_app(create_server(service, cameras=cameras))


def pixels(page: Any) -> str:
    """Return a hash of what the picture shows now."""
    data = page.evaluate(
        "() => { const image = document.getElementById('picture');"
        " const canvas = document.createElement('canvas');"
        " canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;"
        " if (!canvas.width) return '';"
        " canvas.getContext('2d').drawImage(image, 0, 0); return canvas.toDataURL('image/png'); }"
    )
    return hashlib.sha256(data.encode()).hexdigest() if data else ""


def test_the_picture_moves_and_the_figures_are_shown(
    page: Any, url: str, cameras: list[LiveCamera]
) -> None:
    yard, _ = cameras
    page.goto(f"{url}/live")
    page.get_by_role("button", name="Yard <b>").wait_for()
    page.wait_for_function("() => document.getElementById('picture').naturalWidth === 640")
    page.wait_for_function("() => /^\\d/.test(document.getElementById('buildings').textContent)")
    pictures: set[str] = set()

    def has_seen_four() -> bool:
        pictures.add(pixels(page))
        return len(pictures) > 3

    wait_until(has_seen_four)
    # Paused, the last picture stays, and the camera stops.
    page.get_by_role("button", name="Pause").click()
    wait_until(lambda: yard.figures().state == "idle")
    still = pixels(page)
    assert still
    page.wait_for_timeout(300)
    assert pixels(page) == still
    page.get_by_role("button", name="Play").click()
    wait_until(lambda: yard.figures().state == "playing")
    # Leaving the page stops the camera, too.
    page.goto("about:blank")
    wait_until(lambda: yard.figures().state == "idle")


def test_a_camera_that_cannot_be_opened_is_explained(
    page: Any, url: str, cameras: list[LiveCamera]
) -> None:
    yard, gate = cameras
    page.goto(f"{url}/live")
    page.wait_for_function("() => document.getElementById('picture').naturalWidth === 640")
    page.get_by_role("button", name="Gate").click()
    page.get_by_text("rtsp://127.0.0.1:9/x cannot be opened").wait_for(timeout=20_000)
    assert "s3cret" not in page.content()
    wait_until(lambda: yard.figures().state == "idle")
    assert gate.figures().state == "broken"
    page.get_by_role("button", name="Yard <b>").click()
    page.wait_for_function("() => document.getElementById('picture').naturalWidth === 640")
    page.locator("#message").wait_for(state="hidden")
    page.goto("about:blank")
