"""`rooftrace density`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rooftrace.cli.options import Gsd, Json, Layer, option, out_option
from rooftrace.cli.show import answered, bar, counted, people, say
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural

if TYPE_CHECKING:
    from rooftrace.density.files import DensityThreshold
    from rooftrace.flows.density.dates import DatesReport
    from rooftrace.flows.density.images import ImagesReport
    from rooftrace.flows.density.run import DensityReport

_CELL_M, _MAX_ZONES = 100.0, 40
_PLACES, _DENSE, _INPUTS = "Places to measure", "Sparse or dense", "Inputs"


def density(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUTS",
            help="Mask, polygons of buildings, or both; or folder of a prediction. With "
            "--by-image or --fit: folder of masks.",
        ),
    ],
    out: Annotated[
        Path,
        out_option("Path of the results without their endings, or an existing folder.", "PATH"),
    ],
    cell: Annotated[
        float | None,
        option(
            _PLACES, min=1e-3, metavar="M", show_default=f"{_CELL_M:g}",
            help="Side of a cell in metres.",
        ),
    ] = None,
    zones: Annotated[
        Path | None,
        option(
            _PLACES, metavar="FILE",
            help="File of polygons, such as wards, to measure instead of cells.",
        ),
    ] = None,
    by_image: Annotated[
        bool,
        option(
            _PLACES, "--by-image",
            help="Write a table with the share and the class of each mask of a folder.",
        ),
    ] = False,
    by_date: Annotated[
        bool,
        option(
            _PLACES, "--by-date",
            help="With --zones: each input is a date; one table, also of the ground that all show.",
        ),
    ] = False,
    fit: Annotated[
        Path | None,
        option(
            _DENSE, metavar="CSV",
            help="CSV with the columns image and label (sparse or dense), to fit the threshold.",
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        option(
            _DENSE, metavar="SHARE", show_default="0.2",
            help="Smallest built-up share that is dense, or the JSON file of a fit.",
        ),
    ] = None,
    building: Annotated[
        str | None,
        option(
            _INPUTS, metavar="CLASS",
            help="Class of buildings: its name, or its index in a mask; a status of a comparison.",
        ),
    ] = None,
    min_area: Annotated[
        float | None,
        option(
            _INPUTS, "--min-area", min=0, metavar="M2",
            help="Minimum area of a building that is counted, in m².",
        ),
    ] = None,
    glob: Annotated[
        list[str] | None,
        option(
            _INPUTS, metavar="PATTERN",
            help="Pattern of file names to include with --by-image; repeatable.",
        ),
    ] = None,
    value: Annotated[
        str | None,
        option(
            _INPUTS, metavar="COLUMN",
            help="With --zones: add the mean of a column of the buildings; of height also volume "
            "and floor area.",
        ),
    ] = None,
    layer: Layer = None,
    gsd: Gsd = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Measure the built-up share and the number, size and distance of buildings.

    Figures are computed by cell, by zone or by image.
    """
    options: dict[str, object] = {
        "--cell": cell, "--zones": zones, "--min-area": min_area, "--gsd": gsd, "--glob": glob,
        "--fit": fit, "--threshold": threshold, "--layer": layer,
        "--value": value,
    }  # fmt: skip
    if fit is not None or by_image:
        images = ("--glob", "--threshold") if fit is None else ("--fit",)
        _refuse(options, images, "--by-image" if fit is None else "--fit")
        _by_image(
            _one(inputs), out, fit, building, glob or [], _threshold(threshold), as_json=as_json
        )
        return
    _refuse({"--glob": glob}, (), "a single scene")
    from rooftrace.flows.density.dates import run_date_density
    from rooftrace.flows.density.run import run_density, run_zone_density

    limit, smallest = _threshold(threshold), min_area or 0.0
    if by_date:
        _refuse({"--cell": cell, "--gsd": gsd, "--value": value}, (), "--by-date")
        if zones is None:
            raise ConfigError(
                "Received --by-date without --zones.",
                remedy="Add --zones wards.gpkg, or the cells of one date: --zones "
                "OUT/NAME_density.gpkg.",
            )
        with bar("density", counted("dates"), hidden=as_json) as progress:
            dates = run_date_density(
                inputs, zones, out, building=building, min_area_m2=smallest, threshold=limit,
                layer=layer, progress=progress,
            )  # fmt: skip
        if not answered(dates, as_json=as_json):
            _print_dates(dates)
        return
    with bar("density", counted("px"), hidden=as_json) as progress:
        if zones is None:
            if value is not None:
                raise ConfigError(
                    "Received --value without --zones: heights are summed by zone.",
                    remedy="Add --zones wards.gpkg.",
                )
            report = run_density(
                inputs, out, cell_m=_CELL_M if cell is None else cell, gsd_m=gsd,
                building=building, min_area_m2=smallest, threshold=limit, layer=layer,
                progress=progress,
            )  # fmt: skip
        else:
            _refuse({"--cell": cell, "--gsd": gsd}, (), "--zones")
            report = run_zone_density(
                inputs, zones, out, building=building, min_area_m2=smallest, threshold=limit,
                layer=layer, value=value, progress=progress,
            )  # fmt: skip
    if not answered(report, as_json=as_json):
        _print_report(report)


