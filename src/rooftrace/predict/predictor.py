"""A loaded model, and what it makes of an image."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rooftrace.core.errors import BundleError
from rooftrace.core.types import Footprints, GeoGrid, Mask, Raster, RasterSource, Window
from rooftrace.engines.base import Engine
from rooftrace.engines.select import load_engine
from rooftrace.io.atomic import replacing
from rooftrace.io.masks import NODATA, MaskSink, MemoryMask, mask_sink
from rooftrace.io.memory import ArraySource
from rooftrace.io.raster import open_raster
from rooftrace.io.vector import write_footprints
from rooftrace.models.bundle import ModelBundle, read_bundle
from rooftrace.predict.preview import Preview
from rooftrace.predict.scene import ScenePlan, plan_scene
from rooftrace.predict.stream import Block, StreamStats, stream
from rooftrace.vector.blocks import BlockPolygonizer
from rooftrace.vector.footprints import make_footprints

if TYPE_CHECKING:
    import geopandas

__all__ = ["OutputPaths", "Prediction", "Predictor", "SceneResult", "Summary", "load"]

Input = str | Path | NDArray[Any] | RasterSource
Progress = Callable[[int, int], None]

SIMPLIFY_PX = 1.25
SMALLEST_PX = 9.0
"""Of the model's pixels: specks below this are no buildings, however sure the network is."""

_POLYGONS_AT_ONCE = 2000

_RELEASE_FROM_PX = 32 * 2**20
"""Beyond so much work for the network, a tenth of a second to compile it anew does not count."""


@dataclass(frozen=True)
class Summary:
    """The figures of one image.

    Args:
        buildings: how many footprints.
        built_up_share: of the valid pixels, those that are building; 0 where none is valid.
        pixels: of the image.
        valid_pixels: of them, those that are not nodata.
        seconds: from the first pixel read to the last file or array made.
        mpx_per_s: millions of the image's pixels per second.
        engine_mpx_per_s: of the pixels that the network was given, by its own time.
        gsd_m: metres per pixel of the image, or None where not known.
        threshold: on the building's probability.
        notes: what was assumed, for the person to see.
    """

    buildings: int
    built_up_share: float
    pixels: int
    valid_pixels: int
    seconds: float
    mpx_per_s: float
    engine_mpx_per_s: float
    gsd_m: float | None
    threshold: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SceneResult:
    """What an image gave besides its mask."""

    footprints: Footprints
    preview: Image.Image
    summary: Summary
    stats: StreamStats = field(repr=False)


@dataclass(frozen=True)
class OutputPaths:
    """Where the files of one image go."""

    mask: Path
    polygons: Path
    preview: Path

    @classmethod
    def of(cls, folder: Path, name: str, grid: GeoGrid) -> OutputPaths:
        """GeoTIFF and GeoPackage where the image lies somewhere, else PNG and GeoJSON in pixels."""
        placed = grid.crs is not None
        has_grid = placed or not grid.transform.is_identity
        return cls(
            mask=folder / f"{name}_mask{'.tif' if has_grid else '.png'}",
            polygons=folder / f"{name}_buildings{'.gpkg' if placed else '.geojson'}",
            preview=folder / f"{name}_preview.png",
        )

    def write(self, result: SceneResult) -> None:
        """Polygons and preview; the mask was written as it came."""
        self.polygons.parent.mkdir(parents=True, exist_ok=True)
        write_footprints(self.polygons, result.footprints)
        with replacing(self.preview) as partial:
            # Level 1 is a third larger and five times as fast.
            result.preview.save(partial, format="PNG", compress_level=1)


@dataclass(frozen=True)
class Prediction:
    """What a model made of one image.

    Args:
        mask: class indices on the image's own grid.
        result: footprints, preview and figures.
        name: what files are called after.
    """

    mask: Mask
    result: SceneResult
    name: str

    @cached_property
    def footprints(self) -> geopandas.GeoDataFrame:
        """Columns id, score, area_m2, geometry; in pixels where the image has no CRS."""
        return self.result.footprints.to_geodataframe()

    @property
    def summary(self) -> Summary:
        return self.result.summary

    def save(self, folder: str | Path) -> OutputPaths:
        """Write NAME_mask, NAME_buildings and NAME_preview, and say where.

        Raises:
            ExportError: the folder cannot be written to.
        """
        paths = OutputPaths.of(Path(folder), self.name, self.mask.grid)
        with mask_sink(paths.mask, self.mask.grid) as sink:
            values = np.where(self.mask.valid, self.mask.data, np.uint8(NODATA))
            sink.write(Window.whole(values.shape), values)
        paths.write(self.result)
        return paths


