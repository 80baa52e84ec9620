"""The first view of a page is small, and no page asks another machine for anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from site_pages import PLAIN, open_compare, open_map, open_plain, open_review

pytestmark = [
    pytest.mark.campaign,
    # Gradio uses options that pandas has deprecated.
    pytest.mark.filterwarnings("ignore:.*no_silent_downcasting"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]

MOST_BYTES = 300_000
"""Maximum size of a first view as it is transferred, without the scene."""

MOST_DEMO_BYTES = 600_000
"""Maximum size of the demo, most of which is Gradio; it is not the first page of the server."""

SCENE = ("/images/", "/stream")
"""Parts of the addresses of a scene's tiles and figures, and of a camera's pictures."""


def transferred(page: Any, visit: Callable[[], object]) -> int:
    """Return the bytes of all answers during a visit, headers included, without the scene's."""
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    addresses: dict[str, str] = {}
    sizes: dict[str, int] = {}
    client.on(
        "Network.requestWillBeSent",
        lambda event: addresses.update({event["requestId"]: event["request"]["url"]}),
    )
    client.on(
        "Network.loadingFinished",
        lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}),
    )
    visit()
    # Streams stay open and some pages ask for news, so that the network is never idle for long.
    for _ in range(10):
        count = len(sizes)
        page.wait_for_timeout(1000)
        if count == len(sizes):
            break
    found = {
        key: size
        for key, size in sizes.items()
        if not any(part in addresses.get(key, "") for part in SCENE)
    }
    assert found
    return sum(found.values())


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_page_is_small(page: Any, site: str, name: str) -> None:
    assert transferred(page, lambda: open_plain(page, site, name)) <= MOST_BYTES


@pytest.mark.parametrize("visit", [open_map, open_review, open_compare])
@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_the_map_is_small(page: Any, site: str, visit: Any, encoding: str) -> None:
    # Browsers do not offer Brotli to another machine over plain HTTP.
    page.set_extra_http_headers({"Accept-Encoding": encoding})
    assert 200_000 < transferred(page, lambda: visit(page, site)) <= MOST_BYTES


def test_the_first_page_is_plain_and_the_demo_is_as_small_as_gradio_allows(
    page: Any, site: str
) -> None:
    def first() -> None:
        page.goto(site)
        page.wait_for_selector("#jobs li")

    assert transferred(page, first) <= MOST_BYTES
    assert page.url == f"{site}/jobs"

    def demo() -> None:
        page.goto(f"{site}/demo")
        page.wait_for_selector("#rt-example")

    assert transferred(page, demo) <= MOST_DEMO_BYTES
