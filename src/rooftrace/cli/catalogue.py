"""`rooftrace catalogue`: predict buildings in many scenes, as one layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rooftrace.cli.option_groups import (
    ALL_FIELDS,
    ClusterGroup,
    ModelGroup,
    OutputGroup,
    nodata_of,
    scene_fields,
    with_groups,
)
from rooftrace.cli.options import CATALOGUE, IMAGES, Json, Layer, Nodata, OutFolder, option
from rooftrace.cli.show import answered, bar, pixels, say
from rooftrace.core.text import plural
from rooftrace.predict.options import SceneOptions

_SCENE_FIELDS = tuple(name for name in ALL_FIELDS if name not in ("gsd_m", "scale"))
"""Each scene has its own metres per pixel."""

if TYPE_CHECKING:
    from rooftrace.flows.catalogue.run import CatalogueReport

_MAX_FAILURES = 10
"""Maximum number of failed scenes listed in the terminal; the manifest lists all."""


@with_groups
def catalogue(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", show_default=False,
            help="Folder of images with its subfolders, a list of scenes (.txt, STAC items as "
            ".json), a STAC catalog, or the URL of a STAC API.",
        ),
    ],
    *,
    out: OutFolder,
    collection: Annotated[
        list[str] | None,
        option(
            CATALOGUE, metavar="ID",
            help="Collection of the STAC API or catalog to search; repeat it for several.",
        ),
    ] = None,
    datetime: Annotated[
        str | None,
        option(
            CATALOGUE, metavar="PERIOD",
            help="Date of the imagery to search for: 2024, 2024-06, or 2023-01-01/2024-06-30.",
        ),
    ] = None,
    max_items: Annotated[
        int | None,
        option(
            CATALOGUE, min=1, metavar="N",
            help="Maximum number of images to take from a search; default: 10,000, and more is "
            "an error.",
        ),
    ] = None,
    area: Annotated[
        Path | None,
        option(
            IMAGES, metavar="FILE",
            help="Vector file of polygons; only scenes and pixels inside are predicted.",
        ),
    ] = None,
    layer: Layer = None,
    asset: Annotated[
        str | None,
        option(
            CATALOGUE, metavar="KEY",
            help="Key of the STAC asset that is the image.",
        ),
    ] = None,
    level: Annotated[
        int,
        option(
            CATALOGUE, min=0, max=20, metavar="N",
            help="Zoom level of the quadkeys that divide the layer into files.",
        ),
    ] = 11,
    stac: Annotated[
        bool | None,
        option(
            CATALOGUE, "--stac/--no-stac",
            help="Describe the results as a STAC collection; default: for the results of a search.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        option(CATALOGUE, "--strict", help="Stop at the first scene that fails."),
    ] = False,
    model: ModelGroup,
    options: Annotated[SceneOptions, scene_fields(*_SCENE_FIELDS)],
    nodata: Nodata = None,
    chosen: OutputGroup,
    cluster: ClusterGroup,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Predict buildings in many scenes, as one layer without duplicates.

    To resume a stopped run, retry failed scenes or add new ones, run the same command again.
    """
    options, _ = chosen.applied(options, ("polygons",))
    spread = cluster.parsed()
    from rooftrace.flows.catalogue.run import run_catalogue
    from rooftrace.flows.catalogue.scenes import is_searched, open_catalogue
    from rooftrace.flows.predict.run import executing
    from rooftrace.io.area import read_area

    limit = None if area is None else read_area(area, layer)
    scenes = open_catalogue(
        source, collections=collection or (), datetime=datetime,
        max_items=max_items, area=limit, asset=asset,
    )  # fmt: skip
    if is_searched(source) and not as_json:
        say(f"{scenes.name}: {plural(len(scenes.scenes), 'image')} found")
    with (
        executing(model.read(), spread) as executor,
        bar("predict", pixels, hidden=as_json) as progress,
    ):
        report = run_catalogue(
            scenes, executor, out, options, level=level, strict=strict,
            nodata=nodata_of(nodata), area=limit,
            stac=is_searched(source) if stac is None else stac,
            progress=progress,
        )  # fmt: skip
    _show(report, as_json=as_json)


def _show(report: CatalogueReport, *, as_json: bool) -> None:
    if answered(report, as_json=as_json):
        return
    for name, error in report.failures[:_MAX_FAILURES]:
        say(f"failed: {name}: {error.message}")
    if len(report.failures) > _MAX_FAILURES:
        say(f"… and {len(report.failures) - _MAX_FAILURES:,} more, listed in {report.manifest}")
    done = report.scenes - len(report.failures)
    say(
        f"{done:,} of {plural(report.scenes, 'scene')}: {plural(report.buildings, 'building')} in "
        f"{plural(report.partitions, 'file')}, after removing duplicates from {report.found:,}"
    )
    resumed = report.predicted.resumed_images
    if resumed:
        say(
            "Resumed an earlier run: "
            f"{plural(resumed, 'scene was', 'scenes were')} already finished."
        )
    say(
        f"{report.predicted.mpx_per_s:.1f} Mpx/s, peak memory "
        f"{report.predicted.peak_rss_mb:.0f} MB, manifest {report.manifest}"
    )
