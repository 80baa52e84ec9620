"""Uncertainty of a model about an image, and the features in which images are compared.

Each image is predicted twice, the second time from tiles that are mirrored left to right. No label
is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import BoolArray, RasterSource
from rooftrace.engines.base import ConstantEngine, Engine
from rooftrace.io.legend import NODATA
from rooftrace.predict import pipeline
from rooftrace.predict.plan import SceneOptions, ScenePlan, plan_scene
from rooftrace.predict.predictor import MirroredEngine, Predictor
from rooftrace.tiling.plan import PROB_ONE

Features = NDArray[np.float32]
"""(feature,) features of an image: the mean over its tiles of `OpenVinoEngine.features`."""

_FAINT = 0.5
"""Share of the model's threshold from which a pixel counts as building-like."""


@dataclass(frozen=True, slots=True)
class ImageUncertainty:
    """Uncertainty of a model about one image; all means and shares are over the valid pixels.

    Args:
        entropy: Mean entropy of the prediction in bits, 0..1, over both views.
        disagreement: Share of the pixels whose class differs between the two views, 0..1.
        built_up: Share of the pixels that the model calls building, 0..1.
        valid_share: Share of all pixels of the image that are not nodata.
        shows_building: Whether the building-like area is at least as large as the smallest building
            that would be drawn.
        features: Features of the image; None if no pixel is valid.
        notes: Assumptions about scale, bands and values.
    """

    entropy: float
    disagreement: float
    built_up: float
    valid_share: float
    shows_building: bool
    features: Features | None
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Entropy plus disagreement, 0..2: pixels whose class depends on the view count more."""
        return self.entropy + self.disagreement


def measure_uncertainty(
    predictor: Predictor, image: RasterSource, options: SceneOptions
) -> ImageUncertainty:
    """Return the uncertainty of a model about an image, and the features of the image.

    The entropy is the measure of uncertainty sampling (B. Settles, Active Learning Literature
    Survey, 2009, section 2.1); with more than two classes it is that of the most probable class
    against all others. The disagreement is that of a committee (section 2.2) of two members: the
    network on the tiles, and on their mirror images. A few bytes per pixel are held in memory.

    Raises:
        ConfigError: The engine of the model offers no features.
        DataError, BandMismatch, GsdMismatch, PredictError: The model cannot predict the image.
    """
    plan = _plan(predictor, image, options)
    pooling = _FeatureMeans(predictor)
    first = _ViewPrediction.of(plan, pooling)
    second = _ViewPrediction.of(plan, MirroredEngine(predictor.engine))
    valid = first.mask != NODATA
    count = int(np.count_nonzero(valid))
    if not count:
        return ImageUncertainty(0.0, 0.0, 0.0, 0.0, shows_building=False, features=None)
    table = _entropies(binary=plan.threshold is not None)
    building_class = plan.spec.building_class
    like_px = max(np.count_nonzero(view.building_like(plan) & valid) for view in (first, second))
    return ImageUncertainty(
        entropy=float(np.mean([table[view.score[valid]].mean() for view in (first, second)])),
        disagreement=float(np.mean(first.mask[valid] != second.mask[valid])),
        built_up=float(np.mean(first.mask[valid] == building_class)),
        valid_share=count / valid.size,
        shows_building=bool(like_px >= plan.vector_options.min_area_px),
        features=pooling.finish(),
        notes=plan.notes,
    )


def image_features(
    predictor: Predictor, image: RasterSource, options: SceneOptions
) -> Features | None:
    """Return the features of an image without a prediction; None if no pixel is valid."""
    pooling = _FeatureMeans(predictor, ConstantEngine(0.0, predictor.bundle.spec.outputs))
    for _ in pipeline.run(_plan(predictor, image, options), pooling):
        pass
    return pooling.finish()


def _plan(predictor: Predictor, image: RasterSource, options: SceneOptions) -> ScenePlan:
    options = options.model_copy(update={"outputs": ("mask",)})
    return plan_scene(image, predictor.bundle.spec, options)


@dataclass(frozen=True)
class _ViewPrediction:
    """Prediction of one view: (y, x) class indices and scores, see `predict.block.Block`."""

    mask: NDArray[np.uint8]
    score: NDArray[np.uint8]

    @classmethod
    def of(cls, plan: ScenePlan, engine: Engine) -> _ViewPrediction:
        mask, score = np.full((2, *plan.source.grid.shape), NODATA, np.uint8)
        for block in pipeline.run(plan, engine):
            rows, cols = block.window.slices()
            mask[rows, cols], score[rows, cols] = block.mask, block.score
        return cls(mask, score)

    def building_like(self, plan: ScenePlan) -> BoolArray:
        """Return the (y, x) pixels that may be a building, if not by the model's threshold."""
        if plan.threshold is None:
            return np.asarray(self.mask == plan.spec.building_class)
        return np.asarray(self.score >= _FAINT * plan.threshold * PROB_ONE)


def _entropies(*, binary: bool) -> NDArray[np.float64]:
    """Return the (256,) entropy in bits of each score."""
    p = np.arange(PROB_ONE + 1) / PROB_ONE
    # With many classes the score is that of the best one, and below one half all are doubtful.
    p = np.clip(p if binary else np.maximum(p, 0.5), 1e-12, 1 - 1e-12)
    return np.asarray(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)))


class _FeatureMeans(Engine):
    """Engine that runs another one, and takes the mean of the features of all tiles that it gets.

    Features are those of the model of `predictor`, whose engine answers, too, unless `inner` does.
    """

    def __init__(self, predictor: Predictor, inner: Engine | None = None) -> None:
        engine = predictor.engine
        features: Callable[[NDArray[Any]], Features] | None = getattr(engine, "features", None)
        if features is None:
            raise ConfigError(
                f"The model {predictor.bundle.source} runs on the engine {engine.name}, which "
                "offers no features of images; expected openvino.",
                remedy="Give the .rooftrace file that the model was exported from.",
            )
        self._features = features
        self._inner = inner or engine
        self._rows: list[Features] = []
        self.name, self.precision = engine.name, engine.precision

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self._rows.extend(self._features(batch))
        return self._inner.run(batch)

    def finish(self) -> Features | None:
        """Return the mean features; None if no tile was run."""
        if not self._rows:
            return None
        return np.asarray(np.mean(self._rows, axis=0, dtype=np.float32))
