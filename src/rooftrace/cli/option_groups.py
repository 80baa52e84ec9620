"""Groups of options that several commands share, and the functions that read their values.

Each group is a dataclass that becomes one parameter of a command.
"""

from __future__ import annotations

import functools
import inspect
import shutil
import textwrap
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BeforeValidator
from typer.core import TyperCommand

from rooftrace.cli.options import (
    CLUSTER,
    IMAGES,
    MODEL,
    OUTPUTS,
    POLYGONS,
    EngineName,
    Ensemble,
    ModelFiles,
    Precision,
    Tta,
    Weights,
    model_of,
    option,
)
from rooftrace.cli.show import print_line
from rooftrace.core.config import Options
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural
from rooftrace.io.service_options import ServiceOptions
from rooftrace.predict.options import OUTPUTS as SCENE_OUTPUTS
from rooftrace.predict.options import SceneOptions, public_name

if TYPE_CHECKING:
    from rooftrace.flows.predict.cluster import ClusterOptions
    from rooftrace.io.nodata import NodataRule
    from rooftrace.models.clicks import PromptSegmenter
    from rooftrace.predict.model_set import Combine, Models, ModelSet
    from rooftrace.predict.options import SceneOutput


@dataclass(frozen=True)
class ModelGroup:
    """Options that choose the models and the engine that runs them."""

    models: ModelFiles = None
    ensemble: Ensemble = None
    weights: Weights = None
    tta: Tta = None
    engine: EngineName = None
    precision: Precision = None

    def read(self) -> ModelSet:
        """Read the models without loading their engines.

        Raises:
            ConfigError: The options contradict each other.
        """
        bundle, weights = models_of(self.models, self.ensemble), parse_weights(self.weights)
        from rooftrace.predict.model_set import read_models

        return read_models(
            bundle, self.ensemble or "average", weights=weights, tta=self.tta,
            engine=self.engine, precision=self.precision,
        )  # fmt: skip


def models_of(given: Sequence[Path] | None, how: Combine | None) -> Models:
    """Return the models of a command, in the form that `read_models` takes.

    Args:
        given: Paths of bundles, or of one ensemble file. `default` stands for the bundled model,
            which is also the default.
        how: Method of combination of several bundles.
    """
    models = [model_of(path) for path in given or ()]
    if len(models) > 1 and how is None:
        raise ConfigError(
            f"{len(models)} models were given without a method to combine them.",
            remedy="Choose how to combine them: --ensemble average or weighted.",
        )
    if len(models) == 1 and models[0] is not None and models[0].suffix == ".json" and how:
        raise ConfigError(
            f"{models[0]} already determines how its models are combined, but --ensemble {how} "
            "was given.",
            remedy="Leave out --ensemble, or give the bundles in place of the file.",
        )
    if len(models) <= 1 and how is not None:
        raise ConfigError(
            f"--ensemble {how} combines several models, but "
            f"{plural(len(models), 'model was', 'models were')} given.",
            remedy="Give the other models with -m, or leave out --ensemble.",
        )
    return models if len(models) > 1 else next(iter(models), None)


