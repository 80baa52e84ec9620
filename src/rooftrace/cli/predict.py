"""`rooftrace predict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rooftrace.cli.catalogue import is_meant, run_one_layer, tell_of_layer
from rooftrace.cli.options import (
    EngineName,
    Ensemble,
    Gsd,
    Json,
    ModelFiles,
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
from rooftrace.cli.show import answered, bar, pixel_bar, say
from rooftrace.core.errors import ConfigError
from rooftrace.data.config import nodata_rule
from rooftrace.predict.options import OUTPUTS, SceneOutput

if TYPE_CHECKING:
    from rooftrace.flows.predict_report import PredictReport
    from rooftrace.predict.cluster.ray_pool import ClusterOptions
    from rooftrace.predict.model_set import Models
    from rooftrace.predict.result import ClassFigures

__all__ = ["predict"]

_MOST_IMAGES = 20
"""That are told of; run.json has all."""

_MOST_CLASSES = 6
"""That are told of an image; run.json has all."""


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, https:// addresses of GeoTIFFs; or one catalogue of scenes: a "
            "folder of folders, .txt, STAC items as .json, GeoParquet."
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option("-o", "--out", help="Folder for the results, or an s3:// address."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            help="With -o s3://…: where results are written before they are sent; default in "
            "the user's cache."
        ),
    ] = None,
    models: ModelFiles = None,
    ensemble: Ensemble = None,
    weights: Weights = None,
    tta: Tta = None,
    gsd: Gsd = None,
    threshold: Threshold = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Take images so many times as large, whatever metres say."),
    ] = None,
    min_area: Annotated[
        float | None, typer.Option("--min-area", min=0, help="Smallest polygon, m².")
    ] = None,
    min_hole: Annotated[
        float | None, typer.Option("--min-hole", min=0, help="Smallest hole in a building, m².")
    ] = None,
    regularize: Annotated[
        bool, typer.Option(help="Right angles where buildings have them.")
    ] = True,
    separate: Annotated[bool, typer.Option(help="Cut apart buildings that touch.")] = True,
    cell: Annotated[
        float | None, typer.Option(min=0.1, help="Side of a cell of the density, m; default 100.")
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            help="What is written: of mask,polygons,preview,density; default all, of a catalogue "
            "polygons."
        ),
    ] = None,
    on_error: Annotated[
        Literal["fail", "nodata"],
        typer.Option(help="What becomes of a tile that cannot be read or run."),
    ] = "fail",
    nodata: Nodata = None,
    engine: EngineName = None,
    precision: Precision = None,
    mosaic: Annotated[
        bool, typer.Option("--mosaic", help="A folder of tiles or adjacent images is one scene.")
    ] = False,
    zoom: Annotated[
        int | None, typer.Option(min=0, max=30, help="With --mosaic: of the tiles.")
    ] = None,
    area: Annotated[
        Path | None, typer.Option(help="Polygons outside of which nothing is done; a vector file.")
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
    catalogue: Annotated[
        bool,
        typer.Option("--catalogue", help="The images of a folder are one layer of buildings."),
    ] = False,
    asset: Annotated[
        str | None, typer.Option(help="Of STAC items: the key of the image among the assets.")
    ] = None,
    path_column: Annotated[
        str | None, typer.Option("--path-column", help="Of a GeoParquet: the column of paths.")
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(min=0, max=20, help="Of a catalogue: of the quadkeys of files; default 11."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Of a catalogue: end with the first scene that fails.")
    ] = False,
    cluster: Annotated[
        Literal["ray"] | None,
        typer.Option(help="Spread the blocks over the machines of a Ray cluster; the same bytes."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="With --cluster: local, which is this machine and the default, auto, or HOST:PORT."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --cluster: engines; default by what it has.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0, help="With --cluster: of each worker, such as 1, or 0.5 to share one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Mask, polygons of buildings (or of all classes), density and a preview of each image.

    A run that was stopped is gone on with by the same command.
    """
    bundle = models_of(models, ensemble)
    common: dict[str, Any] = {
        "ensemble": ensemble or "average",
        "weights": parse_weights(weights),
        "tta": tta,
        "engine": engine,
        "precision": precision,
        "nodata": None if nodata is None else nodata_rule(parse_nodata(nodata)),
    }
    of_catalogue = {
        "--asset": asset,
        "--path-column": path_column,
        "--level": level,
        "--strict": strict or None,
    }
    if rle is not None:
        others: dict[str, object] = {
            "-o": out,
            "--scale": scale,
            "--min-area": min_area,
            "--min-hole": min_hole,
            "--no-regularize": None if regularize else True,
            "--no-separate": None if separate else True,
            "--cell": cell,
            "--outputs": outputs,
            "--on-error": None if on_error == "fail" else on_error,
            "--mosaic": mosaic or None,
            "--zoom": zoom,
            "--area": area,
            "--cluster": cluster,
            "--catalogue": catalogue or None,
            "--work": work,
            **of_catalogue,
        }
        _refuse(others, "has no use with --rle")
        _refuse({given: given for given in inputs if "://" in given}, "is no file, as --rle needs")
        common |= {"gsd_m": gsd, "threshold": threshold}
        paths = [Path(given) for given in inputs]
        _submit(paths, bundle, rle, sample, order, common, as_json=as_json)
        return
    _refuse({"--sample": sample, "--order": order}, "belongs to --rle")
    spread = {"--address": address, "--workers": workers, "--gpus-per-worker": gpus_per_worker}
    if cluster is None:
        _refuse(spread, "belongs to --cluster ray")
    if out is None:
        raise ConfigError(
            "Neither --out (-o) nor --rle was given.",
            remedy="Name a folder for the results with -o, or a table with --rle.",
        )
    from rooftrace.flows.delivery import Delivery
    from rooftrace.flows.predict import run_predict
    from rooftrace.io.area import read_area
    from rooftrace.io.objects import is_object_url
    from rooftrace.predict.options import SceneOptions

    many = is_meant(inputs, asked_for=catalogue, mosaic=mosaic)
    made = ("polygons",) if many else OUTPUTS
    options = SceneOptions(
        gsd_m=gsd, scale=scale, threshold=threshold, min_area_m2=min_area, min_hole_m2=min_hole,
        regularize=regularize, separate=separate, forgiving=on_error == "nodata",
        cell_m=SceneOptions.cell_m if cell is None else cell,
        outputs=made if outputs is None else _parse_outputs(outputs),
    )  # fmt: skip
    where = None if cluster is None else _spread(address, workers, gpus_per_worker)
    remote = is_object_url(out)
    if not remote:
        _refuse({"--work": work}, "belongs to -o s3://…")
    with Delivery(out, work) if remote else nullcontext() as delivery:
        folder = Path(out) if delivery is None else delivery.folder
        on_done = None if delivery is None else delivery.done
        if many:
            _refuse({"--zoom": zoom, "--area": area}, "has no use for a catalogue")
            of_all = run_one_layer(
                inputs[0], bundle, folder, options, common, where, asset=asset,
                path_column=path_column, level=11 if level is None else level, strict=strict,
                on_done=on_done, hidden=as_json,
            )  # fmt: skip
        else:
            _refuse(of_catalogue, "belongs to a catalogue")
            with pixel_bar("predict", hidden=as_json) as progress:
                report = run_predict(
                    inputs, bundle, folder, options, mosaic=mosaic, zoom=zoom,
                    area=None if area is None else read_area(area), cluster=where,
                    keep=remote, on_done=on_done, progress=progress, **common,
                )  # fmt: skip
    shown = (lambda told: told) if delivery is None else delivery.shown
    if many:
        tell_of_layer(of_all, shown, as_json=as_json)
    else:
        _tell(report, out, shown, as_json=as_json)


