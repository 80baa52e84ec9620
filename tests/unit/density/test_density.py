"""Figures by cell add up and do not depend on blocks, chunks or the coordinate system."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from rooftrace.core.types import GeoGrid, Window
from rooftrace.density.accumulate import DensityAccumulator, density_of_polygons, nearest_neighbour
from rooftrace.density.cells import CellGrid, DensityGrid
from rooftrace.density.files import write_cog

UTM = CRS.from_epsg(32737)
PLACES = {
    "metres": (Affine(0.5, 0, 5e5, 0, -0.5, 9e6), UTM),
    "south up": (Affine(0.5, 0, 5e5 + 3, 0, 0.5, 9e6), UTM),
    "rotated": (Affine(0.4, 0.3, 5e5, 0.3, -0.4, 9e6), UTM),
    "degrees": (Affine(5e-6, 0, 39.2, 0, -5e-6, -6.1), CRS.from_epsg(4326)),
    "Web Mercator": (Affine(0.6, 0, 3e5, 0, -0.6, 6.6e6), CRS.from_epsg(3857)),
}


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return a mask with background, buildings, another class and nodata."""
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 1, 2, 255], np.uint8), shape, p=[0.5, 0.3, 0.1, 0.1])


def partition(shape: tuple[int, int], cuts: Sequence[int]) -> list[Window]:
    rows = [0, *sorted({c % shape[0] for c in cuts} - {0}), shape[0]]
    cols = [0, *sorted({3 * c % shape[1] for c in cuts} - {0}), shape[1]]
    return [Window(a, c, b - a, d - c) for a, b in pairwise(rows) for c, d in pairwise(cols)]


def counted(grid: GeoGrid, mask: np.ndarray, blocks: list[Window], cell_m: float) -> DensityGrid:
    accumulator = DensityAccumulator(grid, cell_m)
    for window in blocks:
        accumulator.feed(window, mask[window.slices()])
    return accumulator.finish()


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=8)
@given(
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    cuts=st.lists(st.integers(1, 149), max_size=3),
    cell_m=st.sampled_from([3.0, 10.0, 40.0]),
)
def test_any_blocks_give_the_same_bits(
    place: str, shape: tuple[int, int], cuts: list[int], cell_m: float
) -> None:
    grid, mask = GeoGrid(shape, *PLACES[place]), noise(shape)
    whole = counted(grid, mask, [Window.whole(shape)], cell_m)
    parts = counted(grid, mask, partition(shape, cuts)[::-1], cell_m)
    for name in ("built_m2", "observed_m2"):
        assert (getattr(whole.figures, name) == getattr(parts.figures, name)).all()


@pytest.mark.parametrize("place", PLACES)
def test_every_pixel_counts_once_in_the_cell_of_its_centre(place: str) -> None:
    grid, mask = GeoGrid((130, 170), *PLACES[place]), noise((130, 170))
    accumulator = DensityAccumulator(grid, 10.0)
    accumulator.feed(Window.whole(mask.shape), mask)
    rows, cols = np.indices(mask.shape) + 0.5
    cell = accumulator.cells.index(*accumulator.ground.metres(cols, rows))
    assert (cell >= 0).all()
    size = accumulator.cells.count
    density = accumulator.finish()
    px = np.bincount(cell[mask != 255], minlength=size).reshape(density.grid.shape)
    built = np.bincount(cell[mask == 1], minlength=size).reshape(density.grid.shape)
    seen = px > 0
    np.testing.assert_allclose(density.figures.built_up_share[seen], built[seen] / px[seen])
    assert np.isnan(density.figures.built_up_share[~seen]).all()
    # Pixel areas are those on the ground.
    assert grid.gsd_m is not None
    total = float(density.figures.observed_m2.sum())
    assert total == pytest.approx((mask != 255).sum() * grid.gsd_m**2, rel=2e-3)


@given(rows=st.integers(-3, 3), cols=st.integers(-3, 3))
def test_a_scene_moved_by_whole_cells_moves_its_grid(rows: int, cols: int) -> None:
    mask = noise((60, 90))
    transform, crs = PLACES["metres"]
    moved = Affine.translation(cols * 20, -rows * 20) @ transform
    here = counted(GeoGrid(mask.shape, transform, crs), mask, [Window.whole(mask.shape)], 20.0)
    there = counted(GeoGrid(mask.shape, moved, crs), mask, [Window.whole(mask.shape)], 20.0)
    assert (there.grid.transform.c - here.grid.transform.c) == cols * 20
    assert (there.grid.transform.f - here.grid.transform.f) == -rows * 20
    np.testing.assert_array_equal(here.figures.built_m2, there.figures.built_m2)


