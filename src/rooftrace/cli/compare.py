"""`rooftrace compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rooftrace.cli.options import Json, model_of, option
from rooftrace.cli.show import answered, bar, say

if TYPE_CHECKING:
    from rooftrace.flows.compare.run import CompareReport

_DATES, _SEEN, _RULES, _OUTPUTS = (
    "Two dates of imagery",
    "Ground that was seen",
    "Statuses",
    "Outputs",
)


def compare(
    new: Annotated[
        Path,
        typer.Argument(
            metavar="NEW",
            help="New buildings: a vector file, a folder of GeoParquet, a mask, probabilities, or "
            "an image with -m.",
        ),
    ],
    old: Annotated[
        Path, typer.Argument(metavar="OLD", help="Old buildings, such as those of a map.")
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the results."),
    ],
    model: Annotated[
        Path | None,
        option(
            _DATES,
            "-m",
            "--model",
            metavar="FILE",
            help="Predict NEW and OLD, two images, with this .rooftrace file, or with a bundled "
            "model: default or accurate.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        option(
            _DATES,
            min=0,
            max=1,
            metavar="P",
            help="Building probability from which a pixel is a building; default: the model's "
            "own, or 0.5 for probabilities. Rasters of bytes are read as probabilities.",
        ),
    ] = None,
    imagery: Annotated[
        list[Path] | None,
        option(
            _SEEN,
            metavar="FILE",
            help="Image that NEW was made from: what its nodata hides is not gone; repeatable.",
        ),
    ] = None,
    area: Annotated[
        Path | None,
        option(_SEEN, metavar="FILE", help="Polygons of the area that NEW covers."),
    ] = None,
    layer: Annotated[
        str | None,
        option(_SEEN, metavar="NAME", help="Layer of files with several; * joins them."),
    ] = None,
    remove_offset: Annotated[
        bool,
        option(
            _RULES,
            "--remove-offset",
            help="Move NEW onto OLD by the systematic offset between them.",
        ),
    ] = False,
    same_iou: Annotated[
        float,
        option(
            _RULES,
            min=0.5,
            max=1,
            metavar="IOU",
            help="Minimum IoU of a building that is the same.",
        ),
    ] = 0.6,
    move: Annotated[
        float,
        option(
            _RULES,
            "--move",
            min=0,
            metavar="M",
            help="Minimum distance in metres of a building that has moved.",
        ),
    ] = 3.0,
    max_move: Annotated[
        float,
        option(
            _RULES,
            "--max-move",
            min=0,
            metavar="M",
            help="Maximum distance in metres of a building that has moved.",
        ),
    ] = 10.0,
    keep: Annotated[
        Literal["old", "new", "both"] | None,
        option(
            _OUTPUTS,
            metavar="WHICH",
            help="Write one layer without duplicates, conflated.gpkg, with the attributes of OLD: "
            "outlines of old, of new, or of both (new ones only where a building changed).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two layers of buildings: find which are new, gone, changed, moved, split or merged.

    Both may be any vector file of polygons, in any coordinate system, or masks, which are
    vectorised. Extracts of OpenStreetMap and tables of Google and Microsoft are read, too. Two
    rasters of probabilities, or two images with -m, are two dates: only changes of which both are
    sure count.
    """
    from rooftrace.flows.compare.run import CompareOptions, run_compare
    from rooftrace.predict.model_set import read_models
    from rooftrace.vector.compare import CompareRules

    options = CompareOptions(
        imagery=tuple(imagery or ()),
        area=area,
        rules=CompareRules(same_iou=same_iou, move_m=move, max_move_m=max_move),
        remove_offset=remove_offset,
        keep=keep,
        models=None if model is None else read_models(model_of(model)),
        threshold=threshold,
        layer=layer,
    )
    with bar("compare", "steps", hidden=as_json) as progress:
        report = run_compare(new, old, out, options, progress=progress)
    if not answered(report, as_json=as_json):
        _print_report(report)


def _print_report(report: CompareReport) -> None:
    for row in report.table:
        if row.new or row.old:
            say(f"{row.status:8} {row.new:10,} of NEW {row.old:10,} of OLD")
    if report.offset is not None:
        # The sum with 0 makes 0 of -0.
        east, north = (round(metres, 2) + 0.0 for metres in report.offset.xy.tolist())
        removed = "removed" if report.offset_removed else "not removed"
        say(f"offset {east:+.2f} m east, {north:+.2f} m north, {removed}")
    say(", ".join(map(str, report.files)))
