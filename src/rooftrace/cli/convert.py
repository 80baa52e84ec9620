"""`rooftrace convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import (
    Annotator,
    DataSettings,
    Glob,
    Gsd,
    Images,
    Json,
    Kind,
    Layout,
    Nodata,
    Order,
    Part,
    source_config,
)
from rooftrace.cli.show import bar, print_json, say

__all__ = ["convert"]


def convert(
    data: Annotated[Path, typer.Argument(help="Labelled data of any kind.")],
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
    kind: Kind = None,
    images: Images = None,
    annotator: Annotator = None,
    layout: Layout = None,
    glob: Glob = None,
    part: Part = None,
    nodata: Nodata = None,
    gsd: Gsd = None,
    settings: DataSettings = None,
    as_json: Json = False,
) -> None:
    """Write labelled data as another kind."""
    from rooftrace.data.source import WriteOptions
    from rooftrace.flows.convert import run_convert

    given = source_config(
        data, settings, kind=kind, images=images, annotator=annotator, layout=layout, glob=glob,
        part=part, nodata=nodata, gsd_m=gsd,
    )  # fmt: skip
    options = WriteOptions(
        images="copy" if copy_images else "refer",
        order=None if order is None else order.value,
        columns=None if columns is None else tuple(name.strip() for name in columns.split(",")),
        zoom=zoom,
    )
    with bar("convert", "scenes", hidden=as_json) as progress:
        report = run_convert(
            given, to, out, options, split=split, overwrite=overwrite, progress=progress
        )
    if as_json:
        print_json(report.to_json())
        return
    for note in report.notes:
        say(f"note: {note}")
    say(f"{report.path}: {report.scenes} scenes as {report.kind}, read as {report.read_as}")