class Predictor:
    """A model that is ready to run.

    Args:
        bundle: the model.
        engine: that runs it.
    """

    def __init__(self, bundle: ModelBundle, engine: Engine) -> None:
        self.bundle = bundle
        self.engine = engine

    def predict(
        self,
        image: Input,
        *,
        gsd_m: float | None = None,
        threshold: float | None = None,
        min_area_m2: float | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Buildings of one image, with its mask in memory.

        Args:
            image: a path, an array (band, y, x) of pixel values, or a `RasterSource`.
            gsd_m: its metres per pixel, where its georeference does not say or is wrong.
            threshold: on the building's probability; default the model's own.
            min_area_m2: smaller footprints are left out.
            progress: called with the pixels that are done and that there are.

        Raises:
            DataError: the image cannot be read.
            BandMismatch, GsdMismatch: it is not what the model was trained on.
            PredictError: the network failed.
        """
        source = as_source(image)
        memory = MemoryMask(source.grid.shape)
        result = self.run(
            source, memory, gsd_m=gsd_m, threshold=threshold, min_area_m2=min_area_m2,
            progress=progress,
        )  # fmt: skip
        mask = Mask(memory.data, memory.data != NODATA, source.grid)
        return Prediction(mask, result, Path(source.name).stem or "image")

    def predict_mask(
        self, image: Input, *, gsd_m: float | None = None, threshold: float | None = None
    ) -> tuple[Mask, tuple[str, ...]]:
        """The mask of `predict` without outlines and preview, which take most of a small image.

        Returns:
            Class indices on the image's own grid, and notes of what was assumed.

        Raises:
            As `predict`.
        """
        source = as_source(image)
        plan = plan_scene(source, self.bundle.spec, gsd_m=gsd_m)
        memory = MemoryMask(source.grid.shape)
        stream(
            source, self.engine, self.bundle.spec, plan,
            lambda block: memory.write(block.window, block.mask),
            threshold=self.bundle.spec.threshold if threshold is None else threshold,
        )  # fmt: skip
        mask = Mask(memory.data, memory.data != NODATA, source.grid)
        return mask, (plan.scaling.note,) if plan.scaling.note else ()

    def predict_to_files(
        self,
        image: Input,
        folder: Path,
        *,
        name: str | None = None,
        gsd_m: float | None = None,
        threshold: float | None = None,
        min_area_m2: float | None = None,
        progress: Progress | None = None,
    ) -> tuple[OutputPaths, SceneResult]:
        """As `predict`, the mask going to disk as it comes: for images of any size."""
        source = as_source(image)
        paths = OutputPaths.of(folder, name or Path(source.name).stem or "image", source.grid)
        with mask_sink(paths.mask, source.grid) as sink:
            result = self.run(
                source, sink, gsd_m=gsd_m, threshold=threshold, min_area_m2=min_area_m2,
                progress=progress,
            )  # fmt: skip
            paths.write(result)
        return paths, result

    def run(
        self,
        source: RasterSource,
        sink: MaskSink,
        *,
        gsd_m: float | None = None,
        threshold: float | None = None,
        min_area_m2: float | None = None,
        progress: Progress | None = None,
    ) -> SceneResult:
        """Stream an image: its mask to `sink` block by block, the rest as a result."""
        started = time.perf_counter()
        spec = self.bundle.spec
        chosen = spec.threshold if threshold is None else threshold
        plan = plan_scene(source, spec, gsd_m=gsd_m)
        preview = Preview(source.grid, source.bands)
        polygonizer = BlockPolygonizer(source.grid.shape)

        def consume(block: Block) -> None:
            sink.write(block.window, block.mask)
            polygonizer.feed(block.window, block.buildings, block.score)

        def watch(window: Window, raster: Raster) -> None:
            preview.watch(window, raster)

        stats = stream(
            source, self.engine, spec, plan, consume,
            threshold=chosen, watch=watch, progress=progress,
        )  # fmt: skip
        if stats.engine_px > _RELEASE_FROM_PX:
            # Outlines of a large scene need memory too; the two need not add up.
            getattr(self.engine, "release", lambda: None)()
        footprints = self._footprints(polygonizer, source.grid, plan, gsd_m, min_area_m2)
        share = stats.building_px / stats.valid_px if stats.valid_px else 0.0
        own_gsd_m = gsd_m if gsd_m is not None else source.grid.gsd_m
        caption = f"{len(footprints):,} buildings · {share:.1%} built up"
        picture = preview.draw(footprints, caption, own_gsd_m)
        seconds = time.perf_counter() - started
        pixels = source.grid.height * source.grid.width
        summary = Summary(
            buildings=len(footprints),
            built_up_share=share,
            pixels=pixels,
            valid_pixels=stats.valid_px,
            seconds=seconds,
            mpx_per_s=pixels / 1e6 / max(seconds, 1e-9),
            engine_mpx_per_s=stats.engine_px / 1e6 / max(stats.engine_seconds, 1e-9),
            gsd_m=own_gsd_m,
            threshold=chosen,
            notes=(plan.scaling.note,) if plan.scaling.note else (),
        )
        return SceneResult(footprints, picture, summary, stats)

    def _footprints(
        self,
        polygonizer: BlockPolygonizer,
        grid: GeoGrid,
        plan: ScenePlan,
        gsd_m: float | None,
        min_area_m2: float | None,
    ) -> Footprints:
        traced = polygonizer.finish()
        # A mask is as fine as the model sees; on a finer grid its stairs are larger.
        scale_y, scale_x = plan.scaling.scale_yx

        def make(part: slice) -> Footprints:
            return make_footprints(
                traced.polygons[part],
                traced.score[part],
                grid,
                min_area_m2=min_area_m2,
                min_area_px=SMALLEST_PX * scale_y * scale_x,
                simplify_px=SIMPLIFY_PX * max(1.0, scale_y, scale_x),
                gsd_m=gsd_m,
            )

        # Each building is made by itself, and shapely works outside the interpreter's lock.
        parts = [
            slice(first, first + _POLYGONS_AT_ONCE)
            for first in range(0, max(len(traced), 1), _POLYGONS_AT_ONCE)
        ]
        with ThreadPoolExecutor(os.cpu_count(), "footprints") as pool:
            made = list(pool.map(make, parts))
        return Footprints(
            geometry=np.concatenate([part.geometry for part in made]),
            score=np.concatenate([part.score for part in made]),
            area_m2=np.concatenate([part.area_m2 for part in made]),
            crs=grid.crs,
        )


def load(
    path: str | Path | None = None, *, engine: str | None = None, precision: str | None = None
) -> Predictor:
    """A model from a `.rooftrace` file; without one the model that comes with rooftrace.

    Args:
        path: of the bundle.
        engine: `openvino` (default) or `onnxruntime`.
        precision: `fp32`, `bf16` or `int8`; default the fastest that the processor runs well.

    Raises:
        BundleError: the file is damaged, tampered with, or no bundle.
        ConfigError: no such engine or precision.
        MissingExtraError: the engine is not installed.
    """
    bundle = default_bundle() if path is None else read_bundle(Path(path))
    return Predictor(bundle, load_engine(bundle, engine=engine, precision=precision))


def default_bundle() -> ModelBundle:
    """The model that comes with rooftrace."""
    found = resources.files("rooftrace") / "assets" / "default.rooftrace"
    if not found.is_file():
        raise BundleError(
            "This installation of rooftrace has no default model.",
            remedy="Name a .rooftrace file with -m, or install rooftrace from its wheel.",
        )
    with resources.as_file(found) as path:
        return read_bundle(path)


def as_source(image: Input) -> RasterSource:
    """A path or an array as something that is read by window."""
    if isinstance(image, str | Path):
        return open_raster(image)
    if isinstance(image, np.ndarray):
        return ArraySource(image)
    return image
