"""What the network said of an image, kept so that another threshold needs no network.

What is kept is all that a prediction takes from outside: what the network answered, where the
image is valid, and every n-th pixel of it for the preview. A prediction that is fed these in place
of image and network is by construction the one that both would give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import GeoGrid, Raster, RasterSource, Window
from rooftrace.engines.base import Engine
from rooftrace.io.display import as_rgb
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.block import Block
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.predictor import Input, Predictor, Progress, as_source
from rooftrace.predict.preview import LARGEST_PX
from rooftrace.predict.result import Prediction
from rooftrace.tiling.blend import quantise

__all__ = ["KeptPrediction", "KeptScores", "predict_keeping"]


@dataclass(frozen=True)
class KeptPrediction:
    """A prediction, and what decides it anew."""

    prediction: Prediction
    scores: KeptScores


@dataclass(frozen=True)
class KeptScores:
    """What is left of an image and of the network's answers. Never written to.

    Args:
        bundle: the model.
        options: that were chosen.
        source: where the image was valid, and every `step`-th of its pixels.
        engine: gives the recorded answers once more.
        score: (y, x) as `Block.score`, of every `step`-th pixel of every `step`-th row.
        engine_mpx_per_s: of the network, when it ran.
    """

    bundle: ModelBundle
    options: SceneOptions
    source: _Remembered
    engine: _Recorded
    score: NDArray[np.uint8]
    engine_mpx_per_s: float

    @property
    def step(self) -> int:
        """How many pixels of the image are one of `score` and `picture`, along either axis."""
        return self.source.step

    @property
    def picture(self) -> NDArray[np.uint8]:
        """(y, x, 3) of every `step`-th pixel, as a screen shows them."""
        return as_rgb(self.source.samples, self.source.sampled_valid)

    @property
    def nbytes(self) -> int:
        """Of memory that is held."""
        return self.engine.nbytes + self.source.nbytes + self.score.nbytes

    def redecide(self, threshold: float) -> Prediction:
        """What `Predictor.predict` gives with another threshold; times apart, the same.

        Args:
            threshold: on the building's probability, 0..1.

        Raises:
            ConfigError: the model has more than two classes.
        """
        options = replace(self.options, threshold=threshold)
        made = Predictor(self.bundle, _Replay(self.engine)).predict(self.source, options=options)
        summary = replace(made.summary, engine_mpx_per_s=self.engine_mpx_per_s)
        return replace(made, result=replace(made.result, summary=summary))


def predict_keeping(
    predictor: Predictor,
    image: Input,
    *,
    options: SceneOptions | None = None,
    progress: Progress | None = None,
    on_block: Callable[[Block], None] | None = None,
) -> KeptPrediction:
    """As `Predictor.predict`, and keep what it was made from.

    Kept are the network's answers, a byte for each of its pixels and channels; a bit for each
    pixel of the image; and a picture of it. Of a model of more than two classes, which has no
    threshold, the answers are not kept.

    Args:
        options: as of `Predictor.predict`; `forgiving` is not heeded.

    Raises:
        As `Predictor.predict`.
    """
    source = as_source(image)
    chosen = replace(options or SceneOptions(), forgiving=False)
    recorder = _Recorder(predictor.engine, keep=predictor.bundle.spec.is_binary)
    watched = _Watched(source)
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
        predictor.bundle, chosen, watched.remembered(), recorder.recorded(), score,
        made.summary.engine_mpx_per_s,
    )  # fmt: skip
    return KeptPrediction(made, scores)


def _sampled_shape(shape_yx: tuple[int, int], step: int) -> tuple[int, int]:
    return ceil(shape_yx[0] / step), ceil(shape_yx[1] / step)


def _samples(window: Window, step: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where the samples that lie in a window are: among all samples, and in the window."""
    first = -window.row % step, -window.col % step
    begin = (window.row + first[0]) // step, (window.col + first[1]) // step
    count = (ceil(max(length - skip, 0) / step) for length, skip in zip(window.shape_yx, first))
    rows, cols = (slice(start, start + many) for start, many in zip(begin, count))
    return (rows, cols), (slice(first[0], None, step), slice(first[1], None, step))


