"""The contract inside a `.rooftrace` file: the content of `bundle.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rooftrace.core.config import Config
from rooftrace.core.scales import WorkingScales
from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray, Floats
from rooftrace.io.legend import Legend
from rooftrace.models.fingerprint import Fingerprint
from rooftrace.tiling.plan import OVERLAP_PX, TRIM_SHARE

MAX_COEFFICIENT = 1000.0
MAX_SIDE_PX = 2**15
"""Maximum side of a model's input in pixels, far above what any memory holds."""

Unit = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Coefficient = Annotated[float, Field(ge=-MAX_COEFFICIENT, le=MAX_COEFFICIENT)]


class LogisticMap(Config):
    """The logistic function of `slope · score + intercept`.

    Args:
        kind: `logistic` (Platt 1999, "Probabilistic Outputs for Support Vector Machines"), or
            `logistic-divided`, which adds `divided`.
        slope: Slope, 0 or more, so that a better score is never less probable.
        intercept: Intercept.
        divided: Added to the intercept for a piece of a divided region. Where several buildings are
            one region of the mask, the walls between them are a guess. 0 for `logistic`.
    """

    kind: Literal["logistic", "logistic-divided"]
    slope: Annotated[Coefficient, Field(ge=0)]
    intercept: Coefficient = 0.0
    divided: Coefficient = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> LogisticMap:
        if self.kind == "logistic" and self.divided != 0:
            raise ValueError(f"divided is {self.divided}; only logistic-divided may have a value")
        return self

    def apply(self, score: NDArray[np.floating], divided: BoolArray) -> Floats:
        """Map (n,) scores to (n,) probabilities; `divided` is (n,) True for pieces of regions."""
        # This form of the logistic function does not overflow.
        score = np.asarray(score, np.float64)
        halved = (self.slope * score + self.intercept + self.divided * divided) / 2
        return np.asarray((1 + np.tanh(halved)) / 2, np.float64)


class CalibrationData(Config):
    """The data that a calibration was fitted on.

    Args:
        data: Name of the folder.
        split: Part of a split that was used, `all`, or `val`.
        scenes: Number of scenes in which buildings were predicted.
        objects: Number of predicted buildings that were compared with the label.
        right: Number of those whose IoU with a labelled building is above 0.5.
    """

    data: str
    split: str
    scenes: Count
    objects: Count
    right: Count


class Calibration(Config):
    """Map from the score of a building to the probability that its IoU with a labelled building is
    above 0.5.

    Args:
        map: The function, which is monotone in the score.
        fitted_on: The data.
        protocol: Way in which its buildings were predicted.
        ece_before, ece_after: Expected calibration error (`metrics.calibration`) of the scores and
            of the probabilities. The latter are of scenes that were left out of the fit.
        log_loss_before, log_loss_after: Mean log loss, measured in the same way.
    """

    map: LogisticMap
    fitted_on: Annotated[tuple[CalibrationData, ...], Field(min_length=1)]
    protocol: str = ""
    ece_before: Unit
    ece_after: Unit
    log_loss_before: Annotated[float, Field(ge=0)]
    log_loss_after: Annotated[float, Field(ge=0)]

    def apply(self, score: NDArray[np.float32], divided: BoolArray) -> NDArray[np.float32]:
        """Map scores to probabilities.

        Args:
            score: (n,) scores in 0..1; NaN where there is none, which stays NaN.
            divided: (n,) True for each building that is a piece of a divided region of the mask.

        Returns:
            (n,) float32 in 0..1; among buildings that are pieces, and among those that are not, in
            the order of the scores.
        """
        return self.map.apply(score, divided).astype(np.float32)


SCHEMA_VERSION = 1

Output = Literal["probabilities", "coarse"]
"""Outputs of a graph by name: the model's output and, for a refined model, the segmenter's."""

Tta = Literal["mirror", "flips", "d4"]
"""Test-time augmentation. `mirror`: the mean over the tile itself and mirrored left to right.
`flips`: in addition mirrored top to bottom, and both. `d4`: in addition the same four of the
transposed tile, which gives all eight symmetries of the square (the dihedral group D4)."""

