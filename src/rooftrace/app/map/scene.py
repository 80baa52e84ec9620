"""All that the map shows of one image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
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
from rooftrace.app.map.underlay import find_image, levels_of, read_preview
from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.core.types import GeoGrid, RasterSource
from rooftrace.io.legend import Legend
from rooftrace.io.raster import open_raster

__all__ = ["PICTURE_PX", "MapScene", "PictureLayer"]

PictureLayer = Literal["image", "mask", "density"]

PICTURE_PX = 256


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
        self._legend = legend or Legend(_class_names(files.record))
        self._vectors = Once(self._open_vectors)
        self._image = Once(self._open_image)
        self._mask = Once(self._open_mask)
        self._density = Once(self._open_density)
        self._stretch = Once(self._find_stretch)
        self.notes: list[str] = []
        self._mask_file = None if files.mask is None else open_raster(files.mask, palette="indices")
        mask = None if self._mask_file is None else self._mask_file.grid
        self._input, note = find_image(files.record.get("input"), run, self._folder, mask)
        if note:
            self._say(note)
        self.place = Place(self._grid())

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
        if self._input is not None:
            return Pyramid(levels_of(self._input, self.place.grid), self.place)
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


def _class_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    classes = record.get("classes") or ()
    names = tuple(str(one.get("name", "")) for one in classes if isinstance(one, dict))
    return names if len(names) >= 2 else ("background", "building")
