"""A loaded model, and what it makes of an image."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.core.types import Footprints, GeoGrid, Mask, RasterSource
from rooftrace.engines.base import Engine
from rooftrace.engines.select import load_engine
from rooftrace.io.masks import NODATA, MaskSink, MemoryMask, mask_sink
from rooftrace.io.memory import ArraySource
from rooftrace.io.raster import open_raster
from rooftrace.models.bundle import ModelBundle, read_bundle
from rooftrace.models.spec import Output
from rooftrace.predict.block import Block
from rooftrace.predict.preview import Preview
from rooftrace.predict.result import (
    ClassFigures,
    OutputPaths,
    Prediction,
    SceneResult,
    Summary,
)
from rooftrace.predict.scene import ScenePlan, plan_scene
from rooftrace.predict.stream import StreamStats, stream
from rooftrace.vector.blocks import BlockPolygonizer
from rooftrace.vector.classes import ClassPolygonizer
from rooftrace.vector.footprints import make_footprints
from rooftrace.vector.polygonize import TracedPolygons
from rooftrace.vector.separate import SMALLEST_CORE_PX, separate

__all__ = ["Predictor", "load"]

Input = str | Path | NDArray[Any] | RasterSource
Progress = Callable[[int, int], None]

SIMPLIFY_PX = 1.25
SMALLEST_PX = 9.0
"""Of the model's pixels: specks below this are no buildings, however sure the network is."""

_POLYGONS_AT_ONCE = 2000

