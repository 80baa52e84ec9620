"""`rooftrace split`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import (
    Json,
    takes_data,
)
from rooftrace.cli.show import bar, print_json, say
from rooftrace.data.config import SourceConfig

__all__ = ["split"]


class SplitBy(StrEnum):
    """What is kept together."""

    image = "image"
    group = "group"
    block = "block"


@takes_data("Labelled images of any kind.")
def split(
    data: SourceConfig,
    out: Annotated[Path, typer.Option("-o", "--out", help="The JSON file to write.")],
    val: Annotated[float, typer.Option(help="Share for validation.")] = 0.05,
    test: Annotated[float, typer.Option(help="Share for the final test.")] = 0.05,
    by: Annotated[
        SplitBy, typer.Option(help="What stays together; block: what lies in one place.")
    ] = SplitBy.image,
    group_pattern: Annotated[
        str | None, typer.Option(help="Regular expression; its first bracket is the group.")
    ] = None,
    block_m: Annotated[
        float | None, typer.Option(help="Side of the blocks, in metres; default by the extent.")
    ] = None,
    gap_m: Annotated[
        float | None,
        typer.Option(help="Least distance of two parts, in metres; default half an image."),
    ] = None,
    stratify: Annotated[
        bool, typer.Option("--stratify/--no-stratify", help="Like built-up shares in all parts.")
    ] = True,
    duplicates: Annotated[
        bool,
        typer.Option("--duplicates/--no-duplicates", help="Near-duplicates stay in one part."),
    ] = True,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Divide labelled images into training, validation and test parts."""
    from rooftrace.flows.split import run_split

    with bar("reading", "images", hidden=as_json) as progress:
        made = run_split(
            data,
            out,
            val=val,
            test=test,
            by=by.value,
            group_pattern=group_pattern,
            block_m=block_m,
            gap_m=gap_m,
            stratify=stratify,
            duplicates=duplicates,
            seed=seed,
            progress=progress,
        )
    counts = {name: len(ids) for name, ids in made.parts.items()}
    if as_json:
        print_json(
            {
                "split": str(out),
                **counts,
                "dropped": len(made.dropped),
                "copies": made.copies,
                "built_up": made.built_up,
                "notes": list(made.notes),
            }
        )
        return
    shown = ", ".join(
        f"{name} {count}"
        + (f" ({made.built_up[name]:.1%} built-up)" if name in made.built_up else "")
        for name, count in counts.items()
    )
    say(f"{out}: {shown}")
    if made.by == "block":
        say(
            f"blocks of {made.block_m:g} m, {made.gap_m:g} m apart: "
            f"{len(made.dropped)} images between them are left out"
        )
    if made.copies:
        say(f"{made.copies} near-duplicates stay with what they are copies of")
    for note in made.notes:
        say(note)
