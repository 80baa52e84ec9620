"""Images that lie side by side on one grid of pixels, read as one `RasterSource`.

`TileMosaic` takes tiles of one size whose places are known. `AdjacentImages` takes georeferenced
images of any sizes, which may overlap.
"""

import shlex
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine

from rooftrace.core.cache import LruCache
from rooftrace.core.errors import DataError, GeoreferenceError, RooftraceError, ServiceError
from rooftrace.core.text import plural
from rooftrace.core.types import (
    GeoGrid,
    Raster,
    RasterSource,
    ResultProvenance,
    SparseSource,
    Window,
)
from rooftrace.io.bands import band_infos, name_bands
from rooftrace.io.georeferenced import (
    close_source,
    date_span,
    is_sequential,
    provenance_of,
    window_box,
)
from rooftrace.io.image_header import BandInfo
from rooftrace.io.nodata import is_fill
from rooftrace.io.raster import is_small
from rooftrace.io.reproject import crs_text

_CACHE_BYTES = 96 * 2**20
"""Maximum size of the decoded images that are kept: enough for a row of tiles under a wide window,
so that no tile is decoded twice."""

_MAX_OFFSET_PX = 0.05
"""Maximum distance of an image from the common grid; coordinates are rounded when they are
written."""

_MAX_TILED_PX = 2**33
"""Maximum number of pixels of a scene whose tiles of a map may lie scattered."""

_MAX_PX = 2**37
"""Maximum number of pixels of a scene whose images, which are larger, may lie scattered."""

_LOOKED_AT = 16
"""Number of images whose corners are looked at."""

_MIN_COVERED = 1000
"""A larger scene is refused if fewer than one in 1000 of its pixels is covered by an image."""


def check_dense(
    shape: tuple[int, int], covered_px: int, what: str, files: str, max_px: int = _MAX_TILED_PX
) -> None:
    """Raise DataError for a scene that is too large for the number of its pixels that images cover.

    Args:
        covered_px: Number of pixels that images cover.
        what: What the scene is made of, and what the user should put apart, for the message.
        files: See `what`.
        max_px: Number of pixels up to which a scene is never too large.
    """
    if shape[0] * shape[1] > max(max_px, _MIN_COVERED * covered_px):
        raise DataError(
            f"{what} lie scattered over {shape[0]:,} × {shape[1]:,} pixels, of which they cover "
            f"{covered_px / shape[0] / shape[1]:.2g}.",
            remedy=f"Put the {files} of each place into a folder or file of their own.",
        )


def is_readable(image: RasterSource) -> bool:
    """Return True if the header of an image can be read."""
    try:
        return image.bands > 0
    except DataError:
        return False


def _nbytes(raster: Raster) -> int:
    return raster.data.nbytes + raster.valid.nbytes


