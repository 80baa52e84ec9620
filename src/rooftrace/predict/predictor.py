"""A loaded model, and what it makes of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.core.types import Footprints, Mask, RasterSource
from rooftrace.engines.base import Engine
from rooftrace.engines.select import load_engine
from rooftrace.io.masks import NODATA, MaskSink, MemoryMask, NoMask, mask_sink
from rooftrace.io.memory import ArraySource
from rooftrace.io.raster import open_raster
from rooftrace.models.artefact import read_model
from rooftrace.models.bundle import ModelBundle, read_bundle
from rooftrace.models.spec import Output
from rooftrace.predict.block import Block
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.parts import PartStore
from rooftrace.predict.passage import SceneStream
from rooftrace.predict.result import OutputPaths, Prediction, SceneResult
from rooftrace.predict.scene import plan_scene
from rooftrace.predict.stream import run_streams, stream
from rooftrace.predict.work import OpenSink, SceneWork

__all__ = ["Predictor", "load"]

Input = str | Path | NDArray[Any] | RasterSource

Progress = Callable[[int, int, int], None]
"""Called with the pixels that are done, that there are, and the buildings that were found."""


class Predictor:
    """A model that is ready to run.

    Args:
        bundle: the model.
        engine: that runs it.
    """

    def __init__(self, bundle: ModelBundle, engine: Engine) -> None:
        self.bundle = bundle
        self.engine = engine
        self._legend = bundle.spec.legend

    def predict(
        self,
        image: Input,
        *,
        gsd_m: float | None = None,
        threshold: float | None = None,
        min_area_m2: float | None = None,
        options: SceneOptions | None = None,
        progress: Progress | None = None,
        on_block: Callable[[Block], None] | None = None,
    ) -> Prediction:
        """Buildings of one image, with its mask in memory.

        Args:
            image: a path, an array (band, y, x) of pixel values, or a `RasterSource`.
            gsd_m: its metres per pixel, where its georeference does not say or is wrong.
            threshold: on the building's probability; default the model's own.
            min_area_m2: smaller footprints are left out.
            options: these three and all others, in place of them.
            progress: see `Progress`.
            on_block: called with every block as it is finished, for what is in none of the
                results: the probabilities.

        Raises:
            ConfigError: a threshold for a model of more than two classes.
            DataError: the image cannot be read.
            BandMismatch, GsdMismatch: it is not what the model was trained on.
            PredictError: the network failed.
        """
        source = as_source(image)
        options = options or SceneOptions(gsd_m=gsd_m, threshold=threshold, min_area_m2=min_area_m2)
        memory = MemoryMask(source.grid.shape)
        found: list[Footprints] = []

        @contextmanager
        def kept() -> Iterator[MaskSink]:
            yield memory

        writers = found.extend, lambda _: None
        result = self._alone(source, options, kept, writers, progress, on_block)
        mask = Mask(memory.data, memory.data != NODATA, source.grid)
        name = Path(source.name).stem or "image"
        outlines = Footprints.joined(found) if found else _none(source)
        return Prediction(mask, outlines, result, name, self._legend)

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
        options: SceneOptions | None = None,
        progress: Progress | None = None,
    ) -> tuple[OutputPaths, SceneResult]:
        """As `predict`, the mask going to disk as it comes: for images of any size."""
        source = as_source(image)
        options = options or SceneOptions()
        paths = self.paths_for(source, folder, name or Path(source.name).stem or "image")
        result = self._alone(
            source, options, self.sink_for(source, paths, options), paths.writers(options), progress
        )
        return paths, result

    def paths_for(self, source: RasterSource, folder: Path, name: str) -> OutputPaths:
        """Where the results of an image go."""
        return OutputPaths.of(folder, name, source.grid, self._legend)

    def sink_for(self, source: RasterSource, paths: OutputPaths, options: SceneOptions) -> OpenSink:
        """What writes the mask of an image, where one is wanted."""
        if "mask" not in options.outputs:
            return lambda: nullcontext(NoMask())
        return lambda: mask_sink(paths.mask, source.grid, self._legend)

    def start(
        self,
        source: RasterSource,
        options: SceneOptions,
        open_sink: OpenSink,
        *,
        parts: PartStore | None = None,
        folder: Path | None = None,
        on_block: Callable[[SceneWork, Block], None] | None = None,
        close: Callable[[SceneStream], None] | None = None,
    ) -> tuple[SceneStream, SceneWork]:
        """A scene that is ready for `run_streams`, and what it becomes meanwhile.

        Args:
            source: the image.
            options: what was chosen.
            open_sink, folder, on_block: see `SceneWork`.
            parts, close: see `SceneStream`.

        Raises:
            As `predict`, what can be told before a pixel is read.
        """
        threshold = self.threshold_for(options.threshold)
        spec = self.bundle.spec
        work = SceneWork(
            source, spec, options, threshold, open_sink, folder=folder, on_block=on_block
        )
        scene = SceneStream(
            source, spec, work.plan, work.consume, threshold=threshold, glance=work.preview,
            parts=parts, forgiving=options.forgiving, close=close, tracing=work.tracing,
        )  # fmt: skip
        return scene, work

    def _alone(
        self,
        source: RasterSource,
        options: SceneOptions,
        open_sink: OpenSink,
        writers: tuple[
            Callable[[Iterable[Footprints]], object] | None, Callable[[SceneResult], None]
        ],
        progress: Progress | None,
        on_block: Callable[[Block], None] | None = None,
    ) -> SceneResult:
        """One scene from beginning to end."""
        done_px = 0

        def tell(work: SceneWork, block: Block) -> None:
            nonlocal done_px
            done_px += block.window.area_px
            if on_block is not None:
                on_block(block)
            if progress is not None:
                progress(done_px, source.grid.height * source.grid.width, work.buildings)

        scene, work = self.start(source, options, open_sink, on_block=tell)
        try:
            run_streams([scene], self.engine)
            if scene.error is not None:
                raise scene.error
        except BaseException as error:
            work.abandon(error)
            raise
        return work.finish(scene.stats, *writers)

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


def load(
    path: str | Path | None = None,
    *,
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> Predictor:
    """A model from a `.rooftrace` file or an exported one; without one the model that comes with
    rooftrace.

    Args:
        path: of the bundle, or of what `rooftrace export` made of one.
        engine: one of `engines.select.ENGINES`; default `openvino`, where it takes the file.
        precision: `fp32`, `bf16`, `fp16` or `int8`; default the fastest that the machine runs well.
        output: `coarse` is what the segmenter of a refined model says without its refiner.

    Raises:
        BundleError: the file is damaged, tampered with, or no bundle.
        ConfigError: no such engine or precision; the model has no such output.
        MissingExtraError: the engine is not installed.
    """
    bundle = default_bundle() if path is None else read_model(Path(path))
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


def _none(source: RasterSource) -> Footprints:
    none = np.zeros(0)
    return Footprints(none.astype(np.object_), none.astype(np.float32), none, source.grid.crs)


def as_source(image: Input) -> RasterSource:
    """A path or an array as something that is read by window."""
    if isinstance(image, str | Path):
        return open_raster(image)
    if isinstance(image, np.ndarray):
        return ArraySource(image)
    return image
