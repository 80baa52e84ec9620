"""Footprints of a scene from its blocks, with memory for a few numbers of each footprint.

`FootprintAssembler` takes blocks and returns a `FootprintSet`. `Tracing` traces one block where the
block was predicted, as far as its footprints depend on it alone.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.parallel import Threads, Workers, in_order, thread_count
from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.io.spill_file import SpillFile
from rooftrace.vector.footprints import make_footprints
from rooftrace.vector.prepare import (
    Candidates,
    FootprintRecordBuffer,
    FootprintRecords,
    OutlineMaker,
    RegionBatch,
    VectorOptions,
    check_area,
)
from rooftrace.vector.resolve_overlaps import ComparedBatches, resolve_scene_overlaps
from rooftrace.vector.trace import Bools, Prob, TracedPolygons
from rooftrace.vector.trace_blocks import (
    BlockPolygonizer,
    BlockTrace,
    ClassPolygonizer,
    RegionPieces,
    trace_block,
)

__all__ = ["BlockOutlines", "FootprintAssembler", "FootprintSet", "Refine", "Tracing"]


@dataclass(frozen=True)
class BlockOutlines:
    """Contribution of one block to the footprints of its scene; picklable.

    Args:
        window: Window of the block.
        crossing: Regions that touch other blocks, by class; for classes that occur.
        markers: Markers that touch other blocks; None where the block has no markers.
        waiting: Markers inside regions that touch other blocks.
        made: Candidate outlines of the complete regions.
        found: Number of complete regions of the building class.
        has_score: True where probabilities were given.
    """

    window: Window
    crossing: Mapping[int, BlockTrace]
    markers: BlockTrace | None
    waiting: TracedPolygons
    made: tuple[Candidates, ...]
    found: int
    has_score: bool


@dataclass(frozen=True)
class Tracing:
    """Traces blocks of a scene; picklable.

    Args:
        classes: Class indices to trace.
        building_class: Class that is separated and regularized.
        maker: Maker of outlines.
    """

    classes: tuple[int, ...]
    building_class: int
    maker: OutlineMaker

    def trace(
        self,
        window: Window,
        mask: NDArray[np.uint8],
        score: Prob | None,
        occurring: Collection[int],
        markers: NDArray[np.uint8] | None = None,
    ) -> BlockOutlines:
        """Do the part of `FootprintAssembler.feed` that depends on one block alone.

        Args:
            window, mask, score, occurring, markers: See `FootprintAssembler.feed`.

        Raises:
            ValueError: The block is invalid, see `BlockPolygonizer.feed`.
            PredictError: Pixels were lost.
        """
        options = self.maker.options
        scene = Window.whole(self.maker.grid.shape)
        within = None
        inner = self.markers(mask, score, occurring, markers)
        if inner is not None:
            within = trace_block(scene, window, *inner, options.min_marker_px)
        waiting = TracedPolygons.none()
        crossing, made, found = {}, [], 0
        for index in self.classes:
            if index not in occurring:
                continue
            trace = trace_block(scene, window, mask == index, score, options.min_area_px)
            crossing[index] = trace.without_complete()
            batch = RegionBatch(trace.complete, index == self.building_class, index)
            if batch.is_building:
                found = len(trace.complete)
                if within is not None:
                    batch, waiting = batch.with_markers(within.complete)
            if len(batch.regions):
                made.append(self.maker.make(batch))
        return BlockOutlines(
            window, crossing, None if within is None else within.without_complete(), waiting,
            tuple(made), found, score is not None,
        )  # fmt: skip

    def join(
        self,
        regions: Mapping[int, RegionPieces],
        markers: RegionPieces | None,
        waiting: TracedPolygons,
    ) -> tuple[list[Candidates], TracedPolygons]:
        """Trace regions of several blocks and make their outlines.

        Args:
            regions: Complete regions by class.
            markers: Complete markers; None if no block had any.
            waiting: Markers that waited for their regions.

        Returns:
            The outlines, and the markers that continue to wait.
        """
        width = self.maker.grid.width
        made = []
        for index, pieces in regions.items():
            batch = RegionBatch(pieces.traced(width), index == self.building_class, index)
            if batch.is_building and markers is not None:
                fresh = TracedPolygons.concatenated([waiting, markers.traced(width)])
                batch, waiting = batch.with_markers(fresh)
            if len(batch.regions):
                made.append(self.maker.make(batch))
        return made, waiting

    def markers(
        self,
        mask: NDArray[np.uint8],
        score: Prob | None,
        occurring: Collection[int],
        markers: NDArray[np.uint8] | None,
    ) -> tuple[NDArray[np.uint8], Prob | None] | None:
        """Return (y, x) the markers of a model with their scores, or else the cores for the
        watershed, which need no scores; None if there are none.

        Args:
            mask, score, occurring, markers: See `FootprintAssembler.feed`.
        """
        options = self.maker.options
        if not options.separate or self.building_class not in occurring:
            return None
        if markers is not None:
            return markers, score
        if options.watershed is None or score is None:
            return None
        cores = options.watershed.cores(mask == self.building_class, score)
        return None if cores is None else (cores, None)


T = TypeVar("T")
Calibrate = Callable[[NDArray[np.float32], Bools], NDArray[np.float32]]
Refine = Callable[[FootprintRecords, Bools, SpillFile, OutlineMaker], FootprintRecords]

_STRIP_PX = 2**21
"""Number of pixels of a block that a worker traces at once."""

_MIN_AT_ONCE, _MAX_AT_ONCE = 500, 2000
"""Number of regions that a thread processes at once; fewer are processed in the calling thread.
More take less time for each, but more memory."""


class FootprintAssembler:
    """Footprints of a scene from blocks that partition it.

    The same blocks give the same footprints, byte by byte, and so does any other partition. In
    memory are 64 bytes for each footprint, and the outlines between fed and unfed blocks. The
    polygons are in a file once they are many. A scene of one block needs neither threads nor a
    file.

    Args:
        grid: Grid of the pixels.
        classes: Class indices to trace.
        building_class: Class that is separated, regularized and kept free of overlaps.
        options: Options in pixels of the grid.
        folder: Folder of the file; default the system's folder for temporary files.
        gsd_m: Metres per pixel; overrides the grid.
        calibrate: Function that calibrates scores, given which buildings are pieces of divided
            regions; by default a score is the mean probability.
        class_names: Names by class index; empty where all are buildings, so no class is written.
        workers: Workers that trace blocks, and make outlines and footprints; default: the calling
            thread traces, and threads do the rest.

    Raises:
        ConfigError, GeoreferenceError: The options do not fit the grid, see `VectorOptions.check`.
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
        workers: Workers | None = None,
    ) -> None:
        options.check(grid, gsd_m)
        self.found = 0
        """Number of complete regions of the building class with `min_area_px` or more so far."""
        self._building_class = building_class
        self._options = options
        self._maker = OutlineMaker(grid, options, gsd_m)
        self._calibrate = calibrate
        self._class_names = class_names
        self._polygonizer = ClassPolygonizer(grid.shape, classes, options.min_area_px)
        self._markers = BlockPolygonizer(grid.shape, options.min_marker_px)
        self._has_markers = False
        self._has_score = True
        # Markers whose building is not complete yet.
        self._waiting = TracedPolygons.none()
        self._spill = SpillFile(folder)
        self._records = FootprintRecordBuffer()
        # First record of each batch, and pairs of the records of one batch that overlap.
        self._batches, self._overlapping = array("q"), array("q")
        self._made_px = dict.fromkeys(classes, 0)
        self._workers = workers
        self._threads: Threads | None = None
        self._tracing: deque[Future[BlockOutlines]] = deque()
        self._making: deque[Future[Candidates]] = deque()
        self._joining: Future[tuple[list[Candidates], TracedPolygons]] | None = None
        self._finished = False

    def __enter__(self) -> FootprintAssembler:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        if not self._finished:
            self._spill.close()

    def feed(
        self,
        window: Window,
        mask: NDArray[np.uint8],
        score: Prob | None,
        occurring: Collection[int],
        markers: NDArray[np.uint8] | None = None,
    ) -> None:
        """Add one block; call it from one thread only.

        Args:
            window: Window of the grid; it overlaps no block fed before.
            mask: (y, x) class indices.
            score: (y, x) probability of each pixel's class, float32 in 0..1 or uint8 in 255ths; NaN
                where unknown. If a block has None, all scores are NaN.
            occurring: Classes that occur in the block.
            markers: (y, x) not 0 inside a building and away from its neighbours. None where the
                options have a watershed, which floods the mask and the cores of high `score`.

        Raises:
            ValueError: The block is invalid, see `BlockPolygonizer.feed`.
            ExportError: There is no space for the polygons.
            PredictError: Pixels were lost.
        """
        if self._workers is not None:
            self._trace(self._workers, window, mask, score, occurring, markers)
            return
        self._polygonizer.feed(window, mask, score, occurring)
        self._has_score &= score is not None
        inner = self.tracing.markers(mask, score, occurring, markers)
        if inner is not None:
            self._markers.feed(window, *inner)
            self._has_markers = True
        else:
            self._markers.skip(window)
        joined = self._polygonizer.is_due or self._markers.is_due
        if joined:
            self._polygonizer.join()
            self._markers.join()
        self._process(self._polygonizer.take(), self._markers.take(), joined=joined)

    @property
    def tracing(self) -> Tracing:
        """Description of how to trace a block elsewhere, see `feed_outlines`."""
        return Tracing(tuple(self._made_px), self._building_class, self._maker)

    def feed_outlines(self, outlines: BlockOutlines) -> None:
        """Add one block that `tracing` has traced elsewhere; the footprints are those of `feed`.

        Raises:
            ValueError, ExportError, PredictError: See `feed`.
        """
        self._polygonizer.add(outlines.window, outlines.crossing)
        self._has_score &= outlines.has_score
        if outlines.markers is None:
            self._markers.skip(outlines.window)
        else:
            self._markers.add(outlines.markers)
            self._has_markers = True
        self._waiting = TracedPolygons.concatenated([self._waiting, outlines.waiting])
        self.found += outlines.found
        for made in outlines.made:
            self._keep(made)
        if self._polygonizer.is_due or self._markers.is_due:
            self._join()

    def finish(self, refine: Refine | None = None) -> FootprintSet:
        """Return all footprints; the caller closes them.

        Args:
            refine: Function that refines the outlines of buildings, after overlaps were resolved.

        Raises:
            ValueError: The blocks do not cover the grid.
            ExportError, PredictError: See `feed`.
        """
        while self._tracing:
            self.feed_outlines(self._tracing.popleft().result())
        self._polygonizer.check_covered()
        self._join()
        self._keep_joined()
        while self._making:
            self._keep(self._making.popleft().result())
        if self._threads is not None:
            self._threads.shutdown()
        for index, small in self._polygonizer.small_px.items():
            check_area(index, self._polygonizer.pixels[index], self._made_px[index] + small)
        records = self._records.whole()
        buildings = records.class_id == self._building_class
        batch = np.searchsorted(np.array(self._batches), np.arange(len(records)), side="right")
        pairs = np.array(self._overlapping, np.int64).reshape(-1, 2).T
        records = resolve_scene_overlaps(
            records, buildings, self._spill, self._maker.area_m2, self._workers,
            compared=ComparedBatches(batch, pairs),
        )  # fmt: skip
        if refine is not None:
            records = refine(records, buildings, self._spill, self._maker)
        if not self._has_score:
            records = replace(records, score=np.full(len(records), np.nan, np.float32))
        self._finished = True
        return FootprintSet(
            records, self._spill, self._maker, self._building_class, self._calibrate,
            self._class_names, may_be_refined=refine is not None, workers=self._workers,
        )  # fmt: skip

    def _join(self) -> None:
        """Process the regions of several blocks that have become complete."""
        if self._workers is None:
            self._polygonizer.join()
            self._markers.join()
            self._process(self._polygonizer.take(), self._markers.take(), joined=True)
            return
        # The markers that the regions before have left.
        self._keep_joined()
        regions, markers = self._polygonizer.joined(), self._markers.joined()
        self.found += len(regions[self._building_class])
        self._joining = self._workers.submit(
            self.tracing.join, regions, markers if self._has_markers else None, self._waiting
        )
        self._waiting = TracedPolygons.none()

    def _keep_joined(self) -> None:
        """Wait for the outlines that workers make of the regions of several blocks."""
        if self._joining is None:
            return
        made, left = self._joining.result()
        self._joining = None
        self._waiting = TracedPolygons.concatenated([self._waiting, left])
        for one in made:
            self._keep(one)

    def _trace(
        self,
        workers: Workers,
        window: Window,
        mask: NDArray[np.uint8],
        score: Prob | None,
        occurring: Collection[int],
        markers: NDArray[np.uint8] | None,
    ) -> None:
        """Have workers trace a block in strips, and add those that are traced, in order."""
        trace, rows = self.tracing.trace, max(1, _STRIP_PX // window.width)
        for top in range(0, window.height, rows):
            strip = Window(
                window.row + top, window.col, min(rows, window.height - top), window.width
            )
            part = slice(top, top + strip.height)
            own_score = None if score is None else score[part]
            own_markers = None if markers is None else markers[part]
            self._tracing.append(
                workers.submit(trace, strip, mask[part], own_score, occurring, own_markers)
            )
        while len(self._tracing) > 2 * workers.size or (self._tracing and self._tracing[0].done()):
            self.feed_outlines(self._tracing.popleft().result())

    def _process(
        self, regions: dict[int, TracedPolygons], markers: TracedPolygons, *, joined: bool
    ) -> None:
        """Process complete regions.

        A region inside a block has its markers inside it, too. Markers that waited matter only
        where regions of several blocks were joined.
        """
        for index, own in regions.items():
            batch = RegionBatch(own, index == self._building_class, index)
            if batch.is_building:
                self.found += len(own)
                if self._has_markers:
                    batch, left = self._with_markers(batch, markers, joined=joined)
                    self._waiting = left
            share = -(-len(own) // thread_count())
            for part in batch.parts(min(max(share, _MIN_AT_ONCE), _MAX_AT_ONCE)):
                self._submit(part)

    def _with_markers(
        self, batch: RegionBatch, fresh: TracedPolygons, *, joined: bool
    ) -> tuple[RegionBatch, TracedPolygons]:
        """Return a batch with the markers inside its regions, and the markers that continue
        to wait.
        """
        waiting = self._waiting
        if joined:
            fresh, waiting = TracedPolygons.concatenated([waiting, fresh]), TracedPolygons.none()
        batch, outside = batch.with_markers(fresh)
        return batch, TracedPolygons.concatenated([waiting, outside])

    def _submit(self, batch: RegionBatch) -> None:
        workers = self._workers or self._threads
        if workers is None and len(batch.regions) < _MIN_AT_ONCE:
            self._keep(self._maker.make(batch))
            return
        if workers is None:
            workers = self._threads = Threads("footprints")
        self._making.append(workers.submit(self._maker.make, batch))
        while len(self._making) > 2 * workers.size or (self._making and self._making[0].done()):
            self._keep(self._making.popleft().result())

    def _keep(self, made: Candidates) -> None:
        self._made_px[made.class_id] += made.area_px
        offset = int(self._spill.append_bytes([made.polygons])[0])
        self._batches.append(len(self._records))
        self._overlapping.frombytes((made.overlapping + len(self._records)).T.tobytes())
        self._records.append(made.records.shifted(offset))


class FootprintSet:
    """The footprints of a scene, ordered by their first pixel, row by row.

    Args:
        records: Records of all footprints, after overlaps were resolved.
        spill: File that holds their polygons.
        maker: Maker of the outlines.
        building_class: Index of the class of buildings.
        calibrate: Function that calibrates scores.
        class_names: Names by class index; empty where all are buildings.
        may_be_refined: Whether footprints state if their outlines were refined.
        workers: Workers that make the footprints of `chunks`; default: the calling thread.
    """

    def __init__(
        self,
        records: FootprintRecords,
        spill: SpillFile,
        maker: OutlineMaker,
        building_class: int,
        calibrate: Calibrate | None,
        class_names: tuple[str, ...],
        *,
        may_be_refined: bool = False,
        workers: Workers | None = None,
    ) -> None:
        self._workers = workers
        smallest = maker.options.min_area_m2
        if smallest:
            records = records.of_numbers(records.area_m2 >= smallest)
        self._records = records.of_numbers(np.argsort(records.first))
        self._spill = spill
        self._make = partial(_footprints, maker, calibrate, class_names, may_be_refined)
        ids, counts = np.unique(self._records.class_id, return_counts=True)
        self.counts: dict[int, int] = dict(zip(ids.tolist(), counts.tolist()))
        """Number of footprints by class; classes without any are missing."""
        self.considered = self.counts.get(building_class, 0)
        """Number of footprints of buildings, which may have become regular."""
        self.regularized = int(self._records.accepted.sum())
        """Number of footprints that became regular."""
        self.refined = int(self._records.refined.sum()) if may_be_refined else None
        """Number of footprints that were refined; None if none could be."""

    def __len__(self) -> int:
        return len(self._records)

    def __enter__(self) -> FootprintSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chunks(self, size: int = 20_000) -> Iterator[Footprints]:
        """Yield all footprints in chunks of `size`; without any, one empty chunk.

        Raises:
            ExportError: The polygons cannot be read from the temporary file.
        """
        yield from self.made_of_chunks(_unchanged, size)

    def made_of_chunks(self, make: Callable[[Footprints, int], T], size: int) -> Iterator[T]:
        """Yield what a function makes of each chunk, where workers make the chunk.

        Args:
            make: Function of a chunk and of the number of footprints before it; picklable.
            size: See `chunks`.

        Raises:
            ExportError: See `chunks`.
        """
        given = (
            (make, first, *self._given(self._records.of_numbers(slice(first, first + size))))
            for first in range(0, max(len(self), 1), size)
        )
        made_of = partial(_made_of, self._make)
        if self._workers is None:
            yield from starmap(made_of, given)
            return
        yield from in_order(made_of, given, self._workers)

    def whole(self) -> Footprints:
        """Return all footprints at once.

        Raises:
            ExportError: See `chunks`.
        """
        return self._footprints(self._records)

    def close(self) -> None:
        """Free the memory and the disk space; may be called twice."""
        self._spill.close()

    def _footprints(self, chosen: FootprintRecords) -> Footprints:
        return self._make(*self._given(chosen))

    def _given(self, chosen: FootprintRecords) -> tuple[FootprintRecords, NDArray[np.object_]]:
        """Return records and their polygons as WKB."""
        return chosen, self._spill.read_bytes(chosen.proposed, chosen.stop)


def _unchanged(footprints: Footprints, _: int) -> Footprints:
    return footprints


def _made_of(
    footprints: Callable[[FootprintRecords, NDArray[np.object_]], Footprints],
    make: Callable[[Footprints, int], T],
    first: int,
    chosen: FootprintRecords,
    encoded: NDArray[np.object_],
) -> T:
    return make(footprints(chosen, encoded), first)


def _footprints(
    maker: OutlineMaker,
    calibrate: Calibrate | None,
    class_names: tuple[str, ...],
    may_be_refined: bool,
    chosen: FootprintRecords,
    encoded: NDArray[np.object_],
) -> Footprints:
    """Return footprints from their records and from their polygons (n,) as WKB."""
    polygons, score = np.asarray(shapely.from_wkb(encoded), np.object_), chosen.score
    if calibrate is not None:
        score = calibrate(score, chosen.divided)
    made = make_footprints(polygons, score, maker.grid, gsd_m=maker.gsd_m)
    made = replace(made, divided=chosen.divided)
    if may_be_refined:
        made = replace(made, refined=chosen.refined)
    if not class_names:
        return made
    return replace(made, class_id=chosen.class_id, classes=class_names)