_RELEASE_FROM_PX = 32 * 2**20
"""Beyond so much work for the network, a tenth of a second to compile it anew does not count."""


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
            ConfigError: a threshold for a model of more than two classes.
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
        name = Path(source.name).stem or "image"
        return Prediction(mask, result, name, self.bundle.spec.legend)

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
            threshold=self.threshold_for(threshold),
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
        legend = self.bundle.spec.legend
        name = name or Path(source.name).stem or "image"
        paths = OutputPaths.of(folder, name, source.grid, legend)
        with mask_sink(paths.mask, source.grid, legend) as sink:
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
        chosen = self.threshold_for(threshold)
        plan = plan_scene(source, spec, gsd_m=gsd_m)
        preview = Preview(source.grid, source.bands)
        polygonizer = ClassPolygonizer(source.grid.shape, range(1, len(spec.classes)))
        cores = BlockPolygonizer(source.grid.shape)

        total_px = source.grid.height * source.grid.width
        done_px = 0

        def consume(block: Block) -> None:
            nonlocal done_px
            sink.write(block.window, block.mask)
            occurring = np.flatnonzero(block.count).tolist()
            polygonizer.feed(block.window, block.mask, block.score, occurring)
            if block.cores is not None:
                cores.feed(block.window, block.cores, block.score)
            done_px += block.window.area_px
            if progress is not None:
                progress(done_px, total_px)

        stats = stream(source, self.engine, spec, plan, consume, threshold=chosen, glance=preview)
        if stats.engine_px > _RELEASE_FROM_PX:
            # Outlines of a large scene need memory too; the two need not add up.
            getattr(self.engine, "release", lambda: None)()
        traced = polygonizer.finish()
        if spec.separation is not None:
            traced[spec.building_class] = separate(
                traced[spec.building_class],
                cores.finish(),
                smallest_px=_in_source_px(SMALLEST_CORE_PX, plan),
            )
        footprints = self._footprints(traced, source.grid, plan, gsd_m, min_area_m2)
        own_gsd_m = gsd_m if gsd_m is not None else source.grid.gsd_m
        classes = self._figures(stats, footprints, own_gsd_m)
        building = classes[spec.building_class]
        caption = f"{building.polygons:,} buildings · {building.share:.1%} built up"
        if spec.is_binary:
            picture = preview.draw(footprints, caption, own_gsd_m)
        else:
            shares = [one.share for one in classes]
            picture = preview.draw_classes(footprints, spec.legend, shares, caption, own_gsd_m)
        seconds = time.perf_counter() - started
        pixels = source.grid.height * source.grid.width
        summary = Summary(
            buildings=building.polygons,
            built_up_share=building.share,
            pixels=pixels,
            valid_pixels=stats.valid_px,
            seconds=seconds,
            mpx_per_s=pixels / 1e6 / max(seconds, 1e-9),
            engine_mpx_per_s=stats.engine_px / 1e6 / max(stats.engine_seconds, 1e-9),
            gsd_m=own_gsd_m,
            threshold=chosen,
            classes=classes,
            notes=(plan.scaling.note,) if plan.scaling.note else (),
        )
        return SceneResult(footprints, picture, summary, stats)

    def threshold_for(self, threshold: float | None) -> float | None:
        """What decides on the building's probability; None where the most probable class does.

        Args:
            threshold: as the person gave it; None for the model's own.

        Raises:
            ConfigError: one was given, and the model has more than two classes.
        """
        spec = self.bundle.spec
        if spec.is_binary:
            return spec.threshold if threshold is None else threshold
        if threshold is not None:
            raise ConfigError(
                f"A threshold of {threshold:g} was given, but the model {spec.name!r} has "
                f"{len(spec.classes)} classes, of which each pixel takes the most probable.",
                remedy="Leave the threshold out.",
            )
        return None

    def _figures(
        self, stats: StreamStats, footprints: Footprints, gsd_m: float | None
    ) -> tuple[ClassFigures, ...]:
        spec = self.bundle.spec
        valid_px = max(stats.valid_px, 1)
        ids = footprints.class_id
        ids = np.full(len(footprints), spec.building_class) if ids is None else ids
        polygons = np.bincount(ids, minlength=len(spec.classes))
        return tuple(
            ClassFigures(
                name=name,
                class_id=index,
                polygons=int(polygons[index]),
                pixels=int(stats.class_px[index]),
                share=int(stats.class_px[index]) / valid_px,
                area_m2=None if gsd_m is None else int(stats.class_px[index]) * gsd_m**2,
            )
            for index, name in enumerate(spec.classes)
        )

    def _footprints(
        self,
        traced: dict[int, TracedPolygons],
        grid: GeoGrid,
        plan: ScenePlan,
        gsd_m: float | None,
        min_area_m2: float | None,
    ) -> Footprints:
        # A mask is as fine as the model sees; on a finer grid its stairs are larger.
        scale_y, scale_x = plan.scaling.scale_yx

        def make(own: TracedPolygons, part: slice) -> Footprints:
            return make_footprints(
                own.polygons[part],
                own.score[part],
                grid,
                min_area_m2=min_area_m2,
                min_area_px=_in_source_px(SMALLEST_PX, plan),
                simplify_px=SIMPLIFY_PX * max(1.0, scale_y, scale_x),
                gsd_m=gsd_m,
            )

        # Each polygon is made by itself, and shapely works outside the interpreter's lock.
        with ThreadPoolExecutor(os.cpu_count(), "footprints") as pool:
            making = [
                (index, pool.submit(make, own, slice(first, first + _POLYGONS_AT_ONCE)))
                for index, own in traced.items()
                for first in range(0, max(len(own), 1), _POLYGONS_AT_ONCE)
            ]
            made = [(index, future.result()) for index, future in making]
        spec = self.bundle.spec
        ids = [np.full(len(part), index, dtype=np.uint8) for index, part in made]
        return Footprints(
            geometry=np.concatenate([part.geometry for _, part in made]),
            score=np.concatenate([part.score for _, part in made]),
            area_m2=np.concatenate([part.area_m2 for _, part in made]),
            crs=grid.crs,
            class_id=None if spec.is_binary else np.concatenate(ids),
            classes=() if spec.is_binary else spec.classes,
        )


def _in_source_px(area_px: float, plan: ScenePlan) -> float:
    """An area in the model's pixels in those of the source."""
    scale_y, scale_x = plan.scaling.scale_yx
    return area_px * scale_y * scale_x


def load(
    path: str | Path | None = None,
    *,
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> Predictor:
    """A model from a `.rooftrace` file; without one the model that comes with rooftrace.

    Args:
        path: of the bundle.
        engine: `openvino` (default) or `onnxruntime`.
        precision: `fp32`, `bf16` or `int8`; default the fastest that the processor runs well.
        output: `coarse` is what the segmenter of a refined model says without its refiner.

    Raises:
        BundleError: the file is damaged, tampered with, or no bundle.
        ConfigError: no such engine or precision; the model has no such output.
        MissingExtraError: the engine is not installed.
    """
    bundle = default_bundle() if path is None else read_bundle(Path(path))
    built = load_engine(bundle, engine=engine, precision=precision, output=output)
    return Predictor(bundle.giving(output), built)


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
