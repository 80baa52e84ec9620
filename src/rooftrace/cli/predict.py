"""`rooftrace predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rooftrace.cli.options import (
    EngineName,
    Ensemble,
    Gsd,
    Json,
    Nodata,
    Order,
    Precision,
    Threshold,
    Tta,
    Weights,
    models_of,
    parse_nodata,
    parse_weights,
)
from rooftrace.cli.show import answered, bar, say
from rooftrace.core.errors import ConfigError
from rooftrace.data.config import nodata_rule

if TYPE_CHECKING:
    from rooftrace.predict.ensemble import Models
    from rooftrace.predict.result import ClassFigures

__all__ = ["predict"]

_MOST_CLASSES = 6
"""That are told of an image; run.json has all."""


def predict(
    inputs: Annotated[list[Path], typer.Argument(help="Images, folders, GeoTIFFs.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the results.")] = None,
    models: Annotated[
        list[Path] | None,
        typer.Option("-m", "--model", help="A .rooftrace file, or several; default: bundled."),
    ] = None,
    ensemble: Ensemble = None,
    weights: Weights = None,
    tta: Tta = None,
    gsd: Gsd = None,
    threshold: Threshold = None,
    min_area: Annotated[
        float | None, typer.Option("--min-area", min=0, help="Smallest polygon, m².")
    ] = None,
    nodata: Nodata = None,
    engine: EngineName = None,
    precision: Precision = None,
    mosaic: Annotated[
        bool, typer.Option("--mosaic", help="A folder of slippy tiles is one scene.")
    ] = False,
    zoom: Annotated[
        int | None, typer.Option(min=0, max=30, help="With --mosaic: of the tiles.")
    ] = None,
    rle: Annotated[
        Path | None,
        typer.Option(help="Write only a table of run lengths, such as submission.csv."),
    ] = None,
    sample: Annotated[
        Path | None, typer.Option(help="With --rle: the table whose rows and columns are kept.")
    ] = None,
    order: Annotated[
        Order | None, typer.Option(help="With --rle: of the runs; default by the columns.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Mask, polygons of buildings (or of all classes) and a preview of each image."""
    bundle = models_of(models, ensemble)
    common: dict[str, Any] = {
        "ensemble": ensemble or "average",
        "weights": parse_weights(weights),
        "tta": tta,
        "gsd_m": gsd,
        "threshold": threshold,
        "engine": engine,
        "precision": precision,
        "nodata": None if nodata is None else nodata_rule(parse_nodata(nodata)),
    }
    if rle is not None:
        others: dict[str, object] = {"-o": out, "--min-area": min_area, "--zoom": zoom}
        _refuse(others | {"--mosaic": mosaic or None}, "has no use with --rle")
        _submit(inputs, bundle, rle, sample, order, common, as_json=as_json)
        return
    _refuse({"--sample": sample, "--order": order}, "belongs to --rle")
    if out is None:
        raise ConfigError(
            "Neither --out (-o) nor --rle was given.",
            remedy="Name a folder for the results with -o, or a table with --rle.",
        )
    from rooftrace.flows.predict import run_predict

    with bar("predict", "px", hidden=as_json) as progress:
        report = run_predict(
            inputs, bundle, out, min_area_m2=min_area, mosaic=mosaic, zoom=zoom,
            progress=progress, **common,
        )  # fmt: skip
    if answered(report, as_json=as_json):
        return
    for output in report.outputs:
        say(
            f"{output.input}: {output.buildings:,} buildings, "
            f"{output.built_up_share:.1%} built up, "
            f"{output.pixels / 1e6:.2f} Mpx in {output.seconds:.2f} s"
        )
        if len(output.classes) > 2:
            say(f"  {'classes':9}{_most_of(output.classes)}")
        for kind in ("mask", "polygons", "preview"):
            say(f"  {kind:9}{getattr(output, kind)}")
    say(
        f"{report.mpx_per_s:.1f} Mpx/s, peak memory {report.peak_rss_mb:.0f} MB, "
        f"record {out / 'run.json'}"
    )


def _most_of(classes: tuple[ClassFigures, ...]) -> str:
    """The classes that cover most."""
    known = sorted((one for one in classes if one.pixels), key=lambda one: -one.share)
    told = ", ".join(f"{one.name} {one.share:.1%}" for one in known[:_MOST_CLASSES])
    return told + (", …" if len(known) > _MOST_CLASSES else "")


def _submit(
    inputs: list[Path],
    bundle: Models,
    table: Path,
    sample: Path | None,
    order: Order | None,
    common: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    from rooftrace.flows.submit import run_submit

    with bar("predict", "images", hidden=as_json) as progress:
        report = run_submit(
            inputs, bundle, table, sample=sample, order=None if order is None else order.value,
            progress=progress, **common,
        )  # fmt: skip
    if answered(report, as_json=as_json):
        return
    resumed = f", {report.resumed:,} of them by an earlier run" if report.resumed else ""
    say(
        f"{report.path}: {report.images:,} images{resumed}, {report.empty:,} without a building, "
        f"runs by {report.order}"
    )
    say(f"{report.images_per_s:.1f} images/s, peak memory {report.peak_rss_mb:.0f} MB")


def _refuse(given: dict[str, object], why: str) -> None:
    for option, value in given.items():
        if value is not None:
            raise ConfigError(f"The option {option} {why}.", remedy="Leave it out.")
