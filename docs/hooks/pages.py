"""What mkdocs adds to docs/: pages made from code, and files of the project that lie elsewhere.

The pages are linked as they lie in the repository, so that they can be read there, too; here such
links are turned into those of the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import commands
import settings
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"bench/README.md": "benchmarks.md", "CHANGELOG.md": "changelog.md"}
"""Files of the project, by the page of the site that they become."""
COMMANDS = "reference/commands"
"""Stands in the navigation for a page of each command."""
SETTINGS = "reference/configuration.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A page of each command takes the place of `COMMANDS`."""
    config.nav = _filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Files from elsewhere, and the pages that code makes."""
    made = {page: (ROOT / path).read_text(encoding="utf-8") for path, page in ELSEWHERE.items()}
    made |= {f"{COMMANDS}/{name}.md": text for name, text in commands.pages().items()}
    made[SETTINGS] = settings.page()
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for path in sorted((ROOT / "recipes").glob("*.toml")):
        files.append(File.generated(config, f"recipes/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the repository become links of the site."""
    source = page.file.src_uri
    if source == "benchmarks.md":
        return markdown.replace("](../docs/", "](")
    if source == "changelog.md":
        return re.sub(r"`docs/([\w-]+\.md)`", r"[\1](\1)", markdown)
    up = "../" * (source.count("/") + 1)
    for path, target in {**ELSEWHERE, "recipes/": "recipes/"}.items():
        markdown = markdown.replace(f"]({up}{path}", f"]({up[3:]}{target}")
    return markdown


def _filled(nav: Any) -> Any:
    if isinstance(nav, list):
        return [_filled(item) for item in nav]
    if isinstance(nav, dict):
        return {title: _filled(item) for title, item in nav.items()}
    if nav == COMMANDS:
        return [f"{COMMANDS}/{name}.md" for name in commands.pages()]
    return nav
