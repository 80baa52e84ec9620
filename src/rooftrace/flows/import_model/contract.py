"""Options that become the contract of a foreign model, whose file does not state it."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.config import did_you_mean, parse_config
from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.core.machine import installed_versions
from rooftrace.core.text import plural
from rooftrace.flows.export.convert import TileSet
from rooftrace.models.spec import BundleSpec

Activation = Literal["none", "sigmoid", "softmax"]
"""Function that turns the output of a network into probabilities."""

DrawTiles = Callable[[BundleSpec], TileSet]
"""Function that returns the tiles of the check for a contract."""

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the bands of ImageNet, in shares of the full scale."""

_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
_VERSIONS = ("rooftrace", "torch", "torchvision", "segmentation-models-pytorch", "timm", "onnx",
             "openvino")  # fmt: skip


@dataclass(frozen=True)
class ImportOptions:
    """Network and contract of a foreign model, as the command line gives them.

    Args:
        gsd_m: Metres per pixel of the images that it was trained on; None for pixel by pixel.
        architecture: Architecture of a state dict; None for ONNX, which holds its network.
        encoder: Its encoder; default that of the architecture.
        overrides: `KEY=VALUE` of further keys of `[model]`.
        encoder_only: The state dict holds an encoder alone.
        output: Output of an ONNX graph to use; None if it has one.
        bands: Names of the bands, in the order of the network's input.
        classes: Names of the channels of the network's output, or of background and building if it
            has one channel.
        building: Name of the class whose footprints are traced; default `building`, or the second
            of two classes.
        activation: Function that turns the output into probabilities.
        normalise: `imagenet`, or `none`; in place of `mean` and `std`.
        mean, std: One value per band, in the units of `input_range`.
        input_range: Value to which the brightest pixel is scaled before the normalisation.
        dtype: Type of the pixel values.
        full_scale: Brightest pixel value; default by `dtype`.
        input_px: The only side of an input that the network accepts.
        multiple_px: Number that height and width of the input must be multiples of.
        threshold: Building probability from which a pixel is a building.
        name: Name of the model.
        licence, attribution: Licence and attribution of the weights.
    """

    gsd_m: float | None
    architecture: str | None = None
    encoder: str | None = None
    overrides: tuple[str, ...] = ()
    encoder_only: bool = False
    output: str | None = None
    bands: tuple[str, ...] = ("red", "green", "blue")
    classes: tuple[str, ...] = ("background", "building")
    building: str | None = None
    activation: Activation | None = None
    normalise: Literal["imagenet", "none"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_range: float = 1.0
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    full_scale: float | None = None
    input_px: int | None = None
    multiple_px: int | None = None
    threshold: float = 0.5
    name: str = ""
    licence: str = ""
    attribution: str = ""


@dataclass(frozen=True)
class Channels:
    """Meaning of the channels of a network's output.

    Args:
        count: Number of the channels.
        activation: Function that turns them into probabilities.
        keep: The only channel that the bundle's graph returns; None for all.
        classes: Names of the bundle's classes; index 0 is the background.
        building_class: Index of the building among them.
    """

    count: int
    activation: Activation
    keep: int | None
    classes: tuple[str, ...]
    building_class: int


@dataclass(frozen=True)
class ImportedModel:
    """A foreign model as the content of a bundle, and its output beside that of the original.

    Args:
        spec: Contract of the bundle.
        parts: Parts of the bundle.
        original: Name of the program that ran the original.
        expected, found: Probabilities (n, class, y, x) of the original and of the bundle.
        tiles: Tiles of the check.
        record: Facts about the import, for the bundle and the report.
        notes: Assumptions to report to the user.
    """

    spec: BundleSpec
    parts: dict[str, bytes]
    original: str
    expected: NDArray[np.float32]
    found: NDArray[np.float32]
    tiles: TileSet
    record: dict[str, Any]
    notes: tuple[str, ...] = ()


def check_finite(output: NDArray[np.float32], source: str) -> None:
    """Raise BundleError if an output has NaN or infinity."""
    if not np.isfinite(output).all():
        raise BundleError(
            f"The output of {source} has values that are not finite (NaN or infinity).",
            remedy="Check --mean, --std and --input-range; else its weights are damaged.",
        )


def pixel_statistics(options: ImportOptions) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each band in pixel values.

    Raises:
        ConfigError: The options give none or two normalisations, or another number of bands.
    """
    count = len(options.bands)
    has_mean, has_std = options.mean is not None, options.std is not None
    if (options.normalise is not None) == (has_mean or has_std) or has_mean != has_std:
        raise ConfigError(
            "The normalisation of the network's input is not known: expected --normalise, or both "
            "--mean and --std.",
            remedy="Use the values that the network was trained with: --normalise imagenet is "
            "usual for pretrained encoders, --normalise none adds none.",
        )
    mean, std = (0.0,) * count, (1.0,) * count
    input_range = options.input_range
    if options.normalise == "imagenet":
        if count != 3 or input_range != 1:
            raise ConfigError(
                f"--normalise imagenet is for 3 bands with --input-range 1; there are {count} "
                f"bands, and --input-range is {input_range:g}.",
                remedy="Give --mean and --std, one value for each band.",
            )
        mean, std = _IMAGENET
    elif options.mean is not None and options.std is not None:
        mean, std = options.mean, options.std
    for option, values in (("--mean", mean), ("--std", std)):
        if len(values) != count:
            raise ConfigError(
                f"{option} has {plural(len(values), 'value')} for {plural(count, 'band')}.",
                remedy="Give one value for each of --bands.",
            )
    if max(mean) > input_range or min(std) <= 0:
        raise ConfigError(
            f"--mean {_listed(mean)} --std {_listed(std)} do not suit pixels from 0 to "
            f"{input_range:g}.",
            remedy="Give both in the units of --input-range: 1 for shares of the full scale, 255 "
            "for pixel values of 8 bits. --std is above 0.",
        )
    factor = (options.full_scale or _FULL_SCALE[options.dtype]) / input_range
    return tuple(value * factor for value in mean), tuple(value * factor for value in std)


def resolve_channels(
    count: int, options: ImportOptions, activation: Activation, source: str
) -> Channels:
    """Return the meaning of the channels of a network's output.

    Two channels of which one is the background become one; of channels that are activated by
    themselves (sigmoid), that of the building remains.

    Raises:
        ConfigError: The classes do not fit the channels.
    """
    classes = options.classes
    if len(set(classes)) != len(classes):
        raise ConfigError(
            f"--classes {','.join(classes)} names a class twice.", remedy="Give each class once."
        )
    wanted = 2 if count == 1 else count
    if len(classes) != wanted:
        names = "background and building" if count == 1 else "one name for each channel"
        raise ConfigError(
            f"{source} has an output of {plural(count, 'channel')}, but --classes names "
            f"{len(classes)}: {', '.join(classes)}; expected {names}.",
            remedy="Give --classes in the order of the channels.",
        )
    building = options.building or ("building" if "building" in classes else None)
    if building is None and len(classes) == 2:
        building = classes[1]
    if building is None or building not in classes:
        raise ConfigError(
            f"--building is {building!r}, which is none of --classes {', '.join(classes)}. "
            f"{did_you_mean(building or '', classes)}".strip(),
            remedy="Name the class of the buildings: --building NAME.",
        )
    index = classes.index(building)
    if activation == "sigmoid" and count > 1:
        return Channels(count, activation, index, ("background", building), 1)
    if index == 0:
        raise ConfigError(
            f"--building {building} is the first of --classes, which is the background.",
            remedy="Give --classes in the order of the channels, the background first.",
        )
    if activation == "softmax" and count == 1:
        raise ConfigError(
            f"{source} has an output of one channel, for which softmax is always 1.",
            remedy="Use --activation sigmoid, or none if the output is a probability.",
        )
    return Channels(count, activation, 1 if count == 2 else None, classes, index)


def make_spec(
    options: ImportOptions,
    channels: Channels,
    *,
    multiple_px: int,
    input_px: int | None,
    name: str,
    training: dict[str, Any],
) -> BundleSpec:
    """Return the contract of the bundle.

    Raises:
        ConfigError: A value is out of range.
    """
    mean, std = pixel_statistics(options)
    raw = {
        "name": options.name or name,
        "bands": options.bands,
        "dtype": options.dtype,
        "gsd_m": options.gsd_m,
        "mean": mean,
        "std": std,
        "classes": channels.classes,
        "building_class": channels.building_class,
        "threshold": options.threshold,
        "input_multiple_px": multiple_px,
        "input_px": input_px,
        "training": training,
        "versions": installed_versions(_VERSIONS),
        "licence": options.licence,
        "attribution": options.attribution,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return parse_config(
        raw, BundleSpec, source="the options of rooftrace import", remedy="Correct that option."
    )


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
