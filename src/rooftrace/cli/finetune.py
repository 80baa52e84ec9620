"""The command `rooftrace finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from rooftrace.cli.data_options import DataFields
from rooftrace.cli.option_groups import LabelledOptions, with_groups
from rooftrace.cli.options import Json, option
from rooftrace.cli.show import answered, people, say
from rooftrace.core.text import plural
from rooftrace.labels.config import SourceConfig

if TYPE_CHECKING:
    from rooftrace.metrics.resampling import Interval

TRAINING, HELD_OUT = "Training", "Images that are held out"
"""Titles of the groups of options in the help of this command."""


@with_groups
def finetune(
    data: Annotated[SourceConfig, DataFields("Labelled images of your place, of any kind.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="Folder of the run.")],
    *,
    images: LabelledOptions,
    model: Annotated[
        str,
        option(
            TRAINING, "-m", "--model", metavar="MODEL",
            help="Model to start from: default, accurate, a .rooftrace file, the folder of a run, "
            "or an exported ONNX file.",
        ),
    ] = "default",
    minutes: Annotated[
        float,
        option(
            TRAINING, min=0.1, max=10_000, metavar="N",
            help="Maximum number of minutes of training and validation; the export and the "
            "comparison come after it.",
        ),
    ] = 10.0,
    config: Annotated[
        list[str] | None,
        option(
            TRAINING, metavar="KEY=VALUE",
            help="Value of the training configuration, such as optimizer.lr=1e-4; repeatable.",
        ),
    ] = None,
    seed: Annotated[
        int,
        option(
            TRAINING, min=0, max=2**32 - 1, metavar="N",
            help="Seed of the split and of all random draws.",
        ),
    ] = 0,
    resume: Annotated[
        bool,
        option(TRAINING, "--resume", help="Continue the run that is in the folder."),
    ] = False,
    val: Annotated[
        float,
        option(
            HELD_OUT, min=0.01, max=0.9, metavar="SHARE",
            help="Share of the images that is held out.",
        ),
    ] = 0.2,
    by: Annotated[
        Literal["image", "group", "block"] | None,
        option(
            HELD_OUT,
            help="Unit that is kept together; default: blocks of ground for 12 or more "
            "georeferenced images, else folders where there are four or more, else images.",
        ),
    ] = None,
    split: Annotated[
        Path | None,
        option(
            HELD_OUT, metavar="FILE",
            help="Split file with train and val; the models are compared on its part test if it "
            "has one. Default: a split is made.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Fine-tune a model on your own labelled images, and compare it with the start model."""
    from rooftrace.flows.finetune import run_finetune

    report = run_finetune(
        data, out, model=model, minutes=minutes,
        val=val, by=by, split=split,
        overrides=config or (), seed=seed, resume=resume,
        images=images, console=people,
    )  # fmt: skip
    if answered(report, as_json=as_json):
        return
    table = Table("figure", "start", "tuned", "95 % of the tuned model")
    tuned = report.evaluation.first
    limits = {**dict.fromkeys(report.figures, ""), **report.limits}
    for name, values in report.figures.items():
        shown = ["–" if value is None else f"{value:.4f}" for value in values]
        table.add_row(name, *shown, limits[name])
    people.print(table)
    gaps = [f"IoU {_signed(report.tests[report.evaluation.headline].difference)}"]
    if report.buildings is not None:
        gaps.append(f"F1 of buildings {_signed(report.buildings.difference)}")
    where = plural(len(tuned.images), "held-out image")
    say(f"{report.verdict}: {', '.join(gaps)} on {where}")
    for line in report.advice:
        say(line)
    say(f"model {report.bundle}; pictures in {report.page}")


def _signed(gap: Interval) -> str:
    interval = f" ({gap.low:+.4f} … {gap.high:+.4f})" if gap.is_known else ""
    return f"{gap.value:+.4f}{interval}"
