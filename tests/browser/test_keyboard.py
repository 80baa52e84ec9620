"""Every page can be used by keyboard: Tab reaches its controls, shows where it is, and goes on."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")

from site_pages import pages

pytestmark = pytest.mark.campaign

MOST_STOPS = 300
NAMES = ("map", "review", "compare", "home", "live", "api", "viewer")

# What a sighted person sees of the focus: an outline or a shadow, of the control or, where the
# control itself is invisible, of what stands for it.
FOCUSED = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  window.seen ??= new Map();
  if (!window.seen.has(at)) window.seen.set(at, window.seen.size);
  const marked = (it) => {
    const style = getComputedStyle(it);
    const outline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
    return outline || style.boxShadow !== "none";
  };
  const box = at.getBoundingClientRect(), hidden = getComputedStyle(at).opacity === "0";
  const shown = box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight
    && box.right > 0 && box.left < innerWidth;
  return {
    number: window.seen.get(at), shown, marked: marked(at) || (hidden && marked(at.parentElement)),
    what: at.outerHTML.slice(0, 120), inHeader: Boolean(at.closest(".face-head")),
  };
}"""


@pytest.mark.parametrize("name", NAMES)
def test_tab_goes_through_the_page(page: Any, site: str, field: Path, name: str) -> None:
    pages(field)[name](page, site)
    page.evaluate("() => document.activeElement.blur()")
    # From the beginning of the page, wherever a click left the browser's place.
    page.evaluate("() => { document.body.tabIndex = -1; document.body.focus(); }")
    stops: list[dict[str, Any]] = []
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop is None or stop["number"] < len(stops):
            break
        stops.append(stop)
    else:
        raise AssertionError(f"Tab does not leave the page after {MOST_STOPS} controls")
    # The name, the pages and the button for light or dark come first.
    assert [stop["inHeader"] for stop in stops[:6]] == [True] * 6
    assert not any(stop["inHeader"] for stop in stops[6:])
    assert stop is None or stop["number"] == 0, f"Tab is caught at {stop['what']}"
    assert [one["what"] for one in stops if not one["shown"]] == []
    assert [one["what"] for one in stops if not one["marked"]] == []
