"""Which of the buildings that a model would draw on validation tiles are right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import GeoGrid, Sample, Window
from rooftrace.data.dataset import EvalTiles
from rooftrace.data.separation import building_instances
from rooftrace.metrics.calibration import JudgedBuildings
from rooftrace.metrics.objects import judge_predicted
from rooftrace.metrics.scene import drawn
from rooftrace.models.spec import BundleSpec
from rooftrace.tiling.blend import quantise
from rooftrace.vector.assemble import FootprintAssembler
from rooftrace.vector.necks import Necks
from rooftrace.vector.options import VectorOptions

__all__ = ["BuildingJudge"]


class BuildingJudge:
    """Buildings as `rooftrace predict` draws them, tile by tile, and whether each is right.

    A building that reaches to the edge of its tile takes no part: it may be cut there.

    Args:
        spec: the contract, with its thresholds.
        tiles: of one folder, which are fed in order.
    """

    def __init__(self, spec: BundleSpec, tiles: EvalTiles) -> None:
        self._spec = spec
        self._tiles = tiles
        self._score = [np.zeros(0, np.float32)]
        self._right = [np.zeros(0, np.bool_)]
        self._scene = [np.zeros(0, np.int64)]

    def feed(self, number: int, sample: Sample, probability: NDArray[np.float32]) -> None:
        """Judge one tile.

        Args:
            number: of the tile.
            sample: with its label.
            probability: (output, y, x) what the model answers.
        """
        spec, values = self._spec, quantise(probability)
        if spec.is_binary:
            mask = (probability[0] >= spec.threshold).astype(np.uint8)
        else:
            mask = probability[: spec.channels].argmax(axis=0).astype(np.uint8)
        mask[~sample.valid] = 0
        cores = None
        if spec.separation is not None:
            above = probability[-1] >= spec.separation_threshold
            inside = ~above if spec.separation == "border" else above
            cores = (inside & (mask == spec.building_class)).astype(np.uint8)
        which = spec.building_class
        options = VectorOptions(necks=Necks() if spec.separation is None else None)
        assembler = FootprintAssembler(GeoGrid(mask.shape), [which], which, options)
        whole = Window.whole((mask.shape[0], mask.shape[1]))
        with assembler:
            assembler.feed(whole, mask, values[spec.building_channel], np.unique(mask), cores)
            found = assembler.finish()
        try:
            footprints = found.whole()
        finally:
            found.close()
        shape = drawn(footprints.geometry, mask.shape)
        labelled = building_instances((sample.target == which) & sample.valid, sample.instances)
        numbers, right = judge_predicted(labelled, shape, sample.valid)
        edge = np.concatenate([shape[0], shape[-1], shape[:, 0], shape[:, -1]])
        inner = ~np.isin(numbers, edge)
        self._score.append(footprints.score[numbers[inner] - 1])
        self._right.append(right[inner])
        self._scene.append(np.full(int(inner.sum()), self._tiles.scene_of(number), np.int64))

    def finish(self) -> JudgedBuildings:
        """All that were judged."""
        return JudgedBuildings(
            data=self._tiles.name,
            split="val",
            score=np.concatenate(self._score),
            right=np.concatenate(self._right),
            scene=np.concatenate(self._scene),
            scenes=len(self._tiles.scenes),
        )
