"""The contract inside a `.rooftrace` file: what `bundle.json` says, and nothing else may."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rooftrace.data.separation import Separation
from rooftrace.io.legend import Legend
from rooftrace.models.calibration import Calibration
from rooftrace.models.fingerprint import Fingerprint

__all__ = ["SCHEMA_VERSION", "BundleSpec", "Measured", "Output", "Part", "Precision", "Variant"]

SCHEMA_VERSION = 1

Output = Literal["probabilities", "coarse"]
"""What a graph answers: the model's answer, and of a refined model the segmenter's, by name."""

Precision = Literal["fp32", "bf16", "fp16", "int8"]
"""What a network's arithmetic is done in."""

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Part(_Frozen):
    """One file of the bundle."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class Variant(_Frozen):
    """The same model made ready for one engine and one precision.

    Args:
        engine: the engine that reads it.
        precision: what its arithmetic is done in.
        files: names of its parts, in the order the engine wants them.
        parity: how far it is from `model.onnx`, measured when it was made.
    """

    engine: Literal["openvino", "onnxruntime", "tensorrt"]
    precision: Precision
    files: tuple[str, ...]
    parity: dict[str, float] = {}


class Measured(_Frozen):
    """Figures, with what they were measured on."""

    data: str
    split: str
    protocol: str
    values: dict[str, float]


class BundleSpec(_Frozen):
    """What a trained model expects and what it answers.

    The graph takes pixel values as they are in the image, (n, band, y, x), and answers
    probabilities: (n, 1, y, x) of the second class where there are two classes, else
    (n, class, y, x) that sum to one. A model that tells touching buildings apart answers one
    channel more, after these. A refined model (`models.pix2pix`) has a second output of the same
    shape, `coarse`: what its segmenter says before the refinement. Mean and standard deviation,
    given here for the record and for training on, are inside the graph.

    Args:
        bands: names of the bands, in order.
        dtype: of the pixel values that it was trained on.
        gsd_m: metres per pixel that the image is brought to; None where training knew no metres.
        mean, std: per band, in pixel values.
        classes: names; index 0 is the background.
        colours: `#RRGGBB` of each class in masks and pictures; none: those of `io.legend`.
        building_class: index of the class whose footprints are drawn.
        threshold: on the probability of that class, where there are two classes; of more the most
            probable is taken.
        coarse_threshold: as `threshold`, for the output `coarse`; None where the model is not
            refined and has no such output.
        separation: what the last channel is: the probability of a `border` between two buildings,
            or the `distance` from a building's outline (`data.separation`); None where there is
            no such channel.
        separation_threshold: from which on that channel counts as border, or as the inside.
        calibration: from the score of a building, at these thresholds, to the probability that it
            is one; None where none was fitted.
        fingerprint: by what the scenes that it was trained on are known again; None where nobody
            took it.
        input_multiple_px: height and width must be multiples of this.
        input_px: the one size it takes, or None where any multiple will do.
        context_px: how far from an edge of its input an answer is still bent by that edge.
    """

    schema_version: Literal[1] = 1
    task: Literal["segmentation"] = "segmentation"
    name: str
    bands: Annotated[tuple[str, ...], Field(min_length=1)]
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    gsd_m: Positive | None = None
    mean: tuple[float, ...]
    std: tuple[Positive, ...]
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=256)]
    colours: tuple[Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")], ...] = ()
    building_class: Annotated[int, Field(ge=1)] = 1
    threshold: Probability = 0.5
    coarse_threshold: Probability | None = None
    separation: Separation | None = None
    separation_threshold: Probability = 0.5
    calibration: Calibration | None = None
    fingerprint: Fingerprint | None = None
    input_multiple_px: Annotated[int, Field(ge=1)] = 32
    input_px: Annotated[int, Field(ge=1)] | None = None
    context_px: Annotated[int, Field(ge=0)] = 32
    metrics: tuple[Measured, ...] = ()
    training: dict[str, Any] = {}
    versions: dict[str, str] = {}
    licence: str = ""
    attribution: str = ""
    created: str = ""
    variants: tuple[Variant, ...] = ()
    parts: dict[str, Part] = {}

    @model_validator(mode="after")
    def _consistent(self) -> BundleSpec:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != len(self.bands):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} values for {len(self.bands)} bands"
                )
        if self.colours and len(self.colours) != len(self.classes):
            raise ValueError(
                f"colours has {len(self.colours)} values for {len(self.classes)} classes"
            )
        if self.building_class >= len(self.classes):
            raise ValueError(
                f"building_class is {self.building_class}, "
                f"but there are {len(self.classes)} classes"
            )
        return self

    @property
    def is_binary(self) -> bool:
        """Background and one more class: the model answers one probability."""
        return len(self.classes) == 2

    @property
    def channels(self) -> int:
        """How many probabilities of classes the model answers for a pixel."""
        return 1 if self.is_binary else len(self.classes)

    @property
    def outputs(self) -> int:
        """How many channels the graph answers: those of the classes, and the second head's."""
        return self.channels + (self.separation is not None)

    @property
    def is_refined(self) -> bool:
        """Whether the graph answers `coarse`, too."""
        return self.coarse_threshold is not None

    @property
    def building_channel(self) -> int:
        """Where among them the building's is."""
        return 0 if self.is_binary else self.building_class

    @property
    def legend(self) -> Legend:
        """Names and colours of the classes."""
        return Legend(self.classes, self.colours)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)
