"""Outputs of one scene: mask, polygons, preview, density and figures, made from its blocks."""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shapely import MultiPolygon

from rooftrace.core.errors import ConfigError, GeoreferenceError
from rooftrace.core.parallel import Workers, prefetched
from rooftrace.core.text import in_python_terms, plain_number, plural
from rooftrace.core.types import Footprints, GeoGrid, Mask, ResultProvenance, Window
from rooftrace.density.accumulate import DensityAccumulator, Measured, measure_buildings
from rooftrace.density.cells import DensityGrid, GroundPlane
from rooftrace.io.area import is_limited
from rooftrace.io.legend import BUILDING_NAMES, NODATA, Legend
from rooftrace.io.masks import MaskSink, mask_sink
from rooftrace.io.picture import source_line, write_png
from rooftrace.io.vector_write import write_footprints
from rooftrace.predict.block import Block, BlockParts, TileStats
from rooftrace.predict.options import NEED_POLYGONS
from rooftrace.predict.plan import AS_FOUND, MIN_SCORE, OUTPUTS, ScenePlan
from rooftrace.predict.preview import Preview, RingMaker, Rings
from rooftrace.vector.assemble import FootprintAssembler, FootprintSet, Refine
from rooftrace.vector.footprints import ValidOutline

if TYPE_CHECKING:
    import geopandas

    from rooftrace.models.clicks import PromptSegmenter

_CHUNK = 4000
"""Number of footprints in a chunk, which are made, drawn, counted and written together."""

_MOST_UNSURE = 0.5
"""Share of the buildings from which a note says that `MIN_SCORE` leaves them out."""

_MIN_CELLS = 3
"""Minimum number of density cells along the longer side of a scene."""


