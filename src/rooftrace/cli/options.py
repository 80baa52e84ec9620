"""Options that several commands share, and their groups in the help."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer
from typer.core import TyperCommand

from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural

if TYPE_CHECKING:
    from rooftrace.core.types import ResultProvenance
    from rooftrace.io.nodata import NodataRule
    from rooftrace.models.prompts import PromptSegmenter
    from rooftrace.predict.cluster.pool import ClusterOptions
    from rooftrace.predict.ensemble import Combine
    from rooftrace.predict.model_set import Models, ModelSet
    from rooftrace.predict.plan import SceneOutput

__all__ = [
    "CATALOGUE",
    "CLUSTER",
    "GSD_HELP",
    "IMAGES",
    "MODEL",
    "NODATA_HELP",
    "OUTPUTS",
    "POLYGONS",
    "AllowMixed",
    "CheckedCommand",
    "ClusterGroup",
    "EngineName",
    "Ensemble",
    "Gsd",
    "ImageryDate",
    "ImagerySource",
    "InputGroup",
    "Json",
    "LabelledGroup",
    "ModelFile",
    "ModelFiles",
    "ModelGroup",
    "Nodata",
    "Order",
    "OutFolder",
    "PixelGroup",
    "PolygonGroup",
    "Portable",
    "Precision",
    "RefineGroup",
    "Split",
    "Stac",
    "Threshold",
    "Tta",
    "ValueGroup",
    "Weights",
    "WorkFolder",
    "models_of",
    "nodata_of",
    "parse_nodata",
    "parse_outputs",
    "parse_weights",
    "provenance_of_options",
    "sign",
    "with_groups",
]

MODEL, IMAGES, POLYGONS = "Model", "Images, scale and area", "Polygons"
OUTPUTS, CATALOGUE, CLUSTER = "Outputs", "Catalogue", "Cluster"
"""Titles of the groups of options in a command's help."""


Order = Literal["row", "column"]
"""Order in which the runs of a mask visit its pixels."""

NODATA_HELP = "Pixel value that means no data, or a colour such as 255,255,255."
GSD_HELP = "Metres per pixel, for images whose files do not contain them."

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ModelFile = Annotated[
    Path | None,
    typer.Option(
        "-m", "--model", metavar="FILE", rich_help_panel=MODEL,
        help="Path of a .rooftrace file; default: the bundled model.",
    ),
]  # fmt: skip
ModelFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "-m", "--model", metavar="FILE", rich_help_panel=MODEL,
        help="Path of a .rooftrace file; repeat it for each model of an ensemble; default: the "
        "bundled model.",
    ),
]  # fmt: skip
Nodata = Annotated[
    str | None, typer.Option(metavar="VALUE", rich_help_panel=IMAGES, help=NODATA_HELP)
]
Gsd = Annotated[
    float | None,
    typer.Option("--gsd", min=1e-4, max=1e6, metavar="M", rich_help_panel=IMAGES, help=GSD_HELP),
]
_Scale = Annotated[
    float | None,
    typer.Option(
        "--scale", metavar="FACTOR", rich_help_panel=IMAGES,
        help="Scale factor applied to the image before prediction, in place of metres.",
    ),
]  # fmt: skip
_Bands = Annotated[
    str | None,
    typer.Option(
        "--bands", metavar="LIST", rich_help_panel=IMAGES,
        help="Bands of the image in the order of the model's bands, by number or name: 3,2,1 or "
        "red,green,blue; default: found in the file.",
    ),
]  # fmt: skip
_Stretch = Annotated[
    str,
    typer.Option(
        "--stretch", metavar="HOW", rich_help_panel=IMAGES,
        help="Way in which values are stretched to the model's range: auto (other types than the "
        "model's, and very dark images), none, per-band, or two values LOW,HIGH.",
    ),
]  # fmt: skip
ImageryDate = Annotated[
    str | None,
    typer.Option(
        "--imagery-date", metavar="DATE", rich_help_panel=IMAGES,
        help="Date of the images, such as 2024-05-17, for the polygons; default: the date in the "
        "files.",
    ),
]  # fmt: skip
ImagerySource = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="TEXT", rich_help_panel=IMAGES,
        help="Source of the images, such as their attribution, for the polygons; default: the name "
        "or address of each image.",
    ),
]  # fmt: skip
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, metavar="P", rich_help_panel=MODEL,
        help="Building probability from which a pixel is a building; default: the model's own.",
    ),
]  # fmt: skip
Ensemble = Annotated[
    Literal["average", "vote", "weighted"] | None,
    typer.Option(
        metavar="HOW", rich_help_panel=MODEL,
        help="Combine several models: average, weighted (average) or vote.",
    ),
]  # fmt: skip
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="2,1,1", rich_help_panel=MODEL,
        help="Weights for --ensemble weighted; default: the validation IoU of each model.",
    ),
]  # fmt: skip
Tta = Annotated[
    Literal["flips", "d4"] | None,
    typer.Option(
        metavar="HOW", rich_help_panel=MODEL,
        help="Test-time augmentation: average over 4 mirrored tiles (flips) or 8 (d4). Slower "
        "and slightly more accurate.",
    ),
]  # fmt: skip
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine", metavar="NAME", rich_help_panel=MODEL,
        help="Inference engine, such as openvino, onnxruntime or torch; rooftrace doctor lists "
        "them.",
    ),
]  # fmt: skip
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE", rich_help_panel=MODEL,
        help="Precision: fp32, bf16, fp16 or int8; default: the fastest that suits this machine.",
    ),
]  # fmt: skip
Split = Annotated[
    str | None, typer.Option(metavar="FILE:PART", help="Part of a split, such as split.json:val.")
]