def parse_weights(text: str | None) -> tuple[float, ...] | None:
    """Return the numbers in a text, which are separated by commas; None for None."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--weights received {text!r}; expected a number for each model, separated by commas.",
            remedy="For example: --weights 2,1,1",
        ) from None


def parse_nodata(text: str) -> float | tuple[float, ...] | str:
    """Return the value in a text, or the values of a colour, separated by commas; or none."""
    if text == "none":
        return text
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--nodata received {text!r}; expected a value, a colour separated by commas, or none.",
            remedy="For example: --nodata 0, or --nodata 255,255,255",
        ) from None
    return values[0] if len(values) == 1 else values


def nodata_of(text: str | None) -> NodataRule | None:
    """Return the rule for nodata pixels; None if the option was not given.

    Raises:
        ConfigError: The text is neither a value nor a colour.
    """
    if text is None:
        return None
    from rooftrace.labels.config import nodata_rule

    return nodata_rule(parse_nodata(text))


class Shown(NamedTuple):
    """How a field is shown as an option.

    Args:
        panel: Group in the help.
        metavar: Placeholder of the value.
        name: Name of the option, if it is not that of the field.
        rare: Whether only `--help-all` lists it.
    """

    panel: str
    metavar: str | None = None
    name: str | None = None
    rare: bool = False


@dataclass(frozen=True)
class Fields:
    """Annotation of a parameter whose fields become options.

    Args:
        model: Class of the parameter.
        shown: Fields that are options; the others keep their defaults.
    """

    model: type[Options]
    shown: Mapping[str, Shown]

    def parameters(self, own: Container[str]) -> list[inspect.Parameter]:
        """Return the options, with the limits and descriptions of the fields."""
        parameters = []
        for field, shown in self.shown.items():
            info = self.model.model_fields[field]
            limits = {
                name: getattr(mark, bound)
                for mark in info.metadata
                for name, bound in (("min", "ge"), ("max", "le"))
                if hasattr(mark, bound)
            }
            kind: Any = info.annotation
            default = inspect.Parameter.empty if info.is_required() else info.default
            if any(isinstance(mark, BeforeValidator) for mark in info.metadata):
                # The model reads it from a text.
                kind = str | None if default is None else str
                default = ",".join(default) if isinstance(default, tuple) else default
            elif get_origin(kind) is tuple:
                (entry, *_), default = get_args(kind), None
                # A type that is known when it runs alone.
                kind = list[entry] | None  # type: ignore[valid-type]
            names = () if shown.name is None else (shown.name,)
            declared = option(
                shown.panel, *names, rare=shown.rare, metavar=shown.metavar,
                help=info.description, **limits,
            )  # fmt: skip
            parameters.append(
                inspect.Parameter(
                    public_name(field), inspect.Parameter.KEYWORD_ONLY,
                    default=default, annotation=Annotated[kind, declared],
                )
            )  # fmt: skip
        return parameters

    def made(self, given: dict[str, Any], own: Container[str]) -> Any:
        """Return the options, and take their values out of those of a command."""
        values = {field: given.pop(public_name(field)) for field in self.shown}
        return self.model(**{field: one for field, one in values.items() if one is not None})


_SCENE_OPTIONS: dict[str, Shown] = {
    "gsd_m": Shown(IMAGES, "M"),
    "scale": Shown(IMAGES, "FACTOR", rare=True),
    "bands": Shown(IMAGES, "LIST"),
    "stretch": Shown(IMAGES, "HOW", rare=True),
    "threshold": Shown(MODEL, "P"),
    "min_area_m2": Shown(POLYGONS, "M2"),
    "min_score": Shown(POLYGONS, "P", rare=True),
    "min_hole_m2": Shown(POLYGONS, "M2", rare=True),
    "outline": Shown(POLYGONS, "HOW"),
    "separate": Shown(POLYGONS),
    "cell_m": Shown(OUTPUTS, "M", rare=True),
}


def scene_fields(*names: str) -> Fields:
    """Return fields of `SceneOptions` that are options."""
    return Fields(SceneOptions, {name: _SCENE_OPTIONS[name] for name in names})


LabelledOptions = Annotated[SceneOptions, scene_fields("bands", "stretch", "scale")]
"""Options that say how images are read for prediction, of a command with `DataFields`. Metres per
pixel and nodata are options of DATA, and part of `SourceConfig`."""

ImageOptions = Annotated[SceneOptions, scene_fields("gsd_m", "scale", "bands", "stretch")]
"""Options that say how images are read for prediction."""

ALL_FIELDS = tuple(_SCENE_OPTIONS)
"""Fields of `SceneOptions` that are options."""

AllOptions = Annotated[SceneOptions, scene_fields(*ALL_FIELDS)]
"""Options of each scene."""


@dataclass(frozen=True)
class OutputGroup:
    """Options of the outputs of each scene."""

    outputs: Annotated[
        str | None,
        option(OUTPUTS, metavar="LIST",
            help="Some of mask,polygons,preview,density; also rle, coco."),
    ] = None  # fmt: skip
    on_error: Annotated[
        Literal["fail", "nodata"],
        option(OUTPUTS, rare=True, metavar="HOW",
            help="If a tile cannot be read or predicted: fail the image, or write nodata."),
    ] = "fail"  # fmt: skip

    def applied(
        self, options: SceneOptions, default: tuple[SceneOutput, ...], further: tuple[str, ...] = ()
    ) -> tuple[SceneOptions, set[str]]:
        """Return the options of a scene with its outputs, and the further outputs of the run.

        Args:
            options: Other options of the scene.
            default: Outputs to write if `--outputs` is not given.
            further: Outputs of all scenes together that the command has.
        """
        wanted: set[str] = {*default}
        if self.outputs is not None:
            wanted = {part.strip() for part in self.outputs.split(",")}
            allowed = (*SCENE_OUTPUTS, *further)
            if not wanted <= {*allowed} or not self.outputs.strip():
                raise ConfigError(
                    f"--outputs received {self.outputs!r}; expected outputs separated by commas: "
                    f"{', '.join(allowed)}.",
                    remedy="For example: --outputs mask,polygons",
                )
        if "coco" in wanted:
            # They are read from the polygons.
            wanted.add("polygons")
        outputs = tuple(output for output in SCENE_OUTPUTS if output in wanted)
        update = {"outputs": outputs, "forgiving": self.on_error == "nodata"}
        return options.model_copy(update=update), wanted.difference(SCENE_OUTPUTS)


@dataclass(frozen=True)
class RefineGroup:
    """Options that refine the outlines of buildings."""

    refine: Annotated[
        Literal["sam"] | None,
        option(POLYGONS, rare=True, metavar="sam",
            help="Refine the outlines of buildings with SAM, SAM 2 or a relative."),
    ] = None  # fmt: skip
    sam_weights: Annotated[
        str | None,
        option(POLYGONS, rare=True, metavar="FOLDER",
            help="Its weights: a folder, or a Hugging Face repository."),
    ] = None  # fmt: skip

    def load(self) -> PromptSegmenter | None:
        """Return the network that refines outlines; None if they are not to be refined."""
        if self.refine is None and self.sam_weights is None:
            return None
        if self.refine is None or self.sam_weights is None:
            raise ConfigError(
                "--refine sam needs --sam-weights."
                if self.sam_weights is None
                else "--sam-weights requires --refine sam.",
                remedy="Give both options, or leave out both.",
            )
        from rooftrace.models.sam import load_sam

        return load_sam(self.sam_weights)


@dataclass(frozen=True)
class ClusterGroup:
    """Options that distribute a run over a cluster."""

    cluster: Annotated[
        Literal["ray"] | None,
        option(CLUSTER, rare=True, metavar="ray",
            help="Run on the machines of a Ray cluster. The results are identical."),
    ] = None  # fmt: skip
    address: Annotated[
        str | None,
        option(CLUSTER, rare=True, metavar="HOST:PORT",
            help="Cluster: local (this machine; the default), auto or HOST:PORT."),
    ] = None  # fmt: skip
    workers: Annotated[
        int | None,
        option(CLUSTER, rare=True, min=1, metavar="N",
            help="Workers, each with one engine; default: the maximum that fits."),
    ] = None  # fmt: skip
    gpus_per_worker: Annotated[
        float | None,
        option(CLUSTER, rare=True, min=0, metavar="N",
            help="GPUs for each worker; two workers share one with 0.5."),
    ] = None  # fmt: skip

    def parsed(self) -> ClusterOptions | None:
        """Return the cluster to run on; None for this process."""
        if self.cluster is None:
            for name in ("address", "workers", "gpus_per_worker"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"--{name.replace('_', '-')} requires --cluster ray.",
                        remedy="Add --cluster ray, or leave out the option.",
                    )
            return None
        from rooftrace.flows.predict.cluster import ClusterOptions

        address = self.address or ClusterOptions.address
        return ClusterOptions(address, self.workers, self.gpus_per_worker or 0.0)


class CheckedCommand(TyperCommand):
    """A command whose rare options are hidden options, which `--help-all` lists."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help as plain lines: what the command does, then its options by group."""
        del formatter
        width = min(shutil.get_terminal_size().columns, 100)
        text = [f"Usage: {ctx.command_path} {' '.join(self.collect_usage_pieces(ctx))}", ""]
        text += [textwrap.fill(" ".join((self.help or "").split()), width), ""]
        rows: dict[str, list[str]] = {}
        for one in self.params:
            if not getattr(one, "hidden", False):
                panel = getattr(one, "rich_help_panel", None) or "Options"
                rows.setdefault(panel, []).append(_help_row(one, width))
        for panel, lines in rows.items():
            text += [f"{panel}:", *lines, ""]
        if any(getattr(one, "hidden", False) for one in self.params):
            text.append(f"More options: {ctx.command_path} --help-all")
        print_line("\n".join(text).rstrip())

    def invoke(self, ctx: Any) -> Any:
        """Run the command. If it fails before its first result, it leaves no new, empty folder."""
        out = Path(ctx.params.get("out") or ".")
        missing = [folder for folder in (out, *out.parents) if not folder.exists()]
        try:
            return super().invoke(ctx)
        except BaseException:
            with suppress(OSError):
                for folder in missing:
                    if folder.exists():
                        folder.rmdir()
            raise

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options and arguments of the command."""
        if "--help-all" not in args:
            return super().parse_args(ctx, args)
        rare = [one for one in self.params if getattr(one, "hidden", False)]
        try:
            for one in rare:
                vars(one)["hidden"] = False
            return super().parse_args(ctx, ["--help"])
        finally:
            for one in rare:
                vars(one)["hidden"] = True


_TEXT_AT = 24
"""Column in which the texts of options begin in a command's help."""