class SceneOutputs(ExitStack):
    """Outputs of one scene: feed all of its blocks in order, then finish. Use it in a `with` block.

    After an error in the `with` block, no half-written files remain.

    Args:
        paths: Paths of the files; None to keep the footprints in `chunks`, and to write no file.
        spill: Folder for polygons that do not fit into memory; default: the system's folder for
            temporary files.
        started: Start time of the work on the scene, by `time.perf_counter`.
        segmenter: Network that refines the outlines of buildings; None to keep those of the model.
        answers: Folder that keeps its answers; None to keep none.
        workers: Workers of a cluster that make outlines, footprints and overviews; default:
            threads.

    Raises:
        ConfigError, GeoreferenceError: As `VectorOptions.check`; or outlines cannot be refined.
    """

    def __init__(
        self,
        plan: ScenePlan,
        paths: OutputPaths | None = None,
        *,
        spill: Path | None = None,
        started: float | None = None,
        segmenter: PromptSegmenter | None = None,
        answers: Path | None = None,
        workers: Workers | None = None,
    ) -> None:
        super().__init__()
        self._started = time.perf_counter() if started is None else started
        self.plan = plan
        self._paths = paths
        self.chunks: list[Footprints] = []
        """Footprints of the scene, without `paths`."""

        self._refine: Refine | None = None
        if segmenter is not None:
            from rooftrace.predict.refine_outlines import OutlineRefiner

            self._refine = OutlineRefiner.of(plan, segmenter, answers).refine
        self._mask: MaskSink | None = None
        source, spec, outputs = plan.source, plan.spec, plan.options.outputs
        self._assembler: FootprintAssembler | None = None
        if not NEED_POLYGONS.isdisjoint(outputs):
            self._assembler = self.enter_context(
                FootprintAssembler(
                    source.grid,
                    range(1, len(spec.classes)),
                    spec.building_class,
                    plan.vector_options,
                    folder=spill,
                    gsd_m=plan.options.gsd_m,
                    calibrate=None if spec.calibration is None else spec.calibration.apply,
                    class_names=() if spec.is_binary else spec.classes,
                    workers=workers,
                )
            )
        self._preview: Preview | None = None
        if "preview" in outputs:
            self._preview = Preview(source.grid, source.bands, source.dtype, spec.legend)
            self.callback(self._preview.close)
        self._density: DensityAccumulator | None = None
        self._no_density = ""
        if "density" in outputs:
            self._density, self._no_density = density_of(plan)
        self._outline: ValidOutline | None = None
        if plan.options.valid_outline or self._assembler is not None:
            self._outline = ValidOutline(source.grid)
        self._found: FootprintSet | None = None
        self._cut = 0
        self._class_px: NDArray[np.int64] = np.zeros(256, dtype=np.int64)
        self._tiles = TileStats()
        self._blocks_resumed = self._pixels_resumed = 0

    def feed(self, block: Block | BlockParts) -> int:
        """Add the next block, or what another process has made of it.

        Returns:
            Number of buildings found so far.
        """
        plan = self.plan
        if self._mask is None and self._paths is not None and "mask" in plan.options.outputs:
            # Not before the first block: an image that cannot be read leaves no file.
            self._mask = self.enter_context(
                mask_sink(self._paths.mask, plan.source.grid, plan.spec.legend, plan.mask_tags)
            )
        if self._mask is not None:
            mask = block.mask
            if isinstance(mask, bytes):
                mask = np.frombuffer(zlib.decompress(mask), np.uint8).reshape(block.window.shape_yx)
            self._mask.write(block.window, mask)
        self._class_px += block.count
        self._tiles = self._tiles.plus(block.tiles)
        if block.resumed:
            self._blocks_resumed += 1
            self._pixels_resumed += block.window.area_px
        if self._preview is not None and block.thumbnail is not None:
            whole = self._preview.thumbnail
            samples = whole.part(block.window)
            whole.pixels[samples], whole.valid[samples] = block.thumbnail
        assembler = self._assembler
        if isinstance(block, BlockParts):
            if self._density is not None and block.density is not None:
                self._density.add_counts(block.density)
            if assembler is not None and block.outlines is not None:
                assembler.feed_outlines(block.outlines)
            if self._outline is not None:
                self._outline.add(block.window, block.valid)
        else:
            if self._density is not None and not block.is_empty:
                self._density.feed(block.window, block.mask)
            if assembler is not None:
                classes = np.flatnonzero(block.count).tolist()
                assembler.feed(block.window, block.mask, block.score, classes)
            if self._outline is not None:
                self._outline.feed(block.window, block.mask)
        return 0 if assembler is None else assembler.found

    def parts(self, block: Block) -> BlockParts:
        """Return the part of `feed` that depends on one block alone; any machine may do it."""
        plan, window, mask = self.plan, block.window, block.mask
        return BlockParts(
            window, block.count,
            zlib.compress(mask.tobytes(), 1) if "mask" in plan.options.outputs else b"",
            None if self._assembler is None else block.traced(self._assembler.tracing),
            None if self._density is None else self._density.count(window, mask),
            None if self._outline is None else self._outline.trace(window, mask),
            thumbnail=block.thumbnail, tiles=block.tiles,
        )  # fmt: skip

    def finish(self) -> SceneResult:
        """Make and write the outputs that need all blocks."""
        with ThreadPoolExecutor(1, "mask") as pool:
            copying = None
            if len(self.plan.blocks) > 1 and self._mask is not None:
                # The mask of several blocks is put in order meanwhile.
                copying = pool.submit(self._mask.finish)
            if self._assembler is not None:
                footprints = self._found = self.enter_context(self._assembler.finish(self._refine))
                # Polygons, preview and density share one pass: making footprints takes longest.
                chunks = self._footprints(footprints)
                # Starting a thread takes longer than the one chunk of a small image.
                if len(footprints) > _CHUNK:
                    chunks = self.enter_context(closing(prefetched(chunks, 1, "footprints")))
                if self._paths is None:
                    self.chunks.extend(chunks)
                elif "polygons" in self.plan.options.outputs:
                    self._paths.polygons.parent.mkdir(parents=True, exist_ok=True)
                    write_footprints(self._paths.polygons, chunks, legend=self.plan.spec.legend)
                else:
                    deque(chunks, 0)
            result = self._result()
            if self._paths is not None:
                self._paths.write(result)
            if copying is not None:
                copying.result()
        return result

    def footprints(self) -> Footprints:
        """Return all footprints of a finished scene without `paths`."""
        if self.chunks:
            chunks = self.chunks
            return chunks[0] if len(chunks) == 1 else Footprints.joined(chunks)
        empty = np.zeros(0)
        crs = self.plan.source.grid.crs
        return Footprints(empty.astype(np.object_), empty.astype(np.float32), empty, crs)

    def _footprints(self, found: FootprintSet) -> Generator[Footprints, None, None]:
        """Yield the footprints in chunks, each after it was drawn and counted."""
        assert self._outline is not None
        make = _ChunkMaker(
            self.plan.provenance,
            self.plan.spec.building_class,
            None if self._density is None else self._density.ground,
            None if self._preview is None else self._preview.rings,
        )
        for footprints, measured, rings in found.made_of_chunks(make, _CHUNK):
            if self._density is not None and measured is not None:
                self._density.measured.append(measured)
            if self._preview is not None:
                self._preview.paint(rings)
            cut = self._outline.cuts(footprints.geometry)
            self._cut += int(cut.sum())
            yield replace(footprints, cut=cut)

    def _result(self) -> SceneResult:
        plan, found, tiles = self.plan, self._found, self._tiles
        gsd_m, valid_px = plan.gsd_m, int(self._class_px[:NODATA].sum())
        classes = tuple(
            ClassFigures(
                name=name,
                class_id=index,
                polygons=0 if found is None else found.counts.get(index, 0),
                pixels=(pixels := int(self._class_px[index])),
                share=pixels / max(valid_px, 1),
                area_m2=None if gsd_m is None else pixels * gsd_m**2,
            )
            for index, name in enumerate(plan.spec.classes)
        )
        building = classes[plan.spec.building_class]
        picture, credit = None, plan.provenance.credit()
        if self._preview is not None:
            caption = figures_text(plan.spec.classes, building.polygons, building.share, " · ")
            picture = self._preview.draw([one.share for one in classes], caption, gsd_m, credit)
        density = None if self._density is None else self._density.finish()
        seconds = time.perf_counter() - self._started
        pixels = plan.source.grid.height * plan.source.grid.width
        summary = PredictionSummary(
            buildings=building.polygons, built_up_share=building.share, pixels=pixels,
            valid_pixels=valid_px, seconds=seconds,
            mpx_per_s=(pixels - self._pixels_resumed) / 1e6 / max(seconds, 1e-9),
            engine_mpx_per_s=tiles.engine_px / 1e6 / max(tiles.engine_seconds, 1e-9), gsd_m=gsd_m,
            threshold=plan.threshold, classes=classes,
            regularized=None if found is None else found.regularized,
            refined=None if found is None else found.refined, blocks_resumed=self._blocks_resumed,
            pixels_resumed=self._pixels_resumed, tiles_failed=tiles.tiles_failed,
            notes=self._notes(building.polygons, valid_px),
            values=getattr(plan.source, "record", None),
        )  # fmt: skip
        outline = None
        if plan.options.valid_outline and self._outline is not None:
            outline = self._outline.finish()
        return SceneResult(picture, summary, tiles, density, outline, credit)

    def _notes(self, buildings: int, valid_px: int) -> tuple[str, ...]:
        """Return the notes of the plan and those of its results."""
        plan, tiles, name = self.plan, self._tiles, self.plan.source.name
        notes = [*plan.notes]
        if self._no_density and (_is_density_asked(plan) or plan.contradicts_georeference):
            notes.append(f"{name}: no density was made: {self._no_density}.")
        if tiles.tiles_failed:
            failed = plural(tiles.tiles_failed, "tile")
            notes.append(f"{name}: {failed} failed and became nodata, see run.json.")
        elif tiles.images_lost:
            which = f": {tiles.errors[0]}" if tiles.errors else "."
            lost = plural(tiles.images_lost, "image")
            notes.append(f"{name}: {lost} could not be read and became nodata, see run.json{which}")
        elif not valid_px:
            notes.append(
                f"{name}: no pixel has a value (all are nodata, or outside of the area), so "
                "nothing was predicted."
            )
        if self._cut and is_limited(plan.source):
            cut = plural(self._cut, "polygon is", "polygons are")
            notes.append(
                f"{name}: {cut} cut by the edge of the area or of the image (column cut), and "
                "counted as they are."
            )
        unsure = 0.0 if self._found is None else self._found.unsure_share
        if unsure > _MOST_UNSURE and plan.options.min_score is None:
            notes.append(
                f"{name}: most of what the mask has as building has a score below {MIN_SCORE}, and "
                "is not among the polygons: --min-score 0 keeps it."
            )
        if self._found is not None and self._found.refined is not None:
            count = plural(buildings, "building")
            notes.append(f"{name}: the outlines of {self._found.refined} of {count} were refined.")
        return tuple(notes)


