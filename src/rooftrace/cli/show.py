"""Output of the command line: text and progress bars on stderr, JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural

if TYPE_CHECKING:
    from rich.console import Console


@cache
def people() -> Console:
    """Return the console for people, for tables and colours; programs read stdout."""
    # It is slow to import, and plain lines need none of it.
    from rich.console import Console

    return Console(stderr=True)


class Report(Protocol):
    """Result of a flow, with notes for the user and the fields of `--json`."""

    @property
    def notes(self) -> Sequence[str]: ...
    def to_json(self) -> dict[str, Any]: ...


Words = Callable[..., str]
"""Function that says in words what is done: of the seconds passed, what is done and the total."""


def counted(unit: str) -> Words:
    """Return the words for a number of items of a unit, such as `images`."""

    def words(_: float, done: int, total: int) -> str:
        if total >= 10**7:
            return f"{done / 1e6:,.0f} M{unit}"
        return plural(done, unit.removesuffix("s"), unit)

    return words


def pixels(seconds: float, done_px: int, total_px: int, buildings: int, images: int) -> str:
    """Return the words for pixels, with their rate, the buildings found and the images done."""
    rate = done_px / 1e6 / max(seconds, 1e-3)
    text = f"{done_px / 1e6:,.1f} of {total_px / 1e6:,.1f} Mpx, {rate:,.1f} Mpx/s"
    if done_px == total_px:
        text = f"writing files, {text}"
    elif images:
        text = f"{plural(images, 'image')} done, {text}"
    # Before overlaps are resolved.
    return f"{text}, about {plural(buildings, 'building')}" if buildings else text


_PROGRESS = "ROOFTRACE_PROGRESS"
"""Environment variable with which a program asks for progress as JSON."""

_RECORDS_S = 0.2
"""Minimum number of seconds between two records of progress."""

_FIRST_LINE_S, _MAX_PAUSE_S = 10.0, 300.0
"""Seconds until the first line of progress, and the maximum number of seconds between two."""


@contextmanager
def bar(title: str, words: Words, *, hidden: bool) -> Iterator[Callable[..., None] | None]:
    """Show progress on stderr: as a bar, as lines for a log, or as JSON records for programs.

    Args:
        words: What is done, in words, such as `counted("images")` or `pixels`.
        hidden: Whether no bar is shown; programs that set `ROOFTRACE_PROGRESS` get records anyway.

    Yields:
        Function that takes the finished and the total count, and what else the words need; None if
        no bar is shown.
    """
    started = time.monotonic()
    form = os.environ.get(_PROGRESS)
    if form not in (None, "", "json"):
        raise ConfigError(
            f"The environment variable {_PROGRESS} is {form!r}; expected 'json' or nothing.",
            remedy=f"Set {_PROGRESS}=json, or remove the variable.",
        )
    if not form and hidden:
        yield None
        return
    if not form and sys.stderr.isatty():
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %", table_column=Column(min_width=5)),
            TextColumn("{task.fields[done]}"),
            # 80 columns cut the bar and the words first, and not the time that is left.
            TimeRemainingColumn(table_column=Column(min_width=7)),
        )
        with Progress(*columns, console=people(), transient=True) as shown_bar:
            task = shown_bar.add_task(title, total=None, done="reading")
            yield lambda *counts: shown_bar.update(
                task, completed=counts[0], total=counts[1],
                done=words(time.monotonic() - started, *counts),
            )  # fmt: skip
        return
    due = started + (0.0 if form else _FIRST_LINE_S)

    def update(done: int, total: int, *more: int) -> None:
        nonlocal due
        now = time.monotonic()
        text = words(now - started, done, total, *more)
        if form:
            if now >= due or done >= total:
                due = now + _RECORDS_S
                share = done / total if total else None
                record = {"step": title, "done": done, "total": total, "share": share, "text": text}
                sys.stderr.write(json.dumps({"progress": record}) + "\n")
                sys.stderr.flush()
        elif now >= due:
            passed = now - started
            # Intervals grow to 5 minutes.
            due = now + min(max(_FIRST_LINE_S, passed / 4), _MAX_PAUSE_S)
            share_text = f"{done / total:.0%}, " if total else ""
            left = f", {passed * (total - done) / done:,.0f} s left" if 0 < done < total else ""
            say(f"{title}: {share_text}{text}, {passed:,.0f} s{left}")

    yield update


def say(text: str) -> None:
    """Print a line for people."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print_line(json.dumps(value, allow_nan=False))


def print_line(text: str) -> None:
    """Print a line on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def answered(report: Report, *, as_json: bool) -> bool:
    """Print a report as JSON for programs, or its notes for people.

    Returns:
        True if the JSON was printed and nothing else is to be printed.
    """
    if as_json:
        print_json(report.to_json())
        return True
    for note in report.notes:
        say(f"note: {note}")
    return False
