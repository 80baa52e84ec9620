"""One image on the map: its picture, mask, density and buildings; or a comparison of two images."""

import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pyproj import CRS

from rooftrace.app.map.outlines import (
    DEEPEST_ZOOM,
    BuildingFilter,
    LayerTable,
    Table,
    VectorTiles,
    polygon_rows,
    read_outlines,
)
from rooftrace.app.map.place import Place
from rooftrace.app.map.pyramid import (
    Pyramid,
    class_picture,
    colour_picture,
    overviews,
    share_picture,
)
from rooftrace.app.map.results import ImageFiles, hidden_folders, read_results, recorded_bands
from rooftrace.core.errors import DataError, ExportError, RooftraceError
from rooftrace.core.system import return_freed_memory
from rooftrace.core.text import without_folders
from rooftrace.core.types import GeoGrid, RasterSource
from rooftrace.flows.compare.outputs import COLOURS
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.io.bands import in_colours
from rooftrace.io.files import is_url, written_bytes
from rooftrace.io.georeferenced import GeoreferencedSource, recorded_provenance
from rooftrace.io.legend import Legend
from rooftrace.io.nodata import nodata_from_json
from rooftrace.io.picture import encoded
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.io.reproject import crs_units
from rooftrace.io.vector_read import VectorLockedError
from rooftrace.io.vector_write import write_polygons
from rooftrace.io.web_mercator import WORLD_M, TileName, latitude_of, unit_position, web_mercator
from rooftrace.rest.problems import ProblemError
from rooftrace.rest.transfer import cannot_store
from rooftrace.vector.compare import STATUSES

PictureLayer = Literal["image", "old", "mask", "density"]
"""Picture of a scene; `old` is the older image of a comparison."""

PICTURE_PX = 256
THUMBNAIL_PX = 640
_MOST_DRAWN = 20_000
"""Maximum number of outlines on a thumbnail."""

_PIXEL_M = 0.3
"""Side in metres of a pixel of a scene of polygons alone."""


def find_image(
    recorded: object, run: Mapping[str, Any], folder: Path, mask: GeoGrid | None
) -> tuple[RasterSource | None, str]:
    """Return the image that was predicted, or None and a sentence that gives the reason.

    Args:
        recorded: Path of the image in `run.json`.
        run: Record of the run.
        folder: Results folder.
        mask: Grid of the mask; None if there is no mask.
    """
    if not isinstance(recorded, str):
        return None, "The folder does not name an image: the map shows the buildings alone."
    if is_url(recorded):
        return None, "The image lies on a server and is not fetched."
    path = _existing(recorded, folder) or Path(recorded)
    options = run.get("options") or {}
    try:
        nodata = nodata_from_json(options.get("nodata"))
        source: RasterSource = find_inputs(
            [path], nodata, mosaic=path.is_dir(), zoom=options.get("zoom"), tms=options.get("tms"),
            crs=mask.crs if path.is_dir() and mask is not None else None,
        ).scenes[0].source  # fmt: skip
        grid = source.grid
    except RooftraceError:
        more = ", or can no longer be read" if path.exists() else ""
        return None, f"The image {path.name} is not where it was{more}."
    # If the run was limited to an area, the mask is smaller than the image.
    limited = mask is not None and grid.crs is not None and not Place(mask).flat
    if mask is None or grid.shape == mask.shape or limited:
        return source, ""
    return None, (
        f"The image {path.name} has {grid.width} × {grid.height} pixels, but its mask has "
        f"{mask.width} × {mask.height}: it has been replaced since."
    )


def _existing(recorded: str, folder: Path) -> Path | None:
    """Return where a file lies whose recorded path may be relative, or was moved; None if gone."""
    path = Path(recorded)
    near = [folder / path.name, folder.parent / path.name]
    places = [path, *near] if path.is_absolute() else [path, folder.parent / path, *near]
    return next((place for place in places if recorded and place.exists()), None)


def image_of(files: ImageFiles, folder: Path) -> RasterSource:
    """Return the image that was predicted, placed on the grid of its mask."""
    mask = None if files.mask is None else open_raster(files.mask, palette="indices").grid
    source, reason = find_image(files.record.get("input"), files.run, folder, mask)
    if source is None:
        raise DataError(
            f"A click needs the image of {files.name}, and it cannot be read. {reason}",
            remedy="Put the image back where it was.",
        )
    return _levels(source, mask or source.grid)[0]


