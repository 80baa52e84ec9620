"""One image on the map: its picture, mask, density and buildings; or a comparison of two images.

The picture is the image that was predicted, if it is still there, or the preview.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from rooftrace.app.map.outlines import BuildingFilter, LayerTable, polygon_rows, read_outlines
from rooftrace.app.map.place import Place
from rooftrace.app.map.pyramid import (
    DisplayStretch,
    Pyramid,
    class_picture,
    colour_picture,
    overviews,
    share_picture,
)
from rooftrace.app.map.results import (
    ImageFiles,
    read_results,
    recorded_bands,
    without_folders,
)
from rooftrace.app.map.tiles import DEEPEST_ZOOM, VectorTiles
from rooftrace.core.cache import LazyValue
from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.core.types import GeoGrid, RasterSource, Window
from rooftrace.flows.compare.page import COLOURS
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.io.bands import in_colours
from rooftrace.io.georeferenced import GeoreferencedSource
from rooftrace.io.legend import Legend
from rooftrace.io.nodata import nodata_from_json
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.io.remote import is_url
from rooftrace.io.reproject import crs_units
from rooftrace.io.sources import ArraySource
from rooftrace.io.vector_read import VectorLockedError
from rooftrace.io.web_mercator import WORLD_M, TileName, latitude_of, unit_position
from rooftrace.vector.compare import STATUSES

_PREVIEW_PX = 1600
_PREVIEW_WIDTH = 420
"""Minimum width of a preview in pixels; its caption needs it."""


def find_image(
    recorded: object, run: Mapping[str, Any], folder: Path, mask: GeoGrid | None
) -> tuple[RasterSource | None, str]:
    """Return the image that was predicted, or None and a sentence that gives the reason.

    Args:
        recorded: Name of the image in `run.json`.
        run: Content of `run.json`.
        folder: Results folder.
        mask: Grid of the mask; None if there is no mask.
    """
    if not isinstance(recorded, str):
        return None, "run.json does not say which image this was."
    if is_url(recorded):
        return None, "The image lies on a server and is not fetched."
    path = next((path for path in _candidates(recorded, folder) if path.exists()), Path(recorded))
    options = run.get("options") or {}
    try:
        nodata = nodata_from_json(options.get("nodata"))
        found = find_inputs([path], nodata, mosaic=path.is_dir(), zoom=options.get("zoom"))
        source: RasterSource = found.scenes[0].source
        grid = source.grid
    except RooftraceError:
        more = ", or cannot be read any more" if path.exists() else ""
        return None, f"The image {path.name} is not where it was{more}."
    # If the run was limited to an area, the mask is smaller than the image.
    limited = mask is not None and grid.crs is not None and not Place(mask).flat
    if mask is None or grid.shape == mask.shape or limited:
        return source, ""
    return None, (
        f"The image {path.name} has {grid.width} × {grid.height} pixels, but its mask has "
        f"{mask.width} × {mask.height}: it has been replaced since."
    )


def levels_of(source: RasterSource, grid: GeoGrid) -> list[RasterSource]:
    """Return an image and its overviews.

    Args:
        source: Image.
        grid: Grid of its mask. An image with as many pixels is placed there, even if its file has
            another georeference.

    Raises:
        DataError: The image cannot be read.
    """
    alike = source.grid.shape == grid.shape
    file = source.source if alike and isinstance(source, GeoreferencedSource) else source
    levels: list[RasterSource] = [source]
    if isinstance(file, RasterFile):
        levels += overviews(file)
    return [GeoreferencedSource(level, _scaled(grid)) for level in levels] if alike else levels


def read_preview(path: Path, grid: GeoGrid) -> RasterSource | None:
    """Return the preview's picture without its caption; None if it is of another image.

    Args:
        path: Preview that `rooftrace predict` wrote.
        grid: Grid of the image.

    Raises:
        DataError: The preview cannot be read.
    """
    step = max(1, ceil(max(grid.shape) / _PREVIEW_PX))
    rows, cols = ceil(grid.height / step), ceil(grid.width / step)
    page = open_raster(path).read()
    height, width = page.valid.shape
    if width != max(cols, _PREVIEW_WIDTH) or height <= rows:
        return None
    part = Window(0, (width - cols) // 2, rows, cols).slices()
    placed = grid.resampled((rows, cols), (step, step))
    return ArraySource(page.data[(slice(None), *part)], placed, page.valid[part], "preview")


def _scaled(grid: GeoGrid) -> Callable[[GeoGrid], GeoGrid]:
    """Return a function that georeferences a coarser image of the same ground."""

    def placed(own: GeoGrid) -> GeoGrid:
        return grid.resampled(own.shape, (grid.height / own.height, grid.width / own.width))

    return placed


def _candidates(recorded: str, folder: Path) -> list[Path]:
    """Return the paths where an image may lie whose recorded path is relative."""
    path = Path(recorded)
    if path.is_absolute():
        return [path, folder / path.name, folder.parent / path.name]
    return [path, folder.parent / path, folder / path.name, folder.parent / path.name]


PictureLayer = Literal["image", "old", "mask", "density"]
"""Picture of a scene; `old` is the older image of a comparison."""

PICTURE_PX = 256


class MapScene:
    """One image with its results; each file is opened when it is first asked for.

    Threads use it at the same time.

    Args:
        files: Result files of the image.
        run: Content of `run.json`.
        legend: Legend of the mask; None for background and building.

    Raises:
        DataError: Neither the mask nor the image says where the pixels are.
    """

    def __init__(self, files: ImageFiles, run: Mapping[str, Any], legend: Legend | None) -> None:
        self.files = files
        self.stamp = files.stamp
        self._legend = legend or Legend(_class_names(files.record))
        self._vectors = LazyValue(self._open_vectors)
        self._image = LazyValue(self._open_image)
        self._mask = LazyValue(self._open_mask)
        self._density = LazyValue(self._open_density)
        self._stretch = LazyValue(self._find_stretch)
        self.notes: list[str] = []
        self._bands = recorded_bands(files.record, run)
        self._mask_file = None if files.mask is None else open_raster(files.mask, palette="indices")
        mask = None if self._mask_file is None else self._mask_file.grid
        self._input = self._find_input(run, mask)
        self.place = Place(self._grid())

    def _find_input(self, run: Mapping[str, Any], mask: GeoGrid | None) -> RasterSource | None:
        found, note = find_image(self.files.record.get("input"), run, self._folder, mask)
        if note:
            self._say(note)
        return found

    @property
    def vectors(self) -> VectorTiles | None:
        """Vector tiles of its polygons; None if there are none or they cannot be read."""
        return self._vectors.get()

    @property
    def image(self) -> Pyramid | None:
        """The image, or its preview, as the lowest layer."""
        return self._image.get()

    @property
    def old(self) -> Pyramid | None:
        """The older image of a comparison."""
        return None

    @property
    def mask(self) -> Pyramid | None:
        return self._mask.get()

    @property
    def density(self) -> Pyramid | None:
        return self._density.get()

    @property
    def stretch(self) -> DisplayStretch | None:
        """Stretch of the image's values."""
        return self._stretch.get()

    @property
    def old_stretch(self) -> DisplayStretch | None:
        """Stretch of the older image's values."""
        return None

    def _open_vectors(self) -> VectorTiles | None:
        if self.files.polygons is None:
            return None
        try:
            statuses = STATUSES if self.files.is_comparison else ()
            return VectorTiles(read_outlines(self.files.polygons, self.place, statuses))
        except VectorLockedError as error:
            # Unlike a note, an error is not kept: the next request reads the file again.
            message = self._without_folders(error.message)
            raise VectorLockedError(message, remedy=error.remedy) from error
        except RooftraceError as error:
            self._note(error)
            return None

    def _open_image(self) -> Pyramid | None:
        if self._input is not None:
            levels = levels_of(self._input, self.place.grid)
            return Pyramid([in_colours(level, self._bands) for level in levels], self.place)
        if self.files.preview is None:
            return None
        try:
            preview = read_preview(self.files.preview, self.place.grid)
        except DataError as error:
            self._note(error)
            return None
        return None if preview is None else Pyramid([preview], self.place)

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

    def _find_stretch(self) -> DisplayStretch | None:
        return None if self.image is None else DisplayStretch.of(self.image.sample())

    def picture(self, layer: PictureLayer, tile: TileName) -> bytes | None:
        """Return a picture tile as WebP or PNG; None if it would be empty.

        Raises:
            DataError: A file cannot be read.
        """
        try:
            return self._picture(layer, tile)
        except RooftraceError as error:
            raise DataError(self._without_folders(error.message), remedy=error.remedy) from error

    def _picture(self, layer: PictureLayer, tile: TileName) -> bytes | None:
        pyramid: Pyramid | None = getattr(self, layer)
        raster = None if pyramid is None else pyramid.tile(tile, PICTURE_PX)
        if raster is None or not raster.valid.any():
            return None
        if layer == "image":
            return colour_picture(raster, self.stretch)
        if layer == "old":
            return colour_picture(raster, self.old_stretch)
        if layer == "mask":
            return class_picture(raster, self._mask_colours)
        return share_picture(raster)

    @cached_property
    def _mask_colours(self) -> NDArray[np.uint8]:
        table = self._legend.table.copy()
        table[0, 3] = 0
        return table

    def describe(self) -> dict[str, Any]:
        """Return what a page needs to show the scene, as plain data."""
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
                "kind": shown, "bounds": picture.place.bounds_degrees,
                "maxzoom": picture.place.deepest_zoom(PICTURE_PX),
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
                str(index): self._colour(index)
                for index in (vectors.outlines.classes if vectors is not None else ())
            },
            "comparison": None,
            "notes": self.notes,
        }  # fmt: skip

    def _colour(self, index: int) -> str:
        return "#{:02x}{:02x}{:02x}".format(*self._legend.rgb(index))

    def counts(
        self, bounds: tuple[float, float, float, float], chosen: BuildingFilter
    ) -> dict[str, Any]:
        """Return how many buildings pass the filters and how many there are, in view and in all.

        `bounds` are the bounds in degrees of those that pass: west, south, east and north; None if
        there are none.

        Args:
            bounds: West, south, east and north of the view in degrees.
            chosen: The filters.
        """
        if self.vectors is None:
            return {"shown": 0, "total": 0, "shown_in_view": 0, "in_view": 0, "bounds": None}
        outlines = self.vectors.outlines
        left, bottom = unit_position(bounds[0], bounds[1])
        right, top = unit_position(bounds[2], bounds[3])
        passing, within = outlines.passing(chosen), outlines.within((left, top, right, bottom))
        return {
            "bounds": _degrees(outlines.bounds[passing]) if passing.any() else None,
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

    @property
    def _folder(self) -> Path:
        files = self.files
        path = files.mask or files.polygons or files.preview
        assert path is not None
        return path.parent

    def _note(self, error: RooftraceError) -> None:
        self._say(self._without_folders(str(error)))

    def _without_folders(self, text: str) -> str:
        return without_folders(
            text, self._folder, None if self._input is None else self._input.name
        )

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _degrees(bounds: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return west, south, east and north of (n, 4) bounds in shares of the map's side."""
    left, top = bounds[:, :2].min(axis=0).tolist()
    right, bottom = bounds[:, 2:].max(axis=0).tolist()
    south, north = (latitude_of((0.5 - y) * WORLD_M) for y in (bottom, top))
    return left * 360 - 180, south, right * 360 - 180, north


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
        "class_counts": {
            str(index): int(np.count_nonzero(outlines.kind == index)) for index in outlines.classes
        },
    }  # fmt: skip


def _class_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    classes = record.get("classes") or ()
    names = tuple(str(one.get("name", "")) for one in classes if isinstance(one, dict))
    return names if len(names) >= 2 else ("background", "building")


_PIXEL_M = 0.3
"""Side in metres of a pixel of the map if no image says it."""


class ComparisonScene(MapScene):
    """A comparison on the map: two layers, and the images that they were made from, if known.

    The newer image is the one that `--imagery` named. Otherwise, a layer that `rooftrace predict`
    wrote has the image of its `run.json`, and a layer that is an image is shown itself.

    Args:
        files: Results of the comparison.
        run: Content of a `run.json` beside them.
        legend: It is not used: the classes are the statuses.

    Raises:
        DataError: The layer of both sides cannot be read, or has no coordinate system.
    """

    def __init__(self, files: ImageFiles, run: Mapping[str, Any], legend: Legend | None) -> None:
        self._old = LazyValue(self._open_old)
        self._old_stretch = LazyValue(self._find_old_stretch)
        super().__init__(files, run, legend)

    @property
    def old(self) -> Pyramid | None:
        return self._old.get()

    @property
    def old_stretch(self) -> DisplayStretch | None:
        return self._old_stretch.get()

    def describe(self) -> dict[str, Any]:
        """Return what a page needs to show the comparison, as plain data."""
        record, old = self.files.record, self.old
        names = {side: Path(str(record.get(side) or side)).name for side in ("new", "old")}
        return super().describe() | {
            "comparison": names,
            "old": None if old is None else {
                "bounds": old.place.bounds_degrees, "maxzoom": old.place.deepest_zoom(PICTURE_PX)
            },
        }  # fmt: skip

    def _colour(self, index: int) -> str:
        return COLOURS[STATUSES[index]]

    def _find_input(self, run: Mapping[str, Any], mask: GeoGrid | None) -> RasterSource | None:
        image, self._bands = self._image_of("new")
        return image

    def _open_image(self) -> Pyramid | None:
        return _pyramid(self._input, self._bands)

    def _open_old(self) -> Pyramid | None:
        return _pyramid(*self._image_of("old"))

    def _find_old_stretch(self) -> DisplayStretch | None:
        return None if self.old is None else DisplayStretch.of(self.old.sample())

    def _image_of(self, side: str) -> tuple[RasterSource | None, str | None]:
        """Return the image that a layer was made from, None if it is not known, and its bands."""
        record = self.files.record
        imagery = record.get("imagery")
        if side == "new" and isinstance(imagery, list) and imagery:
            return find_image(imagery[0], {}, self._folder, None)[0], None
        recorded = str(record.get(side) or "")
        layer = next((path for path in _places(recorded, self._folder) if path.exists()), None)
        if layer is None:
            return None, None
        results = read_results(layer.parent)
        for one in results.images.values():
            if layer.name in {path.name for path in (one.polygons, one.mask) if path is not None}:
                image, note = find_image(one.record.get("input"), results.run, layer.parent, None)
                if note:
                    self._say(note)
                return image, recorded_bands(one.record, results.run)
        return find_image(str(layer), {}, self._folder, None)[0], None

    def _grid(self) -> GeoGrid:
        """Return a grid over the buildings that were compared, without those outside."""
        assert self.files.polygons is not None
        geometry, crs, columns = LayerTable(self.files.polygons).table()
        if crs is None:
            raise DataError(f"{self.files.polygons.name} has no coordinate system.")
        rows = polygon_rows(geometry)
        status = columns.get("status")
        inside = rows if status is None else rows[status[rows] != "outside"]
        bounds = shapely.total_bounds(geometry[inside if len(inside) else rows])
        if not np.isfinite(bounds).all():
            raise DataError(f"{self.files.polygons.name} has no buildings.")
        pixel = crs_units(_PIXEL_M, crs)
        left, bottom, right, top = _widened(bounds).tolist()
        shape = (int((top - bottom) / pixel) + 1, int((right - left) / pixel) + 1)
        return GeoGrid(shape, Affine(pixel, 0, left, 0, -pixel, top), crs)


def _widened(bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    margin = 0.02 * max(bounds[2] - bounds[0], bounds[3] - bounds[1])
    return np.asarray(bounds + np.array([-margin, -margin, margin, margin]), np.float64)


def _places(recorded: str, folder: Path) -> list[Path]:
    """Return the paths at which a layer may be whose recorded path was relative."""
    path = Path(recorded)
    if not recorded:
        return []
    near = [folder.parent / path.name, folder / path.name]
    return [path, *near] if path.is_absolute() else [path, folder.parent / path, *near]


def _pyramid(source: RasterSource | None, bands: str | None) -> Pyramid | None:
    if source is None or source.grid.crs is None:
        return None
    place = Place(source.grid)
    if place.flat:
        return None
    levels = levels_of(source, source.grid)
    return Pyramid([in_colours(level, bands) for level in levels], place)
