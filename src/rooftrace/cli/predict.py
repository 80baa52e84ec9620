"""`rooftrace predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import (
    EngineName,
    Gsd,
    Json,
    Nodata,
    Precision,
    Threshold,
    parse_nodata,
)
from rooftrace.cli.show import bar, print_json, say
from rooftrace.data.config import nodata_rule

__all__ = ["predict"]


def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders, GeoTIFFs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    bundle: Annotated[
        Path | None, typer.Option("-m", "--model", help="A .rooftrace file; default: bundled.")
    ] = None,
    gsd: Gsd = None,
    threshold: Threshold = None,
    min_area: Annotated[
        float | None, typer.Option("--min-area", min=0, help="Smallest building, m².")
    ] = None,
    nodata: Nodata = None,
    engine: EngineName = None,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Mask, building polygons and a preview of each image."""
    from rooftrace.flows.predict import run_predict

    with bar("predict", "px", hidden=as_json) as progress:
        report = run_predict(
            inputs,
            bundle,
            out,
            gsd_m=gsd,
            threshold=threshold,
            min_area_m2=min_area,
            engine=engine,
            precision=precision,
            nodata=None if nodata is None else nodata_rule(parse_nodata(nodata)),
            progress=progress,
        )
    if as_json:
        print_json(report.to_json())
        return
    for note in report.notes:
        say(f"note: {note}")
    for output in report.outputs:
        say(
            f"{output.input}: {output.buildings:,} buildings, "
            f"{output.built_up_share:.1%} built up, "
            f"{output.pixels / 1e6:.2f} Mpx in {output.seconds:.2f} s"
        )
        for kind in ("mask", "polygons", "preview"):
            say(f"  {kind:9}{getattr(output, kind)}")
    say(
        f"{report.mpx_per_s:.1f} Mpx/s, peak memory {report.peak_rss_mb:.0f} MB, "
        f"record {out / 'run.json'}"
    )
