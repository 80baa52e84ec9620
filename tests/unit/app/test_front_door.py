"""The page at `/` and its examples."""

import io

from fastapi.testclient import TestClient
from PIL import Image

from rest_service import app_with
from rooftrace.app.server import EXAMPLES, home_router


def client_of() -> TestClient:
    app = app_with(home_router())
    app.state.live = False
    return TestClient(app)


def test_the_first_page_names_no_server() -> None:
    headers = {"X-Forwarded-Host": "evil.example", "Host": "other.example"}
    page = client_of().get("/", headers=headers)
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "example" not in page.text.replace("example-", "").partition("<main")[0]
    # The page of jobs was there before, and a further slash is common.
    for url, place in (("/jobs", "./"), ("/home/", "../home")):
        moved = client_of().get(url, headers=headers, follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (307, place)


def test_an_example_is_an_image_and_a_picture_of_it() -> None:
    client = client_of()
    name, window = min(EXAMPLES.items(), key=lambda example: example[1].area_px)
    picture = Image.open(io.BytesIO(client.get(f"/home/examples/{name}.webp").content))
    assert picture.size == (window.width, window.height)
    assert client.get(f"/home/examples/{name}.tif").content[:4] == b"II*\0"
