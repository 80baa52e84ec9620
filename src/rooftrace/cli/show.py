"""What the command line shows: tables, bars and lines to stderr, JSON to stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rooftrace.io.console import print_plain

__all__ = ["answered", "bar", "people", "pixel_bar", "print_json", "print_line", "say"]

people = Console(stderr=True)


class Report(Protocol):
    """What a flow answers."""

    @property
    def notes(self) -> Sequence[str]: ...
    def to_json(self) -> dict[str, Any]: ...


@contextmanager
def bar(title: str, unit: str, *, hidden: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr, where that is a terminal."""
    with _shown(title, hidden=hidden) as update:
        if update is None:
            yield None
            return

        def tell(done: int, total: int) -> None:
            update(
                done, total, f"{done / 1e6:,.0f} M{unit}" if total >= 10**7 else f"{done:,} {unit}"
            )

        yield tell


@contextmanager
def pixel_bar(title: str, *, hidden: bool) -> Iterator[Callable[[int, int, int], None] | None]:
    """A progress bar of pixels, with their rate and the buildings that were found so far."""
    started = time.monotonic()
    with _shown(title, hidden=hidden) as update:
        if update is None:
            yield None
            return

        def tell(done_px: int, total_px: int, buildings: int) -> None:
            rate = done_px / 1e6 / max(time.monotonic() - started, 1e-3)
            told = f"{done_px / 1e6:,.1f} of {total_px / 1e6:,.1f} Mpx, {rate:,.1f} Mpx/s"
            update(done_px, total_px, f"{told}, {buildings:,} buildings")

        yield tell


@contextmanager
def _shown(title: str, *, hidden: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    if hidden or not people.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[done]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=people, transient=True) as shown_bar:
        task = shown_bar.add_task(title, total=None, done="")

        def update(done: int, total: int, told: str) -> None:
            shown_bar.update(task, completed=done, total=total, done=told)

        yield update


def say(text: str) -> None:
    """A line for people, whatever brackets its paths have."""
    print_plain(people, text)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    print_line(json.dumps(value, allow_nan=False))


def print_line(text: str) -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


def answered(
    report: Report, *, as_json: bool, shown: Callable[[Any], Any] = lambda told: told
) -> bool:
    """Print a report for programs, or else its notes for people; whether that was all.

    Args:
        shown: what is told for a program as it may be shown, see `Delivery.shown`.
    """
    if as_json:
        print_json(shown(report.to_json()))
        return True
    for note in report.notes:
        say(f"note: {note}")
    return False
