"""`rooftrace export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from rooftrace.cli.options import DataAt, Json, models_of, takes_data
from rooftrace.cli.show import answered, people, say
from rooftrace.core.errors import ConfigError

__all__ = ["export"]

_FIGURES = ("in", "differs", "mean", "changed", "mask IoU", "label IoU")


@takes_data("Images that the model is calibrated or judged with.")
def export(
    model: Annotated[Path, typer.Argument(help='A .rooftrace file, or "default".')],
    to: Annotated[
        Literal["onnx", "openvino", "tensorrt"], typer.Option(help="Which kind of file.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file: .onnx, .xml or .engine.")],
    data: DataAt,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 or int8; for OpenVINO bf16, too.")
    ] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option(help="Of int8: images like those that it will see.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Images that it is judged on; default generated town.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much of the mask may change; default by precision."),
    ] = None,
    as_json: Json = False,
) -> None:
    """A model as a file of ONNX, OpenVINO or TensorRT that keeps its contract, held against it.

    The options of DATA are of --calibration and --check.
    """
    from rooftrace.flows.export import run_export
    from rooftrace.flows.export_report import shown_rows

    if model.suffix == ".json":
        raise ConfigError(
            f"{model} is an ensemble, and one model is exported at a time.",
            remedy="Export each of its members.",
        )
    chosen = models_of([model], None)
    assert chosen is None or isinstance(chosen, Path)
    report = run_export(
        chosen,
        to,
        out,
        precision=precision,
        calibration=None if calibration is None else data(calibration),
        check=None if check is None else data(check),
        tolerance=tolerance,
        tell=(lambda _: None) if as_json else say,
    )
    if answered(report, as_json=as_json):
        return
    table = Table()
    table.add_column("engine", no_wrap=True)
    for figure in _FIGURES:
        table.add_column(figure, no_wrap=figure == _FIGURES[-1])
    for row in shown_rows(report.parities):
        table.add_row(*row)
    people.print(table)
    worst = max(parity.mask_change for parity in report.parities)
    say(f"{worst:.4f} of the mask changes at most, {report.tolerance:g} may")
    say(f"{report.path}: {report.size_bytes / 1e6:.1f} MB, report {report.report}")
