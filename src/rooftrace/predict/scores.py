"""Recorded outputs of the network for an image, so that another threshold needs no second run.

With the recorded outputs in place of the network, the prediction of the same image gives the same
result as a new run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import RasterSource
from rooftrace.engines.base import Engine
from rooftrace.io.picture import as_rgb
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.block import Block
from rooftrace.predict.outputs import Prediction
from rooftrace.predict.plan import AS_FOUND, SceneOptions, prepared
from rooftrace.predict.predictor import Input, Predictor, PredictProgress, as_source
from rooftrace.predict.preview import ThumbnailSampler


@dataclass(frozen=True)
class KeptPrediction:
    """Prediction with the recorded scores for predictions at other thresholds."""

    prediction: Prediction
    scores: KeptScores


@dataclass(frozen=True)
class KeptScores:
    """An image in memory and the recorded outputs of the network for it; read-only.

    Args:
        bundle: Model.
        options: Options of the prediction.
        source: Image with the bands and values of the model.
        answers: Recorded outputs of the network, batch by batch in the order of the requests.
        score: (y, x) scores of every `step`-th pixel of every `step`-th row, see `Block.score`.
        picture: (y, x, 3) RGB picture of every `step`-th pixel.
        step: Number of image pixels per pixel of `score` and `picture`, along either axis.
        engine_mpx_per_s: Megapixels per second of the network when it ran.
    """

    bundle: ModelBundle
    options: SceneOptions
    source: RasterSource
    answers: tuple[NDArray[np.uint8], ...]
    score: NDArray[np.uint8]
    picture: NDArray[np.uint8]
    step: int
    engine_mpx_per_s: float

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        source = self.source
        image = source.grid.height * source.grid.width * source.bands * source.dtype.itemsize
        recorded = sum(answer.nbytes for answer in self.answers)
        return recorded + image + self.score.nbytes + self.picture.nbytes

    def redecide(self, threshold: float) -> Prediction:
        """Return the result of `Predictor.predict` with another threshold, except for times.

        Args:
            threshold: Threshold on the building probability, 0..1.

        Raises:
            ConfigError: The model has more than two classes.
        """
        options = self.options.model_copy(update={"threshold": threshold})
        replay = _ReplayEngine(self.answers)
        prediction = Predictor(self.bundle, replay).predict(self.source, options=options)
        summary = replace(prediction.result.summary, engine_mpx_per_s=self.engine_mpx_per_s)
        return replace(prediction, result=replace(prediction.result, summary=summary))


def predict_keeping(
    predictor: Predictor,
    image: Input,
    *,
    options: SceneOptions | None = None,
    progress: PredictProgress | None = None,
    on_block: Callable[[Block], None] | None = None,
) -> KeptPrediction:
    """Predict an image as `Predictor.predict` does, and record the scores.

    The record contains the network's outputs (one byte per pixel and channel). A model of more than
    two classes has no threshold, so its outputs are not recorded.

    Args:
        predictor: Model to predict with.
        image, progress, on_block: See `Predictor.predict`. The image is kept.
        options: Options of the scene; `forgiving` is ignored.
    """
    chosen = (options or AS_FOUND).model_copy(update={"forgiving": False})
    source = prepared(
        as_source(image, len(predictor.bundle.spec.bands)), predictor.bundle.spec, chosen
    )
    recorder = _RecordingEngine(predictor.engine, keep=predictor.bundle.spec.is_binary)
    sampler = ThumbnailSampler(source.grid, source.bands, source.dtype)
    step, score = sampler.step, np.zeros(sampler.shape_yx, dtype=np.uint8)

    def sample(block: Block) -> None:
        window = block.window
        row, col = -window.row % step, -window.col % step
        part = block.score[row::step, col::step]
        into = (window.row + row) // step, (window.col + col) // step
        score[into[0] : into[0] + part.shape[0], into[1] : into[1] + part.shape[1]] = part
        raster = source.read(window)
        sampler.watch(window, raster.data, raster.valid)
        if on_block is not None:
            on_block(block)

    prediction = Predictor(predictor.bundle, recorder).predict(
        source, options=chosen, progress=progress, on_block=sample
    )
    picture = as_rgb(np.moveaxis(sampler.pixels, -1, 0), sampler.valid)
    scores = KeptScores(
        predictor.bundle, chosen, source, tuple(recorder.answers), score, picture, step,
        prediction.result.summary.engine_mpx_per_s,
    )  # fmt: skip
    return KeptPrediction(prediction, scores)


class _RecordingEngine(Engine):
    """Engine that records the outputs of another one, or only runs it."""

    def __init__(self, engine: Engine, *, keep: bool) -> None:
        self._engine = engine
        self._keep = keep
        self.answers: list[NDArray[np.uint8]] = []
        self.name = engine.name
        self.precision = engine.precision

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self._engine.run(batch)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Return outputs in 255ths; those of successive batches are recorded in order."""
        answer = self._engine.run_quantised(batch)
        if self._keep:
            self.answers.append(answer)
        return answer


class _ReplayEngine(Engine):
    """Engine that replays recorded outputs once, for the same tiles in the same order."""

    name, precision = "recorded", "fp32"

    def __init__(self, answers: Iterable[NDArray[np.uint8]]) -> None:
        self._answers = iter(answers)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self.run_quantised(batch).astype(np.float32) / np.float32(255)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the next recorded output."""
        answer = next(self._answers)
        assert (len(answer), *answer.shape[2:]) == (len(batch), *batch.shape[2:])
        return answer