def _by_image(
    data: Path,
    out: Path,
    fit: Path | None,
    building: str | None,
    glob: list[str],
    threshold: DensityThreshold,
    *,
    as_json: bool,
) -> None:
    from rooftrace.flows.density.images import fit_images, run_by_image

    with bar("density", counted("masks"), hidden=as_json) as progress:
        if fit is None:
            report = run_by_image(
                data, out, building=building, glob=glob, threshold=threshold, progress=progress
            )
        else:
            report = fit_images(data, fit, out, building=building, progress=progress)
    if not answered(report, as_json=as_json):
        _print_images(report)


def _threshold(given: str | None) -> DensityThreshold:
    """Return the threshold given as a share or as the file of a fit."""
    from rooftrace.core.config import parse_config
    from rooftrace.density.files import DEFAULT_THRESHOLD, DensityThreshold, read_threshold

    if given is None:
        return DEFAULT_THRESHOLD
    try:
        share = float(given)
    except ValueError:
        return read_threshold(Path(given))
    return parse_config({"threshold": share}, DensityThreshold, source="--threshold")


def _one(inputs: list[Path]) -> Path:
    if len(inputs) > 1:
        raise ConfigError(
            f"Received {len(inputs)} inputs: {', '.join(map(str, inputs))}; expected one folder of "
            "masks.",
            remedy="Give the folder that contains all of them.",
        )
    return inputs[0]


def _refuse(given: dict[str, object], allowed: tuple[str, ...], by: str) -> None:
    for name, value in given.items():
        if name not in allowed and value is not None:
            raise ConfigError(f"{name} cannot be combined with {by}.", remedy="Remove one of them.")


def _print_report(report: DensityReport) -> None:
    if report.total is not None:
        rows, columns = report.figures.area_m2.shape
        total = report.total.to_json()
        nearest = total["nearest_m"]
        say(f"{rows} × {columns} {report.places}, on {report.crs}")
        say(
            f"{_shown(total['built_up_share'], '.1%')} of the observed area is built up; "
            f"{plural(int(total['buildings'] or 0), 'building')}, "
            f"{_shown(total['buildings_per_ha'], '.2f')} per hectare"
            + (f", mean area {total['mean_area_m2']:.1f} m²" if total["buildings"] else "")
            + ("" if nearest is None else f", mean distance to the nearest {nearest:.1f} m")
        )
    else:
        say(f"{plural(len(report.names), 'zone')}, measured on {report.crs}")
        seen = "seen (assumed)" if report.is_seen_assumed else "seen"
        table = Table("zone", "built-up", "buildings", seen, "")
        for column in table.columns[1:4]:
            column.justify = "right"
        figures = report.figures
        zones = zip(
            report.names[:_MAX_ZONES], figures.built_up_share.tolist(),
            figures.known(figures.buildings).tolist(), figures.observed_share.tolist(),
            report.threshold.classes(figures.judged_share),
        )  # fmt: skip
        for name, share, buildings, part, kind in zones:
            table.add_row(
                escape(name),
                "" if share != share else report.threshold.percent(share, 1),
                "" if buildings is None else f"{buildings:,}",
                f"{part:.0%}", kind or "no class",
            )  # fmt: skip
        people().print(table)
        if len(report.names) > _MAX_ZONES:
            say(f"… and {len(report.names) - _MAX_ZONES} more, in {report.files[1]}")
    _print_classes(report.classes, report.threshold)
    say(", ".join(map(str, report.files)))


def _print_dates(report: DatesReport) -> None:
    say(
        f"{plural(report.zones, 'zone')}, measured on {report.crs}; all dates show "
        f"{report.common_share:.0%} of their ground"
    )
    table = Table("date", "buildings", "seen", "common buildings", "common built-up m²")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in report.dates:
        table.add_row(
            escape(row.date), f"{row.buildings:,}",
            f"{row.observed_share:.0%}{' (assumed)' if row.is_seen_assumed else ''}",
            f"{row.common_buildings:,}", f"{row.common_built_m2:,.0f}",
        )  # fmt: skip
    people().print(table)
    say(", ".join(map(str, report.files)))


def _print_images(report: ImagesReport) -> None:
    fit = report.threshold.fit
    if fit is not None:
        say(f"dense at a share of {report.threshold.threshold:.4f} or more")
        say(
            f"balanced accuracy {fit.balanced_accuracy:.3f}, {fit.leave_one_out:.3f} on examples "
            "left out"
        )
        for name, as_sparse, as_dense in (
            ("sparse", fit.sparse_as_sparse, fit.sparse_as_dense),
            ("dense ", fit.dense_as_sparse, fit.dense_as_dense),
        ):
            say(f"labelled {name}  {as_sparse:6} classified sparse  {as_dense:6} dense")
    _print_classes(report.classes, report.threshold)
    say(", ".join(map(str, report.files)))


def _print_classes(classes: dict[str | None, int], threshold: DensityThreshold) -> None:
    counts = ", ".join(
        f"{count} {name or 'without a class'}" for name, count in classes.items() if name or count
    )
    say(f"{counts}; dense: built-up share of {threshold.threshold:.3g} or more")


def _shown(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)
