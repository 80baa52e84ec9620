"""`rooftrace train` and `finetune`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from rooftrace.cli.data_options import DataFields
from rooftrace.cli.option_groups import LabelledOptions, with_groups
from rooftrace.cli.options import Json, option, out_option, results_folder
from rooftrace.cli.show import answered, bar, people, print_json, say
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural
from rooftrace.labels.config import SourceConfig

if TYPE_CHECKING:
    from rooftrace.flows.finetune.report import FinetuneReport


Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track", metavar="NAME",
        help="Send figures to tensorboard, mlflow or wandb, too; repeatable.",
    ),
]  # fmt: skip

SEARCH = "Search for the best values"
"""Title of the group of options of a search in the help."""


def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="TOML file with the configuration; see recipes/."),
    ],
    out: Annotated[
        Path, out_option("Folder of the run or the search.", "RUN", parser=results_folder)
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
    track: Track = None,
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
    overrides = [*(overrides or ()), *_tracked(track)]
    if trials is not None:
        if resume:
            raise ConfigError(
                "--resume was given with --trials.",
                remedy="Leave --resume out: the same command continues a search.",
            )
        _search(config, out, trials, overrides, keep=keep, as_json=as_json)
        return
    if keep:
        raise ConfigError("--keep was given without --trials.", remedy="Add --trials N.")
    from rooftrace.flows.train import run_train

    report = run_train(config, out, overrides=overrides, resume=resume, console=people())
    if as_json:
        print_json(report.to_json())
        return
    table = Table("bundle", "epoch", "value")
    for name, (epoch, value, path) in report.best.items():
        table.add_row(str(path), str(epoch), f"{name.removeprefix('best_')} {value:.4f}")
    people().print(table)
    speed = f"; {report.images_per_s:.1f} images/s" if report.images_per_s else ""
    say(
        f"{plural(report.epochs, 'epoch')}, {report.stopped_because}{speed}; "
        f"figures in {report.run / 'metrics.csv'}, curves in {report.run / 'curves.svg'}"
    )
    for note in report.notes:
        say(f"note: {note}")


def _tracked(names: Sequence[str] | None) -> list[str]:
    """Return the setting of the training configuration for `--track`."""
    return [f"track={json.dumps(names)}"] if names else []


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
    people().print(table)
    counts = ", ".join(f"{n} {kind}" for kind, n in summary.counts.items() if n)
    say(f"{summary.monitor} {summary.best.value:.4f} in trial {summary.best.number}; {counts}")
    say(f"configuration: {report.config}; model: {report.bundle}")


TRAINING, HELD_OUT = "Training", "Images that are held out"
"""Titles of the groups of options in the help of this command."""


@with_groups
def finetune(
    data: Annotated[SourceConfig, DataFields("Labelled images of your place, of any kind.")],
    out: Annotated[Path, out_option("Folder of the run.", "RUN", parser=results_folder)],
    *,
    images: LabelledOptions,
    model: Annotated[
        str,
        option(
            TRAINING, "-m", "--model", metavar="MODEL",
            help="default, accurate, a .rooftrace file, run or ONNX file.",
        ),
    ] = "default",
    minutes: Annotated[
        float,
        option(
            TRAINING, min=0.1, max=10_000, metavar="N",
            help="Minutes to the verdict: training, export and comparison.",
        ),
    ] = 10.0,
    config: Annotated[
        list[str] | None,
        option(
            TRAINING, rare=True, metavar="KEY=VALUE",
            help="Value of the training configuration: optimizer.lr=1e-4; repeatable.",
        ),
    ] = None,
    track: Track = None,
    seed: Annotated[
        int,
        option(
            TRAINING, rare=True, min=0, max=2**32 - 1, metavar="N",
            help="Seed of the split and of all random draws.",
        ),
    ] = 0,
    resume: Annotated[
        bool,
        option(TRAINING, "--resume", help="Continue the run that is in the folder."),
    ] = False,
    val: Annotated[
        float | None,
        option(
            HELD_OUT, min=0.01, max=0.9, metavar="SHARE",
            help="Share held out; where it is fewer than ten images, each fold in turn. Default: "
            "the data's folder valid, or 0.2.",
        ),
    ] = None,
    by: Annotated[
        Literal["image", "group", "block"] | None,
        option(
            HELD_OUT, rare=True, metavar="UNIT",
            help="Kept together: image, group (folder) or block of ground; default: by the data.",
        ),
    ] = None,
    split: Annotated[
        Path | None,
        option(
            HELD_OUT, metavar="FILE",
            help="Split file with train, val and perhaps test; default: one is made.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Fine-tune a model on your own labelled images, and compare it with the start model."""
    if not as_json:
        say(f"Reading {data.path} …")
    from rooftrace.flows.finetune.run import run_finetune

    with _minutes_shown(minutes):
        report = run_finetune(
            data, out, model=model, minutes=minutes,
            val=val, by=by, split=split,
            overrides=[*(config or ()), *_tracked(track)], seed=seed, resume=resume,
            images=images, console=people(),
        )  # fmt: skip
    # Its notes were printed when they were known.
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report, data)


@contextmanager
def _minutes_shown(minutes: float) -> Iterator[None]:
    """Tell programs each second how many of the minutes have passed; people see the epochs."""
    ended, began = threading.Event(), time.monotonic()
    with bar("finetune", lambda _, done, all_s: f"{done / 60:.1f} of {all_s / 60:g} min",
             hidden=True) as update:  # fmt: skip

        def tell() -> None:
            while update is not None and not ended.wait(1):
                update(min(int(time.monotonic() - began), int(60 * minutes)), int(60 * minutes))

        telling = threading.Thread(target=tell)
        telling.start()
        try:
            yield
        finally:
            ended.set()
            telling.join()


def _print_report(report: FinetuneReport, data: SourceConfig) -> None:
    say(f"\n{report.verdict_text}\n")
    table = Table("", "start", "tuned", "difference (95 %)", box=None)
    tests = {"IoU": report.tests[report.evaluation.headline], "F1 of buildings": report.buildings}
    for name in ("IoU", "F1 of buildings", "recall"):
        before, after = report.figures[name]
        if before is None or after is None:
            continue
        test = tests.get(name)
        gap = f"{after - before:+.3f}"
        if test is not None:
            limits = test.difference
            interval = f" ({limits.low:+.3f} … {limits.high:+.3f})" if limits.is_known else ""
            gap = f"{limits.value:+.3f}{interval}"
        table.add_row(name, f"{before:.3f}", f"{after:.3f}", gap)
    people().print(table)
    for line in report.advice:
        say(f"- {line}")
    run = report.trained.run
    say(f"\nnext  rooftrace predict SCENE -m {run} -o out")
    say(f"      open {report.page} (pictures), {run / 'verdict.json'} (all figures)")
    labelled = f"--labelled {data.path} " if data.images is None else ""
    say(f"      rooftrace label next TILES -m {run} {labelled}-n 40 -o next.txt")
