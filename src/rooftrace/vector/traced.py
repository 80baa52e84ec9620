"""The footprints of one block, as far as they depend on it alone: made where the block is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.vector.blocks import BlockTrace, trace_block
from rooftrace.vector.polygonize import Prob, TracedPolygons
from rooftrace.vector.prepare import Candidates, Maker, Task
from rooftrace.vector.separate import owners

__all__ = ["BlockOutlines", "Tracing"]


@dataclass(frozen=True)
class BlockOutlines:
    """What a block gives to the footprints of its scene; it can be pickled.

    Args:
        window: of the scene.
        crossing: by class, regions that touch other blocks; of the classes that occur.
        cores: those that touch other blocks; None where there are none to look for.
        waiting: cores that lie in regions that touch other blocks.
        made: of the regions that are complete.
        found: complete regions of the building class.
        has_score: whether probabilities were given.
    """

    window: Window
    crossing: Mapping[int, BlockTrace]
    cores: BlockTrace | None
    waiting: TracedPolygons
    made: tuple[Candidates, ...]
    found: int
    has_score: bool

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        # As bytes, all of them at once: polygon by polygon takes many times as long.
        state["made"] = tuple(_packed(one) for one in self.made)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["made"] = tuple(_unpacked(one) for one in state["made"])
        self.__dict__.update(state)


@dataclass(frozen=True)
class Tracing:
    """How blocks of a scene are traced; it can be pickled.

    Args:
        classes: the indices of those that are traced.
        building_class: the one that is cut apart and regularized.
        maker: of outlines.
    """

    classes: tuple[int, ...]
    building_class: int
    maker: Maker

    def trace(
        self,
        window: Window,
        mask: NDArray[np.uint8],
        score: Prob | None,
        occurring: Collection[int],
        cores: NDArray[np.uint8] | None = None,
    ) -> BlockOutlines:
        """What `FootprintAssembler.feed` does of a block by itself.

        Args:
            window, mask, score, occurring, cores: see `FootprintAssembler.feed`.

        Raises:
            ValueError: as `BlockPolygonizer.feed`.
            PredictError: pixels were lost.
        """
        options = self.maker.options
        scene = Window.whole(self.maker.grid.shape)
        within = None
        if cores is not None and options.separate:
            within = trace_block(scene, window, cores, score)
        waiting = TracedPolygons.none()
        crossing, made, found = {}, [], 0
        for index in self.classes:
            if index not in occurring:
                continue
            trace = trace_block(scene, window, mask == index, score, options.min_area_px)
            crossing[index] = trace.without_complete()
            task = Task(trace.complete, index == self.building_class, index)
            if task.is_building:
                found = len(trace.complete)
                if within is not None:
                    fresh = within.complete.of(within.complete.area_px >= options.core_px)
                    owner = owners(task.regions, fresh)
                    inside = owner >= 0
                    waiting = fresh.of(~inside)
                    task = replace(task, cores=fresh.of(inside), owner=owner[inside])
            if len(task.regions):
                made.append(self.maker.make(task))
        return BlockOutlines(
            window, crossing, None if within is None else within.without_complete(), waiting,
            tuple(made), found, score is not None,
        )  # fmt: skip


_POLYGONS = ("raw", "proposed")


def _packed(made: Candidates) -> dict[str, Any]:
    told = {one.name: getattr(made, one.name) for one in fields(made)}
    return told | {name: shapely.to_wkb(told[name]).tolist() for name in _POLYGONS}


def _unpacked(told: Mapping[str, Any]) -> Candidates:
    polygons = {name: _polygons(told[name]) for name in _POLYGONS}
    return Candidates(**{**told, **polygons})


def _polygons(encoded: list[bytes]) -> NDArray[np.object_]:
    held = np.empty(len(encoded), np.object_)
    held[:] = encoded
    return np.asarray(shapely.from_wkb(held), np.object_)
