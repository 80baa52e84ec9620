"""What one scene becomes while its blocks come in: mask, footprints, picture, density, figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import numpy as np

from rooftrace.core.ahead import Ahead
from rooftrace.core.errors import GeoreferenceError
from rooftrace.core.types import Footprints, GeoGrid, RasterSource
from rooftrace.io.masks import MaskSink
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.block import Block
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.passage import StreamStats
from rooftrace.predict.preview import Preview
from rooftrace.predict.result import ClassFigures, SceneResult, Summary
from rooftrace.predict.scene import plan_scene
from rooftrace.vector.assemble import FootprintAssembler, FootprintSet
from rooftrace.vector.density import DensityAccumulator
from rooftrace.vector.necks import Necks
from rooftrace.vector.options import VectorOptions
from rooftrace.vector.separate import SMALLEST_CORE_PX
from rooftrace.vector.traced import Tracing
from rooftrace.vector.valid import ValidOutline

__all__ = ["SceneWork"]

SIMPLIFY_PX = 1.25
SMALLEST_PX = 9.0
"""Of the model's pixels: specks below this are no buildings, however sure the network is."""

_AT_ONCE = 4000
"""Footprints that are made, seen and written together."""

_FEWEST_CELLS = 3
"""Along the longer side; a scene of fewer has no density but its own built-up share."""

OpenSink = Callable[[], AbstractContextManager[MaskSink]]


