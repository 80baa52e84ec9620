"""`rooftrace heights`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rooftrace.cli.options import Json, Layer, option, results_folder
from rooftrace.cli.show import answered, bar, counted, say
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural

if TYPE_CHECKING:
    from rooftrace.flows.heights import HeightsReport

_SOURCES, _LIMITS = "Heights", "Buildings and units"

Surface = Annotated[
    list[str] | None,
    option(
        _SOURCES, "--surface", metavar="PATH",
        help="Surface model (DSM) for heights; repeatable.",
    ),
]  # fmt: skip
Terrain = Annotated[
    list[str] | None,
    option(
        _SOURCES, "--terrain", metavar="PATH",
        help="Terrain model (DTM); default: ground around buildings.",
    ),
]  # fmt: skip


def with_tiles(
    surface: list[str] | None, tiles: Sequence[str | Path], terrain: list[str] | None
) -> tuple[str, ...]:
    """Return the files of --surface with those that a shell made of its pattern."""
    if tiles and terrain:
        raise ConfigError(
            f"{plural(len(tiles), 'more file')} may belong to --surface or to --terrain.",
            remedy="Give folders, or patterns in quotes: --surface 'dsm/*.tif'.",
        )
    return (*surface, *map(str, tiles)) if surface else ()


def heights(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUILDINGS",
            help="Vector file, folder of GeoParquet, or mask; then files of --surface or --points.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FOLDER", parser=results_folder, help="Folder for the results."
        ),
    ],
    surface: Surface = None,
    terrain: Terrain = None,
    points: Annotated[
        list[Path] | None,
        option(
            _SOURCES,
            metavar="PATH",
            help="Laser scan in place of --surface: LAS, LAZ, COPC or a folder; repeatable.",
        ),
    ] = None,
    layer: Layer = None,
    area: Annotated[
        Path | None,
        option(_LIMITS, metavar="FILE", help="Polygons of the area to measure."),
    ] = None,
    move: Annotated[
        bool,
        option(_LIMITS, "--move", help="Move the outlines onto the roofs of the surface."),
    ] = False,
    unit: Annotated[
        Literal["metre", "foot", "us-foot"] | None,
        option(
            _LIMITS,
            metavar="UNIT",
            help="metre, foot or us-foot; default: what the files state, else metre.",
        ),
    ] = None,
    crs: Annotated[
        str | None,
        option(
            _LIMITS,
            "--crs",
            metavar="CRS",
            help="CRS of surface, terrain or points that state none, such as EPSG:28992.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how tall buildings are, from a surface model or a laser scan.

    Writes the layer with height, 90 % interval, roof shape and ground of each building, a 3D city
    model (CityJSON), and a picture. A building that cannot be measured gets the reason instead.
    """
    from rooftrace.flows.heights import HeightOptions, run_heights
    from rooftrace.io.elevation import point_files
    from rooftrace.io.georeferenced import parse_crs

    buildings, tiles = inputs[0], inputs[1:]
    options = HeightOptions(
        surface=with_tiles(surface, tiles, terrain),
        terrain=tuple(terrain or ()),
        points=point_files([*(points or ()), *(() if surface else tiles)]),
        area=area,
        layer=layer,
        move=move,
        unit=unit,
        crs=None if crs is None else parse_crs(crs),
    )
    with bar("heights", counted("points" if points else "groups"), hidden=as_json) as progress:
        report = run_heights(buildings, out, options, progress=progress)
    if not answered(report, as_json=as_json):
        print_heights(report)


def print_heights(report: HeightsReport) -> None:
    """Print a report for people."""
    if report.height_m is not None and report.error_m is not None:
        say(
            f"{report.measured:,} of {report.buildings:,} buildings measured: median height "
            f"{report.height_m:.1f} m, 90 % within ± {report.error_m:.1f} m"
        )
        shapes = ", ".join(
            f"{count:,} {'undecided' if name == 'null' else name}"
            for name, count in report.shapes.items()
        )
        say(f"roofs: {shapes}")
        say(
            f"volume {report.volume_m3:,.0f} m³, floor area about {report.floor_m2:,.0f} m² "
            "(estimated)"
        )
    say(", ".join(map(str, report.files)))
