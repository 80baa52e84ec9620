"""Recorded outputs of the network for an image, so that another threshold needs no second run.

All inputs of a prediction are recorded: the network's outputs, the validity of the pixels, and
every n-th pixel for the preview. With these in place of image and network, the prediction gives the
same result as a new run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import (
    UNKNOWN_PROVENANCE,
    GeoGrid,
    Raster,
    RasterSource,
    ResultProvenance,
    Window,
)
from rooftrace.engines.base import Engine, run_quantised
from rooftrace.io.georeferenced import WrappedSource, provenance_of
from rooftrace.io.image_write import as_rgb
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.block import Block
from rooftrace.predict.plan import SceneOptions, prepared
from rooftrace.predict.predictor import Input, Predictor, PredictProgress, opened
from rooftrace.predict.preview import LARGEST_PX
from rooftrace.predict.result import Prediction

__all__ = ["KeptPrediction", "KeptScores", "predict_keeping"]


@dataclass(frozen=True)
class KeptPrediction:
    """Prediction with the recorded scores for predictions at other thresholds."""

    prediction: Prediction
    scores: KeptScores


@dataclass(frozen=True)
class KeptScores:
    """Recorded parts of an image and outputs of the network; read-only.

    Args:
        bundle: Model.
        options: Options of the prediction.
        source: Validity of the image and every `step`-th of its pixels.
        answers: Recorded outputs of the network, batch by batch in the order of the requests.
        score: (y, x) scores of every `step`-th pixel of every `step`-th row, see `Block.score`.
        engine_mpx_per_s: Megapixels per second of the network when it ran.
    """

    bundle: ModelBundle
    options: SceneOptions
    source: _RecordedSource
    answers: tuple[NDArray[np.uint8], ...]
    score: NDArray[np.uint8]
    engine_mpx_per_s: float

    @property
    def step(self) -> int:
        """Number of image pixels per pixel of `score` and `picture`, along either axis."""
        return self.source.step

    @property
    def picture(self) -> NDArray[np.uint8]:
        """(y, x, 3) RGB picture of every `step`-th pixel."""
        return as_rgb(self.source.samples, self.source.sampled_valid)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        recorded = sum(answer.nbytes for answer in self.answers)
        return recorded + self.source.nbytes + self.score.nbytes

    def redecide(self, threshold: float) -> Prediction:
        """Return the result of `Predictor.predict` with another threshold, except for times.

        Args:
            threshold: Threshold on the building probability, 0..1.

        Raises:
            ConfigError: The model has more than two classes.
        """
        options = replace(self.options, threshold=threshold)
        replay = _ReplayEngine(self.answers)
        made = Predictor(self.bundle, replay).predict(self.source, options=options)
        summary = replace(made.summary, engine_mpx_per_s=self.engine_mpx_per_s)
        return replace(made, result=replace(made.result, summary=summary))


def predict_keeping(
    predictor: Predictor,
    image: Input,
    *,
    options: SceneOptions | None = None,
    progress: PredictProgress | None = None,
    on_block: Callable[[Block], None] | None = None,
) -> KeptPrediction:
    """Predict an image as `Predictor.predict` does, and record the scores.

    The record contains the network's outputs (one byte per pixel and channel), one bit for each
    pixel of the image, and a picture of the image. A model of more than two classes has no
    threshold, so its outputs are not recorded.

    Args:
        predictor: Model to predict with.
        image, progress, on_block: See `Predictor.predict`.
        options: Options of the scene; `forgiving` is ignored.

    Raises:
        RooftraceError: See `Predictor.predict`.
    """
    chosen = replace(options or SceneOptions(), forgiving=False)
    with opened(image) as given:
        source = prepared(given, predictor.bundle.spec, chosen)
        recorder = _RecordingEngine(predictor.engine, keep=predictor.bundle.spec.is_binary)
        watched = _RecordingSource(source)
        step = watched.step
        score = np.zeros(_sampled_shape(source.grid.shape, step), dtype=np.uint8)

        def sample(block: Block) -> None:
            into, which = _samples(block.window, step)
            score[into] = block.score[which]
            if on_block is not None:
                on_block(block)

        made = Predictor(predictor.bundle, recorder).predict(
            watched, options=chosen, progress=progress, on_block=sample
        )
        scores = KeptScores(
            predictor.bundle, chosen, watched.recorded(), tuple(recorder.answers), score,
            made.summary.engine_mpx_per_s,
        )  # fmt: skip
        return KeptPrediction(made, scores)


def _sampled_shape(shape_yx: tuple[int, int], step: int) -> tuple[int, int]:
    return ceil(shape_yx[0] / step), ceil(shape_yx[1] / step)


def _samples(window: Window, step: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of a window's samples: among all samples, and in the window."""
    first = -window.row % step, -window.col % step
    begin = (window.row + first[0]) // step, (window.col + first[1]) // step
    count = (ceil(max(length - skip, 0) / step) for length, skip in zip(window.shape_yx, first))
    rows, cols = (slice(start, start + many) for start, many in zip(begin, count))
    return (rows, cols), (slice(first[0], None, step), slice(first[1], None, step))


