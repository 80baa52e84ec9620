"""The argument DATA of commands that read labelled data, and the options of how it is read."""

import functools
import inspect
import shlex
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from rooftrace.cli.option_groups import parse_nodata
from rooftrace.cli.options import GSD_HELP, NODATA_HELP, option
from rooftrace.core.config import apply_override, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.core.scales import LEAST_GSD_M, MOST_GSD_M
from rooftrace.labels.config import SourceConfig

DATA = "How DATA is read"
"""Title of the group of these options in a command's help."""

DataAt = Callable[..., SourceConfig]
"""Function that returns the configuration of the data at a path, with the options of DATA: the
arguments `data` and `truth` of `source_config`."""


@dataclass(frozen=True)
class DataFields:
    """Annotation of the parameter `data`, which becomes the argument DATA and its options.

    Args:
        help_text: Help text of the argument; None for options alone: the command supplies the path,
            and `data` is a `DataAt`.
        metavar: Name of the argument in the help.
        several: Whether the argument takes several paths, to each of which the options apply.
    """

    help_text: str | None = None
    metavar: str = "DATA"
    several: bool = False

    def parameters(self, own: Container[str]) -> list[inspect.Parameter]:
        """Return the argument, and the options that the command does not have itself."""
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = []
        if self.help_text is not None:
            kind: Any = list[Path] if self.several else Path
            argument = typer.Argument(metavar=self.metavar, help=self.help_text, show_default=False)
            kind = Annotated[kind, argument]
            parameters.append(inspect.Parameter("data", keyword, annotation=kind))
        return parameters + [
            inspect.Parameter(name, keyword, default=None, annotation=annotation)
            for name, annotation in _DATA_OPTIONS.items()
            if name not in self._without(own)
        ]

    def _without(self, own: Container[str]) -> set[str]:
        """Return the names of the options that the command does not get."""
        without = {name for name in _DATA_OPTIONS if name in own}
        # Of several paths, and of those of the command, it is not clear which one has the labels.
        return without | ({"truth"} if self.several or self.help_text is None else set())

    def made(self, given: dict[str, Any], own: Container[str]) -> Any:
        """Return the data, and take its values out of those of a command."""
        left = self._without(own)
        options = {key: given.pop(key) for key in _DATA_OPTIONS if key not in left}
        if "truth" in options:
            options["truth"] = single_truth(options["truth"])
        if self.help_text is None:
            return functools.partial(source_config, **options)
        data = given.pop("data")
        if self.several:
            return [source_config(path, **options) for path in data]
        return source_config(data, **options)


def _data_option(kind: Any, *names: str, **options: Any) -> Any:
    return Annotated[kind | None, option(DATA, *names, **options)]


_DATA_OPTIONS: dict[str, Any] = {
    "kind": _data_option(str, metavar="KIND", help="Kind of data; default: detected."),
    "images": _data_option(
        str,
        metavar="PATH",
        help="Images of a label file: a folder, or one image; default: beside the file.",
    ),
    "truth": _data_option(
        list[Path],
        metavar="FILE",
        help="Labels of DATA, which is then an image or a folder of images: footprints, masks "
        "or any other labels.",
    ),
    "annotator": _data_option(
        str,
        rare=True,
        metavar="WHO",
        help="Label Studio annotator whose labels are used, or union, or majority.",
    ),
    "layer": _data_option(
        str, metavar="NAME", help="Layer of vector files with several; * joins them."
    ),
    "layout": _data_option(
        str, metavar="RULE", help='Pairs of images and masks: "a/{id}.jpg=b/{id}_gt.png".'
    ),
    "glob": _data_option(
        list[str], rare=True, metavar="PATTERN", help="Use only images whose file name matches."
    ),
    "part": _data_option(
        str, rare=True, metavar="SLICE", help='Slice of the names in sorted order: "[:15]".'
    ),
    "area": _data_option(
        str, metavar="FILE", help="Polygons inside which the labels are complete."
    ),
    "crs": _data_option(
        str,
        rare=True,
        metavar="CRS",
        help="CRS of images that have a position and state none: EPSG:32645.",
    ),
    "nodata": _data_option(str, rare=True, metavar="VALUE", help=NODATA_HELP),
    "gsd": _data_option(
        float, "--gsd", min=LEAST_GSD_M, max=MOST_GSD_M, metavar="M", help=GSD_HELP
    ),
    "settings": _data_option(
        list[str],
        "--set",
        metavar="KEY=VALUE",
        help="Value of a data card: order=column or labels.names.building=hut.",
    ),
}


def single_truth(given: Sequence[Path] | None) -> Path | None:
    """Return the value of `--truth`; raise ConfigError if it was given several times."""
    if given is not None and len(given) > 1:
        raise ConfigError(
            f"--truth was given {len(given)} times: {', '.join(map(str, given))}.",
            remedy="Give one: a label file, or a folder with a label file for each image.",
        )
    return given[0] if given else None


def source_config(
    data: Path,
    settings: Sequence[str] | None = None,
    gsd: float | None = None,
    *,
    truth: Path | None = None,
    **given: Any,
) -> SourceConfig:
    """Return the configuration of data from the options of a command.

    Args:
        data: Path of the data; with `truth`, that of its images.
        settings: Values of `--set`.
        gsd: Metres per pixel.
        truth: Label file of the images.
        given: Other options by name; None means that the option was not given.
    """
    if truth is not None:
        if given.get("images") is not None:
            raise ConfigError(
                f"The images were given twice: {data}, and --images {given['images']}.",
                remedy=f"Leave out one of them: the labels are those of --truth {truth}.",
            )
        from rooftrace.io.vector_formats import is_vector_file

        if is_vector_file(data) and not is_vector_file(truth):
            raise ConfigError(
                f"{data} was given as the image and {truth} as its labels, but {data} is a vector "
                "file.",
                remedy=f"Swap the two: {shlex.quote(str(truth))} --truth {shlex.quote(str(data))}",
            )
        data, given["images"] = truth, str(data)
    raw: dict[str, Any] = {"path": str(data), "gsd_m": gsd, **given}
    raw = {key: value for key, value in raw.items() if value is not None}
    if "glob" in raw:
        raw["glob"] = tuple(raw["glob"])
    if "nodata" in raw:
        raw["nodata"] = parse_nodata(raw["nodata"])
    for setting in settings or ():
        apply_override(raw, setting)
    return parse_config(raw, SourceConfig, source="The command line")