_Chunk = tuple[Footprints, Measured | None, Sequence[Rings]]
"""Some footprints, their measures for the density, and their outlines for the preview."""


@dataclass(frozen=True)
class _ChunkMaker:
    """Makes the chunks of a scene from footprints, in any process.

    Buildings are measured on `ground` for the density, and `draw` makes outlines for the preview.
    """

    provenance: ResultProvenance
    building_class: int
    ground: GroundPlane | None
    draw: RingMaker | None

    def __call__(self, footprints: Footprints) -> _Chunk:
        footprints = replace(footprints, provenance=self.provenance)
        measured = None
        if self.ground is not None:
            buildings = footprints.of_class(self.building_class)
            measured = measure_buildings(self.ground.reproject(buildings.geometry, buildings.crs))
        rings = () if self.draw is None else self.draw(footprints)
        return footprints, measured, rings


def density_of(plan: ScenePlan) -> tuple[DensityAccumulator | None, str]:
    """Return the density of a scene, still empty; where none can be made, None and the reason.

    Cells lie on the ground, so that the georeference counts, also where `--gsd` contradicts it.

    Raises:
        ConfigError: The user asked for a density whose cells are too many.
    """
    grid, cell_m = plan.source.grid, plan.options.cell_m
    own_m = grid.gsd_m
    gsd_m = plan.options.gsd_m if own_m is None else own_m
    if gsd_m is None:
        return None, "its metres per pixel are not known; give them with --gsd"
    measured = ""
    if plan.contradicts_georeference:
        measured = f" by its georeference, which says {own_m:.3g} m per pixel"
    if max(grid.shape) * gsd_m < _MIN_CELLS * cell_m:
        reason = f"it is less than {_MIN_CELLS} cells of {cell_m:g} m long"
        return None, f"{reason}{measured}; choose smaller cells with --cell"
    if cell_m < 2 * max(grid.gsd_yx_m or (gsd_m,)):
        reason = f"cells of {cell_m:g} m are less than two pixels wide"
        return None, f"{reason}{measured}; choose larger cells with --cell"
    try:
        accumulator = DensityAccumulator(
            grid,
            cell_m,
            building_class=plan.spec.building_class,
            gsd_m=gsd_m if own_m is None else None,
            name=plan.source.name,
        )
    except (ConfigError, GeoreferenceError) as error:
        if isinstance(error, ConfigError) and _is_density_asked(plan):
            raise
        return None, error.message.removesuffix(".")
    return accumulator, ""


