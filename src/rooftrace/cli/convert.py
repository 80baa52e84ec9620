"""`rooftrace convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import (
    Json,
    Order,
    takes_data,
)
from rooftrace.cli.show import answered, bar, say
from rooftrace.data.config import SourceConfig

__all__ = ["convert"]


@takes_data("Labelled data of any kind.")
def convert(
    data: SourceConfig,
    to: Annotated[str, typer.Option(help="The kind to write, such as folder, rle or coco.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file or folder to write.")],
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Copy the images beside the labels.")
    ] = False,
    order: Annotated[
        Order | None, typer.Option(help="Of the run lengths that are written.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Of the RLE table that is written, with commas.")
    ] = None,
    zoom: Annotated[
        int | None, typer.Option(min=0, max=30, help="Of the slippy tiles that are written.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only one part of a split: split.json:train.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write even where something lies already.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write labelled data as another kind."""
    from rooftrace.data.source import WriteOptions
    from rooftrace.flows.convert import run_convert

    options = WriteOptions(
        images="copy" if copy_images else "refer",
        order=None if order is None else order.value,
        columns=None if columns is None else tuple(name.strip() for name in columns.split(",")),
        zoom=zoom,
    )
    with bar("convert", "scenes", hidden=as_json) as progress:
        report = run_convert(
            data, to, out, options, split=split, overwrite=overwrite, progress=progress
        )
    if answered(report, as_json=as_json):
        return
    say(f"{report.path}: {report.scenes} scenes as {report.kind}, read as {report.read_as}")
