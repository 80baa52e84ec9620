"""`rooftrace export`, `import` and `doctor`: files of models, and the engines that run them."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from rooftrace.cli.data_options import DataAt, DataFields
from rooftrace.cli.option_groups import Fields, Shown, with_groups
from rooftrace.cli.options import Json, model_of, out_option
from rooftrace.cli.show import answered, people, print_json, say
from rooftrace.core.errors import ConfigError
from rooftrace.flows.import_model.options import ImportOptions

_FORMATS: dict[str, Literal["onnx", "openvino"]] = {".onnx": "onnx", ".xml": "openvino"}

_FIGURES = ("precision", "max diff", "mean diff", "changed", "mask IoU")


@with_groups
def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .rooftrace file, a run, default or accurate.")
    ],
    out: Annotated[
        Path, out_option("Output file: .onnx or .xml; for --card and fair a folder.")
    ],
    data: Annotated[DataAt, DataFields()],
    to: Annotated[
        Literal["onnx", "openvino", "fair"] | None,
        typer.Option(
            help="onnx, openvino, or fair (a base model for HOT's fAIr); default: by the suffix."
        ),
    ] = None,
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Describe the model instead: a Hugging Face model card and a STAC item.",
        ),
    ] = False,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16", "int8"],
        typer.Option(metavar="NAME", help="Precision: fp32, fp16, int8; bf16 for OpenVINO."),
    ] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option(metavar="IMAGES", help="Representative images, needed for int8.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="IMAGES", help="Images for the check; default: the demo scene."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="Maximum change of the mask; default by precision."
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="For fair: URL of the folder with the weights."),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Export a model to ONNX, OpenVINO or fAIr and check its output; or write its card.

    The file keeps the metadata of the model. The data options apply to --calibration and --check.
    """
    if to is None and not card:
        to = _FORMATS.get(out.suffix.lower())
    if card == (to is not None):
        raise ConfigError(
            f"export received {f'--card and --to {to}' if card else 'neither --to nor --card'}; "
            "expected one of both.",
            remedy="Use --to onnx for a file, or --card for a description of the model.",
        )
    if to is None:
        from rooftrace.flows.export.card import run_card

        described = run_card(model_of(model), out)
        if not answered(described, as_json=as_json):
            say(f"{described.card}, {described.item}")
        return
    from rooftrace.flows.export.run import parity_rows, run_export

    if (to == "fair") != (url is not None):
        raise ConfigError(
            "export received only one of --to fair and --url.",
            remedy="Use both: rooftrace export MODEL --to fair --url https://… -o models/NAME.",
        )
    if model.suffix == ".json":
        raise ConfigError(
            f"{model} is an ensemble; expected a single model.",
            remedy="Export each of its members.",
        )
    if to == "fair":
        from rooftrace.flows.export.card import run_fair

        base_model = run_fair(model_of(model), out, url or "")
        if not answered(base_model, as_json=as_json):
            say(f"{base_model.folder}: base model for fAIr")
        return
    report = run_export(
        model_of(model),
        to,
        out,
        precision=precision,
        calibration=None if calibration is None else data(calibration),
        check=None if check is None else data(check),
        tolerance=tolerance,
        notify=(lambda _: None) if as_json else say,
    )
    if answered(report, as_json=as_json):
        return
    table = Table()
    table.add_column("engine", no_wrap=True)
    for figure in _FIGURES:
        table.add_column(figure, no_wrap=figure == _FIGURES[-1])
    for row in parity_rows(report.parity):
        table.add_row(*row)
    people().print(table)
    worst = max(parity.mask_change for parity in report.parity)
    say(f"maximum change of the mask: {worst:.4f} (tolerance {report.tolerance['mask_change']:g})")
    say(f"{report.path}: {report.size_bytes / 1e6:.1f} MB, report {report.report}")


NETWORK, CONTRACT, INPUT = "Network", "Contract", "Input of the network"


@with_groups
def import_model(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="State dict (.pth, .pt, .ckpt, .safetensors) or .onnx file."
        ),
    ],
    out: Annotated[Path, out_option("Bundle to write: .rooftrace.")],
    options: Annotated[
        ImportOptions,
        Fields(
            ImportOptions,
            {
                "gsd_m": Shown(CONTRACT, "M"),
                "architecture": Shown(NETWORK, "NAME"),
                "encoder": Shown(NETWORK, "NAME"),
                "overrides": Shown(NETWORK, "KEY=VALUE", name="--set"),
                "output": Shown(NETWORK, "NAME"),
                "classes": Shown(CONTRACT, "LIST"),
                "building": Shown(CONTRACT, "NAME"),
                "activation": Shown(CONTRACT),
                "threshold": Shown(CONTRACT, "P"),
                "name": Shown(CONTRACT, "NAME"),
                "licence": Shown(CONTRACT, "LICENCE"),
                "attribution": Shown(CONTRACT, "TEXT"),
                "bands": Shown(INPUT, "LIST"),
                "normalise": Shown(INPUT),
                "mean": Shown(INPUT, "LIST"),
                "std": Shown(INPUT, "LIST"),
                "input_range": Shown(INPUT, "X"),
                "dtype": Shown(INPUT),
                "full_scale": Shown(INPUT, "X"),
                "input_px": Shown(INPUT, "N"),
                "multiple_px": Shown(INPUT, "N", name="--multiple"),
            },
        ),
    ],
    check: Annotated[
        Path | None,
        typer.Option(metavar="IMAGES", help="Images for the check; default: the demo scene."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a model of the weights or the ONNX graph of another program.

    The file is never run as code. The model is compared with the original network on tiles, and is
    written only if both agree.
    """
    from rooftrace.flows.import_model.run import run_import

    notify = (lambda _: None) if as_json else say
    report = run_import(file, out, options, check=check, notify=notify)
    if answered(report, as_json=as_json):
        return
    parity = report.record["parity"]
    say(
        f"compared with the original ({parity['original']}) on {parity['tiles']} tiles of "
        f"{parity['data']}: probabilities differ by up to {parity['max_difference']:.2g}"
    )
    say(f"{report.path}: {report.size_bytes / 1e6:.1f} MB")


def doctor(as_json: Json = False) -> None:
    """Check the installation, and test and measure each inference engine."""
    from rooftrace.flows.doctor import run_doctor

    report = run_doctor()
    if as_json:
        print_json(report.to_json())
    else:
        table = Table("part", "state")
        for row in report.rows():
            table.add_row(*map(escape, row))
        people().print(table)
    if not report.healthy:
        raise typer.Exit(1)
