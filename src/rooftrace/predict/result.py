"""What prediction makes of one image, and the files that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from shapely import MultiPolygon

from rooftrace.core.types import DensityGrid, Footprints, GeoGrid, Mask, Window
from rooftrace.io.display import write_picture
from rooftrace.io.legend import NODATA, Legend
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector import write_footprints_chunks
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.passage import StreamStats
from rooftrace.vector.density_files import write_density
from rooftrace.vector.density_threshold import DEFAULT_THRESHOLD

if TYPE_CHECKING:
    import geopandas

__all__ = ["ClassFigures", "OutputPaths", "Prediction", "SceneResult", "Summary"]


@dataclass(frozen=True)
class ClassFigures:
    """How much there is of one class.

    Args:
        name: of the class.
        class_id: its index, as in the mask.
        polygons: how many there are that are large enough; none of the background.
        pixels: of the mask.
        share: of the valid pixels; 0 where none is valid.
        area_m2: of these pixels, each taken as large as the one at the image's centre; None where
            metres are not known.
    """

    name: str
    class_id: int
    polygons: int
    pixels: int
    share: float
    area_m2: float | None


@dataclass(frozen=True)
class Summary:
    """The figures of one image.

    Args:
        buildings: how many footprints of the building class.
        built_up_share: of the valid pixels, those that are building; 0 where none is valid.
        pixels: of the image.
        valid_pixels: of them, those that are not nodata.
        seconds: from the first pixel read to the last file or array made.
        mpx_per_s: millions of the image's pixels per second.
        engine_mpx_per_s: of the pixels that the network was given, by its own time.
        gsd_m: metres per pixel of the image, or None where not known.
        threshold: on the building's probability; None where the most probable class was taken.
        classes: one entry each, by class index.
        regularized: footprints of buildings that got right angles; None where there are none.
        blocks_resumed: that an earlier run had finished.
        tiles_failed: that were taken for nodata.
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
    threshold: float | None
    classes: tuple[ClassFigures, ...]
    regularized: int | None = None
    blocks_resumed: int = 0
    tiles_failed: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SceneResult:
    """What an image gave besides its mask and its footprints.

    Args:
        preview: None where none was asked for.
        density: None where none was asked for, metres are not known, or the image is small.
        outline: of the valid pixels, a multipolygon in the image's CRS; None where none was asked
            for.
    """

    preview: Image.Image | None
    summary: Summary
    stats: StreamStats = field(repr=False)
    density: DensityGrid | None = None
    outline: MultiPolygon | None = None


@dataclass(frozen=True)
class OutputPaths:
    """Where the files of one image go."""

    mask: Path
    polygons: Path
    preview: Path
    density: Path
    """Without an ending: a raster, polygons and a picture are called by it."""

    @classmethod
    def of(cls, folder: Path, name: str, grid: GeoGrid, legend: Legend) -> OutputPaths:
        """GeoTIFF and GeoPackage where the image lies somewhere, else PNG and GeoJSON in pixels.

        Polygons are called buildings where there is no other class. A PNG is written row by row
        over its whole width: what is very wide becomes a TIFF.
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

    def writers(
        self, options: SceneOptions
    ) -> tuple[Callable[[Iterable[Footprints]], object] | None, Callable[[SceneResult], None]]:
        """What writes the polygons, where they are wanted, and what writes the rest."""
        return self.write_polygons if "polygons" in options.outputs else None, self.write

    def write_polygons(self, chunks: Iterable[Footprints]) -> None:
        """Footprints, some at a time."""
        self.polygons.parent.mkdir(parents=True, exist_ok=True)
        write_footprints_chunks(self.polygons, chunks)

    def write(self, result: SceneResult) -> None:
        """What there is besides mask and polygons, which were written as they came."""
        self.preview.parent.mkdir(parents=True, exist_ok=True)
        if result.preview is not None:
            write_picture(self.preview, result.preview)
        if result.density is not None:
            title = self.density.name.removesuffix("_density")
            write_density(self.density, result.density, DEFAULT_THRESHOLD, title)


_WIDEST_PNG_PX = 20_000


@dataclass(frozen=True)
class Prediction:
    """What a model made of one image.

    Args:
        mask: class indices on the image's own grid.
        outlines: of the buildings, or of all classes.
        result: preview, density and figures.
        name: what files are called after.
        legend: of the mask.
    """

    mask: Mask
    outlines: Footprints
    result: SceneResult
    name: str
    legend: Legend

    @cached_property
    def footprints(self) -> geopandas.GeoDataFrame:
        """Columns as `Footprints.columns`; in pixels where the image has no CRS."""
        return self.outlines.to_geodataframe()

    @property
    def summary(self) -> Summary:
        return self.result.summary

    def save(self, folder: str | Path) -> OutputPaths:
        """Write what `rooftrace predict` would, `NAME_mask` and so on.

        Returns:
            Where the files are.

        Raises:
            ExportError: the folder cannot be written to.
        """
        paths = OutputPaths.of(Path(folder), self.name, self.mask.grid, self.legend)
        with mask_sink(paths.mask, self.mask.grid, self.legend) as sink:
            values = np.where(self.mask.valid, self.mask.data, np.uint8(NODATA))
            sink.write(Window.whole(values.shape), values)
        paths.write_polygons([self.outlines])
        paths.write(self.result)
        return paths