def _is_density_asked(plan: ScenePlan) -> bool:
    """Return True if the user chose outputs or cells; by default it is made where it can be."""
    options = plan.options
    return "density" in options.outputs and (
        options.outputs != OUTPUTS or options.cell_m != AS_FOUND.cell_m
    )


@dataclass(frozen=True)
class ClassFigures:
    """Amount of one class in an image.

    Args:
        class_id: Index of the class in the mask.
        polygons: Number of polygons above the minimum area; 0 for the background.
        pixels: Number of pixels in the mask.
        share: Share of the class in the valid pixels; 0 if none is valid.
        area_m2: Area of the class's pixels, each as large as the pixel at the image's centre; None
            if the metres per pixel are unknown.
    """

    name: str
    class_id: int
    polygons: int
    pixels: int
    share: float
    area_m2: float | None


def figures_text(
    classes: Sequence[str], count: int | None, share: float, between: str = ", "
) -> str:
    """Return the figures of an image for people, such as `3 buildings, 12.0% built up`.

    Args:
        classes: Names of the classes; of two, the second one is what is counted.
    """
    name = classes[1] if len(classes) == 2 else BUILDING_NAMES[0]
    known = name.casefold() in BUILDING_NAMES
    counted = () if count is None else (plural(count, "building" if known else f"{name} polygon"),)
    return between.join((*counted, f"{share:.1%} {'built up' if known else name}"))