def _tell(report: PredictReport, out: str, shown: Callable[[Any], Any], *, as_json: bool) -> None:
    if answered(report, as_json=as_json, shown=shown):
        return
    for output in report.outputs[:_MOST_IMAGES]:
        counted = "" if output.buildings is None else f"{output.buildings:,} buildings, "
        say(
            f"{output.input}: {counted}{output.built_up_share:.1%} built up, "
            f"{output.pixels / 1e6:.2f} Mpx in {output.seconds:.2f} s"
        )
        if len(output.classes) > 2:
            say(f"  {'classes':9}{_most_of(output.classes)}")
        for kind in OUTPUTS:
            if getattr(output, kind) is not None:
                say(f"  {kind:9}{shown(getattr(output, kind))}")
    if len(report.outputs) > _MOST_IMAGES:
        say(f"… and {len(report.outputs) - _MOST_IMAGES:,} images more, in run.json.")
    if report.resumed_images or report.resumed_blocks:
        say(
            f"gone on with: {report.resumed_images:,} images and {report.resumed_blocks:,} blocks "
            "were done by an earlier run"
        )
    say(
        f"{report.mpx_per_s:.1f} Mpx/s, peak memory {report.peak_rss_mb:.0f} MB, "
        f"record {out.rstrip('/')}/run.json"
    )


def _spread(
    address: str | None, workers: int | None, gpus_per_worker: float | None
) -> ClusterOptions:
    from rooftrace.predict.cluster.ray_pool import ClusterOptions

    return ClusterOptions(address or ClusterOptions.address, workers, gpus_per_worker or 0.0)


def _parse_outputs(text: str) -> tuple[SceneOutput, ...]:
    wanted = {part.strip() for part in text.split(",")}
    if not wanted <= {*OUTPUTS} or not text.strip():
        raise ConfigError(
            f"--outputs received {text!r}; expected some of {', '.join(OUTPUTS)}, with commas.",
            remedy="For example: --outputs mask,polygons",
        )
    return tuple(output for output in OUTPUTS if output in wanted)


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


def _refuse(given: Mapping[str, object], why: str) -> None:
    for option, value in given.items():
        if value is not None:
            raise ConfigError(f"{option} {why}.", remedy="Leave it out.")
