"""The mkdocs hook that adds pages to docs/: pages made from code, and files of other folders.

Links in the pages point to files of the repository, so that the pages can be read there, too. The
hook turns them into links of the site.
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
"""Page of the site by the path of the file that it is made from."""

COMMANDS = "reference/commands"
"""Placeholder in the navigation for the pages of the commands."""

SETTINGS = "reference/configuration.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace `COMMANDS` in the navigation by a page for each command."""
    config.nav = _expand(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add files of other folders, and the pages made from code."""
    made = {page: (ROOT / path).read_text(encoding="utf-8") for path, page in ELSEWHERE.items()}
    made |= {f"{COMMANDS}/{name}.md": text for name, text in commands.pages().items()}
    made[SETTINGS] = settings.page()
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for path in sorted((ROOT / "recipes").glob("*.toml")):
        files.append(File.generated(config, f"recipes/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links of the site."""
    source = page.file.src_uri
    if source == "benchmarks.md":
        return markdown.replace("](../docs/", "](")
    if source == "changelog.md":
        linked = re.sub(r"`docs/([\w-]+\.md)`", r"[\1](\1)", markdown)
        return linked.replace("](docs/", "](")
    up = "../" * (source.count("/") + 1)
    for path, target in {**ELSEWHERE, "recipes/": "recipes/"}.items():
        markdown = markdown.replace(f"]({up}{path}", f"]({up[3:]}{target}")
    return markdown


def _expand(nav: Any) -> Any:
    if isinstance(nav, list):
        return [_expand(item) for item in nav]
    if isinstance(nav, dict):
        return {title: _expand(item) for title, item in nav.items()}
    if nav == COMMANDS:
        return [f"{COMMANDS}/{name}.md" for name in commands.pages()]
    return nav
