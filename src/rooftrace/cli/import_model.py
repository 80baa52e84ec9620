"""`rooftrace import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rooftrace.cli.option_groups import Fields, with_groups
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
                "gsd_m": (CONTRACT, "M", False),
                "architecture": (NETWORK, "NAME", False),
                "encoder": (NETWORK, "NAME", False),
                "overrides": (NETWORK, "KEY=VALUE", False, "--set"),
                "encoder_only": (NETWORK, None, False, "--encoder-only"),
                "output": (NETWORK, "NAME", False),
                "classes": (CONTRACT, "LIST", False),
                "building": (CONTRACT, "NAME", False),
                "activation": (CONTRACT, None, False),
                "threshold": (CONTRACT, "P", False),
                "name": (CONTRACT, "NAME", False),
                "licence": (CONTRACT, "LICENCE", False),
                "attribution": (CONTRACT, "TEXT", False),
                "bands": (INPUT, "LIST", False),
                "normalise": (INPUT, None, False),
                "mean": (INPUT, "LIST", False),
                "std": (INPUT, "LIST", False),
                "input_range": (INPUT, "X", False),
                "dtype": (INPUT, None, False),
                "full_scale": (INPUT, "X", False),
                "input_px": (INPUT, "N", False),
                "multiple_px": (INPUT, "N", False, "--multiple"),
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
