"""All that the map shows of one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.app.map.once import Once
from rooftrace.app.map.outlines import read_outlines
from rooftrace.app.map.pictures import Stretch, class_picture, colour_picture, share_picture
from rooftrace.app.map.place import Place, TileId, unit_of_degrees
from rooftrace.app.map.pyramid import Pyramid, overviews
from rooftrace.app.map.results import ImageFiles
from rooftrace.app.map.tiles import DEEPEST_ZOOM, VectorTiles
from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.core.types import GeoGrid, RasterSource, Window
from rooftrace.flows.inputs import find_jobs
from rooftrace.io.legend import Legend
from rooftrace.io.memory import ArraySource
from rooftrace.io.nodata import NodataRule
from rooftrace.io.placed import PlacedSource
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.io.remote import is_url

__all__ = ["PICTURE_PX", "MapScene", "PictureLayer"]

PictureLayer = Literal["image", "mask", "density"]

PICTURE_PX = 256
_PREVIEW_PX = 1600
_PREVIEW_WIDTH = 420
"""A preview is no narrower than this, for its caption."""


class MapScene:
    """One image with its results, opened as far as it was asked for.

    Threads use it at the same time.

    Args:
        files: of the image.
        run: what `run.json` says.
        legend: of the mask.

    Raises:
        DataError: nothing says where its pixels are.
    """

    def __init__(self, files: ImageFiles, run: Mapping[str, Any], legend: Legend | None) -> None:
        self.files = files
        self.stamp = files.stamp
        self._run = run
        self._legend = legend or Legend(_class_names(files.record))
        self._vectors = Once(self._open_vectors)
        self._image = Once(self._open_image)
        self._mask = Once(self._open_mask)
        self._density = Once(self._open_density)
        self._stretch = Once(self._find_stretch)
        self.notes: list[str] = []
        self._mask_file = None if files.mask is None else open_raster(files.mask, palette="indices")
        self._input: RasterSource | None = None
        self._input = self._find_input()
        grid = self._grid()
        self.place = Place(grid)

    @property
    def vectors(self) -> VectorTiles | None:
        """Tiles of its polygons; None where there are none, or they cannot be read."""
        return self._vectors.get()

    @property
    def image(self) -> Pyramid | None:
        """What lies under all: the image, or else its preview."""
        return self._image.get()

    @property
    def mask(self) -> Pyramid | None:
        return self._mask.get()

    @property
    def density(self) -> Pyramid | None:
        return self._density.get()

    @property
    def stretch(self) -> Stretch | None:
        """How the image's values are shown."""
        return self._stretch.get()

    def _open_vectors(self) -> VectorTiles | None:
        if self.files.polygons is None:
            return None
        try:
            return VectorTiles(read_outlines(self.files.polygons, self.place))
        except RooftraceError as error:
            self._note(error)
            return None

    def _open_image(self) -> Pyramid | None:
        source = self._input
        return self._preview() if source is None else Pyramid(self._levels(source), self.place)

    def _open_mask(self) -> Pyramid | None:
        file = self._mask_file
        if file is None:
            return None
        return Pyramid([file, *overviews(file, "indices")], self.place, nearest=True)

    def _open_density(self) -> Pyramid | None:
        if self.files.density is None:
            return None
        file = open_raster(self.files.density)
        try:
            levels: list[RasterSource] = [file, *overviews(file)]
        except DataError as error:
            self._note(error)
            return None
        gsd_m = self.files.record.get("gsd_m")
        if file.grid.crs is None:
            if not self.place.flat or not isinstance(gsd_m, (int, float)):
                return None
            levels = [self.place.metric_source(level, float(gsd_m)) for level in levels]
        place = Place(levels[0].grid)
        return None if place.flat else Pyramid(levels, place, nearest=True)

    def _find_stretch(self) -> Stretch | None:
        return None if self.image is None else Stretch.of(self.image.sample())

    def picture(self, layer: PictureLayer, tile: TileId) -> bytes | None:
        """A tile of pixels, WebP or PNG; None where there is nothing.

        Raises:
            DataError: a file cannot be read.
        """
        try:
            return self._picture(layer, tile)
        except RooftraceError as error:
            raise DataError(self._without_folders(error.message), remedy=error.remedy) from error

    def _picture(self, layer: PictureLayer, tile: TileId) -> bytes | None:
        pyramid: Pyramid | None = getattr(self, layer)
        raster = None if pyramid is None else pyramid.tile(tile, PICTURE_PX)
        if raster is None or not raster.valid.any():
            return None
        if layer == "image":
            return colour_picture(raster, self.stretch)
        if layer == "mask":
            return class_picture(raster, self._mask_colours)
        return share_picture(raster)

    @cached_property
    def _mask_colours(self) -> NDArray[np.uint8]:
        table = self._legend.table.copy()
        table[0, 3] = 0
        return table

    def describe(self) -> dict[str, Any]:
        """What a page has to know to show it; plain data."""
        place = self.place
        vectors = self.vectors
        picture, density = self.image, self.density
        if picture is not None and picture.bare and self._input is not None:
            self._say(
                "The image is large and has no overviews, so that it is shown from near only. "
                f"They are added by: gdaladdo -r average {Path(self._input.name).name} 4 16 64"
            )
        shown = "image" if self._input is not None else "preview"
        return {
            "name": self.files.name,
            "stamp": self.stamp,
            "flat": place.flat,
            "bounds": place.bounds_degrees,
            "pixel_m": place.pixel_m,
            "shape": place.grid.shape,
            "gsd_m": place.grid.gsd_m,
            "image": None if picture is None else {
                "kind": shown, "maxzoom": place.deepest_zoom(PICTURE_PX)
            },
            "mask": None if self.mask is None else {
                "maxzoom": place.deepest_zoom(PICTURE_PX), "classes": self._classes()
            },
            "density": None if density is None else {
                "bounds": density.place.bounds_degrees,
                "maxzoom": density.place.deepest_zoom(PICTURE_PX) + 3,
            },
            "buildings": None if vectors is None else _describe_buildings(vectors),
            "colours": {
                str(index): "#{:02x}{:02x}{:02x}".format(*self._legend.rgb(index))
                for index in (vectors.outlines.classes if vectors is not None else ())
            },
            "notes": self.notes,
        }  # fmt: skip

    def counts(
        self, bounds: tuple[float, float, float, float], score: int, size: int
    ) -> dict[str, int]:
        """How many buildings pass the filters, and how many there are: in view, and of all.

        Args:
            bounds: west, south, east, north of what is in view.
            score, size: see `Outlines.passing`.
        """
        if self.vectors is None:
            return {"shown": 0, "total": 0, "shown_in_view": 0, "in_view": 0}
        outlines = self.vectors.outlines
        left, bottom = unit_of_degrees(bounds[0], bounds[1])
        right, top = unit_of_degrees(bounds[2], bounds[3])
        passing, within = outlines.passing(score, size), outlines.within((left, top, right, bottom))
        return {
            "shown": int(passing.sum()),
            "total": len(outlines),
            "shown_in_view": int((passing & within).sum()),
            "in_view": int(within.sum()),
        }

    def _classes(self) -> list[dict[str, Any]]:
        return [
            {"index": index, "name": name} for index, name in enumerate(self._legend.names) if index
        ]

    def _grid(self) -> GeoGrid:
        if self._mask_file is not None:
            return self._mask_file.grid
        if self._input is not None:
            return self._input.grid
        raise DataError(
            f"{self.files.name} has neither its mask nor its image: nothing says where it lies.",
            remedy="Predict it again with the mask among the --outputs.",
        )

    def _find_input(self) -> RasterSource | None:
        """The image that was predicted, if it is still there."""
        told = self.files.record.get("input")
        if not isinstance(told, str):
            self._say("Nothing says which image this was: run.json does not tell of it.")
            return None
        if is_url(told):
            self._say("The image lies on a server and is not fetched.")
            return None
        path = next((path for path in _candidates(told, self._folder) if path.exists()), Path(told))
        options = self._run.get("options") or {}
        try:
            jobs, _ = find_jobs(
                [path], _nodata(options), mosaic=path.is_dir(), zoom=options.get("zoom")
            )
            source: RasterSource = jobs[0].source
            grid = source.grid
        except RooftraceError:
            missing = not path.exists()
            self._say(
                f"The image {path.name} is not where it was"
                + ("." if missing else ", or cannot be read any more.")
            )
            return None
        mask = None if self._mask_file is None else self._mask_file.grid
        if mask is None or grid.shape == mask.shape:
            return source
        if grid.crs is not None and not Place(mask).flat:
            # Of an image that was limited to an area, the mask is smaller.
            return source
        self._say(
            f"The image {path.name} has {grid.height} × {grid.width} pixels, but its mask has "
            f"{mask.height} × {mask.width}: it is another one by now."
        )
        return None

    def _levels(self, source: RasterSource) -> list[RasterSource]:
        """The image and its overviews, where its mask lies."""
        alike = source.grid.shape == self.place.grid.shape
        file = source.source if alike and isinstance(source, PlacedSource) else source
        levels: list[RasterSource] = [source]
        if isinstance(file, RasterFile):
            levels += overviews(file)
        if not alike:
            return levels
        return [PlacedSource(level, _scaled(self.place.grid)) for level in levels]

    def _preview(self) -> Pyramid | None:
        """The picture with the polygons on it, without its caption, in place of the image."""
        if self.files.preview is None:
            return None
        shape = self.place.grid.shape
        step = max(1, ceil(max(shape) / _PREVIEW_PX))
        rows, cols = ceil(shape[0] / step), ceil(shape[1] / step)
        try:
            page = open_raster(self.files.preview).read()
        except DataError as error:
            self._note(error)
            return None
        height, width = page.valid.shape
        if width != max(cols, _PREVIEW_WIDTH) or height <= rows:
            return None
        area = Window(0, (width - cols) // 2, rows, cols)
        part, at = page.data[(slice(None), *area.slices())], area.slices()
        grid = self.place.grid.resampled((rows, cols), (step, step))
        return Pyramid([ArraySource(part, grid, page.valid[at], "preview")], self.place)

    @property
    def _folder(self) -> Path:
        files = self.files
        path = files.mask or files.polygons or files.preview
        assert path is not None
        return path.parent

    def _note(self, error: RooftraceError) -> None:
        self._say(self._without_folders(str(error)))

    def _without_folders(self, text: str) -> str:
        """Where files lie on the server is no business of who looks at the map."""
        if self._input is not None:
            text = text.replace(self._input.name, Path(self._input.name).name)
        return text.replace(f"{self._folder}/", "")

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _describe_buildings(vectors: VectorTiles) -> dict[str, Any]:
    outlines = vectors.outlines
    quantiles = (5, 25, 50, 75, 95)
    sizes = np.percentile(outlines.size, quantiles).tolist() if len(outlines) else [0.0] * 5
    return {
        "count": len(outlines),
        "first_zoom": vectors.first_zoom,
        "deepest_zoom": max(DEEPEST_ZOOM, vectors.first_zoom),
        "in_metres": outlines.in_metres,
        "sizes": [size / 10 for size in sizes],
        "largest": int(outlines.size.max()) / 10 if len(outlines) else 0,
        "scores": None if outlines.score is None or not len(outlines) else [
            int(outlines.score.min()) / 1000, int(outlines.score.max()) / 1000
        ],
        "classes": {str(index): name for index, name in outlines.classes.items()},
    }  # fmt: skip


def _scaled(grid: GeoGrid) -> Callable[[GeoGrid], GeoGrid]:
    """Where a coarser image of the same ground lies."""

    def placed(own: GeoGrid) -> GeoGrid:
        return grid.resampled(own.shape, (grid.height / own.height, grid.width / own.width))

    return placed


def _candidates(told: str, folder: Path) -> list[Path]:
    """Where an image may be that a run knew by a path of its own working directory."""
    path = Path(told)
    if path.is_absolute():
        return [path, folder / path.name, folder.parent / path.name]
    return [path, folder.parent / path, folder / path.name, folder.parent / path.name]


def _nodata(options: Mapping[str, Any]) -> NodataRule | None:
    told = options.get("nodata")
    if not isinstance(told, dict):
        return None
    colour = told.get("colour")
    return NodataRule(
        told.get("value"), None if colour is None else tuple(colour), told.get("alpha", True)
    )


def _class_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    classes = record.get("classes") or ()
    names = tuple(str(one.get("name", "")) for one in classes if isinstance(one, dict))
    return names if len(names) >= 2 else ("background", "building")
