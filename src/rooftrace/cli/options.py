"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rooftrace.core.config import lay_over, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.data.config import SourceConfig

if TYPE_CHECKING:
    from rooftrace.predict.ensemble import Combine
    from rooftrace.predict.model_set import Models

__all__ = [
    "DataAt",
    "EngineName",
    "Ensemble",
    "Gsd",
    "Json",
    "ModelFile",
    "ModelFiles",
    "Nodata",
    "Order",
    "Precision",
    "Split",
    "Threshold",
    "Tta",
    "Weights",
    "models_of",
    "parse_nodata",
    "parse_weights",
    "source_config",
    "takes_data",
]


class Order(StrEnum):
    """Along which way runs of pixels go."""

    row = "row"
    column = "column"


_NODATA_HELP = "What is nodata in the images: a value, or a colour such as 255,255,255."
_GSD_HELP = "Metres per pixel, if not in the file."

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for programs.")]
ModelFile = Annotated[
    Path | None, typer.Option("-m", "--model", help="A .rooftrace file; default: bundled.")
]
ModelFiles = Annotated[
    list[Path] | None,
    typer.Option("-m", "--model", help="A .rooftrace file, or several; default: bundled."),
]
Nodata = Annotated[str | None, typer.Option(help=_NODATA_HELP)]
Gsd = Annotated[float | None, typer.Option("--gsd", min=1e-4, help=_GSD_HELP)]
Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="On the probability; default the model's own.")
]
Ensemble = Annotated[
    Literal["average", "vote", "weighted"] | None,
    typer.Option(help="Several models as one: their mean, weighted mean, or majority."),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Of --ensemble weighted: 2,1,1. Default: each one's validation IoU."),
]
Tta = Annotated[
    Literal["flips", "d4"] | None,
    typer.Option(help="Each tile also mirrored: 4 ways, or 8; slower, a little more accurate."),
]
EngineName = Annotated[
    str | None,
    typer.Option("--engine", help="openvino, onnxruntime, torch…; rooftrace doctor lists them."),
]
Precision = Annotated[
    str | None,
    typer.Option(help="fp32, bf16, fp16 or int8; default the fastest that runs well here."),
]


Split = Annotated[
    str | None, typer.Option(help="Only one part of a split, such as split.json:val.")
]

DataAt = Callable[[Path], SourceConfig]
"""From a path to how the data there is read, as the options of DATA say."""


def takes_data(help_text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the argument DATA with all its options, of which it gets a `SourceConfig`.

    Typer reads a command's signature, and knows no groups of options: so the one parameter
    `data: SourceConfig` of the command is replaced by what the command line shows of it. Where it
    is `data: list[SourceConfig]`, several may be named, and the options are of each. Where it is
    `data: DataAt` there is no argument, only the options: the command itself knows the path.

    Args:
        help_text: what DATA is to this command.
    """

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        shown = dict(own)
        kind = own["data"].annotation
        several = kind == list[SourceConfig]
        if kind == DataAt:
            del shown["data"]
        else:
            paths: Any = list[Path] if several else Path
            argument = Annotated[paths, typer.Argument(help=help_text, show_default=False)]
            shown["data"] = own["data"].replace(annotation=argument)
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            *(parameter.replace(kind=keyword) for parameter in shown.values()),
            *(
                inspect.Parameter(name, keyword, default=None, annotation=annotation)
                for name, annotation in _DATA_OPTIONS.items()
                if name not in own
            ),
        ]

        @functools.wraps(command)
        def parsed(**given: Any) -> None:
            data = given.pop("data", None)
            said = {key: given.pop(key) for key in _DATA_OPTIONS if key not in own}
            if kind == DataAt:
                command(**given, data=functools.partial(source_config, **said))
                return
            sources = [source_config(path, **said) for path in (data if several else [data])]
            command(**given, data=sources if several else sources[0])

        parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        parsed.__annotations__ = {p.name: p.annotation for p in parameters}
        return parsed

    return wrap


def _said(kind: Any, *names: str, **options: Any) -> Any:
    """An option that says how DATA is read; the help lists these apart."""
    return Annotated[
        kind | None, typer.Option(*names, rich_help_panel="How DATA is read", **options)
    ]


_DATA_OPTIONS: dict[str, Any] = {
    "kind": _said(str, help="What kind of data it is; default: found by looking."),
    "images": _said(str, help="Where the images of a label file lie; default beside it."),
    "annotator": _said(str, help="Of Label Studio: whose labels, or union, or majority."),
    "layout": _said(str, help='Which mask belongs to which image: "a/{id}.jpg=b/{id}_gt.png".'),
    "glob": _said(list[str], help="Only images whose file name matches."),
    "part": _said(str, help='A slice of the names in sorted order: "[:15]".'),
    "nodata": _said(str, help=_NODATA_HELP),
    "gsd": _said(float, "--gsd", min=1e-4, help=_GSD_HELP),
    "settings": _said(
        list[str],
        "--set",
        help="KEY=VALUE of a data card, such as order=column or labels.names.building=house.",
    ),
}


def source_config(
    data: Path, settings: Sequence[str] | None = None, gsd: float | None = None, **given: Any
) -> SourceConfig:
    """What the options of a command say of its data; those that are None say nothing."""
    raw: dict[str, Any] = {"path": str(data), "gsd_m": gsd, **given}
    raw = {key: value for key, value in raw.items() if value is not None}
    if "glob" in raw:
        raw["glob"] = tuple(raw["glob"])
    if "nodata" in raw:
        raw["nodata"] = parse_nodata(raw["nodata"])
    for setting in settings or ():
        lay_over(raw, setting)
    return parse_config(raw, SourceConfig, source="The command line")


def models_of(given: Sequence[Path] | None, how: Combine | None) -> Models:
    """The models of a command; several need a word on how they are combined.

    Args:
        given: bundles, or an ensemble file, which says so itself; `default` is the one that comes
            with rooftrace, as is none at all.
    """
    models = [None if str(path) == "default" else path for path in given or ()]
    if len(models) > 1 and how is None:
        raise ConfigError(
            f"{len(models)} models were given.",
            remedy="Say how they are combined: --ensemble average, weighted or vote.",
        )
    if len(models) == 1 and models[0] is not None and models[0].suffix == ".json" and how:
        raise ConfigError(
            f"{models[0]} says itself how its models are combined, and --ensemble {how} was given.",
            remedy="Leave it out, or give the bundles in place of the file.",
        )
    if len(models) <= 1 and how is not None:
        raise ConfigError(
            f"--ensemble {how} is for several models, and {len(models)} was given.",
            remedy="Give the others too, or leave it out.",
        )
    return models if len(models) > 1 else next(iter(models), None)


def parse_weights(text: str | None) -> tuple[float, ...] | None:
    """Numbers with commas; None where none were given."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--weights received {text!r}; expected one number for each model, with commas.",
            remedy="For example: --weights 2,1,1",
        ) from None


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
