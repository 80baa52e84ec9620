"""Footprints of a scene from its blocks, with memory for a few numbers of each footprint.

`FootprintAssembler` takes blocks and returns a `FootprintSet`. `Tracing` traces one block where the
block was predicted, as far as its footprints depend on it alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import starmap
from operator import call
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.parallel import Threads, Workers, in_order
from rooftrace.core.types import BoolArray, Footprints, GeoGrid, Window
from rooftrace.io.spill_file import SpillFile
from rooftrace.vector.footprints import make_footprints
from rooftrace.vector.prepare import (
    RECORD,
    Candidates,
    FootprintRecords,
    OutlineMaker,
    VectorOptions,
    check_area,
    owners,
)
from rooftrace.vector.resolve_overlaps import WallSharing, resolve_scene_overlaps
from rooftrace.vector.simplify import unit_of
from rooftrace.vector.trace import Prob, TracedPolygons
from rooftrace.vector.trace_blocks import BlockTrace, OpenRegions, RegionPieces, trace_block

T = TypeVar("T")
Calibrate = Callable[[NDArray[np.float32], BoolArray], NDArray[np.float32]]
Refine = Callable[[FootprintRecords, BoolArray, SpillFile, OutlineMaker], FootprintRecords]

Begin = Callable[..., Candidates | Future[Candidates]]
"""Function that calls `OutlineMaker.make` with its arguments, or begins such a call."""

_STRIP_PX = 2**21
"""Number of pixels of a block that a worker traces at once."""

_AT_ONCE = 1000
"""Number of regions whose outlines a thread makes at once; fewer are made in the calling thread.
More take less time for each, but more memory."""


@dataclass(frozen=True)
class BlockOutlines:
    """Contribution of one block to the footprints of its scene; picklable.

    Args:
        crossing: Regions that touch other blocks, by class; for classes that occur.
        markers: Markers that touch other blocks; None where the block has no markers.
        waiting: Markers inside regions that touch other blocks.
        made: Candidate outlines of the complete regions; those of another process are finished.
        has_score: True where probabilities were given.
    """

    window: Window
    crossing: Mapping[int, BlockTrace]
    markers: BlockTrace | None
    waiting: TracedPolygons
    made: tuple[Candidates | Future[Candidates], ...]
    has_score: bool


@dataclass(frozen=True)
class Tracing:
    """Traces blocks of a scene; picklable."""

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
        begin: Begin = call,
    ) -> BlockOutlines:
        """Do the part of `FootprintAssembler.feed` that depends on one block alone.

        Args:
            window, mask, score, occurring, markers: See `FootprintAssembler.feed`.

        Raises:
            ValueError: The block is invalid, see `trace_block`.
            PredictError: Pixels were lost.
        """
        options = self.maker.options
        scene = Window.whole(self.maker.grid.shape)
        traces, inner = {}, None
        for index in self.classes:
            if index not in occurring:
                continue
            # Not copied where 0 is the only other class.
            own = mask if {0, index}.issuperset(occurring) else mask == index
            traces[index] = trace_block(scene, window, own, score, options.min_area_px)
            if index != self.building_class or not options.separate:
                continue
            # Markers of a model with their scores, or else the cores for the watershed, which need
            # no scores.
            if markers is not None:
                inner = trace_block(scene, window, markers, score, options.min_marker_px)
            elif options.watershed is not None and score is not None:
                cores = options.watershed.cores(own, score)
                if cores is not None:
                    inner = trace_block(scene, window, cores, None, options.min_marker_px)
        regions = {index: trace.complete for index, trace in traces.items()}
        made, waiting = self._made(regions, None if inner is None else inner.complete, begin)
        none = TracedPolygons.none()
        return BlockOutlines(
            window,
            {index: replace(trace, complete=none) for index, trace in traces.items()},
            None if inner is None else replace(inner, complete=none),
            none if waiting is None else waiting,
            tuple(made),
            score is not None,
        )

    def join(
        self,
        pieces: Mapping[int, RegionPieces],
        markers: RegionPieces | None,
        waiting: TracedPolygons,
        has_markers: bool,
        begin: Begin = call,
    ) -> tuple[list[Candidates | Future[Candidates]], TracedPolygons]:
        """Trace regions of several blocks and make their outlines.

        Args:
            markers: Complete markers, if any.
            waiting: Markers that waited for their regions.

        Returns:
            The outlines, and the markers that continue to wait.
        """
        width = self.maker.grid.width
        if markers is not None:
            waiting = TracedPolygons.joined([waiting, markers.traced(width)])
        regions = {index: own.traced(width) for index, own in pieces.items()}
        made, left = self._made(regions, waiting if has_markers else None, begin)
        return made, waiting if left is None else left

    def _made(
        self, regions: Mapping[int, TracedPolygons], markers: TracedPolygons | None, begin: Begin
    ) -> tuple[list[Candidates | Future[Candidates]], TracedPolygons | None]:
        """Return the outlines of complete regions by class, and the markers that lie in none."""
        made = []
        for index, own in regions.items():
            inside = None
            if index == self.building_class and markers is not None:
                every = owners(own, markers)
                inside, owner = markers.of(every >= 0), every[every >= 0]
                markers = markers.of(every < 0)
            for first in range(0, len(own), _AT_ONCE):
                part, held = own.of(slice(first, first + _AT_ONCE)), None
                if inside is not None:
                    mine = (owner >= first) & (owner < first + _AT_ONCE)
                    held = inside.of(mine), owner[mine] - first
                is_building = index == self.building_class
                made.append(begin(self.maker.make, part, index, is_building, held))
        return made, markers


class FootprintAssembler(ExitStack):
    """Footprints of a scene from blocks that partition it. Use it in a `with` block.

    The same blocks give the same footprints, byte by byte, and so does any other partition. In
    memory are 64 bytes for each footprint, and the outlines between fed and unfed blocks. The
    polygons are in a file once they are many. A small scene needs neither threads nor a file.

    Args:
        classes: Class indices to trace.
        building_class: Class that is separated, regularized and kept free of overlaps.
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
        super().__init__()
        self.found = 0
        """Number of buildings so far, before overlaps are resolved."""
        self.tracing = Tracing(tuple(classes), building_class, OutlineMaker(grid, options, gsd_m))
        """Description of how to trace a block elsewhere, see `feed_outlines`."""
        self._calibrate, self._class_names = calibrate, class_names
        scene = Window.whole(grid.shape)
        self._open = {index: OpenRegions(scene, options.min_area_px) for index in classes}
        self._markers = OpenRegions(scene, options.min_marker_px)
        self._has_markers, self._has_score = False, True
        # Markers whose building is not complete yet.
        self._waiting = TracedPolygons.none()
        self._spill = SpillFile(folder)
        # Closed here until the footprints take it over.
        self._unfinished = self.enter_context(ExitStack())
        self._unfinished.callback(self._spill.close)
        # Records of `RECORD`. Thousands of small arrays would fragment the memory.
        self._records = bytearray()
        self._made_px = dict.fromkeys(classes, 0)
        self._workers = workers
        self._threads: Threads | None = None
        self._tracing: deque[Future[BlockOutlines]] = deque()
        self._making: deque[Candidates | Future[Candidates]] = deque()
        self._joining: (
            Future[tuple[list[Candidates | Future[Candidates]], TracedPolygons]] | None
        ) = None

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
            ValueError: The block is invalid, see `trace_block`.
            ExportError: There is no space for the polygons.
            PredictError: Pixels were lost.
        """
        workers = self._workers
        if workers is None:
            self.feed_outlines(
                self.tracing.trace(window, mask, score, occurring, markers, self._begin)
            )
            return
        for strip in window.strips(max(1, _STRIP_PX // window.width)):
            part = strip.slices(window)
            own_score = None if score is None else score[part]
            own_markers = None if markers is None else markers[part]
            self._tracing.append(
                workers.submit(
                    self.tracing.trace, strip, mask[part], own_score, occurring, own_markers
                )
            )
        while len(self._tracing) > 2 * workers.size or (self._tracing and self._tracing[0].done()):
            self.feed_outlines(self._tracing.popleft().result())

    def feed_outlines(self, outlines: BlockOutlines) -> None:
        """Add one block that `tracing` has traced elsewhere; the footprints are those of `feed`."""
        window = outlines.window
        for index, regions in self._open.items():
            regions.add(window, outlines.crossing.get(index))
        self._markers.add(window, outlines.markers)
        self._has_markers |= outlines.markers is not None
        self._has_score &= outlines.has_score
        self._waiting = TracedPolygons.joined([self._waiting, outlines.waiting])
        self._keep(outlines.made)
        if any(regions.is_due for regions in (*self._open.values(), self._markers)):
            self._join()

    def finish(self, refine: Refine | None = None) -> FootprintSet:
        """Return all footprints; the caller closes them.

        Args:
            refine: Function that refines the outlines of buildings, after overlaps were resolved.

        Raises:
            ValueError: The blocks do not cover the grid.
        """
        while self._tracing:
            self.feed_outlines(self._tracing.popleft().result())
        for regions in self._open.values():
            regions.check_covered()
        self._join()
        self._finish_join()
        self._keep((), wait=True)
        if self._threads is not None:
            self._threads.shutdown()
        for index, regions in self._open.items():
            check_area(index, regions.foreground_px, self._made_px[index] + regions.small_px)
        maker, building = self.tracing.maker, self.tracing.building_class
        records: FootprintRecords = np.frombuffer(self._records, RECORD)
        buildings = records["class_id"] == building
        options, sharing = maker.options, None
        if options.regularize and options.simplify_px:
            sharing = WallSharing(unit_of(options.simplify_px), maker.grid.shape)
        records = resolve_scene_overlaps(
            records, buildings, self._spill, maker.area_m2, self._workers, sharing=sharing
        )
        if refine is not None:
            records = refine(records, buildings, self._spill, maker)
        if not self._has_score:
            records["score"] = np.nan
        footprints = FootprintSet(
            records, self._spill, maker, building, self._calibrate, self._class_names,
            may_be_refined=refine is not None, workers=self._workers,
        )  # fmt: skip
        self._unfinished.pop_all()
        return footprints

    def _begin(
        self, make: Callable[..., Candidates], part: TracedPolygons, *given: Any
    ) -> Candidates | Future[Candidates]:
        if self._threads is None and len(part) < _AT_ONCE:
            return make(part, *given)
        if self._threads is None:
            self._threads = Threads("footprints")
            self.callback(self._threads.shutdown, cancel_futures=True)
        return self._threads.submit(make, part, *given)

    def _join(self) -> None:
        """Process the regions of several blocks that have become complete, or begin to."""
        # The markers that the regions before have left.
        self._finish_join()
        taken = {index: regions.take() for index, regions in self._open.items()}
        pieces = {index: own for index, own in taken.items() if own is not None}
        markers = self._markers.take()
        if not pieces and markers is None:
            return
        given = pieces, markers, self._waiting, self._has_markers
        if self._workers is None:
            made, self._waiting = self.tracing.join(*given, self._begin)
            self._keep(made)
            return
        self._joining = self._workers.submit(self.tracing.join, *given)
        self._waiting = TracedPolygons.none()

    def _finish_join(self) -> None:
        """Keep what workers make of the regions of several blocks."""
        if self._joining is not None:
            made, left = self._joining.result()
            self._joining = None
            self._waiting = TracedPolygons.joined([self._waiting, left])
            self._keep(made)

    def _keep(self, made: Sequence[Candidates | Future[Candidates]], *, wait: bool = False) -> None:
        """Store outlines that are made, and those that threads make; with `wait` all of them."""
        self._making.extend(made)
        most = 0 if wait or self._threads is None else 2 * self._threads.size
        while self._making:
            one = self._making[0]
            if isinstance(one, Future):
                if len(self._making) <= most and not one.done():
                    break
                one = one.result()
            self._making.popleft()
            self._made_px[one.class_id] += one.area_px
            offset = self._spill.append_bytes([one.polygons])[0]
            records = one.records.copy()
            for field in ("raw", "proposed", "stop"):
                records[field] += offset
            self._records += records.tobytes()
            if one.class_id == self.tracing.building_class:
                _, is_kept = _kept(records, one.class_id, self.tracing.maker, self._calibrate)
                self.found += int(is_kept.sum())


def _kept(
    records: FootprintRecords, building_class: int, maker: OutlineMaker, calibrate: Calibrate | None
) -> tuple[NDArray[np.float32], BoolArray]:
    """Return the (n,) calibrated scores of footprints, and which have the least score and area."""
    options, score = maker.options, records["score"]
    if calibrate is not None:
        score = calibrate(score, records["divided"])
    is_kept = (records["class_id"] != building_class) | ~(score < options.min_score)
    if options.min_area_m2:
        is_kept &= records["area_m2"] >= options.min_area_m2
    return score, is_kept


class FootprintSet(ExitStack):
    """The footprints of a scene, ordered by their first pixel, row by row.

    `close`, or the end of a `with` block, frees the memory and the disk space.

    Args:
        records: Records of all footprints, after overlaps were resolved.
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
        super().__init__()
        self.callback(spill.close)
        score, is_kept = _kept(records, building_class, maker, calibrate)
        is_building = records["class_id"] == building_class
        size = np.diff(records["bounds"].reshape(-1, 2, 2), axis=1).prod(axis=(1, 2)) * is_building
        unsure = size[score < maker.options.min_score].sum()
        self.unsure_share = float(unsure / max(size.sum(), 1))
        """Share of the buildings, by the area of their bounds, that the least score leaves out."""
        # One copy, since a scene may have millions of footprints.
        order = np.argsort(records["first"])
        order = order[is_kept[order]]
        self._records = records[order]
        self._records["score"] = score[order]
        self._spill, self._workers = spill, workers
        self._made_of = partial(
            _made_of_chunk, maker.grid, maker.gsd_m, class_names, may_be_refined
        )
        ids, counts = np.unique(self._records["class_id"], return_counts=True)
        self.counts: dict[int, int] = dict(zip(ids.tolist(), counts.tolist()))
        """Number of footprints by class; classes without any are missing."""
        self.considered = self.counts.get(building_class, 0)
        """Number of footprints of buildings, which may have become regular."""
        self.regularized = int(self._records["accepted"].sum())
        """Number of footprints that became regular."""
        self.refined = int(self._records["refined"].sum()) if may_be_refined else None
        """Number of footprints that were refined; None if none could be."""

    def __len__(self) -> int:
        return len(self._records)

    def chunks(self, size: int = 20_000) -> Iterator[Footprints]:
        """Yield all footprints in chunks of `size`; without any, one empty chunk.

        Raises:
            ExportError: The polygons cannot be read from the temporary file.
        """
        return self.made_of_chunks(_unchanged, size)

    def made_of_chunks(self, make: Callable[[Footprints], T], size: int) -> Iterator[T]:
        """Yield what a function makes of each chunk, where workers make the chunk.

        Args:
            make: Function of a chunk; picklable.
            size: See `chunks`.
        """
        parts = (self._records[at : at + size] for at in range(0, max(len(self), 1), size))
        given = (
            (make, part, self._spill.read_bytes(part["proposed"], part["stop"])) for part in parts
        )
        if self._workers is None:
            return starmap(self._made_of, given)
        return in_order(self._made_of, given, self._workers)

    def whole(self) -> Footprints:
        """Return all footprints at once."""
        return next(self.chunks(max(len(self), 1)))


def _unchanged(footprints: Footprints) -> Footprints:
    return footprints


def _made_of_chunk(
    grid: GeoGrid,
    gsd_m: float | None,
    class_names: tuple[str, ...],
    may_be_refined: bool,
    make: Callable[[Footprints], T],
    records: FootprintRecords,
    encoded: NDArray[np.object_],
) -> T:
    """Return what a function makes of footprints, given their records and polygons (n,) as WKB."""
    polygons = np.asarray(shapely.from_wkb(encoded), np.object_)
    made = make_footprints(polygons, records["score"], grid, gsd_m=gsd_m)
    made = replace(made, divided=records["divided"])
    if may_be_refined:
        made = replace(made, refined=records["refined"])
    if class_names:
        made = replace(made, class_id=records["class_id"], classes=class_names)
    return make(made)
