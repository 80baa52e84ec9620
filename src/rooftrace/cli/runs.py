"""`rooftrace runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from rooftrace.cli.options import Json
from rooftrace.cli.show import people, print_json, say
from rooftrace.train.compare.comparison import Comparison
from rooftrace.train.compare.reading import Best, Run, printable

__all__ = ["runs"]

_COLUMNS = (
    "", "run", "IoU (ep.)", "loss (ep.)", "Dice", "epochs", "min", "img/s",
)  # fmt: skip

_SHOWN_KEYS = 24
_LONGEST_VALUE = 60


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of runs, at any depth.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The HTML page to write.")] = None,
    sort: Annotated[
        str, typer.Option(help="A column of metrics.csv, or name, status, epochs, minutes.")
    ] = "val_iou",
    as_json: Json = False,
) -> None:
    """Compare training runs: what differed in the configuration, and what came out."""
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


def _row(run: Run) -> tuple[str, ...]:
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


def _differing(comparison: Comparison) -> Table:
    """Each key with its values, and which runs have them."""
    table = Table("what differed", "value", "runs")
    for key in comparison.keys[:_SHOWN_KEYS]:
        for place, (value, runs) in enumerate(comparison.holders(key).items()):
            named = "" if place else printable(key)
            numbers = " ".join(map(str, runs))
            table.add_row(*map(Text, (named, value[:_LONGEST_VALUE], numbers)))
    more = len(comparison.keys) - _SHOWN_KEYS
    if more > 0:
        table.add_row(f"… {more} more keys: see --json or -o")
    return table


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _at_best(best: Best | None) -> str:
    return "–" if best is None else f"{best.value:.4f} ({best.epoch})"
