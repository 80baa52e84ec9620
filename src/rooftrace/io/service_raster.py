"""Tiles of a map service as one image: `open_service` plans them, `ServiceRaster` reads them."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.io import MemoryFile

from rooftrace.core.errors import ConfigError, DataError, MissingExtraError
from rooftrace.core.text import plural
from rooftrace.core.types import Raster, RasterSource, ResultProvenance, Window
from rooftrace.io.area import Area
from rooftrace.io.bands import GREY_LOSS
from rooftrace.io.capabilities import capabilities_url, read_capabilities
from rooftrace.io.gdal import environment, open_quietly, reading_errors
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.map_service import (
    MapService,
    TileLevel,
    is_template,
    projected_area,
    tiles_in_area,
    without_secrets,
    xyz_service,
)
from rooftrace.io.mosaic import TileGridMosaic, check_dense
from rooftrace.io.nodata import NodataRule
from rooftrace.io.raster import RasterFile
from rooftrace.io.remote import read_document
from rooftrace.io.service_options import ServiceOptions
from rooftrace.io.tile_requests import TileRequests
from rooftrace.io.web_mercator import latitude_of

_BANDS = 3
_SAMPLES = 32
"""Number of tiles, spread over the area, that are requested before the work."""


class _TileImage(RasterFile):
    """A `RasterFile` over the bytes of a tile."""

    _is_alone = True

    def __init__(self, name: str, data: bytes, nodata: NodataRule | None) -> None:
        super().__init__(Path("tile"), nodata=nodata, shown=name)
        self._data = data

    @contextmanager
    def _reading(self, where: object) -> Iterator[None]:
        whole = self._data.startswith(b"\x89PNG") and self._data.endswith(b"IEND\xaeB`\x82")
        fast = "YES" if whole else "NO"
        with reading_errors(self.name, where), environment(GDAL_PNG_WHOLE_IMAGE_OPTIM=fast):
            yield

    def _open(self) -> tuple[Any, Callable[[], object]]:
        with ExitStack() as stack:
            memory = stack.enter_context(MemoryFile(self._data))
            handle = stack.enter_context(open_quietly(memory.name))
            return handle, stack.pop_all().close


class ServiceRaster(TileGridMosaic):
    """A `RasterSource` over the tiles of a map service in an area.

    Tiles are requested when a window needs them, several at a time. Where the service has no tile,
    there is nodata. It can be pickled; one thread at a time may read from it.

    Args:
        tiles: (n, 2) rows and columns of the tiles to read, at least one.
        options: Limits and identity of the requests.
        nodata: Rule for pixels that count as nodata besides those that the tiles mark.
    """

    bands = _BANDS
    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        service: MapService,
        level: TileLevel,
        tiles: Sequence[tuple[int, int]],
        options: ServiceOptions,
        nodata: NodataRule | None = None,
    ) -> None:
        first = min(row for row, _ in tiles), min(col for _, col in tiles)
        last = max(row for row, _ in tiles), max(col for _, col in tiles)
        count = (last[0] - first[0] + 1, last[1] - first[1] + 1)
        grid = level.grid(first, count)
        super().__init__(grid, service.name, len(tiles))
        self.service = service
        self.level = level
        self.requests = TileRequests(service.name, options)
        self._options = options
        self._first = first
        self._tile_shape = level.tile_px
        self._tiles: set[tuple[int, int]] = {(row - first[0], col - first[1]) for row, col in tiles}
        self._rule = nodata
        self._fetched: dict[tuple[int, int], bytes] = {}
        self._missing: set[tuple[int, int]] = set()
        self._read: set[tuple[int, int]] = set()
        self._grey: set[tuple[int, int]] = set()

    @property
    def keeps_fill(self) -> bool:
        return self._rule is not None and not self._rule.declared

    @property
    def version(self) -> str:
        """Text that changes when other tiles are read; a service does not say when images change.

        A key that was renewed does not change it.
        """
        return f"{without_secrets(self.service.template)} {self.level}"

    @property
    def provenance(self) -> ResultProvenance:
        """Attribution and date that the service states, and its URL."""
        service = self.service
        date, source = service.imagery_date or None, service.attribution or None
        return ResultProvenance(date, source, image=service.name)

    def share_limits(self, workers: int) -> ServiceOptions:
        """Divide the limits of requests by the number of workers that read this image.

        Returns:
            The limits of each worker.
        """
        self.requests.options = self._options.shared(workers)
        return self.requests.options

    @property
    def preview(self) -> str:
        """Text that says how many tiles are needed and how many requests they take."""
        cached = sum(self.requests.is_cached(self._url(tile)) for tile in self._tiles)
        requests = len(self._tiles) - cached
        fetched = self.requests.requests - self.requests.repeated
        just = f" ({fetched:,} fetched just now)" if fetched else ""
        minutes = requests / self.requests.options.per_second / 60
        rows, cols = self.level.tile_px
        return (
            f"{self.name}: zoom {self.level.zoom}, {self.grid.gsd_m:.3g} m per pixel, "
            f"{plural(len(self._tiles), 'tile')} of {rows} × {cols} pixels, {cached:,} of them in "
            f"the cache{just}: {plural(requests, 'request')} in at least {minutes:.1f} minutes."
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Traffic so far, and how many of the tiles are grey or do not exist."""
        read = f"{len(self._read):,} of {plural(len(self._tiles), 'tile')} read"
        notes = [f"{self.name}: {read}, {self.requests.summary}."]
        if self._grey:
            notes.append(
                f"{self.name}: {plural(len(self._grey), 'grey tile')} among {len(self._read):,}: "
                f"one band {GREY_LOSS}"
            )
        if self._missing:
            share = len(self._missing) / max(len(self._read), 1)
            notes.append(
                f"{self.name}: {plural(len(self._missing), 'tile')} of {len(self._read):,} "
                f"({share:.0%}) do not exist at zoom {self.level.zoom}; they are nodata. "
                "A lower --zoom may have them."
            )
        return tuple(notes)

    def read(self, window: Window | None = None) -> Raster:
        """Return the pixels of `window`; 0 where there is no tile.

        Raises:
            ServiceError: the service refuses, does not answer or sends no images.
            DataError: a tile is damaged, or its size, type or number of bands is wrong.
            ExportError: the cache folder cannot be written to.
        """
        window = window or Window.whole(self.grid.shape)
        needed = [key for key, _ in self._under(window) if self._decoded.get(key) is None]
        self.load(needed)
        try:
            return super().read(window)
        finally:
            self._fetched.clear()

    def load(self, tiles: Sequence[tuple[int, int]]) -> int:
        """Fetch tiles, by row and column in the mosaic; return how many of them are missing."""
        urls = {key: self._url(key) for key in tiles}
        found = self.requests.fetch(urls.values())
        self._fetched.update({key: found[url] for key, url in urls.items()})
        return sum(not found[url] for url in urls.values())

    def sample(self) -> tuple[int, int]:
        """Fetch some tiles, spread over the area; return their number and how many are missing."""
        chosen = self._samples()
        missing = self.load(chosen)
        for key in chosen:
            self._image(key).read()
        self._fetched.clear()
        return len(chosen), missing

    def tile_shape(self) -> tuple[int, int] | None:
        """Return the size of a tile; None if none of the samples exists."""
        samples = self._samples()
        # One tile is enough, mostly.
        for chosen in (samples[len(samples) // 2 :][:1], samples):
            urls = [self._url(key) for key in chosen]
            for url, data in self.requests.fetch(urls).items():
                if data:
                    return _TileImage(f"The tile {without_secrets(url)}", data, None).grid.shape
        return None

    def _samples(self) -> list[tuple[int, int]]:
        ordered = sorted(self._tiles)
        places = np.unique(np.linspace(0, len(ordered) - 1, _SAMPLES).round().astype(int))
        return [ordered[place] for place in places]

    def _url(self, key: tuple[int, int]) -> str:
        return self.service.url(self.level, key[0] + self._first[0], key[1] + self._first[1])

    def _image(self, key: Hashable) -> RasterSource:
        assert isinstance(key, tuple)
        url = self._url(key)
        data = self._fetched.pop(key, None)
        if data is None:
            data = self.requests.fetch([url])[url]
        self._read.add(key)
        grid = self.level.grid((key[0] + self._first[0], key[1] + self._first[1]), (1, 1))
        if not data:
            self._missing.add(key)
            pixels = np.zeros((_BANDS, *grid.shape), np.uint8)
            return ArraySource(pixels, grid, np.zeros(grid.shape, np.bool_))
        name = f"The tile {without_secrets(url)}"
        image = _TileImage(name, data, self._rule)
        is_picture = image.bands in (1, _BANDS) and image.dtype == np.uint8
        if image.grid.shape != grid.shape or not is_picture:
            raise DataError(
                f"{name} has {image.grid.width} × {image.grid.height} pixels and "
                f"{plural(image.bands, 'band')} of {image.dtype}; expected {grid.width} × "
                f"{grid.height} like the others, of 8 bits in colour or grey.",
                remedy="Choose another --zoom, or a layer with imagery.",
            )
        raster = image.read()
        # Some servers store a tile of one colour, such as water, as grey.
        if image.bands == 1 and np.ptp(raster.data) > 0:
            self._grey.add(key)
        pixels = np.ascontiguousarray(np.broadcast_to(raster.data, (_BANDS, *grid.shape)))
        return ArraySource(pixels, grid, raster.valid)


def open_service(
    url: str,
    area: Area,
    options: ServiceOptions,
    *,
    zoom: int | None = None,
    nodata: NodataRule | None = None,
) -> ServiceRaster:
    """Return the tiles of a map service in an area as one image.

    Some tiles are requested, spread over the area, so that a wrong URL, zoom or area is found
    before the work. They stay in the cache.

    Args:
        url: URL with the placeholders of tiles, or of the capabilities of a WMTS or WMS.
        zoom: Zoom of the tiles; default: the coarsest that is fine enough for the model.
        nodata: Rule for pixels that count as nodata besides those that the tiles mark.

    Raises:
        ConfigError: The URL, zoom or layer does not exist, the area has too many tiles, or the
            zoom cannot be chosen.
        DataError: The area has no tile, or tiles cannot be read.
        ServiceError, ExportError, MissingExtraError: See `TileRequests.fetch`.
    """
    service = _service(url, options)
    if zoom is None and options.gsd_m is None:
        raise ConfigError(
            f"The model states no metres per pixel, so the zoom of {service.name} is not known.",
            remedy="Choose one with --zoom.",
        )
    bounds = shapely.total_bounds(projected_area(area))
    latitude = latitude_of(float(bounds[1] + bounds[3]) / 2)
    tile_px: int | None = None
    client: TileRequests | None = None
    while True:
        sized = {} if tile_px is None else {"tile_px": tile_px}
        if zoom is not None:
            level = service.level(zoom, **sized)
        else:
            assert options.gsd_m is not None
            level = service.level_for(options.gsd_m, latitude, **sized)
        found = tiles_in_area(level, area, options.max_tiles)
        tiles = [(int(row), int(col)) for row, col in found]
        raster = ServiceRaster(service, level, tiles, options, nodata)
        # One counter of all requests.
        client = raster.requests = client or raster.requests
        covered_px = len(tiles) * level.tile_px[0] * level.tile_px[1]
        check_dense(raster.grid.shape, covered_px, f"The polygons of {area.name}", "polygons")
        # Only XYZ tiles have a size that nothing states.
        shape = None if service.levels else raster.tile_shape()
        if shape is None or shape == level.tile_px or tile_px is not None:
            break
        tile_px = shape[0]
    count, missing = raster.sample()
    if missing == count:
        raise DataError(
            f"{raster.name} has no tile in the area {area.name} at zoom {raster.level.zoom}: of "
            f"{plural(count, 'tile')} all over the area, none exists.",
            remedy="Choose another zoom with --zoom; if rows are counted from the south (TMS), "
            "write {-y} in place of {y}.",
        )
    if zoom is None and level.zoom == service.finest:
        note = f"{service.name}: zoom {level.zoom} is used, the finest by its URL; see --zoom."
        raster.service = replace(service, notes=(*service.notes, note))
    return raster


def _service(url: str, options: ServiceOptions) -> MapService:
    if is_template(url):
        if options.layer is not None:
            raise ConfigError(
                f"--layer {options.layer} was given; {without_secrets(url)} has tiles alone.",
                remedy="Leave out --layer.",
            )
        return xyz_service(url)
    with MissingExtraError.on_import("services", "A WMTS or WMS", "owslib"):
        import owslib  # noqa: F401
    address = capabilities_url(url)
    return read_capabilities(address, read_document(address, options.agent), options.layer)
