"""Built-up density: pixels and polygons per second, compared with plain NumPy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from common import argument_parser, measure_part, rounded, say, start

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rooftrace.core.types import GeoGrid

PLACES = {"utm": 32631, "web_mercator": 3857}
"""A CRS whose rows of pixels are parallel to the cells, and one whose rows are not."""

_BLOCK_PX = 4096
_STRIP_PX = 256
_CELL_M = 100.0
_BINS = 1000


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--size", type=int, default=20_000, help="side of the mask, in pixels")
    parser.add_argument("--plain-size", type=int, default=5000, help="of the loop, the slower")
    parser.add_argument("--polygons", type=int, default=1_000_000)
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    for place in PLACES:
        for way, size_px in (("ours", options.size), ("plain", options.plain_size)):
            say(f"{way}, {place}: {size_px}² pixels")
            run = measure_part(__file__, way, place=place, size_px=size_px)
            rows[f"{way}_{place}"] = run.row
    say(f"{options.polygons} polygons")
    run = measure_part(__file__, "polygons", count=options.polygons)
    rows["polygons"] = run.row
    for way in ("ours", "plain"):
        say(f"{way}: one polygon over many cells")
        rows[f"{way}_large"] = measure_part(__file__, "large", way=way).row
    return {
        "cell_m": _CELL_M,
        "rows": rows,
        "ratios": {
            f"ours/plain {place}": rounded(
                rows[f"ours_{place}"]["mpx_per_s"] / rows[f"plain_{place}"]["mpx_per_s"]
            )
            for place in PLACES
        }
        | {
            "ours/plain large": rounded(
                rows["ours_large"]["cells_per_s"] / rows["plain_large"]["cells_per_s"]
            )
        },
    }


# The following functions run in child processes.


def ours(place: str, size_px: int) -> dict[str, Any]:
    """Measure the accumulator of rooftrace, fed block by block."""
    from rooftrace.core.types import Window
    from rooftrace.density.accumulate import DensityAccumulator

    grid, mask = _scene(place, size_px)
    accumulator = DensityAccumulator(grid, _CELL_M)

    def count() -> float:
        for strip in Window.whole(grid.shape).strips(_BLOCK_PX):
            for col in range(0, size_px, _BLOCK_PX):
                window = Window(strip.row, col, strip.height, min(_BLOCK_PX, size_px - col))
                part = mask[: window.height, : window.width]
                accumulator.feed(window, part)
        return float(accumulator.finish().figures.total().built_up_share)

    return _timed(count, size_px)


def plain(place: str, size_px: int) -> dict[str, Any]:
    """Measure the cell of each pixel by its coordinates, strip by strip, with `np.bincount`."""
    import numpy as np
    from pyproj import Transformer

    grid, mask = _scene(place, size_px)
    to_metres = Transformer.from_crs(grid.crs, PLACES["utm"], always_xy=True)

    built, valid = np.zeros(_BINS**2), np.zeros(_BINS**2)

    def count() -> float:
        for row in range(0, size_px, _STRIP_PX):
            height = min(_STRIP_PX, size_px - row)
            cols, rows = np.meshgrid(np.arange(size_px) + 0.5, np.arange(row, row + height) + 0.5)
            x, y = grid.to_world(cols, rows)
            if place != "utm":
                x, y = to_metres.transform(x, y)
            # An index for each cell of a scene that is narrower than 100 km.
            col, line = np.floor(x / _CELL_M) % _BINS, np.floor(y / _CELL_M) % _BINS
            cell = (line * _BINS + col).astype(int).ravel()
            strip = mask[row % _BLOCK_PX :][:height]
            values = np.tile(strip, -(-size_px // _BLOCK_PX))[:, :size_px].ravel()
            valid[:] += np.bincount(cell[values != 255], minlength=_BINS**2)
            built[:] += np.bincount(cell[values == 1], minlength=_BINS**2)
        return float(built.sum() / valid.sum())

    return _timed(count, size_px)


def polygons(count: int) -> dict[str, Any]:
    """Measure rectangles of 12 × 10 m, some of them across the edges of cells."""
    import numpy as np
    import shapely

    from rooftrace.density.accumulate import density_of_polygons
    from rooftrace.density.cells import CellGrid

    side = 20.0 * count**0.5
    corner = np.random.default_rng(0).random((count, 2)) * side
    houses = shapely.box(corner[:, 0], corner[:, 1], corner[:, 0] + 12, corner[:, 1] + 10)
    cells = CellGrid.over((0, 0, side + 12, side + 10), _CELL_M, None)
    started = time.perf_counter()
    density = density_of_polygons(np.asarray(houses, np.object_), cells)
    seconds = time.perf_counter() - started
    return {
        "polygons": count,
        "polygons_per_s": rounded(count / seconds),
        "nearest_m": rounded(float(density.figures.total().nearest_m)),
    }


def large(way: str) -> dict[str, Any]:
    """Measure the areas by cell of a star of 40 corners, 4 km wide, in cells of 10 m.

    The plain way cuts it by each cell, which shapely does for arrays.
    """
    import numpy as np
    import shapely

    from rooftrace.density.cells import CellGrid

    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = np.where(np.arange(40) % 2, 2000, 1200)
    corners = np.stack([2000 + radius * np.cos(angle), 2000 + radius * np.sin(angle)], axis=1)
    star = shapely.Polygon(corners)
    grid = CellGrid.over((0, 0, 4000, 4000), 10.0, None)
    started = time.perf_counter()
    if way == "ours":
        index, area_m2 = grid.areas_of(np.array([star], np.object_))
    else:
        index = np.arange(grid.count)
        area_m2 = shapely.area(shapely.intersection(grid.polygons(index), star))
    seconds = time.perf_counter() - started
    return {
        "cells": grid.count,
        "cells_per_s": rounded(grid.count / seconds),
        "area_m2": rounded(float(area_m2.sum())),
        "star_m2": rounded(star.area),
    }


def _scene(place: str, size_px: int) -> tuple[GeoGrid, NDArray[np.uint8]]:
    """Return the grid of a mask of 0.3 m, and the block that the mask repeats."""
    import numpy as np
    from affine import Affine
    from pyproj import CRS

    from rooftrace.core.types import GeoGrid

    corner = (5e5, 5e6) if place == "utm" else (3.3e5, 5.6e6)
    transform = Affine(0.3, 0, corner[0], 0, -0.3, corner[1])
    grid = GeoGrid((size_px, size_px), transform, CRS.from_epsg(PLACES[place]))
    block = np.random.default_rng(0).random((_BLOCK_PX, _BLOCK_PX))
    mask = (block < 0.3).astype(np.uint8)
    mask[block > 0.9] = 255
    return grid, mask


def _timed(count: Callable[[], float], size_px: int) -> dict[str, Any]:
    started = time.perf_counter()
    share = count()
    seconds = time.perf_counter() - started
    return {"mpx_per_s": rounded(size_px**2 / 1e6 / seconds), "built_up_share": share}


if __name__ == "__main__":
    start(main, ours, plain, polygons, large)
