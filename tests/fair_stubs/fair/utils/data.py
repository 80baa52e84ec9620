"""Local paths, in place of those of fair-py-ops."""

from pathlib import Path


def resolve_directory(href: str, pattern: str = "*") -> Path:
    return Path(href)


resolve_path = resolve_directory
