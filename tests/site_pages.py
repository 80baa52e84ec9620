"""The pages of a whole server by name, and the way to each: for tests of all pages in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

MAP_READY = (
    "() => window.rooftrace?.scene && rooftrace.map.loaded() && rooftrace.map.areTilesLoaded()"
)
PLAIN = {
    "home": ("", "#cards li[data-state=done] .actions"),
    "live": ("live", "#picture[src]"),
    "api": ("v1/docs", "article"),
}
"""Address of a page and the part that is there when it is ready."""


def open_map(page: Page, url: str, address: str = "map#town/scene") -> None:
    """Open the map at an address, also where the page shows another place of it."""
    page.goto("about:blank")
    page.goto(f"{url}/{address}")
    page.wait_for_function(MAP_READY)


def open_review(page: Page, url: str) -> None:
    """Open the review of the town; on a phone, with the panel unfolded."""
    open_map(page, url, "map#town/scene/review")
    page.wait_for_function("() => rooftrace.review.current")
    if page.locator("#panel.folded").count():
        page.click("#fold")


def open_compare(page: Page, url: str) -> None:
    """Open the comparison of two dates with its divider."""
    open_map(page, url, "map#dates/scene")
    page.wait_for_function("() => rooftrace.swipe.map?.loaded()")


def open_plain(page: Page, url: str, name: str) -> None:
    """Open a page of `PLAIN`."""
    address, ready = PLAIN[name]
    page.goto(f"{url}/{address}")
    page.wait_for_selector(ready, state="attached")


def open_viewer(page: Page, url: str, image: Path) -> None:
    """Open the first page and drop an image on it."""
    open_plain(page, url, "home")
    page.set_input_files("#file", image)
    page.wait_for_selector(".rt-stage[data-state=ready]")


def pages(image: Path) -> dict[str, Callable[[Page, str], None]]:
    """Return functions that open the pages of a server by the names of the pages.

    Args:
        image: Image that is dropped on the first page.
    """

    def plain(name: str) -> Callable[[Page, str], None]:
        return lambda page, url: open_plain(page, url, name)

    return {
        "map": open_map, "review": open_review, "compare": open_compare,
        **{name: plain(name) for name in PLAIN},
        "viewer": lambda page, url: open_viewer(page, url, image),
    }  # fmt: skip
