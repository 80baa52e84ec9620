"""The pages have no finding of axe-core, in light and dark, on a desk and a phone."""

from pathlib import Path
from typing import Any, Literal

import pytest

pytest.importorskip("playwright")

from axe_playwright_python.sync_playwright import Axe

from command_line import call
from site_pages import pages
from town import write_pairs

pytestmark = pytest.mark.campaign

LIGHT, DARK = "rgb(236, 239, 242)", "rgb(20, 22, 26)"


def check_page(page: Any, name: str) -> list[str]:
    """Return the findings of axe-core, and the parts of the page that have them."""
    found = Axe().run(page).response["violations"]
    return [
        f"{name}: {one['id']}: {node['target']}: {node['failureSummary']}"
        for one in found
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_finding(
    page: Any, site: str, field: Path, scheme: Literal["light", "dark"], width: int
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    found = []
    for name, visit in pages(field).items():
        visit(page, site)
        found += check_page(page, name)
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            found.append(f"{name}: {wide} px wide in a window of {width} px")
    assert not found, "\n".join(found)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, bundle: Path, two_dates: Path) -> list[Path]:
    """The HTML reports of commands on generated data."""
    folder = tmp_path_factory.mktemp("reports")
    write_pairs(folder / "data", range(3), shape_yx=(96, 128), gsd_m=0.3)
    assert call("evaluate", bundle, folder / "data", "-o", folder / "evaluation")[0] == 0
    audit = folder / "audit.html"
    assert call("inspect", folder / "data", "-o", audit)[0] == 0
    return [folder / "evaluation" / "report.html", audit, two_dates / "report.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_report_has_a_serious_finding(
    page: Any, reports: list[Path], scheme: Literal["light", "dark"]
) -> None:
    page.emulate_media(color_scheme=scheme)
    found = []
    for path in reports:
        page.goto(path.as_uri())
        page.wait_for_selector("main")
        found += check_page(page, path.parent.name)
    assert not found, "\n".join(found)
