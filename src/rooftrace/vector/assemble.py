"""From the blocks of a scene to its footprints, with memory for some numbers of each."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.vector.blocks import BlockPolygonizer
from rooftrace.vector.classes import ClassPolygonizer
from rooftrace.vector.conflicts import settle_neighbours
from rooftrace.vector.footprints import make_footprints
from rooftrace.vector.options import VectorOptions
from rooftrace.vector.polygonize import Prob, TracedPolygons
from rooftrace.vector.prepare import (
    Candidates,
    GrowingRecords,
    Maker,
    Records,
    Task,
    check_area,
)
from rooftrace.vector.separate import owners
from rooftrace.vector.spool import Spool
from rooftrace.vector.traced import BlockOutlines, Tracing

__all__ = ["FootprintAssembler", "FootprintSet"]

Calibrate = Callable[[NDArray[np.float32]], NDArray[np.float32]]

_AT_ONCE = 500
"""Regions that a thread works on; fewer are not worth handing over."""

_WORKERS = min(4, os.cpu_count() or 1)


class FootprintAssembler:
    """Footprints of a scene from blocks that partition it.

    The same blocks give the same footprints, byte by byte, and so does any other partition. What is
    held beside 62 bytes for each footprint are the outlines that cross from what was fed to what
    was not; the polygons lie in a file once they are many. A scene of one block needs neither
    threads nor a file.

    Args:
        grid: where the pixels lie.
        classes: the indices of the classes that are traced.
        building_class: the one that is cut apart, regularized and kept from overlapping.
        options: how, in pixels of the grid.
        folder: for the file; default the system's for temporary files.
        gsd_m: metres from one pixel to the next, in place of what the grid says.
        calibrate: of scores; default they stay the mean probability.
        class_names: by index; empty where all are buildings, and no class is told.

    Raises:
        ConfigError, GeoreferenceError: as `VectorOptions.check`.
    """

    def __init__(
        self,
        grid: GeoGrid,
        classes: Sequence[int],
        building_class: int,
        options: VectorOptions,
        *,
        folder: Path | None = None,
        gsd_m: float | None = None,
        calibrate: Calibrate | None = None,
        class_names: tuple[str, ...] = (),
    ) -> None:
        options.check(grid, gsd_m)
        self.found = 0
        """Regions of the building class, of `min_area_px` or more, that are complete so far."""
        self._building_class = building_class
        self._options = options
        self._maker = Maker(grid, options, gsd_m)
        self._calibrate = calibrate
        self._class_names = class_names
        self._polygonizer = ClassPolygonizer(grid.shape, classes, options.min_area_px)
        self._cores = BlockPolygonizer(grid.shape)
        self._has_cores = False
        self._has_score = True
        # Cores whose building is not complete yet.
        self._waiting = TracedPolygons.none()
        self._spool = Spool(folder)
        self._records = GrowingRecords()
        self._made_px = dict.fromkeys(classes, 0)
        self._pool: ThreadPoolExecutor | None = None
        self._making: deque[Future[Candidates]] = deque()
        self._finished = False

    def __enter__(self) -> FootprintAssembler:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if not self._finished:
            self._spool.close()

    def feed(
        self,
        window: Window,
        mask: NDArray[np.uint8],
        score: Prob | None,
        occurring: Collection[int],
        cores: NDArray[np.uint8] | None = None,
    ) -> None:
        """Takes one block; from one thread.

        Args:
            window: of the grid; shares no pixel with a block fed before.
            mask: (y, x) class indices.
            score: (y, x) the probability of each pixel's class, float32 in 0..1 or uint8 standing
                for 0..1 by 255ths. Where a block has None, all scores are NaN.
            occurring: the classes that have a pixel in the block.
            cores: (y, x) not 0 inside a building and away from its neighbours.

        Raises:
            ValueError: as `BlockPolygonizer.feed`.
            ExportError: there is no room for the polygons.
            PredictError: pixels were lost.
        """
        self._polygonizer.feed(window, mask, score, occurring)
        self._has_score &= score is not None
        if cores is not None and self._options.separate:
            self._cores.feed(window, cores, score)
            self._has_cores = True
        else:
            self._cores.skip(window)
        joined = self._polygonizer.ripe or self._cores.ripe
        if joined:
            self._polygonizer.join()
            self._cores.join()
        self._hand_on(self._polygonizer.take(), self._cores.take(), joined=joined)

    @property
    def tracing(self) -> Tracing:
        """How a block is traced elsewhere, for `feed_traced`."""
        return Tracing(tuple(self._made_px), self._building_class, self._maker)

    def feed_traced(self, outlines: BlockOutlines) -> None:
        """Takes one block that was traced by `tracing`; the footprints are those of `feed`.

        Raises:
            ValueError, ExportError, PredictError: as `feed`.
        """
        self._polygonizer.add(outlines.window, outlines.crossing)
        self._has_score &= outlines.has_score
        if outlines.cores is None:
            self._cores.skip(outlines.window)
        else:
            self._cores.add(outlines.cores)
            self._has_cores = True
        self._waiting = TracedPolygons.concatenated([self._waiting, outlines.waiting])
        self.found += outlines.found
        for made in outlines.made:
            self._keep(made)
        if self._polygonizer.ripe or self._cores.ripe:
            self._polygonizer.join()
            self._cores.join()
            self._hand_on(self._polygonizer.take(), self._cores.take(), joined=True)

    def finish(self) -> FootprintSet:
        """All footprints; the caller closes them.

        Raises:
            ValueError: the blocks do not cover the grid.
            ExportError, PredictError: as `feed`.
        """
        self._hand_on(self._polygonizer.finish(), self._cores.finish(), joined=True)
        while self._making:
            self._keep(self._making.popleft().result())
        if self._pool is not None:
            self._pool.shutdown()
        for index, small in self._polygonizer.small_px.items():
            check_area(index, self._polygonizer.pixels[index], self._made_px[index] + small)
        records = self._records.whole()
        records = settle_neighbours(
            records, records.class_id == self._building_class, self._spool, self._maker.area_m2
        )
        if not self._has_score:
            records = replace(records, score=np.full(len(records), np.nan, np.float32))
        self._finished = True
        return FootprintSet(
            records, self._spool, self._maker, self._building_class, self._calibrate,
            self._class_names,
        )  # fmt: skip

    def _hand_on(
        self, regions: dict[int, TracedPolygons], cores: TracedPolygons, *, joined: bool
    ) -> None:
        """Complete regions go to work.

        A region inside of a block has its cores inside of it, too: only where regions of several
        blocks were joined do the cores matter that waited.
        """
        for index, own in regions.items():
            task = Task(own, index == self._building_class, index)
            if task.is_building:
                self.found += len(own)
                if self._has_cores:
                    task, left = self._with_cores(task, cores, joined=joined)
                    self._waiting = left
            for part in task.parts(_AT_ONCE):
                self._submit(part)

    def _with_cores(
        self, task: Task, fresh: TracedPolygons, *, joined: bool
    ) -> tuple[Task, TracedPolygons]:
        """A task with the cores that lie in its regions, and those that go on waiting."""
        fresh = fresh.of(fresh.area_px >= self._options.core_px)
        waiting = self._waiting
        if joined:
            fresh, waiting = TracedPolygons.concatenated([waiting, fresh]), TracedPolygons.none()
        owner = owners(task.regions, fresh)
        inside = owner >= 0
        left = TracedPolygons.concatenated([waiting, fresh.of(~inside)])
        return replace(task, cores=fresh.of(inside), owner=owner[inside]), left

    def _submit(self, task: Task) -> None:
        if len(task.regions) < _AT_ONCE and self._pool is None:
            self._keep(self._maker.make(task))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_WORKERS, "footprints")
        self._making.append(self._pool.submit(self._maker.make, task))
        while len(self._making) > 2 * _WORKERS or (self._making and self._making[0].done()):
            self._keep(self._making.popleft().result())

    def _keep(self, made: Candidates) -> None:
        self._made_px[made.class_id] += made.area_px
        self._records.append(Records.of(made, self._spool))


class FootprintSet:
    """The footprints of a scene, ordered by their first pixel, row by row.

    Args:
        records: of all that were found, settled among one another.
        spool: in which their polygons lie.
        maker: that made them.
        building_class: the index of the class of buildings.
        calibrate: of scores.
        class_names: by index; empty where all are buildings.
    """

    def __init__(
        self,
        records: Records,
        spool: Spool,
        maker: Maker,
        building_class: int,
        calibrate: Calibrate | None,
        class_names: tuple[str, ...],
    ) -> None:
        smallest = maker.options.min_area_m2
        if smallest:
            records = records.of_numbers(records.area_m2 >= smallest)
        self._records = records.of_numbers(np.argsort(records.first))
        self._spool = spool
        self._maker = maker
        self._calibrate = calibrate
        self._class_names = class_names
        ids, counts = np.unique(self._records.class_id, return_counts=True)
        self.counts: dict[int, int] = dict(zip(ids.tolist(), counts.tolist()))
        """Footprints by class; only of those that have one."""
        self.considered = self.counts.get(building_class, 0)
        """Footprints of buildings, which may have become regular."""
        self.regularized = int(self._records.accepted.sum())
        """Those that did."""

    def __len__(self) -> int:
        return len(self._records)

    def __enter__(self) -> FootprintSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chunks(self, size: int = 20_000) -> Iterator[Footprints]:
        """All, so many at a time; where there are none, one chunk of none.

        Raises:
            ExportError: what was laid aside cannot be read back.
        """
        for first in range(0, max(len(self), 1), size):
            yield self._made(
                self._records.of_numbers(np.arange(first, min(first + size, len(self))))
            )

    def whole(self) -> Footprints:
        """All at once.

        Raises:
            ExportError: as `chunks`.
        """
        return self._made(self._records)

    def close(self) -> None:
        """Gives back the memory and the room on disk; to do so twice does no harm."""
        self._spool.close()

    def _made(self, chosen: Records) -> Footprints:
        polygons = self._spool.read(chosen.proposed, chosen.stop)
        score = chosen.score if self._calibrate is None else self._calibrate(chosen.score)
        made = make_footprints(polygons, score, self._maker.grid, gsd_m=self._maker.gsd_m)
        if not self._class_names:
            return made
        return replace(made, class_id=chosen.class_id, classes=self._class_names)
