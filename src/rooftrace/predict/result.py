"""The result of predicting one image, and its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shapely import MultiPolygon

from rooftrace.core.errors import ConfigError
from rooftrace.core.text import in_python_terms, plain_number, plural
from rooftrace.core.types import DensityGrid, Footprints, GeoGrid, Mask, Window
from rooftrace.density.files import DEFAULT_THRESHOLD, write_density
from rooftrace.io.image_write import write_png
from rooftrace.io.legend import NODATA, Legend
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector_write import write_footprints_chunks
from rooftrace.predict.block import TileStats

if TYPE_CHECKING:
    import geopandas


@dataclass(frozen=True)
class ClassFigures:
    """Amount of one class in an image.

    Args:
        name: Name of the class.
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
        regularized: Number of building footprints that got right angles; None without polygons.
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
    """

    preview: Image.Image | None
    summary: PredictionSummary
    tiles: TileStats = field(repr=False)
    density: DensityGrid | None = None
    outline: MultiPolygon | None = None


@dataclass(frozen=True)
class OutputPaths:
    """Paths of the files of one image."""

    mask: Path
    polygons: Path
    preview: Path
    density: Path
    """Path without a suffix; the density raster, polygons and picture add theirs."""

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
            density=folder / f"{name}_density",
        )

    def write_polygons(self, chunks: Iterable[Footprints]) -> None:
        """Write footprints chunk by chunk, see `write_footprints_chunks`."""
        self.polygons.parent.mkdir(parents=True, exist_ok=True)
        write_footprints_chunks(self.polygons, chunks)

    def write(self, result: SceneResult) -> None:
        """Write preview and density; mask and polygons are written during the prediction."""
        if result.preview is not None:
            write_png(self.preview, result.preview, photograph=True)
        if result.density is not None:
            title = self.density.name.removesuffix("_density")
            write_density(self.density, result.density, DEFAULT_THRESHOLD, title)


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
        return (
            f"<Prediction of {self.name!r}: {plural(summary.buildings, 'building')}, "
            f"{summary.built_up_share:.1%} built up, {rows} × {cols} px{scale}>"
        )

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

    def save(self, folder: str | Path) -> OutputPaths:
        """Write the files that `rooftrace predict` writes, `NAME_mask` and so on.

        Returns:
            Paths of the files.

        Raises:
            ExportError: The folder cannot be written to.
        """
        paths = OutputPaths.of(Path(folder), self.name, self.mask.grid, self.legend)
        self.write_mask(paths.mask)
        paths.write_polygons([self.outlines])
        paths.write(self.result)
        return paths

    def write_mask(self, path: Path) -> None:
        """Write the mask alone, as a GeoTIFF or a PNG.

        Raises:
            ExportError: The file cannot be written.
        """
        with mask_sink(path, self.mask.grid, self.legend, self.tags) as sink:
            values = np.where(self.mask.valid, self.mask.data, np.uint8(NODATA))
            sink.write(Window.whole(values.shape), values)