def _levels(source: RasterSource, grid: GeoGrid) -> list[RasterSource]:
    """Return an image and its overviews.

    An image with as many pixels as `grid`, that of its mask, is placed there, even if its file has
    another georeference.
    """
    alike = source.grid.shape == grid.shape
    file = source.source if alike and isinstance(source, GeoreferencedSource) else source
    levels = [source, *(overviews(file) if isinstance(file, RasterFile) else ())]

    def scaled(coarse: GeoGrid) -> GeoGrid:
        return grid.resampled(
            coarse.shape, (grid.height / coarse.height, grid.width / coarse.width)
        )

    return [GeoreferencedSource(level, scaled) for level in levels] if alike else levels


class MapScene:
    """One image with its results. Threads use it at the same time.

    Args:
        files: Result files of the image.
        legend: Legend of the mask; None for background and building.

    Raises:
        DataError: A file is damaged, or neither the mask nor the image says where the pixels are.
        VectorLockedError: Another program holds the polygons.
    """

    old: Pyramid | None = None
    """The older image of a comparison."""

    def __init__(self, files: ImageFiles, legend: Legend | None) -> None:
        self.files = files
        self.stamp = files.stamp
        self.notes: list[str] = []
        path = files.mask or files.polygons or files.preview
        assert path is not None
        self._folder = path.parent
        self._legend = legend or Legend(tuple(_class_names(files.record)))
        self._table = self._legend.table.copy()
        self._table[0, 3] = 0
        mask = None if files.mask is None else open_raster(files.mask, palette="indices")
        self._input, self._bands = self._find_input(None if mask is None else mask.grid)
        self.place = Place(self._grid() if mask is None else mask.grid)
        self.image = self._open_image()
        self.mask = None if mask is None else Pyramid(
            [mask, *overviews(mask, "indices")], self.place, nearest=True
        )  # fmt: skip
        self.density = self._open_density()
        self.vectors = self._open_vectors()
        # Tiles are made from the outlines alone.
        self.__dict__.pop("_rows", None)
        return_freed_memory()

    def _find_input(self, mask: GeoGrid | None) -> tuple[RasterSource | None, str | None]:
        """Return the image, None if it is not there, and the bands that were read."""
        files = self.files
        source, note = find_image(files.record.get("input"), files.run, self._folder, mask)
        self._note(note)
        return source, recorded_bands(files)

    def _grid(self) -> GeoGrid:
        """Return the grid of results without a mask."""
        if self._input is not None:
            return self._input.grid
        if self.files.polygons is None:
            raise DataError(
                f"{self.files.name} has neither its mask nor its image: nothing says where it "
                "lies.",
                remedy="Predict it again with the mask among the --outputs.",
            )
        return self._grid_of_layer()

    @cached_property
    def _rows(self) -> Table:
        """Rows of the polygons."""
        assert self.files.polygons is not None
        return LayerTable(self.files.polygons).table()

    def _grid_of_layer(self) -> GeoGrid:
        """Return a grid over the polygons of a layer, without those outside of a comparison."""
        geometry, crs, columns = self._rows
        path = self.files.polygons or self._folder
        if crs is None:
            raise DataError(f"{path.name} has no CRS.")
        rows = polygon_rows(geometry)
        status = columns.get("status")
        inside = rows if status is None else rows[status[rows] != "outside"]
        bounds = shapely.total_bounds(geometry[inside if len(inside) else rows])
        if not np.isfinite(bounds).all():
            raise DataError(f"{path.name} has no buildings.")
        margin = 0.02 * max(bounds[2] - bounds[0], bounds[3] - bounds[1])
        left, bottom, right, top = (bounds + np.array([-1, -1, 1, 1]) * margin).tolist()
        pixel = crs_units(_PIXEL_M, crs)
        shape = (int((top - bottom) / pixel) + 1, int((right - left) / pixel) + 1)
        return GeoGrid(shape, Affine(pixel, 0, left, 0, -pixel, top), crs)

    def _open_image(self) -> Pyramid | None:
        if self._input is None:
            return None
        levels = _levels(self._input, self.place.grid)
        image = Pyramid([in_colours(level, self._bands) for level in levels], self.place)
        if image.bare:
            self._note(
                "The image is large and has no overviews, so that it is shown from near only. "
                f"They are added by: gdaladdo -r average {Path(self._input.name).name} 4 16 64"
            )
        return image

    def _open_vectors(self) -> VectorTiles | None:
        if self.files.polygons is None:
            return None
        try:
            statuses = STATUSES if self.files.is_comparison else ()
            return VectorTiles(read_outlines(self._rows, self.place, statuses))
        except VectorLockedError:
            # The next request opens the scene again.
            raise
        except RooftraceError as error:
            self._note(error.in_full)
            return None

    def _open_density(self) -> Pyramid | None:
        if self.files.density is None:
            return None
        file = open_raster(self.files.density)
        try:
            levels: list[RasterSource] = [file, *overviews(file)]
        except DataError as error:
            self._note(error.in_full)
            return None
        place = Place(levels[0].grid)
        return None if place.flat else Pyramid(levels, place, nearest=True)

    def picture(self, layer: PictureLayer, tile: TileName) -> bytes | None:
        """Return a picture tile as WebP or PNG; None if it would be empty."""
        pyramid: Pyramid | None = getattr(self, layer)
        with hidden_folders(self._folder, *([] if self._input is None else [self._input.name])):
            raster = None if pyramid is None else pyramid.tile(tile, PICTURE_PX)
            if pyramid is None or raster is None or not raster.valid.any():
                return None
            if layer == "mask":
                return class_picture(raster, self._table)
            if layer == "density":
                return share_picture(raster)
            return colour_picture(raster, pyramid.stretch)

    def describe(self) -> dict[str, Any]:
        """Return what a page needs to show the scene, as plain data."""
        place, vectors = self.place, self.vectors
        classes = [{"index": n, "name": name} for n, name in enumerate(self._legend.names) if n]
        return {
            "name": self.files.name,
            "stamp": self.stamp,
            "flat": place.flat,
            "bounds": place.bounds_degrees,
            "pixel_m": place.pixel_m,
            "shape": place.grid.shape,
            "gsd_m": place.grid.gsd_m,
            "image": _describe_picture(self.image),
            "mask": None if self.mask is None else {
                "maxzoom": place.deepest_zoom(PICTURE_PX), "classes": classes
            },
            # Cells are larger than pixels, and their edges stay sharp.
            "density": _describe_picture(self.density, deeper=3),
            "buildings": None if vectors is None else _describe_buildings(vectors, self.mask),
            "colours": {
                str(index): self._colour(index)
                for index in (vectors.outlines.classes if vectors is not None else ())
            },
            "old": _describe_picture(self.old),
            "comparison": None,
            "notes": self.notes,
            "credit": recorded_provenance(self.files.record).credit(),
        }  # fmt: skip

    def _colour(self, index: int) -> str:
        return "#{:02x}{:02x}{:02x}".format(*self._legend.rgb(index))

    def counts(
        self, bounds: tuple[float, float, float, float], chosen: BuildingFilter
    ) -> dict[str, Any]:
        """Return how many buildings pass the filters and how many there are, in view and in all.

        Bounds are west, south, east and north in degrees: given those of the view, returned those
        of the buildings that pass, None without any.
        """
        if self.vectors is None:
            return {"shown": 0, "total": 0, "shown_in_view": 0, "in_view": 0, "bounds": None}
        outlines = self.vectors.outlines
        left, bottom = unit_position(bounds[0], bounds[1])
        right, top = unit_position(bounds[2], bounds[3])
        passing, counted = outlines.passing(chosen), outlines.counted
        within = outlines.within((left, top, right, bottom)) & counted
        return {
            "bounds": _degrees(outlines.bounds[passing]) if passing.any() else None,
            "shown": int((passing & counted).sum()),
            "total": int(counted.sum()),
            "shown_in_view": int((passing & within).sum()),
            "in_view": int(within.sum()),
        }

    def exported(self, name: str, chosen: BuildingFilter) -> bytes:
        """Return the buildings that pass the filters as a vector file, see `vector_file`.

        Raises:
            ProblemError: The image has no buildings, or the format cannot hold them.
        """
        if self.vectors is None or self.files.polygons is None:
            raise ProblemError("not-found", f"The image {self.files.name} has no buildings.")
        outlines = self.vectors.outlines
        rows = np.sort(outlines.rows[outlines.passing(chosen)])
        geometry, crs, columns = LayerTable(self.files.polygons).table()
        return vector_file(
            name, geometry[rows], {key: values[rows] for key, values in columns.items()}, crs
        )

    def thumbnail(self) -> bytes:
        """Return a small picture of the image and its outlines as WebP."""
        left, bottom, right, top = self.place.bounds_m
        pixel = max(right - left, top - bottom) / THUMBNAIL_PX
        # The sides of the grid are multiples of 8 pixels, see `sampled`.
        rows, cols = (8 * max(1, round(side / pixel / 8)) for side in (top - bottom, right - left))
        scale = Affine((right - left) / cols, 0, left, 0, (bottom - top) / rows, top)
        grid = GeoGrid((rows, cols), scale, web_mercator())
        raster = None if self.image is None else self.image.on(grid)
        picture = Image.new("RGB", (cols, rows), "#dfe3e8")
        if raster is not None and self.image is not None:
            file = io.BytesIO(colour_picture(raster, self.image.stretch))
            drawn = Image.open(file).convert("RGBA").resize((cols, rows))
            picture.paste(drawn, mask=drawn)
        if self.vectors is not None:
            pen, outlines = ImageDraw.Draw(picture), self.vectors.outlines
            for at, outline in enumerate(outlines.shapes.geometry()[:_MOST_DRAWN].tolist()):
                kind = None if outlines.kind is None else int(outlines.kind[at])
                colour = "#f03b20" if kind is None else self._colour(kind)
                for part in outline.geoms:
                    on_map = (np.asarray(part.exterior.coords) - 0.5) * (WORLD_M, -WORLD_M)
                    px = (on_map - (left, top)) / (scale.a, scale.e)
                    pen.line(px.ravel().tolist(), fill=colour, width=2)
        return _webp(picture)

    def _note(self, note: str) -> None:
        note = without_folders(note, [f"{self._folder}/"])
        if note and note not in self.notes:
            self.notes.append(note)


