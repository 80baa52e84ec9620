"""`rooftrace vectorize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import Gsd, Json
from rooftrace.cli.show import answered, bar, say

__all__ = ["vectorize"]


def vectorize(
    mask: Annotated[Path, typer.Argument(help="A mask, or probabilities of buildings.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help=".gpkg, .geojson, .fgb, .parquet or .shp.")
    ],
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Of probabilities; bytes are such only where it is given.",
            show_default="0.5 of fractions",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Only this class, by value or name; several times."),
    ] = None,
    min_area: Annotated[
        float | None, typer.Option("--min-area", min=0, help="Smallest polygon, m².")
    ] = None,
    min_hole: Annotated[
        float | None,
        typer.Option("--min-hole", min=0, help="Smallest hole of a building, m²."),
    ] = None,
    regularize: Annotated[
        bool, typer.Option("--regularize/--no-regularize", help="Right angles for buildings.")
    ] = True,
    separate: Annotated[
        bool,
        typer.Option("--separate/--no-separate", help="Cut buildings apart at narrow necks."),
    ] = True,
    score: Annotated[
        Path | None, typer.Option(help="Probabilities beside a mask, for the scores.")
    ] = None,
    gsd: Gsd = None,
    as_json: Json = False,
) -> None:
    """Polygons of any mask, with right angles where buildings have them."""
    from rooftrace.flows.vectorize import run_vectorize
    from rooftrace.vector.necks import Necks
    from rooftrace.vector.options import VectorOptions

    options = VectorOptions(
        min_area_m2=min_area,
        min_hole_m2=min_hole,
        min_area_px=0,
        regularize=regularize,
        separate=separate,
        necks=Necks() if separate else None,
    )
    with bar("vectorize", "px", hidden=as_json) as progress:
        report = run_vectorize(
            mask, out, options, threshold=threshold, classes=classes or (), score=score,
            gsd_m=gsd, progress=progress,
        )  # fmt: skip
    if answered(report, as_json=as_json):
        return
    for one in report.classes:
        area = "" if one.area_m2 is None else f", {one.area_m2:,.0f} m²"
        say(f"{one.name}: {one.polygons:,} polygons{area}")
    if report.regularized is not None:
        say(f"{report.regularized:.0%} of the buildings have right angles")
    rate = report.pixels / 1e6 / max(report.seconds, 1e-9)
    say(
        f"{report.output}: {report.polygons:,} polygons of {report.pixels / 1e6:,.1f} Mpx in "
        f"{report.seconds:.1f} s, {rate:,.0f} Mpx/s, peak memory {report.peak_rss_mb:.0f} MB"
    )
