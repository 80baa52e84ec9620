"""What a model says of labelled scenes, pixel by pixel: the network is run once, and what came of
it is kept on disk to be looked at as often as a choice needs.

Probabilities are kept in the 255ths that tiles are blended from. At the thresholds of
`threshold_at` the mask that they give is that of `rooftrace predict`, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, DataError, RooftraceError
from rooftrace.core.types import Footprints, Scene, Window
from rooftrace.data.source import SceneSet
from rooftrace.io.atomic import export_error
from rooftrace.io.masks import NODATA, NoMask
from rooftrace.metrics.curves import ThresholdCurve
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.block import Block
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.passage import SceneStream, StreamStats
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scene import plan_scene
from rooftrace.predict.stream import run_streams
from rooftrace.predict.work import SceneWork
from rooftrace.tiling.blend import PROB_ONE

__all__ = [
    "ScoredScene",
    "ScoredSet",
    "check_labelled",
    "draw_at",
    "level_of",
    "score_set",
    "threshold_at",
]

Progress = Callable[[int, int], None]

_KNOWN, _INSIDE, _TRUTH, _LABELLED = 1, 2, 4, 8
"""Bits of a pixel: predicted, inside a building and away from its neighbours, labelled as a
building, labelled at all."""


@dataclass(frozen=True)
class ScoredScene:
    """One labelled scene.

    Args:
        score: (y, x) uint8, the building's probability in 255ths.
        bits: (y, x) uint8, see the properties.
    """

    score: NDArray[np.uint8]
    bits: NDArray[np.uint8]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(y, x) where the model says something."""
        return (self.bits & _KNOWN) > 0

    @property
    def inside(self) -> NDArray[np.uint8]:
        """(y, x) 1 away from where buildings touch, as a second head says; else 0."""
        return ((self.bits & _INSIDE) > 0).view(np.uint8)

    @property
    def truth(self) -> NDArray[np.bool_]:
        """(y, x) where the label has a building."""
        return (self.bits & _TRUTH) > 0

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(y, x) what is compared: where both model and label say something."""
        both = np.uint8(_KNOWN | _LABELLED)
        return np.asarray((self.bits & both) == both)


@dataclass(frozen=True)
class ScoredSet:
    """A model's answers to the scenes of one set.

    Args:
        source: the scenes.
        folder: holds an array of each scene, as long as they are needed.
    """

    source: SceneSet
    folder: Path

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> ScoredScene:
        score, bits = np.load(_path(self.folder, number), mmap_mode="r")
        return ScoredScene(score, bits)

    def __iter__(self) -> Iterator[ScoredScene]:
        return (self[number] for number in range(len(self)))

    def curve(self) -> ThresholdCurve:
        """All judged pixels; figures are by level, from 1 to 255, not by `thresholds`."""
        # As many bins as there are values: one that is k reaches the first k limits and no more.
        curve = ThresholdCurve(PROB_ONE + 1)
        for scene in self:
            judged = scene.judged
            curve.add(scene.truth[judged], scene.score[judged])
        return curve


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number}.npy"


def threshold_at(level: int) -> float:
    """The threshold that pixels of so many 255ths, and no fewer, reach.

    They were rounded from finer steps, half way between two of them; the last decimals are cut off,
    so that no rounding lies above.
    """
    return math.floor((level - 0.5) / PROB_ONE * 1e6) / 1e6


def level_of(threshold: float) -> int:
    """The level, 1 to 255, whose threshold is nearest."""
    return int(np.clip(round(threshold * PROB_ONE + 0.5), 1, PROB_ONE))


def check_labelled(predictor: Predictor, source: SceneSet) -> None:
    """See whether a threshold can be chosen for a model on a set of scenes.

    Raises:
        ConfigError: the model has more than two classes.
        DataError: the set has no labelled image.
    """
    spec = predictor.bundle.spec
    if not spec.is_binary:
        raise ConfigError(
            f"The model {spec.name!r} has {len(spec.classes)} classes, of which each pixel takes "
            "the most probable; a threshold is for two.",
            remedy="Choose a model of background and one class.",
        )
    if not len(source):
        raise DataError(
            f"{source.name} has no labelled image.",
            remedy="Name data with labels; rooftrace inspect shows what was found.",
        )


def score_set(
    predictor: Predictor, source: SceneSet, folder: Path, progress: Progress | None = None
) -> ScoredSet:
    """Run the network over every scene, as `rooftrace predict` does.

    Args:
        predictor: of two classes.
        source: labelled scenes.
        folder: for the arrays, which take two bytes a pixel; made here.
        progress: called with the scenes that are done and that there are.

    Raises:
        DataError: a scene or a label cannot be read.
        BandMismatch, GsdMismatch, PredictError: as the model gives cause.
        ExportError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise export_error(folder, error) from error
    failed: list[RooftraceError] = []
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(source))

    def begun() -> Iterator[SceneStream]:
        for number, scene in enumerate(source):
            if failed:
                return
            yield _begin(predictor, scene, _path(folder, number), failed, tell)

    run_streams(begun(), predictor.engine)
    if failed:
        raise failed[0]
    return ScoredSet(source, folder)