def preview_thumbnail(files: ImageFiles) -> bytes | None:
    """Return the preview of an image, small and without its legend.

    None if it has none, or if the image is narrower than its legend, which pads the preview.
    """
    if files.preview is None:
        return None
    with Image.open(files.preview) as preview:
        shape = None if files.mask is None else open_raster(files.mask).grid.shape
        if shape is not None and shape[1] < preview.width:
            return None
        height = preview.height if shape is None else round(preview.width * shape[0] / shape[1])
        picture = preview.convert("RGB").crop((0, 0, preview.width, min(height, preview.height)))
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return _webp(picture)


def _webp(picture: Image.Image) -> bytes:
    return encoded(picture, "WEBP", quality=80, method=4)


def vector_file(
    name: str, geometry: NDArray[np.object_], columns: Mapping[str, NDArray[Any]], crs: CRS | None
) -> bytes:
    """Return polygons as a vector file; the suffix of its name selects the format.

    Raises:
        ProblemError: The format cannot hold the buildings.
        HTTPException: The server cannot write the file.
    """
    try:
        return written_bytes(name, lambda path: write_polygons(path, geometry, columns, crs))
    except ExportError as error:
        if isinstance(error.__cause__, OSError):
            raise cannot_store(error, "export") from error
        raise ProblemError("unfit-format", error.message, remedy=error.remedy) from error


