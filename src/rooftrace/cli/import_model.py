"""`rooftrace import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.option_groups import Fields, Shown, with_groups
from rooftrace.cli.options import Json
from rooftrace.cli.show import answered, say
from rooftrace.flows.import_model.options import ImportOptions

NETWORK, CONTRACT, INPUT = "Network", "Contract", "Input of the network"


@with_groups
def import_model(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="State dict (.pth, .pt, .ckpt, .safetensors) or .onnx file."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="FILE", help="Bundle to write: .rooftrace."),
    ],
    options: Annotated[
        ImportOptions,
        Fields(
            ImportOptions,
            {
                "gsd_m": Shown(CONTRACT, "M"),
                "architecture": Shown(NETWORK, "NAME"),
                "encoder": Shown(NETWORK, "NAME"),
                "overrides": Shown(NETWORK, "KEY=VALUE", name="--set"),
                "encoder_only": Shown(NETWORK, name="--encoder-only"),
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
