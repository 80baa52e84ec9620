"""`rooftrace predict` with its demo, and `heights`, which measures what was predicted."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rooftrace.cli.option_groups import (
    AllOptions,
    ClusterGroup,
    ModelGroup,
    OutputGroup,
    RefineGroup,
    TileOptions,
    nodata_of,
    with_groups,
)
from rooftrace.cli.options import (
    IMAGES,
    Crs,
    ImageryDate,
    ImagerySource,
    Json,
    Layer,
    Nodata,
    Order,
    OutFolder,
    PolygonFormats,
    Results,
    Stac,
    option,
)
from rooftrace.cli.options import OUTPUTS as OUTPUT_OPTIONS
from rooftrace.cli.show import answered, bar, counted, pixels, say
from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.core.system import importing_further, limit_kept_memory
from rooftrace.core.text import list_first, plural
from rooftrace.predict.options import OUTPUTS

if TYPE_CHECKING:
    from rooftrace.flows.heights import HeightsReport
    from rooftrace.flows.predict.image_run import RunReport
    from rooftrace.predict.model_set import ModelSet


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
            help="Vector file, folder of a prediction or GeoParquet, or mask; then files of "
            "--surface or --points.",
        ),
    ],
    out: Results,
    surface: Surface = None,
    terrain: Terrain = None,
    points: Annotated[
        list[Path] | None,
        option(
            _SOURCES, metavar="PATH",
            help="Laser scan in place of --surface: LAS, LAZ, COPC or a folder; repeatable.",
        ),
    ] = None,
    layer: Layer = None,
    area: Annotated[
        Path | None, option(_LIMITS, metavar="FILE", help="Polygons of the area to measure.")
    ] = None,
    move: Annotated[
        bool, option(_LIMITS, "--move", help="Move the outlines onto the roofs of the surface.")
    ] = False,
    planes: Annotated[
        bool, option(_LIMITS, "--planes", help="Write each roof plane: slope, azimuth and area.")
    ] = False,
    unit: Annotated[
        Literal["metre", "decimetre", "centimetre", "millimetre", "foot", "us-foot"] | None,
        option(
            _LIMITS, metavar="UNIT",
            help="metre, decimetre, centimetre, millimetre, foot or us-foot; default: what the "
            "files state, else metre.",
        ),
    ] = None,
    crs: Annotated[
        str | None,
        option(
            _LIMITS, "--crs", metavar="CRS",
            help="CRS of surface, terrain or points that state none, such as EPSG:28992.",
        ),
    ] = None,
    formats: PolygonFormats = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Measure how tall buildings are, from a surface model or a laser scan.

    Writes the layer with height, 90 % interval, roof shape and ground of each building, a 3D city
    model (CityJSON), and a picture. A building that cannot be measured gets the reason instead.
    """
    from rooftrace.flows.heights import HeightOptions, run_heights
    from rooftrace.io.elevation import point_files
    from rooftrace.io.georeferenced import parse_crs
    from rooftrace.io.vector_write import known_formats

    buildings, tiles = inputs[0], inputs[1:]
    options = HeightOptions(
        surface=with_tiles(surface, tiles, terrain), terrain=tuple(terrain or ()),
        points=point_files([*(points or ()), *(() if surface else tiles)]), area=area, layer=layer,
        move=move, planes=planes, unit=unit, crs=None if crs is None else parse_crs(crs),
        formats=known_formats(formats),
    )  # fmt: skip
    with bar("heights", counted("points" if points else "groups"), hidden=as_json) as progress:
        report = run_heights(buildings, out, options, progress=progress)
    if not answered(report, as_json=as_json):
        print_heights(report)


def print_heights(report: HeightsReport) -> None:
    """Print a report for people."""
    found = f"{report.measured:,} of {report.buildings:,} buildings measured"
    if report.height_m is None or report.error_m is None:
        say(found)
    else:
        median = f"median height {report.height_m:.1f} m"
        say(f"{found}: {median}, 90 % within ± {report.error_m:.1f} m")
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


_READ: list[ModelSet] = []
"""Models of the command: `__main__` ends the process without freeing them, which takes 0.03 s."""

_MAX_IMAGES = 20
"""Maximum number of images listed in the terminal; run.json lists all."""