# Options of the commands that predict scenes.

OutFolder = Annotated[
    str,
    typer.Option(
        "-o", "--out", metavar="FOLDER", rich_help_panel=OUTPUTS, show_default=False,
        help="Folder for the results, or an s3:// address.",
    ),
]  # fmt: skip
Stac = Annotated[
    bool,
    typer.Option(
        "--stac", rich_help_panel=OUTPUTS,
        help="Describe the results of images with a known date as a STAC collection.",
    ),
]  # fmt: skip
Portable = Annotated[
    bool,
    typer.Option(
        "--portable", rich_help_panel=MODEL,
        help="Use the instruction set AVX2 alone, so that other x86-64 processors give the same "
        "mask. It is slower.",
    ),
]  # fmt: skip
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed", rich_help_panel=OUTPUTS,
        help="Resume a run that began on a processor with another instruction set, although a few "
        "pixels then differ from those of one processor; run.json records it.",
    ),
]  # fmt: skip
WorkFolder = Annotated[
    Path | None,
    typer.Option(
        "--work", metavar="FOLDER", rich_help_panel=OUTPUTS,
        help="Local folder for results until they are uploaded, for -o s3://…; default: a folder "
        "in the user's cache.",
    ),
]  # fmt: skip
_MinArea = Annotated[
    float | None,
    typer.Option(
        "--min-area", min=0, metavar="M2", rich_help_panel=POLYGONS,
        help="Drop polygons with a smaller area, in m².",
    ),
]  # fmt: skip
_MinHole = Annotated[
    float | None,
    typer.Option(
        "--min-hole", min=0, metavar="M2", rich_help_panel=POLYGONS,
        help="Fill holes with a smaller area in buildings, in m².",
    ),
]  # fmt: skip
_Regularize = Annotated[
    bool,
    typer.Option(
        rich_help_panel=POLYGONS,
        help="Make nearly right angles of building outlines exactly right.",
    ),
]
_Separate = Annotated[
    bool, typer.Option(rich_help_panel=POLYGONS, help="Separate buildings that touch.")
]
_Refine = Annotated[
    Literal["sam"] | None,
    typer.Option(
        metavar="sam", rich_help_panel=POLYGONS,
        help="Refine the outlines of buildings with SAM, SAM 2 or a relative.",
    ),
]  # fmt: skip
_SamWeights = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER", rich_help_panel=POLYGONS,
        help="Folder of the weights for --refine sam, or a repository of the Hugging Face hub, "
        "such as facebook/sam2.1-hiera-tiny.",
    ),
]  # fmt: skip
_Cell = Annotated[
    float | None,
    typer.Option(
        min=0.1, metavar="M", rich_help_panel=OUTPUTS,
        help="Side of a density cell in metres; default: 100.",
    ),
]  # fmt: skip
_OnError = Annotated[
    Literal["fail", "nodata"],
    typer.Option(
        metavar="HOW", rich_help_panel=OUTPUTS,
        help="Action if a tile cannot be read or predicted: fail the image, or write nodata.",
    ),
]  # fmt: skip
_Outputs = Annotated[
    str | None,
    typer.Option(
        metavar="LIST", rich_help_panel=OUTPUTS,
        help="Outputs to write, separated by commas: mask, polygons, preview, density. Default: "
        "all; for a catalogue, polygons.",
    ),
]  # fmt: skip
_Cluster = Annotated[
    Literal["ray"] | None,
    typer.Option(
        metavar="ray", rich_help_panel=CLUSTER,
        help="Run on the machines of a Ray cluster. The results are identical.",
    ),
]  # fmt: skip
_Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", rich_help_panel=CLUSTER,
        help="Cluster to use: local (this machine; the default), auto or HOST:PORT.",
    ),
]  # fmt: skip
_Workers = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", rich_help_panel=CLUSTER,
        help="Number of workers, each with one engine; default: the maximum that fits.",
    ),
]  # fmt: skip
_GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="N", rich_help_panel=CLUSTER,
        help="Number of GPUs for each worker; two workers share one GPU with 0.5.",
    ),
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

    def parsed(self, default: tuple[SceneOutput, ...]) -> dict[str, Any]:
        """Return the fields of `SceneOptions` that these options set.

        Args:
            default: Outputs to write if `--outputs` is not given.

        Raises:
            ConfigError: `--outputs` contains an unknown output.
        """
        cell = {} if self.cell is None else {"cell_m": self.cell}
        return cell | {
            "min_area_m2": self.min_area,
            "min_hole_m2": self.min_hole,
            "regularize": self.regularize,
            "separate": self.separate,
            "forgiving": self.on_error == "nodata",
            "outputs": default if self.outputs is None else parse_outputs(self.outputs),
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


_ABSENT = {
    ("inspect", "--scale"): (
        "rooftrace inspect measures images as they are, and resizes none",
        "State the metres per pixel with --gsd, or of the other set with --against-set gsd_m=0.3.",
    ),
    ("video", "--nodata"): (
        "the compression of a video changes its colours, so that no value marks nodata exactly",
        "Save frames as images without loss, and use rooftrace predict --nodata.",
    ),
}
"""Options of `rooftrace predict` that a command lacks: the reason, and the remedy."""


class CheckedCommand(TyperCommand):
    """A command that refuses infinity and NaN in its numbers, as limits of options do not.

    It gives the reason for which it lacks an option of `rooftrace predict`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options and arguments of the command.

        Raises:
            ConfigError: An option is one of `_ABSENT`.
        """
        for argument in args:
            name = argument.partition("=")[0]
            if (self.name or "", name) in _ABSENT:
                reason, remedy = _ABSENT[self.name or "", name]
                raise ConfigError(f"There is no option {name}: {reason}.", remedy=remedy)
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


def models_of(given: Sequence[Path] | None, how: Combine | None) -> Models:
    """Return the models of a command, in the form that `read_models` takes.

    Args:
        given: Paths of bundles, or of one ensemble file. `default` stands for the bundled model,
            which is also the default.
        how: Method of combination of several bundles.

    Raises:
        ConfigError: Several bundles were given without `--ensemble`, or `--ensemble` without
            several bundles.
    """
    models = [None if str(path) == "default" else path for path in given or ()]
    if len(models) > 1 and how is None:
        raise ConfigError(
            f"{len(models)} models were given without a method to combine them.",
            remedy="Choose how to combine them: --ensemble average, weighted or vote.",
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


def parse_outputs(text: str) -> tuple[SceneOutput, ...]:
    """Return the outputs of a list such as `mask,polygons`, in their usual order.

    Raises:
        ConfigError: The list is empty or contains an unknown output.
    """
    from rooftrace.predict.plan import OUTPUTS as KNOWN

    wanted = {part.strip() for part in text.split(",")}
    if not wanted <= {*KNOWN} or not text.strip():
        raise ConfigError(
            f"--outputs received {text!r}; expected outputs separated by commas: "
            f"{', '.join(KNOWN)}.",
            remedy="For example: --outputs mask,polygons",
        )
    return tuple(output for output in KNOWN if output in wanted)


def parse_weights(text: str | None) -> tuple[float, ...] | None:
    """Return the numbers in a text, which are separated by commas; None for None.

    Raises:
        ConfigError: A part is not a number.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--weights received {text!r}; expected a number for each model, separated by commas.",
            remedy="For example: --weights 2,1,1",
        ) from None


def parse_nodata(text: str) -> float | tuple[float, ...]:
    """Return the value in a text, or the values of a colour, which are separated by commas.

    Raises:
        ConfigError: A part is not a number.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--nodata received {text!r}; expected a value, or a colour separated by commas.",
            remedy="For example: --nodata 0, or --nodata 255,255,255",
        ) from None
    return values[0] if len(values) == 1 else values


def nodata_of(text: str | None) -> NodataRule | None:
    """Return the rule for nodata pixels; None if the option was not given.

    Raises:
        ConfigError: The text is neither a value nor a colour.
    """
    from rooftrace.labels.config import nodata_rule

    return None if text is None else nodata_rule(parse_nodata(text))


def provenance_of_options(imagery_date: str | None, source: str | None) -> ResultProvenance | None:
    """Return the origin of the images that the user states; None without the options.

    Raises:
        ConfigError: The date has a wrong form.
    """
    from rooftrace.core.types import ResultProvenance
    from rooftrace.io.provenance import parse_imagery_date

    if imagery_date is None and source is None:
        return None
    date = None if imagery_date is None else parse_imagery_date(imagery_date)
    return ResultProvenance(date, source)
