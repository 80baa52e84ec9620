"""The site builds without a warning, contains every page, and loads nothing from other servers."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rooftrace.cli.commands import COMMANDS, load_command

pytestmark = pytest.mark.campaign

pytest.importorskip("mkdocs")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class NavLoader(yaml.SafeLoader):
    """Loader of mkdocs.yml, which may contain its own tags."""


NavLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def listed(nav: Any) -> Iterator[str]:
    """Yield the pages of a navigation in order."""
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from listed(item)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning, such as a dead link, fails it."""
    folder = tmp_path_factory.mktemp("site")
    # Without --quiet, because warnings that are not logged are not counted.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), NavLoader)["nav"]
    pages = [page for page in listed(nav) if (DOCS / page).is_file()]
    assert len(pages) == len(set(pages))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert there - set(pages) == set(), "add them to nav in mkdocs.yml"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """Scripts, styles, fonts and images are files of the site."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    loaded = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)="([^"]*)"')
    for page in pages:
        text = page.read_text(encoding="utf-8")
        foreign = [u for u in loaded.findall(text) if re.match(r"(?:https?:)?//", u)]
        assert foreign == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", style.read_text(encoding="utf-8"))


def test_every_verb_has_a_page_with_its_options(site: Path) -> None:
    assert len(COMMANDS) >= 15
    for name in COMMANDS:
        command = load_command(name)
        page = (site / "reference" / "commands" / f"{name}.html").read_text(encoding="utf-8")
        for one in (command, *getattr(command, "commands", {}).values()):
            for parameter in one.params:
                if parameter.param_type_name == "option" and not parameter.hidden:
                    assert max(parameter.opts, key=len) in page, f"{name} {parameter.opts}"


def test_links_to_files_of_the_project_lead_to_pages(site: Path) -> None:
    page = (site / "audit.html").read_text(encoding="utf-8")
    assert 'href="benchmarks.html"' in page
    assert "bench/README" not in page
    assert (site / "recipes" / "default.toml").is_file()
    assert not list(site.rglob("*.py")), "the scripts that build the site are not part of it"


def test_the_search_knows_the_reference(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    for wanted in ("reference/python.html#rooftrace.Predictor", "commands/predict.html", "--gsd"):
        assert wanted in index
