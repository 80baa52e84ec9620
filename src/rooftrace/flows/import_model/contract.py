"""Options that become the contract of a foreign model, whose file does not state it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Literal

from rooftrace.core.config import did_you_mean, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.core.machine import installed_versions
from rooftrace.core.text import plural
from rooftrace.models.foreign_graph import Activation
from rooftrace.models.spec import BundleSpec

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the bands of ImageNet, in shares of the full scale."""

_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
_VERSIONS = ("rooftrace", "torch", "torchvision", "segmentation-models-pytorch", "timm", "onnx",
             "openvino")  # fmt: skip


@dataclass(frozen=True)
class ImportOptions:
    """Contract of a foreign model, as the command line gives it.

    Args:
        gsd_m: Metres per pixel of the images that it was trained on; None for pixel by pixel.
        bands: Names of the bands, in the order of the network's input.
        classes: Names of the channels that the network answers, or of background and building if it
            answers one channel.
        building: Name of the class whose footprints are traced; default `building`, or the second
            of two classes.
        activation: Function that turns its answers into probabilities.
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


def pixel_statistics(options: ImportOptions) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each band in pixel values.

    Raises:
        ConfigError: The options give none or two normalisations, or another number of bands.
    """
    count = len(options.bands)
    given = options.mean is not None, options.std is not None
    if (options.normalise is not None) == any(given) or given[0] != given[1]:
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


@dataclass(frozen=True)
class Channels:
    """Meaning of the channels that a network answers.

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


def resolve_channels(
    count: int, options: ImportOptions, activation: Activation, source: str
) -> Channels:
    """Return the meaning of the channels that a network answers.

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
            f"{source} answers {plural(count, 'channel')}, but --classes names {len(classes)}: "
            f"{', '.join(classes)}; expected {names}.",
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
            f"{source} answers one channel, for which softmax is always 1.",
            remedy="Use --activation sigmoid, or none if it answers probabilities.",
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
