"""Loaded model that predicts images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReaderBase

from rooftrace.core.errors import BundleError, ConfigError, DataError, PredictError
from rooftrace.core.types import GeoGrid, Mask, RasterSource
from rooftrace.engines.base import Engine
from rooftrace.io.georeferenced import ArraySource, close_source
from rooftrace.io.image_header import BandInfo
from rooftrace.io.legend import NODATA
from rooftrace.io.nodata import differs
from rooftrace.io.raster import OpenDataset, open_image
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import BundleSpec, Output, Tta
from rooftrace.predict.plan import SceneOptions, ScenePlan, plan_scene

# What an image needs is imported with the first one, and not before a model is loaded.
if TYPE_CHECKING:
    from rooftrace.models.clicks import PromptSegmenter
    from rooftrace.predict.block import Block
    from rooftrace.predict.outputs import OutputPaths, Prediction, SceneOutputs, SceneResult


class HasPixels(Protocol):
    """An image of another library that NumPy takes as an array, such as one of PIL."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


Input = str | Path | NDArray[Any] | HasPixels | RasterSource
"""Image to predict: a path or URL, an open dataset of rasterio, an array of pixel values,
(y, x, band), (band, y, x) or (y, x), what NumPy takes as such an array (a PIL image), or a source.
Masked and NaN pixels of arrays are nodata. A DataArray of rioxarray keeps its position."""

_MAX_BANDS = 16
"""Maximum length of the band axis of an array, unless the model has more bands."""

