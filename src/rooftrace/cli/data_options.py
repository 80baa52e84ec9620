"""The argument DATA of commands that read labelled data, and the options of how it is read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rooftrace.cli.option_groups import sign
from rooftrace.cli.options import GSD_HELP, GSD_LIMITS_M, NODATA_HELP, option, parse_nodata
from rooftrace.core.config import apply_override, parse_config
from rooftrace.labels.config import SourceConfig

DATA = "How DATA is read"
"""Title of the group of these options in a command's help."""

DataAt = Callable[[Path], SourceConfig]
"""Function that returns the configuration of the data at a path, with the options of DATA."""


def takes_data(
    help_text: str, *, metavar: str = "DATA"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the argument DATA and its options, as one `SourceConfig`.

    The parameter `data: SourceConfig` of the command is replaced by the argument and the options.
    With `data: list[SourceConfig]` the argument takes several paths, and the options apply to each.
    With `data: DataAt` there are only the options, and the command supplies the path.

    Args:
        help_text: Help text of the argument DATA.
        metavar: Name of the argument in the help.
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
            argument = Annotated[
                paths, typer.Argument(metavar=metavar, help=help_text, show_default=False)
            ]
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
            options = {key: given.pop(key) for key in _DATA_OPTIONS if key not in own}
            if kind == DataAt:
                command(**given, data=functools.partial(source_config, **options))
                return
            sources = [source_config(path, **options) for path in (data if several else [data])]
            command(**given, data=sources if several else sources[0])

        sign(parsed, parameters)
        return parsed

    return wrap


def _data_option(kind: Any, *names: str, **options: Any) -> Any:
    return Annotated[kind | None, option(DATA, *names, **options)]


_DATA_OPTIONS: dict[str, Any] = {
    "kind": _data_option(str, metavar="KIND", help="Kind of data; default: detected."),
    "images": _data_option(
        str,
        metavar="FOLDER",
        help="Folder of the images of a label file; default: the folder of the file.",
    ),
    "annotator": _data_option(
        str,
        metavar="WHO",
        help="Label Studio annotator whose labels are used, or union, or majority.",
    ),
    "layer": _data_option(
        str, metavar="NAME", help="Layer of footprints, of a file with several; * joins them."
    ),
    "layout": _data_option(
        str, metavar="RULE", help='Pattern that pairs images and masks: "a/{id}.jpg=b/{id}_gt.png".'
    ),
    "glob": _data_option(
        list[str], metavar="PATTERN", help="Use only images whose file name matches."
    ),
    "part": _data_option(
        str, metavar="SLICE", help='Use a slice of the names in sorted order: "[:15]".'
    ),
    "area": _data_option(
        str, metavar="FILE", help="Vector file of polygons inside which the labels are complete."
    ),
    "crs": _data_option(
        str, metavar="CRS", help="CRS of images that have a position and state none: EPSG:32645."
    ),
    "nodata": _data_option(str, metavar="VALUE", help=NODATA_HELP),
    "gsd": _data_option(
        float, "--gsd", min=GSD_LIMITS_M[0], max=GSD_LIMITS_M[1], metavar="M", help=GSD_HELP
    ),
    "settings": _data_option(
        list[str],
        "--set",
        metavar="KEY=VALUE",
        help="Value of a data card, such as order=column or labels.names.building=hut.",
    ),
}


def source_config(
    data: Path, settings: Sequence[str] | None = None, gsd: float | None = None, **given: Any
) -> SourceConfig:
    """Return the configuration of data from the options of a command.

    Args:
        data: Path of the data.
        settings: Values of `--set`.
        gsd: Metres per pixel.
        given: Other options by name; None means that the option was not given.
    """
    raw: dict[str, Any] = {"path": str(data), "gsd_m": gsd, **given}
    raw = {key: value for key, value in raw.items() if value is not None}
    if "glob" in raw:
        raw["glob"] = tuple(raw["glob"])
    if "nodata" in raw:
        raw["nodata"] = parse_nodata(raw["nodata"])
    for setting in settings or ():
        apply_override(raw, setting)
    return parse_config(raw, SourceConfig, source="The command line")
