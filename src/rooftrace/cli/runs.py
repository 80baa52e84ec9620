"""`rooftrace runs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from rooftrace.cli.options import Json
from rooftrace.cli.show import people, print_json, say

if TYPE_CHECKING:
    from rooftrace.flows.runs import BestValue, RunComparison, RunRecord

_COLUMNS = (
    "", "run", "IoU (ep.)", "loss (ep.)", "Dice", "epochs", "min", "img/s",
)  # fmt: skip

_MAX_KEYS = 24
_MAX_VALUE_CHARS = 60


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that holds runs at any depth.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="HTML page to write.")
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Column of metrics.csv to sort by; or name, status, epochs or minutes.",
        ),
    ] = "val_iou",
    as_json: Json = False,
) -> None:
    """Compare the configurations and results of training runs."""
    from rooftrace.flows.runs import run_runs

    comparison = run_runs(folder, out, sort=sort)
    if as_json:
        print_json(comparison.to_json() | {"report": None if out is None else str(out)})
        return
    table = Table(*_COLUMNS)
    for number, run in enumerate(comparison.runs, 1):
        table.add_row(*map(Text, (str(number), *_row(run))))
    people.print(table)
    if comparison.keys:
        people.print(_differing(comparison))
    for run in comparison.runs:
        for problem in run.problems:
            say(f"{run.name}: {problem}")
    if out is not None:
        say(f"page: {out}")


def _row(run: RunRecord) -> tuple[str, ...]:
    best = run.best("val_iou")
    return (
        run.name if run.status == "finished" else f"{run.name}\n{run.status}",
        _at_best(best),
        _at_best(run.best("val_loss")),
        _figure(None if best is None else run.at(best.epoch, "val_dice"), 4),
        str(run.epochs),
        _figure(run.minutes, 1),
        _figure(run.images_per_s, 1),
    )


def _differing(comparison: RunComparison) -> Table:
    """Return a table with each differing key, its values, and the runs that have them."""
    from rooftrace.flows.runs import ABSENT, as_text, printable

    table = Table("differing key", "value", "runs")
    for key in comparison.keys[:_MAX_KEYS]:
        held = comparison.holders(key)
        # Runs of another kind of model or optimiser do not have the key, which says nothing more.
        held.pop(as_text(ABSENT), None)
        for place, (value, runs) in enumerate(held.items()):
            named = "" if place else printable(key)
            numbers = " ".join(map(str, runs))
            table.add_row(*map(Text, (named, value[:_MAX_VALUE_CHARS], numbers)))
    more = len(comparison.keys) - _MAX_KEYS
    if more > 0:
        table.add_row(f"… {more} more keys: see --json or -o")
    return table


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _at_best(best: BestValue | None) -> str:
    return "–" if best is None else f"{best.value:.4f} ({best.epoch})"