def test_neighbouring_scenes_share_their_cells() -> None:
    """The cells of two halves add up to those of the scene, by their coordinates."""
    mask = noise((64, 128))
    grid = GeoGrid(mask.shape, *PLACES["metres"])
    found: dict[tuple[float, float], float] = {}
    for window in (Window(0, 0, 64, 50), Window(0, 50, 64, 78)):
        half = counted(
            grid.crop(window), mask[window.slices()], [Window.whole(window.shape_yx)], 12.0
        )
        for (row, col), built in np.ndenumerate(half.figures.built_m2):
            at = half.grid.transform @ (col, row)
            found[at] = found.get(at, 0) + built
    whole = counted(grid, mask, [Window.whole(mask.shape)], 12.0)
    for (row, col), built in np.ndenumerate(whole.figures.built_m2):
        assert found[whole.grid.transform @ (col, row)] == built


@st.composite
def rectangles(draw: st.DrawFn) -> np.ndarray:
    corner = st.floats(0, 90)
    side = st.floats(0.5, 60)
    found = draw(st.lists(st.tuples(corner, corner, side, side), min_size=1, max_size=12))
    return np.array(
        [shapely.box(x + 5e5, y + 9e6, x + w + 5e5, y + h + 9e6) for x, y, w, h in found], object
    )


@given(polygons=rectangles(), seed=st.integers(0, 2**32 - 1))
def test_ground_under_several_polygons_is_built_up_once(polygons: np.ndarray, seed: int) -> None:
    cells = CellGrid.over(tuple(shapely.total_bounds(polygons).tolist()), 10.0, UTM)
    density = density_of_polygons(polygons, cells).figures
    other = density_of_polygons(np.random.default_rng(seed).permutation(polygons), cells).figures
    for name in ("built_m2", "buildings", "buildings_m2", "nearest_m"):
        np.testing.assert_array_equal(getattr(density, name), getattr(other, name))
    assert density.buildings.sum() == len(polygons)
    # Compare with an intersection for each cell.
    union = shapely.union_all(polygons)
    by_hand = shapely.area(shapely.intersection(union, cells.polygons(np.arange(cells.count))))
    np.testing.assert_allclose(density.built_m2.ravel(), by_hand, atol=1e-3)


def test_figures_of_a_cell() -> None:
    """Two houses of 100 m², 30 m apart, in one hectare of which half is observed."""
    grid = GeoGrid((100, 100), Affine(1, 0, 5e5, 0, -1, 9e6), UTM)
    mask = np.zeros((100, 100), np.uint8)
    mask[50:] = 255
    mask[10:20, 10:20] = mask[10:20, 40:50] = 1
    accumulator = DensityAccumulator(grid, 100.0)
    accumulator.feed(Window.whole(mask.shape), mask)
    houses = [shapely.box(10, 10, 20, 20), shapely.box(40, 10, 50, 20)]
    accumulator.add(accumulator.ground.reproject(np.array(houses, object), None))
    density = accumulator.finish()
    assert density.grid.shape == (1, 1)
    total = density.figures.total().to_json()
    assert total == {
        "built_up_share": 0.04, "buildings_per_ha": 4.0, "mean_area_m2": 100.0, "nearest_m": 30.0,
        "observed_share": 0.5, "buildings": 2,
    }  # fmt: skip


def test_neighbours_count_across_the_edges_of_cells() -> None:
    places = [(1.0, 1.0), (9.0, 1.0), (12.0, 1.0)]
    houses = np.array([shapely.box(x - 0.5, y - 0.5, x + 0.5, y + 0.5) for x, y in places], object)
    density = density_of_polygons(houses, CellGrid.over((0, 0, 20, 10), 10.0, UTM))
    np.testing.assert_allclose(density.figures.nearest_m, [[(8 + 3) / 2, 3]])
    # One building has no neighbour.
    density = density_of_polygons(houses[:1], CellGrid.over((0, 0, 10, 10), 10.0, UTM))
    assert np.isnan(density.figures.nearest_m).all()
    assert density.figures.total().to_json()["nearest_m"] is None


def test_small_and_outside_buildings_are_not_counted() -> None:
    grid = GeoGrid((20, 20), Affine(1, 0, 5e5, 0, -1, 9e6), UTM)
    accumulator = DensityAccumulator(grid, 10.0, min_area_m2=4)
    accumulator.feed(Window.whole(grid.shape), np.ones(grid.shape, np.uint8))
    boxes = [shapely.box(0, 0, 3, 3), shapely.box(5, 5, 6, 6), shapely.box(90, 90, 95, 95)]
    accumulator.add(accumulator.ground.reproject(np.array(boxes, object), None))
    density = accumulator.finish()
    assert density.figures.buildings.sum() == 1
    assert density.outside == 1


