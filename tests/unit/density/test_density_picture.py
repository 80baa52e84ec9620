"""Pictures of density have the right colours for grids and zones of any shape."""

from __future__ import annotations

import numpy as np
import shapely
from PIL import Image

from rooftrace.density.cells import CellGrid
from rooftrace.density.figures import DensityFigures, DensityGrid
from rooftrace.density.files import DARK, DensityThreshold, draw_cells, draw_zones

NO_BUILDING, DARKEST, BRIGHTEST, PAPER, EDGE = (
    (226, 226, 230), (68, 1, 84), (253, 231, 37), (255, 255, 255), (25, 25, 28),
)  # fmt: skip


def figures(share: np.ndarray) -> DensityFigures:
    """Return figures of places of 100 m²; NaN is not observed."""
    observed = np.where(np.isnan(share), 0.0, 100.0)
    none = np.zeros(share.shape, np.int64)
    return DensityFigures(
        np.full(share.shape, 100.0), observed, np.nan_to_num(share) * observed, none,
        none * 0.0, none * np.nan,
    )  # fmt: skip


def grid(share: np.ndarray) -> DensityGrid:
    return DensityGrid(CellGrid(share.shape, 10.0, 0, 0, None).grid, 10.0, figures(share))


def colours(picture: Image.Image) -> dict[tuple[int, ...], int]:
    found = picture.getcolors(picture.width * picture.height)
    assert found is not None
    return {colour: count for count, colour in found}


def test_each_cell_has_the_colour_of_its_share() -> None:
    share = np.array([[0.0, 0.01], [0.9, np.nan]])
    picture = draw_cells(grid(share), DensityThreshold(threshold=0.95), "a place")
    left = (picture.width - 256) // 2
    cell = 128
    for (row, col), expected in zip(np.ndindex(2, 2), (NO_BUILDING, DARKEST, BRIGHTEST, PAPER)):
        middle = left + col * cell + cell // 2, 118 + row * cell + cell // 2
        assert picture.getpixel(middle) == expected


def test_dense_cells_have_a_border() -> None:
    share = np.array([[0.01, 0.9], [0.01, 0.01]])
    some = colours(draw_cells(grid(share), DensityThreshold(threshold=0.5), ""))
    none = colours(draw_cells(grid(share), DensityThreshold(threshold=1.0), ""))
    # The border is five pixels wide along two edges of 128, and half as wide along the others.
    assert some[EDGE] - none.get(EDGE, 0) > 2 * 5 * 128
    dark = colours(draw_cells(grid(share), DensityThreshold(threshold=0.5), "", DARK))
    assert dark[DARK.paper] > some[PAPER] / 2


def test_zones_with_holes_and_the_smaller_on_top() -> None:
    ring = shapely.box(0, 0, 100, 100).difference(shapely.box(10, 10, 40, 40))
    zones = np.array([shapely.box(60, 60, 90, 90), ring], object)
    picture = draw_zones(zones, figures(np.array([0.9, 0.01])), DensityThreshold(threshold=1), "")
    left = (picture.width - 1802) // 2

    def at(x: float, y: float) -> object:
        return picture.getpixel((left + int(x * 18), 118 + int((100 - y) * 18)))

    assert at(75, 75) == BRIGHTEST
    assert at(50, 50) == DARKEST
    assert at(25, 25) == PAPER


def test_a_zone_that_was_hardly_seen_has_its_name_and_no_colour() -> None:
    zones = np.array([shapely.box(0, 0, 50, 50), shapely.box(50, 0, 100, 50)], object)
    share = figures(np.array([0.9, 0.9]))
    share.observed_m2[1] = 4.0
    threshold = DensityThreshold(threshold=0.2)
    named = draw_zones(zones, share, threshold, "Wards", ["Old town", "Harbour"])
    plain = draw_zones(zones, share, threshold, "Wards")
    left, middle = (named.width - 1802) // 2, 118 + 450
    assert named.getpixel((left + 100, middle)) == BRIGHTEST
    assert named.getpixel((left + 1000, middle)) == PAPER
    for half in (0, 900):
        box = (left + half + 200, 118 + 200, left + half + 700, 118 + 700)
        assert np.any(np.asarray(named.crop(box)) != np.asarray(plain.crop(box)))