class _Watched:
    """An image of which is noted, as it is read, what `_Remembered` needs."""

    def __init__(self, source: RasterSource) -> None:
        self._source = source
        shape_yx = source.grid.shape
        self.step = max(1, ceil(max(shape_yx) / LARGEST_PX))
        # As the preview has it, so that it can be drawn from them again.
        shown = 3 if source.bands >= 3 else 1
        # What is never read lies in tiles that are known to be empty.
        self._valid = np.zeros(shape_yx, dtype=np.bool_)
        self._samples = np.zeros((shown, *_sampled_shape(shape_yx, self.step)), source.dtype)

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def grid(self) -> GeoGrid:
        return self._source.grid

    @property
    def bands(self) -> int:
        return self._source.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._source.dtype

    def is_empty(self, window: Window) -> bool:
        """See `SparseSource`."""
        asked: Callable[[Window], bool] | None = getattr(self._source, "is_empty", None)
        return asked is not None and asked(window)

    def read(self, window: Window | None = None) -> Raster:
        raster = self._source.read(window)
        window = Window.whole(self.grid.shape) if window is None else window
        self._valid[window.slices()] = raster.valid
        into, which = _samples(window, self.step)
        self._samples[:, *into] = raster.data[: len(self._samples), *which]
        return raster

    def remembered(self) -> _Remembered:
        """What was read."""
        return _Remembered(
            self.name, self.grid, self.bands, self.dtype, self.step,
            None if self._valid.all() else np.packbits(self._valid, axis=1),
            self._samples,
        )  # fmt: skip


@dataclass(frozen=True)
class _Remembered:
    """A `RasterSource` of which the samples are left; its other pixels are 0.

    Args:
        step: every so many pixels, along either axis, is a sample.
        valid_bits: (y, x / 8) packed along the rows; None where all is valid.
        samples: (1 or 3 bands, y / step, x / step).
    """

    name: str
    grid: GeoGrid
    bands: int
    dtype: np.dtype[Any]
    step: int
    valid_bits: NDArray[np.uint8] | None
    samples: NDArray[Any]

    @property
    def nbytes(self) -> int:
        """Of memory that is held."""
        return self.samples.nbytes + (0 if self.valid_bits is None else self.valid_bits.nbytes)

    @property
    def sampled_valid(self) -> NDArray[np.bool_]:
        """(y, x) of the samples."""
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


class _Recorder:
    """An engine that keeps what another one answers."""

    def __init__(self, engine: Engine, *, keep: bool) -> None:
        self._engine = engine
        self._keep = keep
        self._answers: list[NDArray[np.uint8]] = []
        self.name = engine.name
        self.precision = engine.precision

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self._engine.run(batch)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Answers in 255ths; one of several tiles is kept after another."""
        rounded = getattr(self._engine, "run_quantised", None)
        answer = quantise(self._engine.run(batch)) if rounded is None else rounded(batch)
        made: NDArray[np.uint8] = np.asarray(answer, dtype=np.uint8)
        if self._keep:
            self._answers.append(made)
        return made

    def recorded(self) -> _Recorded:
        """All answers so far."""
        return _Recorded(self.name, self.precision, tuple(self._answers))


@dataclass(frozen=True)
class _Recorded:
    """The answers of an engine, batch by batch in the order in which they were asked for."""

    name: str
    precision: str
    answers: tuple[NDArray[np.uint8], ...]

    @property
    def nbytes(self) -> int:
        """Of memory that is held."""
        return sum(answer.nbytes for answer in self.answers)


class _Replay:
    """An engine that answers what was recorded, once: the same tiles come in the same order."""

    def __init__(self, recorded: _Recorded) -> None:
        self.name = recorded.name
        self.precision = recorded.precision
        self._answers: Iterator[NDArray[np.uint8]] = iter(recorded.answers)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self.run_quantised(batch).astype(np.float32) / np.float32(255)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """The next answer."""
        answer = next(self._answers)
        assert (len(answer), *answer.shape[2:]) == (len(batch), *batch.shape[2:])
        return answer
