"""Lines for people on a terminal."""

from __future__ import annotations

from rich.console import Console

__all__ = ["print_plain"]


def print_plain(console: Console | None, text: str) -> None:
    """A line as it is, whatever brackets its paths have; no console shows nothing."""
    if console is not None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)