class _RecordingSource(WrappedSource):
    """Image that records its samples and validity for `_RecordedSource` while it is read."""

    def __init__(self, source: RasterSource) -> None:
        super().__init__(source)
        shape_yx = source.grid.shape
        self.step = max(1, ceil(max(shape_yx) / LARGEST_PX))
        # The recorded bands are those of the preview, which is drawn from them again.
        shown = 3 if source.bands >= 3 else 1
        # Pixels that are never read lie in tiles known to be empty.
        self._valid = np.zeros(shape_yx, dtype=np.bool_)
        self._samples = np.zeros((shown, *_sampled_shape(shape_yx, self.step)), source.dtype)

    @property
    def is_prepared(self) -> bool:
        """True: the source was prepared before it was recorded."""
        return True

    @property
    def choices(self) -> tuple[str, ...]:
        """See `PreparedSource`."""
        return tuple(getattr(self.source, "choices", ()))

    @property
    def record(self) -> dict[str, Any] | None:
        """See `PreparedSource`."""
        return getattr(self.source, "record", None)

    def read(self, window: Window | None = None) -> Raster:
        raster = self.source.read(window)
        window = Window.whole(self.grid.shape) if window is None else window
        self._valid[window.slices()] = raster.valid
        into, which = _samples(window, self.step)
        self._samples[:, *into] = raster.data[: len(self._samples), *which]
        return raster

    def recorded(self) -> _RecordedSource:
        """Return the recorded pixels."""
        return _RecordedSource(
            self.name, self.grid, self.bands, self.dtype, self.step,
            None if self._valid.all() else np.packbits(self._valid, axis=1),
            self._samples, self.choices, self.record, provenance=provenance_of(self.source),
        )  # fmt: skip


@dataclass(frozen=True)
class _RecordedSource:
    """Source of recorded samples, see `RasterSource`; the other pixels are 0.

    Args:
        step: Distance of the samples in pixels, along either axis.
        valid_bits: (y, x / 8) validity, packed along the rows; None if all pixels are valid.
        samples: (1 or 3 bands, y / step, x / step) samples.
        choices, record, is_prepared: See `PreparedSource`.
        provenance: Origin of the image.
    """

    name: str
    grid: GeoGrid
    bands: int
    dtype: np.dtype[Any]
    step: int
    valid_bits: NDArray[np.uint8] | None
    samples: NDArray[Any]
    choices: tuple[str, ...] = ()
    record: dict[str, Any] | None = None
    is_prepared: bool = True
    provenance: ResultProvenance = UNKNOWN_PROVENANCE

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self.samples.nbytes + (0 if self.valid_bits is None else self.valid_bits.nbytes)

    @property
    def sampled_valid(self) -> NDArray[np.bool_]:
        """(y, x) validity of the samples."""
        return self._valid(Window.whole(self.grid.shape))[:: self.step, :: self.step]

    def read(self, window: Window | None = None) -> Raster:
        window = Window.whole(self.grid.shape) if window is None else window
        data = np.zeros((self.bands, *window.shape_yx), self.dtype)
        into, which = _samples(window, self.step)
        data[: len(self.samples), *which] = self.samples[:, *into]
        return Raster(data, self._valid(window), self.grid.crop(window))

    def _valid(self, window: Window) -> NDArray[np.bool_]:
        if self.valid_bits is None:
            return np.ones(window.shape_yx, dtype=np.bool_)
        rows, cols = window.slices()
        bits = np.unpackbits(self.valid_bits[rows], axis=1, count=self.grid.width)
        return np.ascontiguousarray(bits[:, cols]).view(np.bool_)


class _RecordingEngine:
    """Engine that records the outputs of another one."""

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
        answer = run_quantised(self._engine, batch)
        if self._keep:
            self.answers.append(answer)
        return answer


class _ReplayEngine:
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
