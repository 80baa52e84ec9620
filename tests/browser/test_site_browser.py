"""The built documentation in a browser without a network."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.campaign

pytest.importorskip("mkdocs")

ROOT = Path(__file__).parents[2]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Handler that serves the files of a folder without logging requests."""

    def log_message(self, *args: Any) -> None:
        """Discard the line."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_search_finds_a_page_and_leads_there(page: Page, site: str) -> None:
    page.goto(f"{site}/index.html")
    box = page.get_by_role("textbox", name="Search")
    box.focus()
    page.get_by_text("Type to start searching").wait_for(state="attached")
    # The search listens to keys, which `fill` does not press.
    box.press_sequentially("submission")
    # Further matches of a page are folded.
    found = page.locator(".md-search-result__link:visible", has_text="submission").first
    found.wait_for()
    found.click()
    page.wait_for_url("**/*.html*")
    assert "submission" in page.locator("article").inner_text().lower()


def test_pictures_of_the_pages_are_there(page: Page, site: str) -> None:
    for name in ("index", "tutorials/own-tiles", "tutorials/city", "tutorials/label-team"):
        page.goto(f"{site}/{name}.html")
        page.wait_for_load_state("networkidle")
        broken = "() => [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
        assert page.locator("article img").count() > 0
        assert page.evaluate(broken) == []
