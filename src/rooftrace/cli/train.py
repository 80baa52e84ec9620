"""`rooftrace train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rooftrace.cli.options import Json, option
from rooftrace.cli.show import answered, people, print_json, say
from rooftrace.core.errors import ConfigError

SEARCH = "Search for the best values"
"""Title of the group of options of a search in the help."""


def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="TOML file with the configuration; see recipes/."),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="RUN", help="Folder of the run or the search.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Value that replaces one of the file; repeatable."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run that is in the folder.")
    ] = False,
    trials: Annotated[
        int | None,
        option(
            SEARCH, min=1, metavar="N",
            help="Search for the values that the file leaves open, in N trials in all. The same "
            "command continues a search.",
        ),
    ] = None,
    keep: Annotated[
        bool, option(SEARCH, "--keep", help="Keep the checkpoints of all trials.")
    ] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Train a model on folders of image/mask pairs, or search for the best configuration."""
    if trials is not None:
        if resume:
            raise ConfigError(
                "--resume was given with --trials.",
                remedy="Leave --resume out: the same command continues a search.",
            )
        _search(config, out, trials, overrides or (), keep=keep, as_json=as_json)
        return
    if keep:
        raise ConfigError("--keep was given without --trials.", remedy="Add --trials N.")
    from rooftrace.flows.train import run_train

    report = run_train(config, out, overrides=overrides or (), resume=resume, console=people)
    if as_json:
        print_json(report.to_json())
        return
    table = Table("bundle", "epoch", "value")
    for name, (epoch, value, path) in report.best.items():
        table.add_row(str(path), str(epoch), f"{name.removeprefix('best_')} {value:.4f}")
    people.print(table)
    speed = f"; {report.images_per_s:.1f} images/s" if report.images_per_s else ""
    say(
        f"{report.epochs} epochs, {report.stopped_because}{speed}; "
        f"figures in {report.run / 'metrics.csv'}, curves in {report.run / 'curves.svg'}"
    )


def _search(
    config: Path, out: Path, trials: int, overrides: Sequence[str], *, keep: bool, as_json: bool
) -> None:
    from rooftrace.flows.train import run_tune

    report = run_tune(config, out, trials, overrides, keep=keep, notify=say)
    if answered(report, as_json=as_json):
        return
    summary = report.summary
    table = Table("key", "best", "importance")
    assert summary.best is not None
    for parameter in summary.parameters:
        share = summary.importance.get(parameter.name)
        value = summary.best.params[parameter.name]
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        table.add_row(parameter.name, text, "–" if share is None else f"{share:.0%}")
    people.print(table)
    counts = ", ".join(f"{n} {kind}" for kind, n in summary.counts.items() if n)
    say(f"{summary.monitor} {summary.best.value:.4f} in trial {summary.best.number}; {counts}")
    say(f"configuration: {report.config}; model: {report.bundle}")