def _begin(
    predictor: Predictor,
    scene: Scene,
    path: Path,
    failed: list[RooftraceError],
    tell: Callable[[], None],
) -> SceneStream:
    spec = predictor.bundle.spec
    plan = plan_scene(scene.image, spec, gsd_m=scene.said_gsd_m)
    assert scene.label is not None
    # Here, in the thread that reads images: a label may be of the same file.
    label = scene.label.read(Window.whole(plan.shape_yx))
    planes = np.zeros((2, *plan.shape_yx), np.uint8)
    planes[1] = (label.data == spec.building_class) * np.uint8(_TRUTH)
    planes[1][label.valid] |= _LABELLED

    def keep(block: Block) -> None:
        rows, cols = block.window.slices()
        planes[0, rows, cols] = block.score
        planes[1, rows, cols] |= (block.mask != NODATA) * np.uint8(_KNOWN)
        if block.cores is not None:
            planes[1, rows, cols] |= (block.cores > 0) * np.uint8(_INSIDE)

    def close(stream: SceneStream) -> None:
        try:
            if stream.error is not None:
                raise stream.error
            np.save(path, planes)
        except OSError as error:
            failed.append(export_error(path, error))
        except RooftraceError as error:
            failed.append(error)
        tell()

    # Every pixel is a building: so the second head is told of everywhere.
    return SceneStream(scene.image, spec, plan, keep, threshold=0.0, close=close)


def draw_at(spec: BundleSpec, scene: Scene, scored: ScoredScene, level: int) -> Footprints:
    """The footprints of buildings that `rooftrace predict` draws at `threshold_at(level)`.

    Args:
        spec: the contract; its calibration makes the scores.
        scene: whose pixels are not read.
        scored: what the model said of it.
        level: 1 to 255.
    """
    options = SceneOptions(gsd_m=scene.said_gsd_m, outputs=("polygons",))
    work = SceneWork(scene.image, spec, options, threshold_at(level), lambda: nullcontext(NoMask()))
    found: list[Footprints] = []
    for window in work.plan.blocks:
        part = window.slices()
        score, known = np.asarray(scored.score[part]), scored.known[part]
        mask = np.where(known, (score >= level).view(np.uint8), np.uint8(NODATA))
        cores = None if spec.separation is None else scored.inside[part] & (mask == 1)
        work.consume(Block.of(window, mask, score, cores))
    work.finish(StreamStats(), found.extend, lambda _: None)
    buildings = Footprints.joined(found) if found else _none(scene)
    return buildings.of_class(spec.building_class)


def _none(scene: Scene) -> Footprints:
    none = np.zeros(0)
    crs = scene.image.grid.crs
    return Footprints(none.astype(np.object_), none.astype(np.float32), none, crs)
