"""The command `rooftrace split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.data_options import DataFields
from rooftrace.cli.option_groups import Fields, Shown, with_groups
from rooftrace.cli.options import Json
from rooftrace.cli.show import bar, counted, print_json, say
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.split import SplitOptions

TOGETHER = "How images are divided"
"""Title of the group of options for the division in the help."""


@with_groups
def split(
    data: Annotated[SourceConfig, DataFields("Labelled images of any kind.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="Split file (JSON) to write.")
    ],
    options: Annotated[
        SplitOptions,
        Fields(
            SplitOptions,
            {
                "val": Shown(TOGETHER, "SHARE"),
                "test": Shown(TOGETHER, "SHARE"),
                "seed": Shown(TOGETHER, "N"),
                "by": Shown(TOGETHER, "UNIT"),
                "group_pattern": Shown(TOGETHER, "REGEX"),
                "block_m": Shown(TOGETHER, "M", name="--block-m"),
                "gap_m": Shown(TOGETHER, "M", name="--gap-m"),
                "duplicates": Shown(TOGETHER, name="--duplicates/--no-duplicates"),
                "stratify": Shown(TOGETHER, name="--stratify/--no-stratify"),
            },
        ),
    ],
    as_json: Json = False,
) -> None:
    """Divide labelled images into training, validation and test parts."""
    from rooftrace.flows.split import run_split

    with bar("reading", counted("images"), hidden=as_json) as progress:
        made = run_split(data, out, options, progress=progress)
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
            f"blocks of {made.block_m:g} m with gaps of {made.gap_m:g} m: "
            f"{len(made.dropped)} images in the gaps are left out"
        )
    if made.copies:
        say(f"{made.copies} near-duplicates stay in the part of their originals")
    for note in made.notes:
        say(note)
    if not made.notes:
        say(f"next: rooftrace finetune {data.path} --split {out} -o tuned")
