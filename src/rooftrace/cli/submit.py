"""`rooftrace submit`: write the masks of many images as one table of run lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.option_groups import InputGroup, ModelGroup, with_groups
from rooftrace.cli.options import OUTPUTS, Json, Order, option
from rooftrace.cli.show import answered, bar, say
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural
from rooftrace.predict.plan import SceneOptions


@with_groups
def submit(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES", show_default=False,
            help="Images, and folders of images with their subfolders.",
        ),
    ],
    *,
    out: Annotated[
        Path,
        option(
            OUTPUTS, "-o", "--out", metavar="TABLE", show_default=False,
            help="Table to write, such as submission.csv.",
        ),
    ],
    sample: Annotated[
        Path | None,
        option(
            OUTPUTS, metavar="TABLE",
            help="Sample table of the contest, whose rows and columns are kept.",
        ),
    ] = None,
    order: Annotated[
        Order | None,
        option(
            OUTPUTS, metavar="ORDER",
            help="Pixel order of the runs: row or column; default: the usual order for the table's "
            "columns.",
        ),
    ] = None,
    model: ModelGroup,
    pixels: InputGroup,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Write a table of run lengths for a contest, with one row for each image.

    To resume a run that was stopped, run the same command again.
    """
    for given in images:
        if "://" in given:
            raise ConfigError(
                f"{given} is an address; rooftrace submit reads files on this machine.",
                remedy="Download the images, and give their folder.",
            )
    options = SceneOptions(threshold=model.threshold, **pixels.parsed())
    from rooftrace.flows.submit import run_submit

    with bar("submit", "images", hidden=as_json) as progress:
        report = run_submit(
            [Path(given) for given in images], model.read(), out, sample=sample,
            order=order, options=options, nodata=pixels.nodata_rule, progress=progress,
        )  # fmt: skip
    if answered(report, as_json=as_json):
        return
    resumed = f", {report.resumed:,} of them from an earlier run" if report.resumed else ""
    say(
        f"{report.path}: {plural(report.images, 'image')}{resumed}, {report.empty:,} without a "
        f"building, pixel order: {report.order}"
    )
    say(f"{report.images_per_s:.1f} images/s, peak memory {report.peak_rss_mb:.0f} MB")
