"""`rooftrace vectorize`."""

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.options import Crs, Gsd, Json, option, out_option, result_file
from rooftrace.cli.show import answered, bar, counted, say
from rooftrace.predict.options import OutlineStyle

_READING, _POLYGONS = "How MASK is read", "Polygons"
_AS_PREDICTED = "as in the prediction that wrote MASK; else yes"


def vectorize(
    mask: Annotated[
        Path,
        typer.Argument(
            metavar="MASK",
            help="Raster with a mask or probabilities of buildings, or folder of a prediction.",
        ),
    ],
    out: Annotated[
        Path,
        out_option(
            "File to write: .gpkg, .geojson, .fgb, .parquet, .shp, .shp.zip, .gdb, .gdb.zip, "
            ".kml, .kmz, .csv, .xlsx, .dxf, .osm or .pmtiles.",
            parser=result_file,
        ),
    ],
    threshold: Annotated[
        float | None,
        option(
            _READING, min=0, max=1, metavar="P", show_default="0.5 for fractions",
            help="Smallest probability that is a building. Bytes are read as probabilities only "
            "if this is given.",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        option(
            _READING, "--class", metavar="CLASS",
            help="Value or name of a class to trace; repeatable.",
        ),
    ] = None,
    instances: Annotated[
        bool,
        option(
            _READING, "--instances", help="Every value above 0 is one building: a polygon each."
        ),
    ] = False,
    min_area: Annotated[
        float | None,
        option(
            _POLYGONS, "--min-area", min=0, metavar="M2", help="Minimum area of a polygon, in m²."
        ),
    ] = None,
    min_hole: Annotated[
        float | None,
        option(
            _POLYGONS, "--min-hole", min=0, metavar="M2",
            help="Minimum area of a hole in a building, in m²; at most --min-area.",
        ),
    ] = None,
    outline: Annotated[
        OutlineStyle | None,
        option(
            _POLYGONS,
            metavar="HOW",
            help="Outlines of buildings: pixel (along pixel edges), simplified, or regular (right "
            "angles where the walls have them).",
            show_default="as in the prediction that wrote MASK; else regular",
        ),
    ] = None,
    separate: Annotated[
        bool | None,
        option(
            _POLYGONS, "--separate/--no-separate", show_default=_AS_PREDICTED,
            help="Separate touching buildings where they are narrow.",
        ),
    ] = None,
    gsd: Gsd = None,
    crs: Crs = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Convert a mask or a raster of probabilities to polygons.

    Outlines of buildings get straight walls in the directions that each shows. A mask that
    rooftrace predict has written is converted with the settings of the prediction, unless options
    change them. Where the prediction divided buildings by what the mask does not hold, a note says
    so.
    """
    from rooftrace.flows.vectorize import run_vectorize
    from rooftrace.io.georeferenced import parse_crs

    options = {"min_area_m2": min_area, "min_hole_m2": min_hole, "separate": separate}
    changes = {name: value for name, value in options.items() if value is not None}
    with bar("vectorize", counted("px"), hidden=as_json) as progress:
        report = run_vectorize(
            mask, out, changes=changes, outline=outline, threshold=threshold,
            classes=classes or (), instances=instances, gsd_m=gsd,
            crs=None if crs is None else parse_crs(crs), progress=progress,
        )  # fmt: skip
    if answered(report, as_json=as_json):
        return
    for one in report.classes:
        area = "" if one.area_m2 is None else f", {one.area_m2:,.0f} m²"
        say(f"{one.name}: {one.polygons:,} polygons{area}")
    if report.regularized is not None:
        say(f"{report.regularized:.0%} of the buildings have regular outlines")
    rate = report.pixels / 1e6 / max(report.seconds, 1e-9)
    say(
        f"{report.output}: {report.polygons:,} polygons of {report.pixels / 1e6:,.1f} Mpx in "
        f"{report.seconds:.1f} s, {rate:,.0f} Mpx/s, peak memory {report.peak_rss_mb:.0f} MB"
    )