def _help_row(parameter: Any, width: int) -> str:
    """Return the lines of an option or argument in a command's help."""
    choices = "|".join(map(str, get_args(parameter.type_descriptor.annotation)))
    value = parameter.metavar or choices or "VALUE"
    if parameter.param_type_name == "argument":
        head = value.strip("[]{}.")
    else:
        names = sorted(parameter.opts, key=len)
        if parameter.secondary_opts:
            other = parameter.secondary_opts[0]
            names = [f"--[no-]{names[-1][2:]}" if "no-" in other else f"{names[-1]}/{other}"]
        head = f"{', '.join(names)} {'' if parameter.is_flag else value}".rstrip()
    default = getattr(parameter, "show_default", None)
    if not isinstance(default, str):
        default = "" if parameter.default in (None, (), False, True) else parameter.default
    more = "required" if parameter.required else f"default: {default}" if default != "" else ""
    help_text = f"{getattr(parameter, 'help', None) or ''}{f' ({more})' if more else ''}"
    lines = textwrap.wrap(help_text, width - _TEXT_AT) or [""]
    first = f"  {head}"
    rest = [" " * _TEXT_AT + line for line in lines]
    if len(first) + 2 > _TEXT_AT:
        return "\n".join([first, *rest])
    return "\n".join([first.ljust(_TEXT_AT) + lines[0], *rest[1:]])


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for Typer that receives groups of options as objects.

    Typer reads the signature of a command and does not support groups. Each parameter that is
    annotated with a dataclass is therefore replaced by the fields of that dataclass, and one that
    is annotated with `Fields` or `DataFields` by their parameters.
    """
    listed = inspect.signature(command, eval_str=True).parameters
    keyword = inspect.Parameter.KEYWORD_ONLY
    marked = {
        name: mark
        for name, parameter in listed.items()
        for mark in getattr(parameter.annotation, "__metadata__", ())
        if hasattr(mark, "parameters")
    }
    own = listed.keys() - marked.keys()
    groups: dict[str, Any] = {}
    parameters = []
    for name, parameter in listed.items():
        kind = parameter.annotation
        if name in marked:
            groups[name] = marked[name].made
            parameters += marked[name].parameters(own)
        elif is_dataclass(kind):
            groups[name] = functools.partial(_group, kind)
            hints = get_type_hints(kind, include_extras=True)
            parameters += [
                inspect.Parameter(
                    one.name, keyword, default=one.default, annotation=hints[one.name]
                )
                for one in fields(kind)
            ]
        else:
            parameters.append(parameter.replace(kind=keyword))

    @functools.wraps(command)
    def parsed(**given: Any) -> None:
        made = {name: make(given, own) for name, make in groups.items()}
        command(**given, **made)

    # Typer reads it; functions have no such attribute by their type.
    parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    parsed.__annotations__ = {one.name: one.annotation for one in parameters}
    return parsed


def _group(kind: Any, given: dict[str, Any], _: Container[str]) -> Any:
    """Return a group of options, and take their values out of those of a command."""
    return kind(**{one.name: given.pop(one.name) for one in fields(kind)})


SERVICES = "Map services"
"""Title of the group of these options in a command's help."""

TileOptions = Annotated[
    ServiceOptions,
    Fields(
        ServiceOptions,
        {
            "layer": Shown(SERVICES, "NAME", rare=True),
            "max_tiles": Shown(SERVICES, "N", rare=True),
            "connections": Shown(SERVICES, "N", rare=True),
            "per_second": Shown(SERVICES, "N", rare=True),
            "user_agent": Shown(SERVICES, "TEXT", rare=True),
            "tile_cache": Shown(SERVICES, "FOLDER", rare=True),
        },
    ),
]
"""Options for the tiles of map services."""
