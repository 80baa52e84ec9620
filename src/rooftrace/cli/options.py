"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from rooftrace.core.config import lay_over, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.data.config import SourceConfig

__all__ = [
    "Annotator",
    "DataSettings",
    "EngineName",
    "Glob",
    "Gsd",
    "Images",
    "Json",
    "Kind",
    "Layout",
    "Nodata",
    "Order",
    "Part",
    "Precision",
    "Threshold",
    "parse_nodata",
    "source_config",
]


class Order(StrEnum):
    """Along which way runs of pixels go."""

    row = "row"
    column = "column"


Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for programs.")]
Layout = Annotated[
    str | None,
    typer.Option(help='Which mask belongs to which image: "a/{id}.jpg=b/{id}_gt.png".'),
]
Glob = Annotated[list[str] | None, typer.Option(help="Only images whose file name matches.")]
Part = Annotated[str | None, typer.Option(help='A slice of the names in sorted order: "[:15]".')]
Nodata = Annotated[
    str | None,
    typer.Option(help="What is nodata in the images: a value, or a colour such as 255,255,255."),
]
Gsd = Annotated[
    float | None, typer.Option("--gsd", min=1e-4, help="Metres per pixel, if not in the file.")
]
Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="On the probability; default the model's own.")
]
EngineName = Annotated[str | None, typer.Option("--engine", help="openvino or onnxruntime.")]
Precision = Annotated[
    str | None, typer.Option(help="fp32, bf16 or int8; default the fastest that runs well here.")
]
Kind = Annotated[
    str | None, typer.Option(help="What kind of data it is; default: found by looking.")
]
Images = Annotated[
    str | None, typer.Option(help="Where the images of a label file lie; default beside it.")
]
Annotator = Annotated[
    str | None,
    typer.Option(help="Of Label Studio: whose labels, or union, or majority."),
]
DataSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="KEY=VALUE of a data card, such as order=column or labels.names.building=house.",
    ),
]


def source_config(data: Path, settings: Sequence[str] | None = None, **given: Any) -> SourceConfig:
    """What the options of a command say of its data; those that are None say nothing."""
    raw: dict[str, Any] = {"path": str(data)}
    raw |= {key: value for key, value in given.items() if value is not None}
    if "glob" in raw:
        raw["glob"] = tuple(raw["glob"])
    if "nodata" in raw:
        raw["nodata"] = parse_nodata(raw["nodata"])
    for setting in settings or ():
        lay_over(raw, setting)
    return parse_config(raw, SourceConfig, source="The command line")


def parse_nodata(text: str) -> float | tuple[float, ...]:
    """A value, or a colour with commas."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--nodata received {text!r}; expected a value, or a colour with commas.",
            remedy="For example: --nodata 0, or --nodata 255,255,255",
        ) from None
    return values[0] if len(values) == 1 else values