class SceneWork:
    """One scene from its first block to its files.

    Args:
        source: the image.
        spec: the contract of the model.
        options: what was chosen.
        threshold: on the building's probability; None where the most probable class is taken.
        open_sink: where the mask goes; entered with the first block.
        folder: for what does not fit into memory.
        on_block: called after every block.

    Raises:
        BandMismatch, DataError, GsdMismatch: as `plan_scene`.
        ConfigError, GeoreferenceError: as `VectorOptions.check`.
    """

    def __init__(
        self,
        source: RasterSource,
        spec: BundleSpec,
        options: SceneOptions,
        threshold: float | None,
        open_sink: OpenSink,
        *,
        folder: Path | None = None,
        on_block: Callable[[SceneWork, Block], None] | None = None,
    ) -> None:
        self._started = time.perf_counter()
        self._spec = spec
        self._options = options
        self._threshold = threshold
        self._open_sink = open_sink
        self._on_block = on_block
        self._open = ExitStack()
        self._sink: MaskSink | None = None
        self.source = source
        self.plan = plan_scene(source, spec, gsd_m=options.gsd_m, scale=options.scale)
        outputs = options.outputs
        self.preview = None
        if "preview" in outputs:
            self.preview = Preview(source.grid, source.bands, source.dtype, spec.legend)
        self._assembler: FootprintAssembler | None = None
        if {"polygons", "preview", "density"} & {*outputs}:
            self._assembler = self._open.enter_context(self._assembled(folder))
        self._found: FootprintSet | None = None
        self._density = self._counter() if "density" in outputs else None
        self._outline = ValidOutline(source.grid) if options.outline else None

    @property
    def tracing(self) -> Tracing | None:
        """How the polygons of blocks are traced elsewhere; None where none are made."""
        return None if self._assembler is None else self._assembler.tracing

    @property
    def buildings(self) -> int:
        """Found so far."""
        return 0 if self._assembler is None else self._assembler.found

    def consume(self, block: Block) -> None:
        """Take a block."""
        if self._sink is None:
            self._sink = self._open.enter_context(self._open_sink())
        self._sink.write(block.window, block.mask)
        if self._density is not None and not block.is_empty:
            self._density.feed(block.window, block.mask)
        if self._assembler is not None:
            if block.outlines is not None:
                self._assembler.feed_traced(block.outlines)
            else:
                occurring = np.flatnonzero(block.count).tolist()
                self._assembler.feed(block.window, block.mask, block.score, occurring, block.cores)
        if self._outline is not None:
            self._outline.feed(block.window, block.mask)
        if self._on_block is not None:
            self._on_block(self, block)

    def finish(
        self,
        stats: StreamStats,
        write_polygons: Callable[[Iterable[Footprints]], object] | None,
        write: Callable[[SceneResult], None],
        notes: tuple[str, ...] = (),
    ) -> SceneResult:
        """Make the rest when all blocks are in.

        Args:
            stats: of the blocks.
            write_polygons: takes the footprints, some at a time; None where nobody wants them.
            write: takes the result, before the mask has its name.
            notes: that come besides those of the scale.
        """
        with self._open:
            if self._assembler is not None:
                # All that footprints are for, in one pass: to make them takes longest.
                (write_polygons or _exhaust)(self._seen(self._assembler))
            result = self._result(stats, self._found, notes)
            write(result)
        return result

    def _seen(self, assembler: FootprintAssembler) -> Iterator[Footprints]:
        """The footprints, as picture and density see them pass; the next are made meanwhile.

        They are settled when the first are asked for, so that who writes can get ready before.
        """
        self._found = found = self._open.enter_context(assembler.finish())
        with Ahead(found.chunks(_AT_ONCE), 1, "footprints") as chunks:
            for chunk in chunks:
                if self._density is not None:
                    self._density.add(chunk.of_class(self._spec.building_class))
                if self.preview is not None:
                    self.preview.paint(chunk)
                yield chunk

    def abandon(self, error: BaseException) -> None:
        """Leave nothing half-written behind."""
        with suppress(type(error)):
            self._open.__exit__(type(error), error, error.__traceback__)

    def _assembled(self, folder: Path | None) -> FootprintAssembler:
        # A mask is as fine as the model sees; on a finer grid its stairs are larger.
        scale_y, scale_x = self.plan.scaling.scale_yx
        area, stairs = scale_y * scale_x, max(1.0, scale_y, scale_x)
        options, spec = self._options, self._spec
        return FootprintAssembler(
            self.source.grid,
            range(1, len(spec.classes)),
            spec.building_class,
            VectorOptions(
                min_area_m2=options.min_area_m2,
                min_hole_m2=options.min_hole_m2,
                min_area_px=SMALLEST_PX * area,
                simplify_px=SIMPLIFY_PX * stairs,
                regularize=options.regularize,
                separate=options.separate,
                core_px=SMALLEST_CORE_PX * area,
                # A head knows better where buildings meet than the shape of what they make up.
                necks=Necks().scaled(stairs) if spec.separation is None else None,
            ),
            folder=folder,
            gsd_m=options.gsd_m,
            calibrate=None if spec.calibration is None else spec.calibration.apply,
            class_names=() if spec.is_binary else spec.classes,
        )

    def _counter(self) -> DensityAccumulator | None:
        """None where metres are not known, or the scene is too small."""
        grid, cell_m = self.source.grid, self._options.cell_m
        gsd_m = self.gsd_m
        if gsd_m is None or max(grid.shape) * gsd_m < _FEWEST_CELLS * cell_m or cell_m < 2 * gsd_m:
            return None
        try:
            return DensityAccumulator(
                grid,
                cell_m,
                building_class=self._spec.building_class,
                gsd_m=None if _tells_metres(grid) else self._options.gsd_m,
                name=self.source.name,
            )
        except GeoreferenceError:
            return None

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel of the source, said or known."""
        said = self._options.gsd_m
        return said if said is not None else self.source.grid.gsd_m

    def _result(
        self, stats: StreamStats, found: FootprintSet | None, notes: tuple[str, ...]
    ) -> SceneResult:
        classes = self._figures(stats, found)
        building = classes[self._spec.building_class]
        picture = None
        if self.preview is not None:
            counted = f"{building.polygons:,} buildings · {building.share:.1%} built up"
            picture = self.preview.draw([one.share for one in classes], counted, self.gsd_m)
        density = None if self._density is None else self._density.finish()
        seconds = time.perf_counter() - self._started
        pixels = self.source.grid.height * self.source.grid.width
        summary = Summary(
            buildings=building.polygons,
            built_up_share=building.share,
            pixels=pixels,
            valid_pixels=stats.valid_px,
            seconds=seconds,
            mpx_per_s=pixels / 1e6 / max(seconds, 1e-9),
            engine_mpx_per_s=stats.engine_px / 1e6 / max(stats.engine_seconds, 1e-9),
            gsd_m=self.gsd_m,
            threshold=self._threshold,
            classes=classes,
            regularized=None if found is None else found.regularized,
            blocks_resumed=stats.blocks_resumed,
            tiles_failed=stats.tiles_failed,
            notes=tuple(note for note in (self.plan.scaling.note, *notes) if note),
        )
        outline = None if self._outline is None else self._outline.finish()
        return SceneResult(picture, summary, stats, density, outline)

    def _figures(self, stats: StreamStats, found: FootprintSet | None) -> tuple[ClassFigures, ...]:
        valid_px = max(stats.valid_px, 1)
        counts = {} if found is None else found.counts
        return tuple(
            ClassFigures(
                name=name,
                class_id=index,
                polygons=counts.get(index, 0),
                pixels=int(stats.class_px[index]),
                share=int(stats.class_px[index]) / valid_px,
                area_m2=None if self.gsd_m is None else int(stats.class_px[index]) * self.gsd_m**2,
            )
            for index, name in enumerate(self._spec.classes)
        )


def _exhaust(chunks: Iterable[Footprints]) -> None:
    for _ in chunks:
        pass


def _tells_metres(grid: GeoGrid) -> bool:
    return grid.crs is not None and grid.gsd_m is not None
