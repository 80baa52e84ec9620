"""Network and contract of a foreign model, as a user gives them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from rooftrace.core.config import Options
from rooftrace.core.errors import ConfigError
from rooftrace.core.scales import is_gsd_m
from rooftrace.core.text import plural

Activation = Literal["none", "sigmoid", "softmax"]
"""Function that turns the output of a network into probabilities."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the bands of ImageNet, in shares of the full scale."""

_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


def _gsd(value: Any) -> float | None:
    if value in (None, "none"):
        return None
    try:
        gsd_m = float(value)
    except ValueError:
        gsd_m = 0.0
    if not is_gsd_m(gsd_m):
        raise ConfigError(
            f"--gsd is {value!r}; expected metres per pixel, or none.", remedy="For example: 0.3"
        )
    return gsd_m


def _names(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise ConfigError(
            f"--{info.field_name} {value!r} has an empty name.",
            remedy="Separate names by one comma.",
        )
    return names


def _numbers(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return tuple(float(one) for one in value.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--{info.field_name} is {value!r}; expected one number for each band.",
            remedy=f"For example: --{info.field_name} 0.485,0.456,0.406",
        ) from error


class ImportOptions(Options):
    """Network and contract of a foreign model; see the descriptions.

    Lists may be texts with commas, and `gsd_m` None or "none" for a network that works pixel by
    pixel.
    """

    options_of = "an import"

    gsd_m: Annotated[
        float | None,
        BeforeValidator(_gsd),
        Field(description="Metres per pixel of the images that it was trained on; none: pixel by "
              "pixel."),
    ]  # fmt: skip
    architecture: Annotated[
        str | None,
        Field(description="Architecture of a state dict: one of segmentation-models-pytorch, such "
              "as Unet."),
    ] = None  # fmt: skip
    encoder: Annotated[
        str | None,
        Field(description="Encoder of a state dict, such as resnet34, or tu-NAME for a model of "
              "timm."),
    ] = None  # fmt: skip
    overrides: Annotated[
        tuple[str, ...],
        Field(description="Further key of the section model, such as "
              "options.decoder_channels=[64,32,16,8,4]; repeatable."),
    ] = ()  # fmt: skip
    output: Annotated[
        str | None, Field(description="Output of an ONNX graph that has several.")
    ] = None
    classes: Annotated[
        tuple[str, ...],
        BeforeValidator(_names),
        Field(description="Names of its channels; the first, or background, is the background."),
    ] = ("background", "building")
    building: Annotated[
        str | None,
        Field(description="Class whose footprints are traced; default: building, or the second of "
              "two."),
    ] = None  # fmt: skip
    activation: Annotated[
        Activation | None,
        Field(description="Function that turns its output into probabilities; default for state "
              "dicts: sigmoid for one channel, else softmax."),
    ] = None  # fmt: skip
    threshold: Annotated[
        float,
        Field(ge=0, le=1, description="Building probability from which a pixel is a building."),
    ] = 0.5
    name: Annotated[str, Field(description="Name of the model; default: of the file.")] = ""
    licence: Annotated[str, Field(description="Licence of the weights.")] = ""
    attribution: Annotated[str, Field(description="Attribution of the weights.")] = ""
    bands: Annotated[
        tuple[str, ...],
        BeforeValidator(_names),
        Field(description="Names of its bands, in their order."),
    ] = ("red", "green", "blue")
    normalise: Annotated[
        Literal["imagenet", "none"] | None,
        Field(description="Normalisation of its input: that of ImageNet, or none; in place of "
              "--mean and --std."),
    ] = None  # fmt: skip
    mean: Annotated[
        tuple[float, ...] | None,
        BeforeValidator(_numbers),
        Field(description="Value for each band that is subtracted from the pixels."),
    ] = None
    std: Annotated[
        tuple[float, ...] | None,
        BeforeValidator(_numbers),
        Field(description="Value for each band by which the pixels are then divided."),
    ] = None
    input_range: Annotated[
        float,
        Field(ge=1e-6, le=1e6,
              description="Value to which the brightest pixel is scaled first: 1, or 255 for pixel "
              "values of 8 bits. --mean and --std are in its units."),
    ] = 1.0  # fmt: skip
    dtype: Annotated[
        Literal["uint8", "uint16", "float32"], Field(description="Type of the pixel values.")
    ] = "uint8"
    full_scale: Annotated[
        float | None,
        Field(ge=1e-6, le=1e9,
              description="Brightest pixel value; default: 255, 65535 or 1 by --dtype."),
    ] = None  # fmt: skip
    input_px: Annotated[
        int | None, Field(ge=1, le=2**15, description="The only side in pixels that it accepts.")
    ] = None
    multiple_px: Annotated[
        int | None,
        Field(ge=1, le=2**15,
              description="Number that the sides of an ONNX graph's input must be multiples of; "
              "default 32."),
    ] = None  # fmt: skip

    @property
    def pixel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each band in pixel values."""
        count, top = len(self.bands), self.input_range
        mean, std = self.mean, self.std
        if (self.normalise is not None) == (mean is not None or std is not None):
            mean = std = None
        elif self.normalise == "none":
            mean, std = (0.0,) * count, (1.0,) * count
        elif self.normalise == "imagenet":
            colours = ("red", "green", "blue")
            is_bgr = self.bands != colours and sorted(self.bands) == sorted(colours)
            if count != 3 or top != 1 or is_bgr:
                raise ConfigError(
                    "--normalise imagenet is for 3 bands with --input-range 1, and red before "
                    f"green before blue; --bands is {','.join(self.bands)}, and --input-range is "
                    f"{top:g}.",
                    remedy="Give --mean and --std, one value for each band.",
                )
            mean, std = IMAGENET
        if mean is None or std is None:
            raise ConfigError(
                "The normalisation of the network's input is not known: expected --normalise, or "
                "both --mean and --std.",
                remedy="Use the values that the network was trained with: --normalise imagenet is "
                "usual for pretrained encoders, --normalise none adds none.",
            )
        for option, values in (("--mean", mean), ("--std", std)):
            if len(values) != count:
                raise ConfigError(
                    f"{option} has {plural(len(values), 'value')} for {plural(count, 'band')}.",
                    remedy="Give one value for each of --bands.",
                )
        if max(mean) > top or min(std) <= 0:
            listed = (",".join(f"{value:g}" for value in values) for values in (mean, std))
            raise ConfigError(
                f"--mean {next(listed)} --std {next(listed)} do not suit pixels from 0 to {top:g}.",
                remedy="Give both in the units of --input-range: 1 for shares of the full scale, "
                "255 for pixel values of 8 bits. --std is above 0.",
            )
        factor = (self.full_scale or _FULL_SCALE[self.dtype]) / top
        return tuple(value * factor for value in mean), tuple(value * factor for value in std)