@dataclass(frozen=True)
class PredictionSummary:
    """Figures of the prediction of one image.

    Args:
        buildings: Number of footprints of the building class.
        built_up_share: Share of building pixels in the valid pixels; 0 if none is valid.
        pixels: Number of pixels of the image.
        valid_pixels: Number of pixels that are not nodata.
        seconds: Time in seconds from the first pixel read to the last file or array made, without
            the time before the previous image of a run was finished.
        mpx_per_s: Megapixels per second over the blocks that this run predicted.
        engine_mpx_per_s: Megapixels that the network received per second of its own time.
        gsd_m: Metres per pixel of the image; None if unknown.
        threshold: Threshold on the building probability; None if the most probable class is taken.
        classes: Figures of each class, in the order of the class indices.
        regularized: Number of building footprints with a regular outline; None without polygons.
        refined: Number of building footprints whose outline another network has refined; None if
            none was to be refined.
        blocks_resumed, pixels_resumed: Numbers of blocks and of their pixels that an earlier run
            finished.
        tiles_failed: Number of tiles that failed and became nodata.
        notes: Assumptions that the person should know.
        values: Bands that were read and the stretch of their values, see `PreparedSource.record`;
            None if the image was prepared elsewhere.
    """

    buildings: int
    built_up_share: float
    pixels: int
    valid_pixels: int
    seconds: float
    mpx_per_s: float
    engine_mpx_per_s: float
    gsd_m: float | None
    threshold: float | None
    classes: tuple[ClassFigures, ...]
    regularized: int | None = None
    refined: int | None = None
    blocks_resumed: int = 0
    pixels_resumed: int = 0
    tiles_failed: int = 0
    notes: tuple[str, ...] = ()
    values: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        # Not `asdict`, which copies every value and takes as long as a small mask.
        return vars(self) | {"classes": tuple(vars(one).copy() for one in self.classes)}


@dataclass(frozen=True)
class SceneResult:
    """Results of an image other than its mask and its footprints.

    Args:
        preview: Preview picture; None if it was not requested.
        summary: Figures of the prediction.
        tiles: Statistics of the tiles.
        density: Built-up density by cell; None if it was not requested, if the metres per pixel are
            unknown, or if the image is small.
        outline: Outline of the valid pixels, a multipolygon in the image's CRS; None if it was not
            requested.
        credit: Attribution and date of the imagery, for pictures.
    """

    preview: Image.Image | None
    summary: PredictionSummary
    tiles: TileStats = field(repr=False)
    density: DensityGrid | None = None
    outline: MultiPolygon | None = None
    credit: str = ""


@dataclass(frozen=True)
class OutputPaths:
    """Paths at which the outputs of one image are written, whichever it has."""

    mask: Path
    polygons: Path
    preview: Path
    density: Path
    """Raster of the density; its polygons and picture have the same name, `.gpkg` and `.png`."""

    @classmethod
    def of(cls, folder: Path, name: str, grid: GeoGrid, legend: Legend) -> OutputPaths:
        """Return the paths: GeoTIFF and GeoPackage for georeferenced images, else PNG and GeoJSON.

        GeoJSON of an image without a CRS has pixel coordinates. The file of polygons is named
        "buildings" if there is no other class. The mask of a very wide image is a TIFF, because a
        PNG is written in rows of its whole width.
        """
        placed = grid.crs is not None
        has_grid = placed or not grid.transform.is_identity or grid.width > _WIDEST_PNG_PX
        kind = "buildings" if len(legend.names) == 2 else "polygons"
        return cls(
            mask=folder / f"{name}_mask{'.tif' if has_grid else '.png'}",
            polygons=folder / f"{name}_{kind}{'.gpkg' if placed else '.geojson'}",
            preview=folder / f"{name}_preview.png",
            density=folder / f"{name}_density.tif",
        )

    def of_result(self, result: SceneResult, outputs: Collection[str]) -> OutputFiles:
        """Return the files that were written for the outputs of a scene's options."""
        return OutputFiles(
            mask=self.mask if "mask" in outputs else None,
            polygons=self.polygons if "polygons" in outputs else None,
            preview=None if result.preview is None else self.preview,
            density=None if result.density is None else self.density,
        )

    def write(self, result: SceneResult) -> None:
        """Write preview and density; mask and polygons are written during the prediction."""
        if result.preview is not None:
            write_png(self.preview, result.preview, photograph=True)
        if result.density is not None:
            from rooftrace.density.files import DEFAULT_THRESHOLD, write_density

            stem = self.density.with_suffix("")
            title = stem.name.removesuffix("_density")
            source = source_line("", result.credit)
            write_density(stem, result.density, DEFAULT_THRESHOLD, title, source)


@dataclass(frozen=True)
class OutputFiles:
    """Files that were written for one image, see `OutputPaths`; None for an output it has not."""

    mask: Path | None
    polygons: Path | None
    preview: Path | None
    density: Path | None


