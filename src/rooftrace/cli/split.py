"""The command `rooftrace split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rooftrace.cli.data_options import DataFields
from rooftrace.cli.option_groups import with_groups
from rooftrace.cli.options import Json, option
from rooftrace.cli.show import bar, print_json, say
from rooftrace.labels.config import SourceConfig

TOGETHER = "How images are divided"
"""Title of the group of options for the division in the help."""


_DEFAULT = "0.05, or 0.2 of fewer than 200 images"


@with_groups
def split(
    data: Annotated[SourceConfig, DataFields("Labelled images of any kind.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="Split file (JSON) to write.")
    ],
    val: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Share of images for validation.", show_default=_DEFAULT
        ),
    ] = None,
    test: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Share of images for the final test.", show_default=_DEFAULT
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the random division.")] = 0,
    by: Annotated[
        Literal["image", "group", "block"],
        option(TOGETHER, metavar="UNIT", help="Keep together: image, group, or block (one place)."),
    ] = "image",
    group_pattern: Annotated[
        str | None,
        option(TOGETHER, metavar="REGEX", help="Regular expression; its first group is the group."),
    ] = None,
    block_m: Annotated[
        float | None,
        option(TOGETHER, metavar="M", help="Side of blocks in metres; default: by the extent."),
    ] = None,
    gap_m: Annotated[
        float | None,
        option(
            TOGETHER,
            metavar="M",
            help="Minimum distance of parts in metres; default: half an image.",
        ),
    ] = None,
    duplicates: Annotated[
        bool,
        option(TOGETHER, "--duplicates/--no-duplicates", help="Keep near-duplicates in one part."),
    ] = True,
    stratify: Annotated[
        bool,
        option(TOGETHER, "--stratify/--no-stratify", help="Give parts similar built-up shares."),
    ] = True,
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
            by=by,
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
            f"blocks of {made.block_m:g} m with gaps of {made.gap_m:g} m: "
            f"{len(made.dropped)} images in the gaps are left out"
        )
    if made.copies:
        say(f"{made.copies} near-duplicates stay in the part of their originals")
    for note in made.notes:
        say(note)