def _describe_picture(pyramid: Pyramid | None, deeper: int = 0) -> dict[str, Any] | None:
    if pyramid is None:
        return None
    place = pyramid.place
    return {"bounds": place.bounds_degrees, "maxzoom": place.deepest_zoom(PICTURE_PX) + deeper}


def _degrees(bounds: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return west, south, east and north of (n, 4) bounds in shares of the map's side."""
    left, top = bounds[:, :2].min(axis=0).tolist()
    right, bottom = bounds[:, 2:].max(axis=0).tolist()
    south, north = (latitude_of((0.5 - y) * WORLD_M) for y in (bottom, top))
    return left * 360 - 180, south, right * 360 - 180, north


def _describe_buildings(vectors: VectorTiles, mask: Pyramid | None) -> dict[str, Any]:
    outlines = vectors.outlines
    quantiles = (5, 25, 50, 75, 95)
    sizes = np.percentile(outlines.size, quantiles).tolist() if len(outlines) else [0.0] * 5
    return {
        "count": len(outlines),
        # From afar a mask stands for the buildings; without one, a sample does.
        "first_zoom": 0 if mask is None else vectors.first_zoom,
        "deepest_zoom": max(DEEPEST_ZOOM, vectors.first_zoom),
        "in_metres": outlines.in_metres,
        "sizes": [size / 10 for size in sizes],
        "largest": int(outlines.size.max()) / 10 if len(outlines) else 0,
        # Number of buildings by score, in steps of 0.05.
        "scores": None if outlines.score is None or not len(outlines) else (
            np.histogram(outlines.score, 20, (0, 1000))[0].tolist()
        ),
        "heights": None if outlines.height is None else [
            height / 10
            for height in np.percentile(outlines.height[outlines.height > 0], quantiles).tolist()
        ],
        "classes": {str(index): name for index, name in outlines.classes.items()},
        "class_counts": {
            str(index): int(np.count_nonzero(outlines.counted & (outlines.kind == index)))
            for index in outlines.classes
        },
    }  # fmt: skip


def _class_names(record: Mapping[str, Any]) -> Sequence[str]:
    names = tuple(str(one["name"]) for one in record.get("classes") or ())
    return names if len(names) >= 2 else ("background", "building")


class ComparisonScene(MapScene):
    """A comparison on the map: two layers, and the images that they were made from, if known.

    The newer image is the one that `--imagery` named. Otherwise, a layer that `rooftrace predict`
    wrote has the image of its `run.json`, and a layer that is an image is shown itself. The classes
    are the statuses.

    Raises:
        DataError: The layer of both sides cannot be read, or has no CRS.
    """

    def __init__(self, files: ImageFiles, legend: Legend | None) -> None:
        super().__init__(files, legend)
        self.old = _pyramid(*self._image_of("old"))

    def describe(self) -> dict[str, Any]:
        """Return what a page needs to show the comparison, as plain data."""
        record = self.files.record
        names = {side: Path(str(record.get(side) or side)).name for side in ("new", "old")}
        return super().describe() | {"comparison": names}

    def _colour(self, index: int) -> str:
        return COLOURS[STATUSES[index]]

    def _find_input(self, mask: GeoGrid | None) -> tuple[RasterSource | None, str | None]:
        return self._image_of("new")

    def _open_image(self) -> Pyramid | None:
        return _pyramid(self._input, self._bands)

    def _image_of(self, side: str) -> tuple[RasterSource | None, str | None]:
        """Return the image that a layer was made from, None if it is not known, and its bands."""
        record = self.files.record
        imagery = record.get("imagery")
        if side == "new" and imagery:
            return find_image(imagery[0], {}, self._folder, None)[0], None
        layer = _existing(str(record.get(side) or ""), self._folder)
        if layer is None:
            return None, None
        folder = layer if layer.is_dir() else layer.parent
        for one in read_results(folder).images.values():
            if layer == folder or layer.name in {
                path.name for path in (one.polygons, one.mask) if path is not None
            }:
                image, note = find_image(one.record.get("input"), one.run, folder, None)
                self._note(note)
                return image, recorded_bands(one)
        return find_image(str(layer), {}, self._folder, None)[0], None

    def _grid(self) -> GeoGrid:
        """Return a grid over the buildings that were compared, without those outside."""
        return self._grid_of_layer()


def _pyramid(source: RasterSource | None, bands: str | None) -> Pyramid | None:
    if source is None or source.grid.crs is None:
        return None
    place = Place(source.grid)
    if place.flat:
        return None
    levels = _levels(source, source.grid)
    return Pyramid([in_colours(level, bands) for level in levels], place)
