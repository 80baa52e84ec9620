"""Pictures of density have the right colours for grids and zones of any shape."""

import numpy as np
from PIL import Image
from shapely import box

from rooftrace.density.cells import CellGrid, DensityFigures, DensityGrid
from rooftrace.density.files import SCALE, DensityThreshold, draw_cells, draw_zones

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
    return DensityGrid(CellGrid(share.shape, 10.0, 0, 0, None), figures(share))


def colours(picture: Image.Image) -> dict[tuple[int, ...], int]:
    found = picture.getcolors(picture.width * picture.height)
    return {colour: count for count, colour in found or ()}


def test_each_cell_has_the_colour_of_its_share() -> None:
    share = np.array([[0.0, 0.01], [0.9, np.nan]])
    picture = draw_cells(grid(share), DensityThreshold(threshold=0.95), "a place")
    left, cell = (picture.width - 256) // 2, 128
    for (row, col), expected in zip(np.ndindex(2, 2), (NO_BUILDING, DARKEST, BRIGHTEST, PAPER)):
        middle = left + col * cell + cell // 2, 118 + row * cell + cell // 2
        assert picture.getpixel(middle) == expected


def test_dense_cells_have_a_border_and_titles_any_letter() -> None:
    share = np.array([[0.01, 0.9], [0.01, 0.01]])
    some = colours(draw_cells(grid(share), DensityThreshold(threshold=0.5), ""))
    # A font without a letter draws the same box for each.
    bare, other = (draw_cells(grid(share), DensityThreshold(threshold=1.0), one) for one in "äö")
    assert bare != other
    none = colours(bare)
    # The border is five pixels wide along two edges of 128, and half as wide along the others.
    assert some[EDGE] - none.get(EDGE, 0) > 2 * 5 * 128


def test_zones_that_were_not_observed_do_not_make_the_others_small() -> None:
    zones = np.array([box(0, 0, 99, 99), box(99, 0, 5e4, 5e4), box(6e7, 6e7, 7e7, 7e7)])
    share, dense = np.array([0.049, np.nan, np.nan]), DensityThreshold(threshold=0.2)
    # Of shares below 5 % the grades are a tenth as wide.
    rural = figures(np.array([0.012]))
    assert tuple(SCALE[2]) in colours(draw_zones(zones[:1], rural, dense, ""))
    share[0] = 0.004
    pictures = [draw_zones(zones[:n], figures(share[:n]), dense, "", "abc"[:n]) for n in (1, 3)]
    alone, among = (colours(picture)[DARKEST] for picture in pictures)
    assert among > 0.99 * alone