def test_metres_by_hand_have_their_own_plane() -> None:
    grid = GeoGrid((40, 60))
    accumulator = DensityAccumulator(grid, 10.0, gsd_m=0.5)
    mask = np.zeros(grid.shape, np.uint8)
    mask[:20, 40:] = 1  # all of the upper right cell
    accumulator.feed(Window.whole(grid.shape), mask)
    accumulator.add(
        accumulator.ground.reproject(np.array([shapely.box(40, 0, 60, 20)], object), None)
    )
    density = accumulator.finish()
    assert density.grid.crs is None
    assert density.grid.shape == (2, 3)
    np.testing.assert_array_equal(density.figures.built_up_share, [[0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(density.figures.buildings, [[0, 0, 1], [0, 0, 0]])
    assert density.figures.buildings_m2.sum() == 100


@pytest.mark.parametrize(("crs", "at", "expected"), [
    (32737, (5e5, 9e6), "EPSG:32737"),
    (4326, (39.2, -6.1), "EPSG:32737"),
    (3857, (0.0, 90.0), "EPSG:32631"),
    ("EPSG:3857+5773", (0.0, 90.0), "EPSG:32631"),
    (2263, (1e6, 2e5), "EPSG:32618"),  # New York in feet
    (4326, (10.0, 86.0), "EPSG:32661"),
    (3035, (4.3e6, 3.2e6), "EPSG:3035"),
])  # fmt: skip
def test_the_plane_of_the_cells(crs: int | str, at: tuple[float, float], expected: str) -> None:
    system = CRS.from_user_input(crs)
    px = 1e-5 if system.is_geographic else 1.0
    grid = GeoGrid((50, 50), Affine(px, 0, at[0], 0, -px, at[1]), system)
    assert DensityAccumulator(grid, 100.0).cells.crs == CRS.from_user_input(expected)


def test_polygons_are_divided_by_cells_exactly() -> None:
    ring = shapely.Point(70, 60).buffer(40).difference(shapely.Point(70, 60).buffer(9))
    polygons = np.array(
        [shapely.union(ring, shapely.box(130, 7.3, 146, 51)), shapely.box(1, 1, 3, 3)]
    )
    grid = CellGrid((20, 25), 7.3, 0, 19, None)
    made = np.bincount(*grid.areas_of(polygons), grid.count)
    cells = grid.polygons(np.arange(grid.count))
    expected = shapely.area(shapely.intersection(cells, shapely.union_all(polygons)))
    np.testing.assert_allclose(made, expected, atol=1e-9)


def by_all_pairs(xy: np.ndarray) -> np.ndarray:
    distance = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    return distance.min(axis=1, initial=np.inf)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 80),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 1e6]),
    towns=st.integers(1, 4),
)
def test_equals_all_pairs(seed: int, count: int, spread: float, towns: int) -> None:
    """Points lie in clusters near one another or far apart, or all at one position."""
    rng = np.random.default_rng(seed)
    centres = rng.random((towns, 2)) * 1e5
    xy = centres[rng.integers(0, towns, count)] + rng.normal(size=(count, 2)) * spread
    for at_once in (3, 2**16):  # the result does not depend on how many are searched at once
        with mock.patch("rooftrace.density.accumulate._POLYGONS_AT_ONCE", at_once):
            np.testing.assert_array_equal(nearest_neighbour(xy), by_all_pairs(xy))


@pytest.mark.parametrize("crs", [CRS.from_epsg(32737), None])
def test_a_cloud_optimised_geotiff_has_the_figures_as_named_bands(
    crs: CRS | None, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).random((600, 530))
    values[:9] = np.nan
    grid = GeoGrid(values.shape, Affine(100, 0, 5e5, 0, -100, 9e6), crs)
    write_cog(tmp_path / "a.tif", {"one": values, "two": 2 * values}, grid)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.descriptions == ("one", "two")
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1)
        assert np.isnan(file.nodata)
        assert (file.crs is None) == (crs is None)
        assert file.transform == grid.transform
        np.testing.assert_array_equal(file.read(2), (2 * values).astype(np.float32))
    cogeo = pytest.importorskip("rio_cogeo.cogeo")
    valid, errors, warnings = cogeo.cog_validate(tmp_path / "a.tif", strict=True)
    assert (valid, list(errors), list(warnings)) == (True, [], [])