Precision = Literal["fp32", "bf16", "fp16", "int8"]
"""Precision of a network's arithmetic."""

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class BundlePart(Config):
    """Hash and size of one file of the bundle."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class Variant(Config):
    """Variant of the model that was prepared for one engine and one precision.

    Args:
        engine: Engine that reads it.
        precision: Precision of its arithmetic.
        files: Names of its parts, in the order that the engine expects.
        parity: Difference from `model.onnx`, measured when it was made.
    """

    engine: Literal["openvino", "onnxruntime"]
    precision: Precision
    files: tuple[str, ...]
    parity: dict[str, float] = Field(default_factory=dict)


class MeasuredMetrics(Config):
    """Metrics, and the data and protocol that they were measured with."""

    data: str
    split: str
    protocol: str
    values: dict[str, float]


def doubt_of(name: str, metrics: Sequence[MeasuredMetrics]) -> str:
    """Return a note on a model that learnt next to nothing, by the mean of its figures; else ""."""
    figures = [one.values for one in metrics if "iou_all_building" in one.values]
    if not figures:
        return ""
    # Imported only here: `predict` needs nothing else of the metrics.
    from rooftrace.metrics.pixel import trivial_note

    iou, share = (
        float(np.mean([one.get(key, 0.0) for one in figures]))
        for key in ("iou", "iou_all_building")
    )
    return trivial_note(f"{name} on its validation images", iou, share)


CLICK_BANDS = ("earlier_answer", "positive_clicks", "negative_clicks")
"""Bands after those of the image: a probability and two maps, all in 0..1."""


class BundleSpec(Config):
    """The contract of a trained model: its input and its outputs.

    The graph takes pixel values as they are in the image, (n, band, y, x), and returns
    probabilities: (n, 1, y, x) of the second class if there are two classes, else (n, class, y, x)
    that sum to one. A refined model (`models.pix2pix`) has a second output of the same shape,
    `coarse`: the output of its segmenter before the refinement. Mean and standard deviation are
    part of the graph; they are listed here for the record and for further training.

    Args:
        name: Name of the model.
        bands: Names of the bands, in order.
        dtype: Type of the pixel values that it was trained on.
        gsd_m: Metres per pixel that the image is resampled to; None if training used no metres.
        finest_gsd_m: If given, an image between these metres per pixel and `gsd_m` is predicted at
            its own, and only a finer one is resampled to these.
        interpolated_gsd_m: If given, an image coarser than `gsd_m` is interpolated to these metres
            per pixel instead of to `gsd_m`.
        mean, std: One value per band, in pixel values.
        classes: Names of the classes; index 0 is the background.
        colours: `#RRGGBB` of each class in masks and pictures; empty for those of `io.legend`.
        building_class: Index of the class whose footprints are traced.
        threshold: Threshold on the probability of that class, for two classes; of more classes the
            most probable is taken.
        coarse_threshold: The same for the output `coarse`; None if the model is not refined and has
            no such output.
        separation, separation_threshold: Second head of a model of an earlier version, whose
            channel after those of the classes is ignored; None and any value without one.
        tta: Test-time augmentation that the thresholds and the calibration belong to; it is used
            where no other is asked for. None for none.
        calibration: Map from the score of a building, at these thresholds, to the probability that
            it is one; None if none was fitted.
        fingerprint: Data by which the training scenes are recognised; None if there is none.
        fitted_fingerprint: The same of the scenes on which epoch, threshold and calibration were
            chosen; None if there is none.
        start_fingerprints: Training scenes of the models that the training started from.
        input_multiple_px: Number that height and width of the input must be multiples of.
        input_px: The only size of the input, or None if any multiple is accepted.
        context_px: Distance from an edge of the input within which outputs are distorted by it.
        metrics: Metrics on the validation folders.
        training: Resolved configuration of the training run.
        versions: Versions of packages.
        licence, attribution: Licence and attribution of the weights.
        created: Time of the export.
        variants: The model for other engines and precisions.
        parts: Hashes and sizes of the files.
    """

    schema_version: Literal[1] = 1
    task: Literal["segmentation"] = "segmentation"
    name: str
    bands: Annotated[tuple[str, ...], Field(min_length=1)]
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    gsd_m: Positive | None = None
    finest_gsd_m: Positive | None = None
    interpolated_gsd_m: Positive | None = None
    mean: tuple[float, ...]
    std: tuple[Positive, ...]
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=256)]
    colours: tuple[Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")], ...] = ()
    building_class: Annotated[int, Field(ge=1)] = 1
    threshold: Probability = 0.5
    coarse_threshold: Probability | None = None
    separation: str | None = None
    separation_threshold: Probability = 0.5
    tta: Tta | None = None
    calibration: Calibration | None = None
    fingerprint: Fingerprint | None = None
    fitted_fingerprint: Fingerprint | None = None
    start_fingerprints: tuple[Fingerprint, ...] = ()
    input_multiple_px: Annotated[int, Field(ge=1, le=MAX_SIDE_PX)] = 32
    input_px: Annotated[int, Field(ge=1, le=MAX_SIDE_PX)] | None = None
    context_px: Annotated[int, Field(ge=0, le=MAX_SIDE_PX)] = 32
    metrics: tuple[MeasuredMetrics, ...] = ()
    training: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    licence: str = ""
    attribution: str = ""
    created: str = ""
    variants: tuple[Variant, ...] = ()
    parts: dict[str, BundlePart] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> BundleSpec:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != len(self.bands):
                raise ValueError(
                    f"{name} has {plural(len(getattr(self, name)), 'value')} for "
                    f"{plural(len(self.bands), 'band')}"
                )
        if self.colours and len(self.colours) != len(self.classes):
            raise ValueError(
                f"colours has {plural(len(self.colours), 'value')} for {len(self.classes)} classes"
            )
        WorkingScales.of(self.gsd_m, self.finest_gsd_m, self.interpolated_gsd_m)
        if self.building_class >= len(self.classes):
            raise ValueError(
                f"building_class is {self.building_class}, "
                f"but there are {len(self.classes)} classes"
            )
        return self

    @property
    def doubt(self) -> str:
        """Note on a model that learnt next to nothing, see `doubt_of`."""
        return doubt_of(self.name, self.metrics)

    @property
    def takes_clicks(self) -> bool:
        """True if the model takes clicks besides an image."""
        return len(self.bands) > len(CLICK_BANDS) and self.bands[-3:] == CLICK_BANDS

    @property
    def is_binary(self) -> bool:
        """True if there are two classes, background and one more: the model returns one
        probability.
        """
        return len(self.classes) == 2

    @property
    def scales(self) -> WorkingScales | None:
        """Metres per pixel at which the model works; None if training used no metres."""
        return WorkingScales.of(self.gsd_m, self.finest_gsd_m, self.interpolated_gsd_m)

    @property
    def least_gsd_m(self) -> float | None:
        """Finest metres per pixel at which the model works; None if training used no metres."""
        return self.gsd_m if self.finest_gsd_m is None else self.finest_gsd_m

    @property
    def gsd_text(self) -> str:
        """Metres per pixel for people: "0.4", "0.25 to 0.4", or "any"."""
        if self.gsd_m is None:
            return "any"
        if self.finest_gsd_m is None or self.finest_gsd_m == self.gsd_m:
            return f"{self.gsd_m:g}"
        return f"{self.finest_gsd_m:g} to {self.gsd_m:g}"

    @property
    def channels(self) -> int:
        """Number of class probabilities that the model returns for a pixel."""
        return 1 if self.is_binary else len(self.classes)

    @property
    def outputs(self) -> int:
        """Number of channels of the graph: those of the classes, and of an ignored second head."""
        return self.channels + (self.separation is not None)

    @property
    def is_refined(self) -> bool:
        """True if the graph also has the output `coarse`."""
        return self.coarse_threshold is not None

    @property
    def building_channel(self) -> int:
        """Channel of the building among the class probabilities."""
        return 0 if self.is_binary else self.building_class

    @property
    def legend(self) -> Legend:
        """Names and colours of the classes."""
        return Legend(self.classes, self.colours)

    def side_near(self, wanted_px: int) -> int:
        """Return the side in pixels of an input that the model accepts: its only one, or the next
        multiple from `wanted_px` on.
        """
        return self.input_px or -(-wanted_px // self.input_multiple_px) * self.input_multiple_px

    def tiling(self, tile_px: int) -> dict[str, Any]:
        """Return the settings of `plan_tiles` for tiles of at most `tile_px`."""
        tile_px = self.input_px or max(tile_px, self.input_multiple_px)
        overlap_px = min(OVERLAP_PX, tile_px // 4)
        return {
            "tile_px": tile_px,
            "overlap_px": overlap_px,
            "trim_px": min(self.context_px, int(overlap_px * TRIM_SHARE)),
            "multiple_px": self.input_multiple_px,
            "exact": self.input_px is not None,
        }

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)
