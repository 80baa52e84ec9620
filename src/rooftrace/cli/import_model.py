"""`rooftrace import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rooftrace.cli.options import Json, option
from rooftrace.cli.show import answered, say
from rooftrace.core.errors import ConfigError
from rooftrace.core.scales import is_gsd_m

NETWORK, CONTRACT, INPUT = "Network", "Contract", "Input of the network"


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
    gsd: Annotated[
        str,
        option(
            CONTRACT, metavar="M",
            help="Metres per pixel of the images that it was trained on; none: pixel by pixel.",
        ),
    ],
    architecture: Annotated[
        str | None,
        option(
            NETWORK, metavar="NAME",
            help="Architecture of a state dict: one of segmentation-models-pytorch, such as Unet.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        option(
            NETWORK, metavar="NAME",
            help="Encoder of a state dict, such as resnet34, or tu-NAME for a model of timm.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        option(
            NETWORK, "--set", metavar="KEY=VALUE",
            help="Further key of the section model, such as "
            "options.decoder_channels=[64,32,16,8,4]; repeatable.",
        ),
    ] = None,
    encoder_only: Annotated[
        bool,
        option(
            NETWORK, "--encoder-only",
            help="The file holds an encoder alone; the rest gets random weights, to train from.",
        ),
    ] = False,
    output: Annotated[
        str | None,
        option(NETWORK, metavar="NAME", help="Output of an ONNX graph that has several."),
    ] = None,
    classes: Annotated[
        str,
        option(CONTRACT, metavar="LIST", help="Names of its channels, the background first."),
    ] = "background,building",
    building: Annotated[
        str | None,
        option(
            CONTRACT, metavar="NAME",
            help="Class whose footprints are traced; default: building, or the second of two.",
        ),
    ] = None,
    activation: Annotated[
        Literal["none", "sigmoid", "softmax"] | None,
        option(
            CONTRACT,
            help="Function that turns its answers into probabilities; default for state dicts: "
            "sigmoid for one channel, else softmax.",
        ),
    ] = None,
    threshold: Annotated[
        float,
        option(
            CONTRACT, min=0, max=1, metavar="P",
            help="Building probability from which a pixel is a building.",
        ),
    ] = 0.5,
    name: Annotated[
        str, option(CONTRACT, metavar="NAME", help="Name of the model; default: of the file.")
    ] = "",
    licence: Annotated[
        str, option(CONTRACT, metavar="LICENCE", help="Licence of the weights.")
    ] = "",
    attribution: Annotated[
        str, option(CONTRACT, metavar="TEXT", help="Attribution of the weights.")
    ] = "",
    bands: Annotated[
        str,
        option(INPUT, metavar="LIST", help="Names of its bands, in their order."),
    ] = "red,green,blue",
    normalise: Annotated[
        Literal["imagenet", "none"] | None,
        option(
            INPUT,
            help="Normalisation of its input: that of ImageNet, or none; in place of --mean and "
            "--std.",
        ),
    ] = None,
    mean: Annotated[
        str | None,
        option(
            INPUT, metavar="LIST",
            help="Value for each band that is subtracted from the pixels.",
        ),
    ] = None,
    std: Annotated[
        str | None,
        option(
            INPUT, metavar="LIST",
            help="Value for each band by which the pixels are then divided.",
        ),
    ] = None,
    input_range: Annotated[
        float,
        option(
            INPUT, min=1e-6, max=1e6, metavar="X",
            help="Value to which the brightest pixel is scaled first: 1, or 255 for pixel values "
            "of 8 bits. --mean and --std are in its units.",
        ),
    ] = 1.0,
    dtype: Annotated[
        Literal["uint8", "uint16", "float32"],
        option(INPUT, help="Type of the pixel values."),
    ] = "uint8",
    full_scale: Annotated[
        float | None,
        option(
            INPUT, min=1e-6, max=1e9, metavar="X",
            help="Brightest pixel value; default: 255, 65535 or 1 by --dtype.",
        ),
    ] = None,
    input_px: Annotated[
        int | None,
        option(
            INPUT, min=1, max=2**15, metavar="N",
            help="The only side in pixels that it accepts.",
        ),
    ] = None,
    multiple: Annotated[
        int | None,
        option(
            INPUT, min=1, max=2**15, metavar="N",
            help="Number that the sides of an ONNX graph's input must be multiples of; default 32.",
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="IMAGES", help="Images for the check; default: the demo scene."),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Make a model of the weights or the ONNX graph of another program.

    The file is never run as code. The model is compared with the original network on tiles, and is
    written only if both agree.
    """
    from rooftrace.flows.import_model.run import ImportOptions, run_import

    options = ImportOptions(
        gsd_m=_gsd(gsd),
        architecture=architecture,
        encoder=encoder,
        overrides=tuple(overrides or ()),
        encoder_only=encoder_only,
        output=output,
        bands=_names(bands, "--bands"),
        classes=_names(classes, "--classes"),
        building=building,
        activation=activation,
        normalise=normalise,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        input_range=input_range,
        dtype=dtype,
        full_scale=full_scale,
        input_px=input_px,
        multiple_px=multiple,
        threshold=threshold,
        name=name,
        licence=licence,
        attribution=attribution,
    )
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


def _names(text: str, option: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ConfigError(
            f"{option} {text!r} has an empty name.", remedy="Separate names by one comma."
        )
    return names


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"{option} is {text!r}; expected one number for each band.",
            remedy=f"For example: {option} 0.485,0.456,0.406",
        ) from error


def _gsd(text: str) -> float | None:
    if text == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not is_gsd_m(value):
        raise ConfigError(
            f"--gsd is {text!r}; expected metres per pixel, or none.", remedy="For example: 0.3"
        )
    return value
