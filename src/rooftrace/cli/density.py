"""`rooftrace density`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rooftrace.cli.options import Gsd, Json
from rooftrace.cli.show import answered, bar, say
from rooftrace.core.errors import ConfigError

if TYPE_CHECKING:
    from rooftrace.flows.density import DensityReport
    from rooftrace.flows.density_images import ImagesReport
    from rooftrace.vector.density_threshold import DensityThreshold

__all__ = ["density"]

_CELL_M = 100.0


def density(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="A mask, polygons of buildings, or both; with --by-image a folder."),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="The results' path without endings, or a folder."),
    ],
    cell: Annotated[
        float | None,
        typer.Option(min=1e-3, help="Side of a cell, metres.", show_default=f"{_CELL_M:g}"),
    ] = None,
    zones: Annotated[
        Path | None, typer.Option(help="Polygons, such as wards, in place of cells.")
    ] = None,
    by_image: Annotated[
        bool, typer.Option("--by-image", help="The share and the class of each mask, as a table.")
    ] = False,
    fit: Annotated[
        Path | None,
        typer.Option(help="Fit the threshold on a CSV of masks (image) that are labelled (label)."),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Built-up share from which on a place is dense, or the JSON of a fit.",
            show_default="0.2",
        ),
    ] = None,
    building: Annotated[
        str | None,
        typer.Option(help="Which class is buildings: an index of a mask, a name of polygons."),
    ] = None,
    min_area: Annotated[
        float | None, typer.Option("--min-area", min=0, help="Smallest building counted, m².")
    ] = None,
    glob: Annotated[
        list[str] | None,
        typer.Option(help="With --by-image: only masks whose file name matches."),
    ] = None,
    gsd: Gsd = None,
    as_json: Json = False,
) -> None:
    """Built-up share, buildings per hectare, their size and distance, by cell, zone or image."""
    given: dict[str, object] = {
        "--cell": cell, "--zones": zones, "--min-area": min_area, "--gsd": gsd, "--glob": glob,
        "--fit": fit, "--threshold": threshold,
    }  # fmt: skip
    if fit is not None or by_image:
        images = ("--glob", "--threshold") if fit is None else ("--fit",)
        _refuse(given, images, "--by-image" if fit is None else "--fit")
        _by_image(
            _one(inputs), out, fit, building, glob or [], _threshold(threshold), as_json=as_json
        )
        return
    _refuse({"--glob": glob}, (), "a single scene")
    from rooftrace.flows.density import run_density
    from rooftrace.flows.density_zones import run_zone_density

    limit, smallest = _threshold(threshold), min_area or 0.0
    with bar("density", "px", hidden=as_json) as progress:
        if zones is None:
            report = run_density(
                inputs, out, cell_m=_CELL_M if cell is None else cell, gsd_m=gsd,
                building=building, min_area_m2=smallest, threshold=limit, progress=progress,
            )  # fmt: skip
        else:
            _refuse({"--cell": cell, "--gsd": gsd}, (), "--zones")
            report = run_zone_density(
                inputs, zones, out, building=building, min_area_m2=smallest, threshold=limit,
                progress=progress,
            )  # fmt: skip
    if not answered(report, as_json=as_json):
        _tell(report)


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
    from rooftrace.flows.density_images import fit_images, run_by_image

    with bar("density", "masks", hidden=as_json) as progress:
        if fit is None:
            report = run_by_image(
                data, out, building=building, glob=glob, threshold=threshold, progress=progress
            )
        else:
            report = fit_images(data, fit, out, building=building, progress=progress)
    if not answered(report, as_json=as_json):
        _tell_images(report)


def _threshold(given: str | None) -> DensityThreshold:
    """A share, or the file of a fit."""
    from rooftrace.core.config import parse_config
    from rooftrace.vector.density_threshold import (
        DEFAULT_THRESHOLD,
        DensityThreshold,
        read_threshold,
    )

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
            f"{len(inputs)} inputs were given: {', '.join(map(str, inputs))}; one folder of masks "
            "was expected.",
            remedy="Give the folder that holds all of them.",
        )
    return inputs[0]


def _refuse(given: dict[str, object], allowed: tuple[str, ...], by: str) -> None:
    for name, value in given.items():
        if name not in allowed and value is not None:
            raise ConfigError(f"{name} has no use with {by}.", remedy="Leave one of them out.")


def _tell(report: DensityReport) -> None:
    if report.total is not None:
        rows, columns = report.shape
        figures = report.total.to_json()
        say(f"{rows} × {columns} {report.places}, on {report.crs}")
        say(
            f"built up {_shown(figures['built_up_share'], '.1%')} of what was observed; "
            f"{figures['buildings']:,} buildings, {_shown(figures['buildings_per_ha'], '.2f')} per "
            f"hectare, {_shown(figures['mean_area_m2'], '.1f')} m² each, the nearest "
            f"{_shown(figures['nearest_m'], '.1f')} m away"
        )
    else:
        say(f"{report.shape[0]} {report.places}, measured on {report.crs}")
    _tell_classes(report.classes, report.threshold)
    say(", ".join(map(str, report.files)))


def _tell_images(report: ImagesReport) -> None:
    fit = report.threshold.fit
    if fit is not None:
        sparse, dense = report.threshold.sparse, report.threshold.dense
        low, high = fit.threshold_interval
        say(f"{dense} from {report.threshold.threshold:.4f} on (95 %: {low:.4f} to {high:.4f})")
        low, high = fit.balanced_accuracy_interval
        say(
            f"balanced accuracy {fit.balanced_accuracy:.3f} (95 %: {low:.3f} to {high:.3f}), "
            f"{fit.leave_one_out:.3f} on examples left out"
        )
        width = max(len(sparse), len(dense))
        for name, as_sparse, as_dense in (
            (sparse, fit.sparse_as_sparse, fit.sparse_as_dense),
            (dense, fit.dense_as_sparse, fit.dense_as_dense),
        ):
            say(f"labelled {name:{width}}  {as_sparse:6} called {sparse}  {as_dense:6} {dense}")
    _tell_classes(report.classes, report.threshold)
    say(", ".join(map(str, report.files)))


def _tell_classes(classes: dict[str | None, int], threshold: DensityThreshold) -> None:
    counts = ", ".join(
        f"{count} {name or 'not observed'}" for name, count in classes.items() if name or count
    )
    say(f"{counts}; {threshold.dense} from a built-up share of {threshold.threshold:.3g} on")


def _shown(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)
