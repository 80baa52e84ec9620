"""A sample of a scene, and what it shows of nodata: fill that no file marks, and specks."""

from dataclasses import dataclass
from itertools import product
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import RooftraceError, ServiceError
from rooftrace.core.types import BoolArray, Raster, RasterSource, Window, is_known_empty
from rooftrace.io.georeferenced import is_sequential
from rooftrace.io.nodata import (
    EDGE_SHARE,
    LEAST_FILL,
    SPECK_M,
    at_corners,
    colour_name,
    commonest_colour,
    differs,
    fill_at_edges,
    is_certain_fill,
    is_fill,
)

_SAMPLE_PX = 2**15
"""Maximum number of pixels in the sample of an image that is read whole."""

_OVERVIEW_PX = 2**16
"""Minimum number of pixels of an overview that is sampled."""

_MIN_SAMPLE_PX = 2**12
"""Number of valid pixels below which a denser lattice of windows is read."""

_HELD_PX = 2**20
"""Maximum size of an image that is read whole for the sample and kept for its first reads."""

_WINDOW_PX = 64
"""Side of a window of the lattice in pixels."""

_LEAST_SPECKS = 1e-4
"""Least share of the sample in specks of nodata that a note reports."""

_LATTICES = (8, 16, 32)
"""Windows along a side of the lattices, which are read until the sample is large enough."""

_PROBES = 16
"""Pixels of each edge that are read to find fill."""

_ROWS, _ROW_PX, _ROWS_PX = 64, 1024, 2**22
"""Maximum number of rows read to measure fill, of pixels kept of each, and of pixels read."""


@dataclass(frozen=True)
class SceneSample:
    """Sample of a scene, the same in every process.

    Args:
        values: (band, n) values of valid pixels, without undeclared fill.
        whole: The scene if it is small.
        fill: Colour of undeclared fill; () if there is none.
        fill_share: Its share in the valid pixels.
        speck_share: Share of the pixels in specks of nodata, see `without_specks`.
        collar: (y, x) of any size over the scene, True for white fill that reaches a corner; None
            if there is none. Roofs are rarely so, and a model may take such fill for roofs.
    """

    values: NDArray[Any]
    whole: Raster | None = None
    fill: tuple[float, ...] = ()
    fill_share: float = 0.0
    speck_share: float = 0.0
    collar: BoolArray | None = None

    def notes(self, name: str, *, is_left_out: bool) -> list[str]:
        """Return what the user should know of nodata in an image."""
        notes = []
        if self.fill:
            one = len(set(self.fill)) == 1
            option = ",".join(f"{value:g}" for value in (self.fill[:1] if one else self.fill))
            where = "" if is_certain_fill(np.array(self.fill)[:, None]).any() else " at the edges"
            choice = (
                "they are left out as fill. If they are ground, give --nodata none."
                if is_left_out
                else "they are predicted as if they were ground. If they are fill, give --nodata "
                f"{option}."
            )
            notes.append(
                f"{name}: {max(self.fill_share, 0.01):.0%} of the pixels are "
                f"{colour_name(self.fill)}{where} and not marked as nodata: {choice}"
            )
        if self.speck_share >= _LEAST_SPECKS:
            notes.append(
                f"{name}: pixels with the nodata value lie scattered in the picture. Specks of "
                f"them up to {SPECK_M:g} m wide count as ground, larger areas are nodata. If the "
                "value occurs on the ground, such as on white roofs, give --nodata none."
            )
        return notes


def sample_of(scene: RasterSource) -> SceneSample:
    """Return a sample of a scene.

    A small scene is read whole, an overview of a larger one if it has a suitable one, and otherwise
    a lattice of windows, and rows where fill is at the edge. Parts that cannot be read are left
    out: reading them as tiles reports it.
    """
    shape = scene.grid.shape
    specks: int = -getattr(scene, "speck_px", 0)
    overview = getattr(scene, "read_overview", None)
    whole: Raster | None = None
    if shape[0] * shape[1] <= _HELD_PX:
        small = whole = _read_if_possible(scene)
    else:
        small = None if overview is None else overview(_OVERVIEW_PX, _HELD_PX)
        if small is not None and np.count_nonzero(small.valid) < _MIN_SAMPLE_PX:
            small = None
    if small is not None:
        read_px = small.valid.size
        step = max(1, ceil(sqrt(read_px / _SAMPLE_PX)))
        values, valid = small.data[:, ::step, ::step], small.valid[::step, ::step]
        # A copy is several times as fast as choosing all pixels.
        values = values.reshape(len(values), -1) if valid.all() else values[:, valid]
    else:
        read_px, values = _read_lattice(scene)
        # A map service would be asked for tiles in another order than that of the blocks.
        is_service = hasattr(scene, "service")
        if not is_service and values.size:
            probes = _read_edge(scene)
            if holds_bytes(values):
                probes = [None if one is None else _as_bytes(one) for one in probes]
            small = _read_rows_with_fill(scene, probes)
    if small is not None and values.size and holds_bytes(values):
        small = _as_bytes(small)
        values = values.astype(small.data.dtype)
    fill: tuple[float, ...] = ()
    fill_share = 0.0
    where: BoolArray | None = None
    if small is not None:
        fill, where = fill_at_edges(small.data, small.valid)
        if where is not None:
            fill_share = int(np.count_nonzero(where)) / int(np.count_nonzero(small.valid))
    specks += getattr(scene, "speck_px", 0)
    certain = is_certain_fill(values)
    if certain.any():
        fill, fill_share = commonest_colour(values[:, certain]), float(certain.mean())
    elif fill_share < LEAST_FILL and (values.dtype == np.uint8 or values.dtype.kind == "f"):
        fill = ()
    kept = ~certain
    if fill:
        kept &= differs(values[:, None], fill)[0]
    if not kept.any():
        # Without another colour, nothing tells fill from ground.
        return SceneSample(values, whole, speck_share=specks / max(read_px, 1))
    collar = None
    is_float = values.dtype.kind == "f" and values.max() <= 1
    white = 1 if is_float else np.iinfo(values.dtype).max if values.dtype.kind == "u" else None
    if where is not None and {*fill} == {white}:
        collar = at_corners(where) if at_corners(where).any() else None
    values = values if kept.all() else values[:, kept]
    return SceneSample(values, whole, fill, fill_share, specks / max(read_px, 1), collar)