_WIDEST_PNG_PX = 20_000
"""Maximum width of a mask in pixels that is written as PNG."""


@dataclass(frozen=True, repr=False)
class Prediction:
    """Prediction of one image.

    Args:
        mask: Class indices on the image's own grid, 255 where nodata; `np.asarray` takes it.
        outlines: Polygons of the buildings, or of all classes.
        result: Preview, density and figures.
        name: First part of the file names.
        legend: Legend of the mask.
        tags: Tags of the mask, see `MaskRecord`.
        score: (y, x) probabilities in 255ths, see `Block`; None if they were not kept.
    """

    mask: Mask
    outlines: Footprints
    result: SceneResult
    name: str
    legend: Legend
    tags: Mapping[str, str] = field(default_factory=dict)
    score: NDArray[np.uint8] | None = None

    def __repr__(self) -> str:
        summary, (rows, cols) = self.summary, self.mask.shape
        scale = "" if summary.gsd_m is None else f", {plain_number(summary.gsd_m)} m per pixel"
        notes = f"; {plural(len(summary.notes), 'note')} in summary.notes" if summary.notes else ""
        names = [one.name for one in summary.classes]
        return (
            f"<Prediction of {self.name!r}: "
            f"{figures_text(names, summary.buildings, summary.built_up_share)}, "
            f"{rows} × {cols} px{scale}{notes}>"
        )

    def _repr_html_(self) -> str:
        from rooftrace.predict.notebook import html_of

        return html_of(self)

    def _repr_png_(self) -> bytes | None:
        from rooftrace.predict.notebook import picture_of

        return picture_of(self, "PNG")

    def map(self) -> Any:
        """Return an interactive map of the footprints, for a notebook; see `notebook.map_of`."""
        from rooftrace.predict.notebook import map_of

        return map_of(self)

    @property
    def probability(self) -> NDArray[np.float32]:
        """Probabilities (y, x), 0..1, NaN where nodata: of building, or of the pixel's own class if
        there are several classes.

        Raises:
            ConfigError: They were not kept, because `on_block` received them.
        """
        if self.score is None:
            raise ConfigError(
                f"The probabilities of {self.name} were not kept: on_block received them.",
                remedy="Take them from the blocks, or predict without on_block.",
            )
        share = self.score.astype(np.float32) / np.float32(255)
        return np.where(self.mask.valid, share, np.float32("nan"))

    @cached_property
    def footprints(self) -> geopandas.GeoDataFrame:
        """Footprints with the columns of `Footprints.columns`; in pixels without a CRS."""
        return self.outlines.to_geodataframe()

    @cached_property
    def summary(self) -> PredictionSummary:
        """Figures, with notes in the words of Python."""
        summary = self.result.summary
        return replace(summary, notes=tuple(map(in_python_terms, summary.notes)))

    def save(self, folder: str | Path, name: str | None = None) -> OutputFiles:
        """Write the files that `rooftrace predict` writes, `NAME_mask` and so on.

        Args:
            folder: Folder of the files; those of an earlier result of this name are replaced.
            name: First part of the file names; default that of the image, `array` for an array.

        Returns:
            Files that were written.

        Raises:
            ConfigError: The name is not that of a file.
            ExportError: The folder cannot be written to.
        """
        if name is not None and Path(name).name != name:
            raise ConfigError(
                f"The name of a result is {name!r}; expected one without a folder.",
                remedy='Give the folder by itself: save("out", name="scene").',
            )
        name = self.name if name is None else name
        paths = OutputPaths.of(Path(folder), name, self.mask.grid, self.legend)
        outputs = ["mask"] if self.summary.regularized is None else ["mask", "polygons"]
        self.write_mask(paths.mask)
        if "polygons" in outputs:
            write_footprints(paths.polygons, self.outlines, legend=self.legend)
        paths.write(self.result)
        return paths.of_result(self.result, outputs)

    def write_mask(self, path: str | Path) -> None:
        """Write the mask alone, as a GeoTIFF or a PNG.

        Raises:
            ExportError: The file cannot be written.
        """
        with mask_sink(Path(path), self.mask.grid, self.legend, self.tags) as sink:
            values = np.where(self.mask.valid, self.mask.data, np.uint8(NODATA))
            sink.write(Window.whole(values.shape), values)