_COLOUR_MODES = ("1", "P", "PA", "LA", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes of PIL whose values are not those of grey, RGB or RGBA."""

PredictProgress = Callable[[int, int, int], None]
"""Function called with the pixels done, the pixels in total and the buildings found so far."""


class Predictor:
    """Model that is ready to run.

    Args:
        bundle: Model.
        engine: Engine that runs the model.

    Raises:
        BundleError: The model answers clicks and does not predict images.
    """

    def __init__(self, bundle: ModelBundle, engine: Engine) -> None:
        if bundle.spec.takes_clicks:
            raise BundleError(
                f"{bundle.source} is a model for clicks: it outlines one building on which a user "
                "clicks; expected a model that predicts whole images.",
                remedy="Predict with another model. A click model works in Label Studio, or in "
                "Python: rooftrace.predict.clicks.load_clicks.",
            )
        self.bundle = bundle
        self.engine = engine
        self._legend = bundle.spec.legend

    def __repr__(self) -> str:
        engine = f"{self.engine.name} in {self.engine.precision}"
        return f"<Predictor {self.bundle.described}; {engine}>"

    def __reduce__(self) -> NoReturn:
        raise PredictError(
            "A Predictor cannot be pickled: its network is compiled for this process.",
            remedy="Call rooftrace.load() in each process, started by "
            'multiprocessing.get_context("spawn"); threads can share one Predictor.',
        )

    def predict(
        self,
        image: Input,
        *,
        gsd_m: float | None = None,
        threshold: float | None = None,
        min_area_m2: float | None = None,
        options: SceneOptions | None = None,
        segmenter: PromptSegmenter | None = None,
        progress: PredictProgress | None = None,
        on_block: Callable[[Block], None] | None = None,
    ) -> Prediction:
        """Predict the buildings of one image, with its mask in memory.

        Args:
            image: Path or URL; array (y, x, band), (band, y, x) or (y, x) of any number type, its
                bands red, green, blue; PIL image; open dataset of rasterio; `RasterSource`.
            gsd_m: Metres per pixel of the image, where its georeference is missing or wrong.
            threshold: Building probability from which a pixel is a building; default: the model's
                own.
            min_area_m2: Minimum area of footprints in m²; smaller ones are dropped.
            options: All options of the scene, in place of the three options above.
            segmenter: Network that refines the outlines of buildings, such as SAM.
            progress: Function called with the pixels done, all pixels, and the buildings so far.
            on_block: Function called with each finished block. It receives the probabilities,
                which the result then does not keep.

        Returns:
            `footprints` (GeoDataFrame), `mask` and `probability` (y, x), and `summary`, whose
            `notes` state what was assumed, such as metres per pixel.

        Raises:
            ConfigError: One of the three options was given beside `options`; a threshold was given
                for a model of more than two classes; outlines of this model cannot be refined.
            DataError: The image cannot be read.
            BandMismatch, GsdMismatch: The bands or metres per pixel do not suit the model.
            PredictError: The network failed.
        """
        from rooftrace.predict.outputs import Prediction, SceneOutputs

        shortcuts = {"gsd_m": gsd_m, "threshold": threshold, "min_area_m2": min_area_m2}
        if options is None:
            options = SceneOptions(gsd_m=gsd_m, threshold=threshold, min_area_m2=min_area_m2)
        elif both := [name for name, value in shortcuts.items() if value is not None]:
            raise ConfigError(
                f"Predictor.predict received {' and '.join(both)} beside options, which contain "
                "all options of the scene.",
                remedy=f"Put {' and '.join(both)} into options: SceneOptions({both[0]}=…).",
            )
        with opened(image, len(self.bundle.spec.bands)) as source:
            plan = plan_scene(source, self.bundle.spec, options)
            data = np.full(source.grid.shape, NODATA, np.uint8)
            score = np.zeros(source.grid.shape, np.uint8) if on_block is None else None
            with SceneOutputs(plan, segmenter=segmenter) as outputs:
                for block in self._fed(outputs, progress):
                    data[block.window.slices()] = block.mask
                    if score is not None:
                        score[block.window.slices()] = block.score
                    if on_block is not None:
                        on_block(block)
                result = outputs.finish()
            mask = Mask(data, data != NODATA, source.grid)
            name = Path(source.name).stem or "image"
            return Prediction(
                mask, outputs.footprints(), result, name, self._legend, plan.mask_tags, score
            )

    def predict_plan(
        self, plan: ScenePlan, paths: OutputPaths, on_block: Callable[[Block], None]
    ) -> SceneResult:
        """Predict a planned scene, and write its outputs to files."""
        from rooftrace.predict.outputs import SceneOutputs

        with SceneOutputs(plan, paths) as outputs:
            for block in self._fed(outputs, None):
                on_block(block)
                del block
            return outputs.finish()

    def _fed(self, outputs: SceneOutputs, progress: PredictProgress | None) -> Iterator[Block]:
        """Run the network on the scene of outputs, feed them with its blocks, and yield these."""
        from rooftrace.predict import pipeline

        done_px, total_px = 0, prod(outputs.plan.source.grid.shape)
        for block in pipeline.run(outputs.plan, self.engine):
            buildings = outputs.feed(block)
            done_px += block.window.area_px
            yield block
            # Not kept until the next block is finished.
            del block
            if progress is not None:
                progress(done_px, total_px, buildings)


def load(
    path: str | Path | None = None,
    *,
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> Predictor:
    """Load a model from a `.rooftrace` file, a training run, an exported or an ensemble file.

    Args:
        path: Path of a bundle, of the folder of a run, of a file that `rooftrace export` has
            written, or of an ensemble that `rooftrace fit` has; or the name of a bundled model,
            `default` or `accurate`.
        engine: Name of an engine, see `engines.select.ENGINES`; default: `openvino`, if it supports
            the file.
        precision: `fp32`, `bf16`, `fp16` or `int8`; default: the fastest precision that suits the
            machine.
        output: Output of the model; `coarse` is the output of a refined model's segmenter, without
            the refiner.

    Raises:
        BundleError: The file is damaged, has been changed, or is not a bundle.
        ConfigError: The engine or precision does not exist; the model does not have this output.
        MissingExtraError: The engine is not installed.
    """
    from rooftrace.predict.model_set import read_models

    return read_models(path, engine=engine, precision=precision, output=output).ready()


def as_source(image: Input, bands: int = 3) -> RasterSource:
    """Return an image as a source, which is read by windows.

    The band axis of an array is its first or last one: the one that is short enough, or that has as
    many bands as the model, or 1, 3 or 4.

    Raises:
        DataError: An array has another number of axes, its band axis is ambiguous, or the object
            is not an image.
    """
    if isinstance(image, str | Path):
        if str(image).startswith("/vsi"):
            raise DataError(
                f"{image} is a path within GDAL; expected one on disk.",
                remedy=f"Give the open dataset: predict(rasterio.open({str(image)!r}))",
            )
        return open_image(image)
    if isinstance(image, DatasetReaderBase):
        if image.closed:
            raise DataError(
                f"The dataset {image.name} is closed.",
                remedy="Predict it before it is closed, or give the path of its file.",
            )
        return OpenDataset(image)
    if hasattr(image, "data_vars"):
        raise DataError(
            f"The image is a Dataset with the variables {', '.join(map(str, image.data_vars))}; "
            "expected one array.",
            remedy="Give a variable, dataset['NAME'], or join red, green and blue in this order: "
            "dataset[['NAME', 'NAME', 'NAME']].to_dataarray('band')",
        )
    kind = type(image)
    if not hasattr(kind, "__array__") and not hasattr(kind, "__array_interface__"):
        if isinstance(image, RasterSource):
            return image
        raise DataError(
            f"The image has the type {kind.__name__}; expected a path, an open dataset of "
            "rasterio, an array, a PIL image or a RasterSource.",
            remedy="Give the path of its file. Bytes can be opened: with rasterio.MemoryFile(data) "
            "as memory: model.predict(memory.open()). An array keeps its position in "
            "rooftrace.ArraySource(array, rooftrace.GeoGrid((rows, columns), transform, crs)).",
        )
    if hasattr(image, "rio") and image.rio.crs is not None:
        return _of_rioxarray(image)
    if "spatial_ref" in getattr(image, "coords", ()) and not hasattr(image, "rio"):
        raise DataError(
            "The image is a DataArray with a position, which rioxarray reads; it is not imported.",
            remedy="Install it with pip install rioxarray, and import rioxarray first.",
        )
    if getattr(image, "mode", None) in _COLOUR_MODES:
        from PIL.Image import Image

        assert isinstance(image, Image)
        # NumPy would take the indices of a palette, or inks, for brightness.
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    array = np.asanyarray(image)
    if array.ndim == 2:
        return ArraySource(array[None])
    if array.ndim != 3:
        raise DataError(
            f"The image is an array of shape {array.shape}; expected (y, x, band), (band, y, x) or "
            "(y, x).",
            remedy="Predict the images of a stack one by one.",
        )
    axes = [axis for axis in (0, 2) if array.shape[axis] <= max(_MAX_BANDS, bands)]
    if len(axes) == 2:
        axes = [axis for axis in axes if array.shape[axis] in (bands, 1, 3, 4)]
    if len(axes) == 2 or (not axes and array.shape[0] == array.shape[2]):
        raise DataError(
            f"The image is an array of shape {array.shape}, whose first or last axis may be that "
            "of the bands.",
            remedy="Give an ArraySource of an array (band, y, x): "
            "ArraySource(np.moveaxis(array, -1, 0)) if the bands come last.",
        )
    return ArraySource(np.moveaxis(array, -1, 0) if axes == [2] else array)


def _of_rioxarray(image: Any) -> ArraySource:
    """Return a DataArray of rioxarray with its position and nodata."""
    rio = image.rio
    array = np.asarray(image.transpose(..., rio.y_dim, rio.x_dim))
    array = array[None] if array.ndim == 2 else array
    valid = differs(array, (rio.nodata,) * len(array))
    name = image.encoding.get("source", "array")
    for dim in {rio.x_dim, rio.y_dim} & set(image.coords):
        at = np.asarray(image.coords[dim])
        first, last = float(at[0]), float(at[-1])
        off = np.abs(at - np.linspace(first, last, len(at))).max()
        # Coordinates of 32 bits, or of few digits, are rounded; a row left out is half a step off.
        if off > 0.4 * abs(last - first) / max(len(at) - 1, 1) + np.spacing(np.abs(at).max()):
            raise DataError(
                f"The coordinates {dim} of {name} are not evenly spaced; expected those of a grid.",
                remedy="Reindex it to all rows and columns, or predict its parts one by one.",
            )
    # Not the transform of the file, which slices and sorted axes leave behind.
    grid = GeoGrid(array.shape[1:], rio.transform(recalc=True), rio.crs)
    names = _band_names(image, {rio.x_dim, rio.y_dim})
    infos = [BandInfo(number, description=text) for number, text in enumerate(names, 1)]
    return ArraySource(array, grid, valid, name, infos if len(infos) == len(array) else ())


def _band_names(image: Any, plane: set[str]) -> list[str]:
    """Return the names of the bands of a DataArray, as far as it has some."""
    # rioxarray keeps the names of all bands of the file, and the numbers of those selected.
    of_file = image.attrs.get("long_name", ())
    names = [] if isinstance(of_file, str) else list(of_file)
    for dim in [dim for dim in image.dims if dim not in plane and dim in image.coords]:
        bands = np.atleast_1d(image.coords[dim])
        if bands.dtype.kind in "iu":
            names = [names[band - 1] for band in bands if 0 < band <= len(names)]
        else:
            names = bands.tolist()
    return [str(name or "") for name in names]


@contextmanager
def opened(image: Input, bands: int) -> Iterator[RasterSource]:
    """Yield an image as a source while the block runs, and close a file that was opened here."""
    source = as_source(image, bands)
    try:
        yield source
    finally:
        if source is not image:
            close_source(source)


TtaChoice = Tta | Literal["none"]
"""Test-time augmentation that a user asks for; `none` turns off that of the model."""

Mirror = Callable[[NDArray[Any]], NDArray[Any]]
"""Function that mirrors (…, y, x) arrays; it is its own inverse."""


def _left_right(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles[..., ::-1]


def _top_bottom(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles[..., ::-1, :]


def _transposed(tiles: NDArray[Any]) -> NDArray[Any]:
    return tiles.swapaxes(-1, -2)


# Each mirror is its own inverse; the augmented copies are all products of the mirrors.
_MIRRORS: dict[Tta, tuple[Mirror, ...]] = {
    "mirror": (_left_right,),
    "flips": (_left_right, _top_bottom),
    "d4": (_left_right, _top_bottom, _transposed),
}


class TtaEngine(Engine):
    """Engine that runs another one on mirrored copies of each tile, and averages the outputs.

    Outputs are mirrored back before they are averaged. The output for a mirrored tile is the
    mirrored output for the tile, bit for bit: outputs are added in mirror pairs, and the sum of two
    numbers does not depend on their order.

    The mean of rounded outputs (`run_quantised`) is rounded once more. It differs from the rounded
    mean by at most one 255th.

    With `d4` the other engine also receives tiles whose height and width are exchanged.

    Args:
        inner: Engine of the network; it runs 2 (`mirror`), 4 (`flips`) or 8 times (`d4`) for each
            tile.
        tta: Kind of augmentation.
    """

    def __init__(self, inner: Engine, tta: Tta) -> None:
        self._inner = inner
        self._mirrors = _MIRRORS[tta]
        self.name = inner.name
        self.precision = inner.precision
        self.settings: dict[str, Any] = {**inner.settings, "tta": tta}
        parallel = getattr(inner, "parallel", None)
        if parallel is not None:
            self.parallel = lambda count: TtaEngine(parallel(count), tta)

    def expect(self, shape: tuple[int, ...]) -> None:
        """Begin to compile the network for tiles and their mirrored copies of the same shape."""
        self._inner.expect(shape)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run (n, band, y, x) pixel values to (n, class, y, x) mean probabilities in 0..1."""
        total = _sum(
            lambda tiles: np.array(self._inner.run(tiles), np.float32), batch, self._mirrors
        )
        # The number of copies is a power of two, so that the mean is as exact as the sum.
        total *= np.float32(0.5 ** len(self._mirrors))
        return total

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Like `run`, but in 255ths, from copies that are in 255ths."""
        copies = 2 ** len(self._mirrors)
        total = _sum(
            lambda tiles: self._inner.run_quantised(tiles).astype(np.uint16), batch, self._mirrors
        )
        total += copies // 2
        total //= copies
        return total.astype(np.uint8)

    def release(self) -> None:
        """Release the compiled networks of the engine."""
        self._inner.release()


def _sum(
    run: Callable[[NDArray[Any]], NDArray[Any]], batch: NDArray[Any], mirrors: tuple[Mirror, ...]
) -> NDArray[Any]:
    """Return the sum of the outputs for all products of the mirrors, each mirrored back."""
    if not mirrors:
        return run(np.ascontiguousarray(batch))
    *others, mirror = mirrors
    total = _sum(run, batch, tuple(others))
    total += mirror(_sum(run, mirror(batch), tuple(others)))
    return total


class MirroredEngine(Engine):
    """Engine that runs another one on tiles mirrored left to right, and mirrors them back."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self.name = inner.name
        self.precision = inner.precision

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return _left_right(self._inner.run(np.ascontiguousarray(_left_right(batch))))


def with_tta(engine: Engine, spec: BundleSpec, wanted: TtaChoice | None = None) -> Engine:
    """Return an engine with the test-time augmentation that is asked for.

    Args:
        engine: Engine of a model.
        spec: Contract of the model.
        wanted: Augmentation; None for that of the contract.
    """
    tta = wanted or spec.tta or "none"
    return engine if tta == "none" else TtaEngine(engine, tta)


def applied_tta(bundle: ModelBundle, wanted: TtaChoice | None = None) -> str | None:
    """Return the test-time augmentation that a model runs with, for records and reports.

    Args:
        bundle: Bundle of one model, or of an ensemble.
        wanted: Augmentation that is asked for; None for that of the contract.

    Returns:
        The augmentation, or None; for members that differ, that of each: `flips, none`.
    """
    used = [wanted or member.spec.tta or "none" for member in bundle.members or (bundle,)]
    return ", ".join(used) if len({*used}) > 1 else None if used[0] == "none" else used[0]
