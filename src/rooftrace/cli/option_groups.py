"""Groups of options that several commands share: each is a dataclass that becomes one parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from typer.core import TyperCommand

from rooftrace.cli.options import (
    CLUSTER,
    IMAGES,
    OUTPUTS,
    POLYGONS,
    EngineName,
    Ensemble,
    Gsd,
    ModelFiles,
    Nodata,
    Precision,
    Threshold,
    Tta,
    Weights,
    models_of,
    nodata_of,
    option,
    parse_outputs,
    parse_weights,
)
from rooftrace.core.errors import ConfigError

if TYPE_CHECKING:
    from rooftrace.io.nodata import NodataRule
    from rooftrace.models.prompts import PromptSegmenter
    from rooftrace.predict.cluster.pool import ClusterOptions
    from rooftrace.predict.model_set import ModelSet
    from rooftrace.predict.plan import SceneOutput

__all__ = [
    "CheckedCommand",
    "ClusterGroup",
    "InputGroup",
    "LabelledGroup",
    "ModelGroup",
    "PixelGroup",
    "PolygonGroup",
    "RefineGroup",
    "ValueGroup",
    "sign",
    "with_groups",
]

_Scale = Annotated[
    float | None,
    option(IMAGES, "--scale", rare=True, metavar="FACTOR",
        help="Scale factor applied to the image before prediction, in place of metres."),
]  # fmt: skip
_Bands = Annotated[
    str | None,
    option(IMAGES, "--bands", metavar="LIST",
        help="Bands of the image in the order of the model's bands, by number or name: 3,2,1 or "
        "red,green,blue; default: found in the file."),
]  # fmt: skip
_Stretch = Annotated[
    str,
    option(IMAGES, "--stretch", metavar="HOW",
        help="Way in which values are stretched to the model's range: auto (other types than the "
        "model's, and very dark images), none, per-band, or two values LOW,HIGH."),
]  # fmt: skip


_MinArea = Annotated[
    float | None,
    option(POLYGONS, "--min-area", min=0, metavar="M2",
        help="Drop polygons with a smaller area, in m²."),
]  # fmt: skip
_MinHole = Annotated[
    float | None,
    option(POLYGONS, "--min-hole", rare=True, min=0, metavar="M2",
        help="Fill holes with a smaller area in buildings, in m²."),
]  # fmt: skip
_Regularize = Annotated[
    bool,
    option(POLYGONS, help="Make nearly right angles of building outlines exactly right."),
]
_Separate = Annotated[bool, option(POLYGONS, help="Separate buildings that touch.")]
_Refine = Annotated[
    Literal["sam"] | None,
    option(POLYGONS, metavar="sam",
        help="Refine the outlines of buildings with SAM, SAM 2 or a relative."),
]  # fmt: skip
_SamWeights = Annotated[
    str | None,
    option(POLYGONS, rare=True, metavar="FOLDER",
        help="Folder of the weights for --refine sam, or a repository of the Hugging Face hub, "
        "such as facebook/sam2.1-hiera-tiny."),
]  # fmt: skip
_Cell = Annotated[
    float | None,
    option(OUTPUTS, min=0.1, metavar="M",
        help="Side of a density cell in metres; default: 100."),
]  # fmt: skip
_OnError = Annotated[
    Literal["fail", "nodata"],
    option(OUTPUTS, rare=True, metavar="HOW",
        help="Action if a tile cannot be read or predicted: fail the image, or write nodata."),
]  # fmt: skip
_Outputs = Annotated[
    str | None,
    option(OUTPUTS, metavar="LIST",
        help="Outputs, separated by commas: mask, polygons, preview, density, rle (a table of run "
        "lengths). Default: the first four; for a catalogue, polygons."),
]  # fmt: skip
_Cluster = Annotated[
    Literal["ray"] | None,
    option(CLUSTER, metavar="ray",
        help="Run on the machines of a Ray cluster. The results are identical."),
]  # fmt: skip
_Address = Annotated[
    str | None,
    option(CLUSTER, rare=True, metavar="HOST:PORT",
        help="Cluster to use: local (this machine; the default), auto or HOST:PORT."),
]  # fmt: skip
_Workers = Annotated[
    int | None,
    option(CLUSTER, rare=True, min=1, metavar="N",
        help="Number of workers, each with one engine; default: the maximum that fits."),
]  # fmt: skip
_GpusPerWorker = Annotated[
    float | None,
    option(CLUSTER, rare=True, min=0, metavar="N",
        help="Number of GPUs for each worker; two workers share one GPU with 0.5."),
]  # fmt: skip


@dataclass(frozen=True)
class ModelGroup:
    """Options that choose the models and the engine that runs them."""

    models: ModelFiles = None
    ensemble: Ensemble = None
    weights: Weights = None
    tta: Tta = None
    threshold: Threshold = None
    engine: EngineName = None
    precision: Precision = None

    def read(self) -> ModelSet:
        """Read the models without loading their engines.

        Raises:
            ConfigError: The options contradict each other.
            BundleError: A file cannot be read.
        """
        bundle, weights = models_of(self.models, self.ensemble), parse_weights(self.weights)
        from rooftrace.predict.model_set import read_models

        return read_models(
            bundle, self.ensemble or "average", weights=weights, tta=self.tta,
            engine=self.engine, precision=self.precision,
        )  # fmt: skip


@dataclass(frozen=True)
class ValueGroup:
    """Options that say which bands of images are read, and in which range of values."""

    bands: _Bands = None
    stretch: _Stretch = "auto"

    def parsed(self) -> dict[str, Any]:
        """Return the fields of `SceneOptions` that these options set.

        Raises:
            ConfigError: `--bands` or `--stretch` cannot be read.
        """
        from rooftrace.io.bands import parse_bands
        from rooftrace.io.pixels import parse_stretch

        parse_bands(self.bands)
        parse_stretch(self.stretch)
        return {"bands": self.bands, "stretch": self.stretch}


@dataclass(frozen=True)
class LabelledGroup(ValueGroup):
    """Options that say how images are read for prediction, of a command with `takes_data`.

    Metres per pixel and nodata are options of DATA, and part of `SourceConfig`.
    """

    scale: _Scale = None

    def parsed(self) -> dict[str, Any]:
        return super().parsed() | {"scale": self.scale}


@dataclass(frozen=True)
class PixelGroup(ValueGroup):
    """Options that say how the pixels of images are read."""

    nodata: Nodata = None

    @property
    def nodata_rule(self) -> NodataRule | None:
        """Rule for nodata pixels; None if `--nodata` was not given.

        Raises:
            ConfigError: The text is neither a value nor a colour.
        """
        return nodata_of(self.nodata)


@dataclass(frozen=True)
class InputGroup(PixelGroup):
    """Options that say how the pixels of images are read, and their scale."""

    gsd: Gsd = None
    scale: _Scale = None

    def parsed(self) -> dict[str, Any]:
        return super().parsed() | {"gsd_m": self.gsd, "scale": self.scale}


@dataclass(frozen=True)
class PolygonGroup:
    """Options of the outputs of each scene."""

    min_area: _MinArea = None
    min_hole: _MinHole = None
    regularize: _Regularize = True
    separate: _Separate = True
    outputs: _Outputs = None
    cell: _Cell = None
    on_error: _OnError = "fail"

    @property
    def wants_rle(self) -> bool:
        """True if `--outputs` asks for a table of run lengths."""
        return self.outputs is not None and parse_outputs(self.outputs, rle=True)[1]

    def parsed(self, default: tuple[SceneOutput, ...], *, rle: bool = False) -> dict[str, Any]:
        """Return the fields of `SceneOptions` that these options set.

        Args:
            default: Outputs to write if `--outputs` is not given.
            rle: Whether the command writes tables of run lengths.

        Raises:
            ConfigError: `--outputs` contains an unknown output.
        """
        if self.outputs is not None:
            default, _ = parse_outputs(self.outputs, rle=rle)
        cell = {} if self.cell is None else {"cell_m": self.cell}
        return cell | {
            "min_area_m2": self.min_area,
            "min_hole_m2": self.min_hole,
            "regularize": self.regularize,
            "separate": self.separate,
            "forgiving": self.on_error == "nodata",
            "outputs": default,
        }


@dataclass(frozen=True)
class RefineGroup:
    """Options that refine the outlines of buildings."""

    refine: _Refine = None
    sam_weights: _SamWeights = None

    def load(self) -> PromptSegmenter | None:
        """Return the network that refines outlines; None if they are not to be refined.

        Raises:
            ConfigError: One of the options was given without the other.
            BundleError, MissingExtraError: See `load_sam`.
        """
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

    cluster: _Cluster = None
    address: _Address = None
    workers: _Workers = None
    gpus_per_worker: _GpusPerWorker = None

    def parsed(self) -> ClusterOptions | None:
        """Return the cluster to run on; None for this process.

        Raises:
            ConfigError: An option of the cluster was given without `--cluster`.
        """
        if self.cluster is None:
            for name in ("address", "workers", "gpus_per_worker"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"--{name.replace('_', '-')} requires --cluster ray.",
                        remedy="Add --cluster ray, or leave out the option.",
                    )
            return None
        from rooftrace.predict.cluster.pool import ClusterOptions

        address = self.address or ClusterOptions.address
        return ClusterOptions(address, self.workers, self.gpus_per_worker or 0.0)


class CheckedCommand(TyperCommand):
    """A command that refuses infinity and NaN in its numbers, as limits of options do not.

    Its rare options are hidden options, which `--help-all` lists.
    """

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        if any(getattr(one, "hidden", False) for one in self.params):
            self.epilog = f"More options: rooftrace {self.name} --help-all"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options and arguments of the command."""
        if "--help-all" in args:
            for one in self.params:
                vars(one)["hidden"] = False
            args = ["--help"]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            ConfigError: a number is not finite.
        """
        for parameter in self.params:
            given = ctx.params.get(parameter.name)
            for value in given if isinstance(given, (list, tuple)) else (given,):
                if isinstance(value, float) and not isfinite(value):
                    raise ConfigError(
                        f"{parameter.opts[0]} is {value}; expected a finite number.",
                        remedy="Give a number, such as 0.3.",
                    )
        return super().invoke(ctx)


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for Typer that receives groups of options as dataclasses.

    Typer reads the signature of a command and does not support groups. Each parameter that is
    annotated with a dataclass is therefore replaced by the fields of that dataclass.
    """
    own = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)
    }
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = []
    for name, parameter in own.items():
        if name not in groups:
            parameters.append(parameter.replace(kind=keyword))
            continue
        hints = get_type_hints(groups[name], include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name, keyword, default=field.default, annotation=hints[field.name]
            )
            for field in fields(groups[name])
        ]

    @functools.wraps(command)
    def parsed(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    sign(parsed, parameters)
    return parsed


def sign(command: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> None:
    """Set the parameters of a function that Typer reads."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
