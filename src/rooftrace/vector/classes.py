"""Polygons of every class of a scene that comes block by block."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.vector.blocks import BlockPolygonizer, BlockTrace
from rooftrace.vector.polygonize import Prob, TracedPolygons

__all__ = ["ClassPolygonizer"]


class ClassPolygonizer:
    """One `BlockPolygonizer` for each class, fed together.

    The polygons of all classes cover each pixel of theirs once: what is a hole in one is filled by
    others. A block costs what the classes that occur in it cost.

    Args:
        shape_yx: (rows, columns) of the scene.
        classes: the indices of those that are traced.
        smallest_px: regions of fewer pixels are left out.
    """

    def __init__(
        self, shape_yx: tuple[int, int], classes: Iterable[int], smallest_px: float = 0.0
    ) -> None:
        self._tracers = {index: BlockPolygonizer(shape_yx, smallest_px) for index in classes}
        self.pixels = dict.fromkeys(self._tracers, 0)
        """How many of each class were fed."""

    def feed(
        self, window: Window, mask: NDArray[np.uint8], prob: Prob | None, occurring: Collection[int]
    ) -> None:
        """Takes one block.

        Args:
            window: of the scene; shares no pixel with a block fed before.
            mask: (y, x) class indices.
            prob: (y, x) the probability of each pixel's class, see `BlockPolygonizer.feed`.
            occurring: the classes that have a pixel in the block.

        Raises:
            ValueError: as `BlockPolygonizer.feed`.
        """
        for index, tracer in self._tracers.items():
            if index in occurring:
                own = mask == index
                tracer.feed(window, own, prob)
                self.pixels[index] += int(np.count_nonzero(own))
            else:
                tracer.skip(window)

    def add(self, window: Window, traces: Mapping[int, BlockTrace]) -> None:
        """Takes one block of which the classes that occur were traced, see `BlockPolygonizer.add`.

        Raises:
            ValueError: as `BlockPolygonizer.add`.
        """
        for index, tracer in self._tracers.items():
            trace = traces.get(index)
            if trace is None:
                tracer.skip(window)
            else:
                tracer.add(trace)
                self.pixels[index] += trace.foreground_px

    @property
    def small_px(self) -> dict[int, int]:
        """By class, the pixels of the regions that were left out so far."""
        return {index: tracer.small_px for index, tracer in self._tracers.items()}

    @property
    def ripe(self) -> bool:
        """Whether it is time to `join` one of them, see `BlockPolygonizer.ripe`."""
        return any(tracer.ripe for tracer in self._tracers.values())

    def join(self) -> None:
        """`BlockPolygonizer.join` of each."""
        for tracer in self._tracers.values():
            tracer.join()

    def take(self) -> dict[int, TracedPolygons]:
        """The regions of each class that are known to be complete and were not taken yet."""
        return {index: tracer.take() for index, tracer in self._tracers.items()}

    def finish(self) -> dict[int, TracedPolygons]:
        """All regions of each class that were not taken.

        Raises:
            ValueError: the blocks do not cover the scene.
        """
        return {index: tracer.finish() for index, tracer in self._tracers.items()}
