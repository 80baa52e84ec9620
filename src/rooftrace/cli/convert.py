"""The command `rooftrace convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.data_options import DataFields
from rooftrace.cli.option_groups import with_groups
from rooftrace.cli.options import Json, Order, option
from rooftrace.cli.show import answered, bar, counted, say
from rooftrace.labels.config import SourceConfig

_KINDS = {".csv": "rle", ".json": "coco"}
"""Kind of data by the suffix of the output; others are folders."""

WRITTEN = "How data is written"
"""Title of the group of options for writing in the help."""


@with_groups
def convert(
    data: Annotated[SourceConfig, DataFields("Labelled data of any kind.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="PATH", help="File or folder to write.")
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Kind to write, such as folder, rle or coco; default: rle for .csv, coco for "
            ".json, else folder.",
        ),
    ] = None,
    copy_images: Annotated[
        bool,
        option(WRITTEN, "--copy-images", help="Copy the images beside the labels."),
    ] = False,
    order: Annotated[
        Order | None,
        option(WRITTEN, help="Direction of the runs of an RLE table."),
    ] = None,
    columns: Annotated[
        str | None,
        option(WRITTEN, metavar="A,B,C", help="Columns of an RLE table."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="FILE:PART", help="Write only one part, such as split.json:train."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write even if the output already exists.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Convert labelled data to another kind."""
    from rooftrace.flows.convert import run_convert
    from rooftrace.labels.source import WriteOptions

    options = WriteOptions(
        images="copy" if copy_images else "refer",
        order=order,
        columns=None if columns is None else tuple(name.strip() for name in columns.split(",")),
    )
    kind = to or _KINDS.get(out.suffix.lower(), "folder")
    with bar("convert", counted("scenes"), hidden=as_json) as progress:
        report = run_convert(
            data,
            kind,
            out,
            options,
            split=split,
            overwrite=overwrite,
            progress=progress,
        )
    if answered(report, as_json=as_json):
        return
    say(f"{report.path}: {report.scenes} scenes as {report.kind}, read as {report.read_as}")