def holds_bytes(values: NDArray[Any]) -> bool:
    """Return True if values of any type are those of an 8-bit image."""
    if values.min() < 0 or values.max() > 255 or values.max() < 2:
        return False
    return values.dtype.kind in "ui" or bool((values == np.rint(values)).all())


def _as_bytes(raster: Raster) -> Raster:
    """Return 8-bit values that a raster has in a wider type, so that 255 is white."""
    if raster.data.dtype == np.uint8:
        return raster
    data = np.where(raster.valid, raster.data, 0)
    if data.min() < 0 or data.max() > 255:
        return raster
    return Raster(data.astype(np.uint8), raster.valid, raster.grid)


def _read_lattice(scene: RasterSource) -> tuple[int, NDArray[Any]]:
    """Return the number of pixels of windows all over a scene, and their valid values (band, n)."""
    parts, read_px = [np.zeros((scene.bands, 0), scene.dtype)], 0
    if scene.grid.shape[0] * scene.grid.shape[1] <= _HELD_PX:
        return 0, parts[0]
    for side in _LATTICES:
        # Windows at the centres of `side` × `side` cells of the scene, row by row.
        places = []
        for length in scene.grid.shape:
            size = min(_WINDOW_PX, length)
            centres = [(2 * cell + 1) * length // (2 * side) for cell in range(side)]
            starts = dict.fromkeys(min(max(c - size // 2, 0), length - size) for c in centres)
            places.append([(start, size) for start in starts])
        # From the last tile: the blocks of the first ones are decoded last, and GDAL keeps them.
        step = 1 if is_sequential(scene) else -1
        for (row, height), (col, width) in [*product(*places)][::step]:
            raster = _read_if_possible(scene, Window(row, col, height, width))
            if raster is not None:
                parts.append(raster.data[:, raster.valid])
                read_px += height * width
        if sum(part.shape[1] for part in parts) >= _MIN_SAMPLE_PX:
            break
    return read_px, np.concatenate(parts, axis=1)


def _read_edge(scene: RasterSource) -> list[Raster | None]:
    """Return single pixels along the edges of a scene; None for each that cannot be read."""
    rows, cols = scene.grid.shape
    pixels = []
    for place in range(_PROBES):
        row, col = ((2 * place + 1) * length // (2 * _PROBES) for length in (rows, cols))
        pixels += [(row, 0), (row, cols - 1), (0, col), (rows - 1, col)]
    # Pixels decode few blocks of a tiled file; rows may decode all of them.
    return [_read_if_possible(scene, Window(row, col, 1, 1)) for row, col in sorted(pixels)]


def _read_rows_with_fill(scene: RasterSource, edge: list[Raster | None]) -> Raster | None:
    """Return evenly spaced rows of a scene, also first and last; None if no fill is at its edge."""
    rows, cols = scene.grid.shape
    fill = sum(bool((is_fill(one.data) & one.valid).all()) for one in edge if one is not None)
    if fill < EDGE_SHARE * len(edge):
        return None
    count = min(rows, _ROWS, max(_ROWS_PX // cols, 1))
    read = [
        _read_if_possible(scene, Window(number * (rows - 1) // max(count - 1, 1), 0, 1, cols))
        for number in range(count)
    ]
    data, valid = (
        [getattr(one, name) for one in read if one is not None] for name in ("data", "valid")
    )
    if not data:
        return None
    step = ceil(cols / _ROW_PX)
    grid = scene.grid.resampled((len(data), ceil(cols / step)), (rows / len(data), step))
    return Raster(
        np.concatenate(data, axis=1)[:, :, ::step], np.concatenate(valid)[:, ::step], grid
    )


def _read_if_possible(scene: RasterSource, window: Window | None = None) -> Raster | None:
    """Return the pixels of a window; None if it is known to be empty or cannot be read."""
    try:
        if window is not None and is_known_empty(scene, window):
            return None
        return scene.read(window)
    except ServiceError:
        # A stretch from the tiles before a refusal would differ from that of a later run.
        raise
    except RooftraceError:
        return None
