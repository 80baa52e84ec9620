"""`rooftrace split`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import (
    Annotator,
    DataSettings,
    Glob,
    Images,
    Json,
    Kind,
    Layout,
    source_config,
)
from rooftrace.cli.show import print_json, say

__all__ = ["split"]


class SplitBy(StrEnum):
    """What is kept together."""

    image = "image"
    group = "group"


def split(
    data: Annotated[Path, typer.Argument(help="A folder of image/mask pairs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The JSON file to write.")],
    val: Annotated[float, typer.Option(help="Share for validation.")] = 0.05,
    test: Annotated[float, typer.Option(help="Share for the final test.")] = 0.05,
    by: Annotated[SplitBy, typer.Option(help="Whether groups stay together.")] = SplitBy.image,
    group_pattern: Annotated[
        str | None, typer.Option(help="Regular expression; its first bracket is the group.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    kind: Kind = None,
    images: Images = None,
    annotator: Annotator = None,
    layout: Layout = None,
    glob: Glob = None,
    settings: DataSettings = None,
    as_json: Json = False,
) -> None:
    """Divide a folder into training, validation and test parts."""
    from rooftrace.flows.split import run_split

    made = run_split(
        source_config(
            data, settings, kind=kind, images=images, annotator=annotator, layout=layout, glob=glob
        ),
        out,
        val=val,
        test=test,
        by=by.value,
        group_pattern=group_pattern,
        seed=seed,
    )
    counts = {name: len(ids) for name, ids in made.parts.items()}
    if as_json:
        print_json({"split": str(out), **counts})
        return
    shown = ", ".join(f"{name} {count}" for name, count in counts.items())
    say(f"{out}: {shown}")