_MAX_CLASSES = 6
"""Maximum number of classes listed for an image in the terminal; run.json lists all."""


@with_groups
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES", show_default=False,
            help="Images, folders, URLs, or a map service: {z}/{x}/{y}, or the capabilities of a "
            "WMTS or WMS.",
        ),
    ],
    *,
    out: OutFolder,
    model: ModelGroup,
    options: AllOptions,
    nodata: Nodata = None,
    crs: Crs = None,
    mosaic: Annotated[
        bool,
        option(IMAGES, "--mosaic", help="Predict each folder of adjacent images as one scene."),
    ] = False,
    zoom: Annotated[
        int | None,
        option(
            IMAGES, rare=True, min=0, max=30, metavar="N",
            help="Zoom of map tiles; default: the one that suits the model.",
        ),
    ] = None,
    tms: Annotated[
        bool | None,
        option(
            IMAGES, "--tms/--xyz", rare=True,
            help="Rows of map tiles count from the south (TMS) or north (XYZ).",
        ),
    ] = None,
    area: Annotated[
        Path | None,
        option(
            IMAGES, metavar="FILE", help="Polygons; only images and pixels inside are predicted."
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        option(
            OUTPUT_OPTIONS, rare=True, metavar="FILE",
            help="Table of a contest whose rows and columns --outputs rle keeps, or COCO file "
            "whose ids --outputs coco takes.",
        ),
    ] = None,
    order: Annotated[
        Order | None,
        option(
            OUTPUT_OPTIONS, rare=True, metavar="ORDER",
            help="Pixel order of --outputs rle: row or column; default: the table's usual.",
        ),
    ] = None,
    surface: Surface = None,
    terrain: Terrain = None,
    imagery_date: ImageryDate = None,
    source: ImagerySource = None,
    formats: PolygonFormats = None,
    stac: Stac = False,
    service: TileOptions,
    chosen: OutputGroup,
    refinement: RefineGroup,
    cluster: ClusterGroup,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Predict buildings in images: mask, polygons, density and preview.

    The same command resumes a stopped run.
    """
    options, wanted = chosen.applied(options, OUTPUTS, ("rle", "coco"))
    if (sample is not None and not wanted) or (order is not None and "rle" not in wanted):
        raise ConfigError(
            "--sample or --order was given without --outputs rle.",
            remedy="Add --outputs rle; for COCO results, --outputs coco with --sample alone.",
        )
    if len(wanted) > 1:
        raise ConfigError(
            "--outputs received rle and coco; expected one of them.", remedy="Leave one out."
        )
    heights = None
    from rooftrace.io.vector_write import known_formats

    further = known_formats(formats)
    if surface or terrain:
        from rooftrace.flows.heights import HeightOptions
        from rooftrace.io.elevation import holds_heights

        # A shell makes several words of --surface dsm/*.tif.
        tiles = [one for one in inputs if surface and holds_heights(Path(one))]
        if len(tiles) < len(inputs):
            surface = list(with_tiles(surface, tiles, terrain))
            inputs = [one for one in inputs if one not in tiles]
        sources = tuple(surface or ()), tuple(terrain or ())
        heights = HeightOptions(*sources, formats=further)
    spread = cluster.parsed()
    from rooftrace.core.types import ResultProvenance
    from rooftrace.flows.predict.inputs import find_inputs
    from rooftrace.io.area import read_area
    from rooftrace.io.bands import HEIGHT_BAND
    from rooftrace.io.georeferenced import parse_crs, parse_imagery_date

    given_crs = None if crs is None else parse_crs(crs)
    origin = ResultProvenance(imagery_date and parse_imagery_date(imagery_date), source)

    limit_kept_memory()
    with bar("predict", pixels, hidden=as_json) as progress:
        limit = None if area is None else read_area(area, service.layer)
        models, segmenter = model.read(), refinement.load()
        _READ[:] = [models]
        reads_heights = HEIGHT_BAND in models.bundles[0].spec.bands and terrain is not None
        if reads_heights and "polygons" not in options.outputs:
            heights = None
        if heights is not None:
            heights.check_prediction(options.outputs)
        opened = find_inputs(
            inputs, nodata_of(nodata), mosaic=mosaic, zoom=zoom, tms=tms, area=limit,
            provenance=origin, crs=given_crs,
            heights=(surface or (), terrain or ()) if reads_heights else None,
            services=service.model_copy(
                update={"gsd_m": models.bundles[0].spec.least_gsd_m}
            ),
            trusted=True,
        )  # fmt: skip
        if surface or terrain:
            opened = opened.beside((*(surface or ()), *(terrain or ())))
        for raster in opened.services:
            say(raster.preview)
        rle = coco = None
        if wanted:
            from rooftrace.flows.predict.contest_output import CocoOutput, RleOutput

            if "rle" in wanted:
                rle = RleOutput.of(opened.scenes, out, sample, order)
            else:
                coco = CocoOutput.of(opened.scenes, out, sample)
        if spread is None and len(opened.scenes) == 1:
            models.begin(opened.scenes[0].source, options)
        # What makes and writes results is imported while the network is compiled.
        with importing_further():
            import pyogrio  # noqa: F401

            from rooftrace.flows.predict.run import run_predict

        failure = None
        try:
            report = run_predict(
                opened, models, out, options, cluster=spread, stac=stac, formats=further,
                segmenter=segmenter, rle=rle, progress=progress,
            )  # fmt: skip
        except RooftraceError as error:
            if error.report is None:
                raise
            report, failure, coco, heights = error.report, error, None, None
        if coco is not None:
            report = coco.write(report)
        if heights is not None:
            report = heights.measure(report)
    if failure is None or not as_json:
        show_run(report, out, as_json=as_json)
    if failure is not None:
        raise failure


def show_run(report: RunReport, out: Path, *, as_json: bool) -> None:
    """Print the report of a run, as JSON for programs or as text for people."""
    from rooftrace.predict.outputs import figures_text

    if answered(report, as_json=as_json):
        return
    for output in report.outputs[:_MAX_IMAGES]:
        names = [one.name for one in output.classes]
        figures = figures_text(names, output.buildings, output.built_up_share)
        say(f"{output.input}: {figures}, {output.pixels / 1e6:.2f} Mpx in {output.seconds:.2f} s")
        if len(output.classes) > 2:
            present = sorted((c for c in output.classes if c.pixels), key=lambda c: -c.share)
            largest = list_first([f"{c.name} {c.share:.1%}" for c in present], _MAX_CLASSES)
            say(f"  {'classes':9}{largest}")
        for kind in OUTPUTS:
            if (path := getattr(output, kind)) is not None:
                # A density has a raster, polygons and a picture; polygons may have further formats.
                file = Path(path)
                beside = {one.name for one in file.parent.glob(f"{glob.escape(file.stem)}.*")}
                more = sorted(one.removeprefix(file.stem) for one in beside - {file.name})
                say(f"  {kind:9}{path}{f' ({list_first(more, 9)})' * bool(more)}")
    for one in report.heights:
        print_heights(one)
    if report.table is not None:
        say(f"  {'table':9}{report.table}")
    if len(report.outputs) > _MAX_IMAGES:
        say(f"… and {plural(len(report.outputs) - _MAX_IMAGES, 'more image')}, listed in run.json.")
    if report.resumed_images or report.resumed_blocks:
        say(
            f"Resumed an earlier run: {plural(report.resumed_images, 'image')} and "
            f"{plural(report.resumed_blocks, 'block')} were already finished."
        )
    figures = f"{report.mpx_per_s:.1f} Mpx/s in all, peak memory {report.peak_rss_mb:.0f} MB"
    say(f"{figures}, record {out / 'run.json'}")
    if report.outputs:
        say(f"next: rooftrace serve --results {out} --open")


def demo(out: Results = Path("rooftrace-demo"), as_json: Json = False) -> None:
    """Predict a small scene that comes with rooftrace, to see what it writes."""
    from rooftrace.flows.predict.inputs import find_inputs
    from rooftrace.flows.predict.run import run_predict
    from rooftrace.io.files import demo_scene_path
    from rooftrace.predict.model_set import read_models

    with bar("predict", pixels, hidden=as_json) as progress:
        inputs = find_inputs([demo_scene_path()])
        report = run_predict(inputs, read_models(Path("default")), out, progress=progress)
    show_run(report, out, as_json=as_json)
    if not as_json:
        say(
            f"Open the files of {out} in QGIS or a browser. Your own image: rooftrace predict IMAGE"
        )