class Mosaic:
    """Base of all kinds of mosaic: it reads a window from the images under it.

    A copy and a pickle have the images, but neither decoded pixels nor open files.
    """

    bands: int
    dtype: np.dtype[Any]
    _overlap: bool
    """True if images may overlap: a pixel that is not valid then leaves what lies below it."""

    def __init__(self, grid: GeoGrid, name: str, count: int) -> None:
        self.grid = grid
        self.name = name
        self._count = count
        self._decoded: LruCache[Hashable, Raster] = LruCache(_CACHE_BYTES, _nbytes)
        self.is_forgiving = False
        """True if an image that cannot be read becomes nodata, instead of failing the reading."""

        self._lost: dict[Hashable, str] = {}
        """Message about each image that could not be read; "" once it was taken."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self._count} images)"

    @property
    def provenance(self) -> ResultProvenance:
        """Name of the folder; its images may have several dates."""
        return ResultProvenance(image=Path(self.name).resolve().name)

    @property
    def images(self) -> Iterable[RasterSource]:
        """Images of the mosaic."""
        raise NotImplementedError

    @property
    def keeps_fill(self) -> bool:
        """True if the user says that the images have no nodata."""
        return any(getattr(image, "keeps_fill", False) for image in self.images)

    def take_lost(self) -> tuple[str, ...]:
        """Return messages about the images that could not be read since the last call."""
        # Another thread may read meanwhile.
        lost = self._lost.copy()
        self._lost.update(dict.fromkeys(lost, ""))
        return tuple(filter(None, lost.values()))

    def close(self) -> None:
        """Release the decoded images."""
        self._decoded.clear()

    def read(self, window: Window | None = None) -> Raster:
        """Return the pixels of `window` (inside the grid); 0 where there is no image.

        Raises:
            DataError: an image cannot be read, or its size, type or number of bands is wrong.
        """
        whole = Window.whole(self.grid.shape)
        window = window or whole
        if window.intersection(whole) != window:
            raise ValueError(f"{window} is not inside {self.name} with {self.grid.shape}")
        data = np.zeros((self.bands, *window.shape_yx), self.dtype)
        valid = np.zeros(window.shape_yx, np.bool_)
        for key, image_window in self._under(window):
            part = image_window.intersection(window)
            assert part is not None
            if key in self._lost:
                continue
            try:
                pixels, part_valid = self._read_part(key, image_window, part)
            except RooftraceError as error:
                # A service that refuses one tile refuses all.
                if not self.is_forgiving or isinstance(error, ServiceError):
                    raise
                gsd_m = self.grid.gsd_m
                area = "" if gsd_m is None else f" ({image_window.area_px * gsd_m**2:,.0f} m²)"
                self._lost[key] = f"{error.message} Its ground{area} is nodata."
                continue
            place = part.slices(window)
            np.copyto(data[:, *place], pixels, where=part_valid if self._overlap else True)
            valid[place] |= part_valid
        return Raster(data, valid, self.grid.crop(window))

    def _under(self, window: Window) -> Iterator[tuple[Any, Window]]:
        """Yield the key and the window of each image under `window`, the uppermost one last."""
        raise NotImplementedError

    def _image(self, key: Any) -> RasterSource:
        """Return an image that is to be read; raise DataError if it does not fit."""
        raise NotImplementedError

    def _read_part(self, key: Any, image_window: Window, part: Window) -> tuple[Any, Any]:
        """Return the pixels and validity of `part` from the image that covers `image_window`."""
        raster = self._decoded.get_or_make(key, lambda: self._image(key).read())
        rows, cols = part.slices(image_window)
        return raster.data[:, rows, cols], raster.valid[rows, cols]


class TileGridMosaic(Mosaic):
    """Base of mosaics of tiles of one size that do not overlap."""

    _overlap = False
    _tiles: Container[tuple[int, int]]
    """Row and column of each tile in the grid of tiles."""

    _tile_shape: tuple[int, int]
    """Rows and columns of pixels of every tile."""

    def is_empty(self, window: Window) -> bool:
        """Return True if no tile lies under a window."""
        return next(self._under(window), None) is None

    def _under(self, window: Window) -> Iterator[tuple[tuple[int, int], Window]]:
        height, width = self._tile_shape
        for row in range(window.row // height, -(-window.row_stop // height)):
            for col in range(window.col // width, -(-window.col_stop // width)):
                if (row, col) in self._tiles:
                    yield (row, col), Window(row * height, col * width, height, width)


class TileMosaic(TileGridMosaic):
    """A `RasterSource` over tiles of one size; where there is no tile, there is nodata.

    Tiles are opened when a window needs them. Memory holds one window and a cache of decoded
    tiles. A mosaic can be pickled; one thread at a time may read from it.

    Args:
        tiles: Image at each (row, column) of the grid of tiles; missing tiles are left out.
        tile_shape: Rows and columns of pixels of every tile.
        grid: Grid of the mosaic; its shape is a whole number of tiles.
    """

    _tiles: Mapping[tuple[int, int], RasterSource]

    def __init__(
        self,
        tiles: Mapping[tuple[int, int], RasterSource],
        tile_shape: tuple[int, int],
        grid: GeoGrid,
        name: str,
        *,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.notes = notes
        super().__init__(grid, name, len(tiles))
        self._tiles = dict(tiles)
        self._tile_shape = tile_shape

    @cached_property
    def bands(self) -> int:  # type: ignore[override]
        """Number of bands of the tiles; a grey tile among coloured ones counts as coloured."""
        first = self._first.bands
        # A tile of water may have been stored as grey, but hardly all of them.
        readable = filter(is_readable, self._tiles.values())
        return first if first > 1 else max(tile.bands for tile in readable)

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        return self._first.dtype

    @property
    def band_info(self) -> tuple[BandInfo, ...]:
        """Descriptions of the bands of the tiles."""
        infos: tuple[BandInfo, ...] = getattr(self._first, "band_info", ())
        return infos if len(infos) == self.bands else ()

    @property
    def images(self) -> Iterable[RasterSource]:
        return self._tiles.values()

    @cached_property
    def _first(self) -> RasterSource:
        """The first tile whose header can be read; the very first one if there is none."""
        return next(filter(is_readable, self._tiles.values()), next(iter(self._tiles.values())))

    def close(self) -> None:
        """Release the decoded tiles and close the files of all tiles."""
        super().close()
        for tile in self._tiles.values():
            close_source(tile)

    def _image(self, key: tuple[int, int]) -> RasterSource:
        tile = self._tiles[key]
        (height, width), bands = tile.grid.shape, tile.bands
        fits = ((height, width), tile.dtype) == (self._tile_shape, self.dtype)
        if not fits or bands not in (1, self.bands):
            raise DataError(
                f"The tile {tile.name} has {height} × {width} pixels and {plural(bands, 'band')} "
                f"of {tile.dtype}; the other tiles of {self.name} have {self._tile_shape[0]} × "
                f"{self._tile_shape[1]} pixels and {plural(self.bands, 'band')} of {self.dtype}.",
                remedy="Remove the tile from the folder, or download it again like the others.",
            )
        return tile


class AdjacentImages(Mosaic):
    """A `RasterSource` over images on one grid of pixels; where there is none, there is nodata.

    Where images overlap, the valid pixels of the later one count. Memory holds one window and a
    cache of decoded images. It can be pickled; one thread at a time may read.

    Args:
        images: Images of one CRS, pixel size, dtype, number and order of bands; their headers are
            read here.

    Raises:
        DataError: there is no image, one cannot be read, they differ in kind, or they lie
            scattered.
        GeoreferenceError: an image has no georeference, or is in another CRS, or its pixels are
            not on the grid of the others.
    """

    _overlap = True

    def __init__(self, images: Sequence[SparseSource], name: str) -> None:
        if not images:
            raise DataError(f"{name} holds no images.", remedy="Name the folder that holds them.")
        self._images = list(images)
        self.name = name
        first = images[0]
        self.bands, self.dtype = first.bands, first.dtype
        offsets = [self._offset_of(image) for image in images]
        self._dates = [provenance_of(image).imagery_date for image in images]
        top, left = (min(axis) for axis in zip(*offsets))
        self._windows = [
            Window(row - top, col - left, *image.grid.shape)
            for image, (row, col) in zip(images, offsets)
        ]
        shape = (
            max(window.row_stop for window in self._windows),
            max(window.col_stop for window in self._windows),
        )
        covered = sum(window.area_px for window in self._windows)
        what = f"The {len(self._images)} images of {self.name}"
        check_dense(shape, covered, what, "images", _MAX_PX)
        transform = first.grid.transform @ Affine.translation(left, top)
        super().__init__(GeoGrid(shape, transform, first.grid.crs), name, len(images))
        self._tree = shapely.STRtree([*map(window_box, self._windows)])

    @property
    def provenance(self) -> ResultProvenance:
        """Name of the folder, and the day of all images, or their first and last day."""
        return replace(super().provenance, imagery_date=date_span(self._dates))

    @property
    def images(self) -> Iterable[RasterSource]:
        return self._images

    @property
    def band_info(self) -> tuple[BandInfo, ...]:
        """Descriptions of the bands of the images."""
        return tuple(getattr(self._images[0], "band_info", ()))

    def close(self) -> None:
        """Release the decoded images and close the files of all images."""
        super().close()
        for image in self._images:
            close_source(image)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Note on the first image whose corners cover others with fill that no file marks."""
        looked_at = [] if self.keeps_fill else self._images[:_LOOKED_AT]
        for image, window in zip(looked_at, self._windows):
            if len([*self._under(window)]) == 1:
                continue
            rows, cols = window.shape_yx
            # A pixel at the bottom of a large PNG or JPEG takes as long as the whole image.
            slow = is_sequential(image) and not is_small((rows, cols))
            ends = product((0,) if slow else (0, rows - 1), (0, cols - 1))
            with suppress(DataError):
                corners = [image.read(Window(row, col, 1, 1)) for row, col in ends]
                data = np.concatenate([one.data[:, one.valid] for one in corners], axis=1)
                fill = data[:, is_fill(data)]
                if fill.shape[1] > 1:
                    value = ",".join(f"{one:g}" for one in dict.fromkeys(fill[:, 0].tolist()))
                    note = (
                        f"{image.name} has corners of the value {value}, which is not marked as "
                        "nodata, and lies over other images: what they show there is missed. If "
                        f"it is fill, give --nodata {value}."
                    )
                    return (note,)
        return ()

    def is_empty(self, window: Window) -> bool:
        """Return True if a window has no image, or only images that are empty there."""
        for number, image_window in self._under(window):
            part = image_window.intersection(window)
            assert part is not None
            if not self._images[number].is_empty(_within(part, image_window)):
                return False
        return True

    def _read_part(self, key: int, image_window: Window, part: Window) -> tuple[Any, Any]:
        if is_small(image_window.shape_yx):
            return super()._read_part(key, image_window, part)
        raster = self._images[key].read(_within(part, image_window))
        return raster.data, raster.valid

    def _image(self, key: int) -> RasterSource:
        return self._images[key]

    def _under(self, window: Window) -> Iterator[tuple[int, Window]]:
        for number in sorted(self._tree.query(window_box(window)).tolist()):
            image_window = self._windows[number]
            if image_window.intersection(window) is not None:
                yield number, image_window

    def _offset_of(self, image: SparseSource) -> tuple[int, int]:
        """Return the row and column of an image on the grid of the first one."""
        first = self._images[0]
        grid, common = image.grid, first.grid
        if grid.crs is None or common.crs is None:
            lacking = image if grid.crs is None else first
            is_placed = not lacking.grid.transform.is_identity
            what = "a position, but no coordinate system" if is_placed else "no georeference"
            raise GeoreferenceError(
                f"{lacking.name} has {what}; all images of {self.name} need one.",
                remedy="Name it: --crs EPSG:…"
                if is_placed
                else "Remove it from the folder, or predict the images without --mosaic.",
            )
        if (image.dtype, band_infos(image)) != (self.dtype, band_infos(first)):
            self._check_bands(image)
        if grid.crs is not common.crs and not grid.crs.equals(common.crs):
            raise GeoreferenceError(
                f"{image.name} is in {crs_text(grid.crs)}; {first.name} is in "
                f"{crs_text(common.crs)}, and part of the same scene.",
                remedy="Reproject all (gdalwarp -t_srs), or run rooftrace catalogue on the folder.",
            )
        to_common = ~common.transform @ grid.transform
        stretched = max(
            abs(to_common.a - 1) * grid.width, abs(to_common.d) * grid.width,
            abs(to_common.e - 1) * grid.height, abs(to_common.b) * grid.height,
        )  # fmt: skip
        row, col = round(to_common.f), round(to_common.c)
        off = max(abs(to_common.f - row), abs(to_common.c - col))
        if stretched > _MAX_OFFSET_PX or off > _MAX_OFFSET_PX:
            difference = (
                f"has another pixel size or direction than {first.name}"
                if stretched > _MAX_OFFSET_PX
                else f"lies {off:.2f} pixels off the grid of {first.name}"
            )
            raise GeoreferenceError(
                f"{image.name} {difference}; all images of a scene must lie on one grid of pixels.",
                remedy="Resample them to one grid, for example with gdalwarp -tap -tr, or make one "
                f"layer of their buildings: rooftrace catalogue {shlex.quote(self.name)} -o OUT",
            )
        return row, col

    def _check_bands(self, image: SparseSource) -> None:
        """Raise DataError for an image of other bands than the first one, or in another order."""
        first = self._images[0]
        names, common = (name_bands(band_infos(one), one.name) for one in (image, first))
        is_swapped = any(
            band in common and common.index(band) != index for index, band in enumerate(names)
        )
        if (image.bands, image.dtype) != (self.bands, self.dtype) or is_swapped:
            raise DataError(
                f"{image.name} has the bands {', '.join(names)} of {image.dtype}; {first.name} has "
                f"{', '.join(common)} of {self.dtype}, and is part of the same scene.",
                remedy="Remove it, convert it (gdal_translate -b 3 -b 2 -b 1), or omit --mosaic.",
            )


def _within(part: Window, outer: Window) -> Window:
    return Window(part.row - outer.row, part.col - outer.col, part.height, part.width)
