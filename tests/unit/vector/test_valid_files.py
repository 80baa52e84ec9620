"""Polygons of any mask are valid in every format, inside the image, and keep their area."""

import tempfile
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS
from scipy import ndimage

from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.io.vector_write import write_footprints
from rooftrace.vector.assemble import FootprintAssembler
from rooftrace.vector.footprints import make_footprints
from rooftrace.vector.prepare import VectorOptions
from rooftrace.vector.watershed import WatershedOptions
from vector_samples import MAIN_SUFFIXES

GRIDS = {
    "pixels": GeoGrid((70, 90)),
    "metres": GeoGrid((70, 90), Affine(0.3, 0, 500_000.1, 0, -0.3, 6_400_000.7), CRS(3006)),
    "mercator": GeoGrid(
        (70, 90), Affine(0.2985821417, 0, 4107309.3, 0, -0.2985821417, -145797.7), CRS(3857)
    ),
    "rotated": GeoGrid(
        (70, 90), Affine.translation(5e5, 6e6) @ Affine.rotation(17) @ Affine.scale(0.3, -0.3),
        CRS(32633),
    ),
    "degrees": GeoGrid((70, 90), Affine(3e-6, 0, 13.1, 0, -3e-6, 55.6), CRS(4326)),
}  # fmt: skip


def noise(seed: int, blur_px: float, threshold: float) -> np.ndarray:
    """Return a mask of blobs with holes, corners that touch, and contact with all borders."""
    values = np.random.default_rng(seed).standard_normal((70, 90))
    if blur_px:
        values = ndimage.gaussian_filter(values, blur_px)
        values /= values.std()
    return (values > threshold).astype(np.uint8)


def traced(mask: np.ndarray, grid: GeoGrid, options: VectorOptions) -> Footprints:
    window = Window(0, 0, *mask.shape)
    score = np.full(mask.shape, 200, np.uint8)
    with FootprintAssembler(grid, (1,), 1, options) as assembler:
        assembler.feed(window, mask, score, np.unique(mask).tolist())
        with assembler.finish() as found:
            return found.whole()


def read(path: Path) -> np.ndarray:
    reader = geopandas.read_parquet if path.suffix == ".parquet" else geopandas.read_file
    table = reader(path)
    if not len(table):
        # A GeoJSON without features has no columns.
        return np.zeros(0, np.object_)
    return np.asarray(table.sort_values("id").geometry.to_numpy(), np.object_)


def common_area(polygons: np.ndarray) -> float:
    """Return the largest area that two of the polygons share."""
    polygons = shapely.make_valid(polygons)  # the transform to degrees may have made them invalid
    one, other = shapely.STRtree(polygons).query(polygons, "intersects")
    apart = one < other
    shared = shapely.area(shapely.intersection(polygons[one[apart]], polygons[other[apart]]))
    return float(shared.max(initial=0))


def check_files(made: Footprints, suffixes: tuple[str, ...] = MAIN_SUFFIXES) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for suffix in suffixes:
            path = Path(folder) / f"made{suffix}"
            write_footprints(path, made)
            polygons, expected = read(path), made.geometry
            assert len(polygons) == len(expected)
            assert shapely.is_valid(polygons).all(), suffix
            digits = 10
            if suffix == ".geojson" and made.crs is not None:
                frame = geopandas.GeoSeries(expected, crs=made.crs).to_crs(4326)
                expected, digits = frame.to_numpy(), 7
            step = 10.0**-digits
            tolerance = step * shapely.length(expected).max(initial=0)
            assert common_area(polygons) <= common_area(expected) + tolerance
            # A polygon with a waist narrower than the digits loses what lies beyond the waist.
            coarse = shapely.transform(expected, lambda xy, n=digits: np.round(xy, n))
            whole = shapely.is_valid(coarse)
            areas, before = shapely.area(polygons), shapely.area(expected)
            assert areas[whole] == pytest.approx(before[whole], abs=tolerance, rel=1e-9)
            assert areas == pytest.approx(before, abs=tolerance, rel=0.01)
            # Other programs fail here on polygons that cross themselves.
            shapely.union_all(polygons)


MASKS = st.builds(
    noise,
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.7, 1.5, 2.5]),
    st.sampled_from([-1.0, -0.3, 0.0, 0.5, 1.2]),
)
OPTIONS = st.builds(
    VectorOptions,
    min_area_px=st.sampled_from([0.0, 9.0]),
    simplify_px=st.sampled_from([0.0, 1.25, 4.0]),
    regularize=st.booleans(),
    watershed=st.sampled_from([None, WatershedOptions()]),
)


def test_a_notch_that_touches_its_wall_is_valid_in_a_geojson_of_pixels() -> None:
    """The wall and the edge along it were one line until the digits of the file moved them."""
    notch = shapely.Polygon(
        [
            (144.0537109375, 408.2041015625), (145.869140625, 427.32421875),
            (180.6923828125, 426.1767578125), (168.615234375, 419.4755859375),
            (167.333984375, 405.9931640625), (146.37783838444642, 407.9833781873632),
            (154.0, 407.25949824702957), (154.0, 408.0), (146.2028174518275, 408.0),
        ]
    )  # fmt: skip
    assert notch.is_valid
    # Otherwise this test would check nothing.
    assert not shapely.transform(notch, lambda xy: np.round(xy, 10)).is_valid
    check_files(Footprints(np.array([notch]), np.ones(1, np.float32), np.array([np.nan]), None))


@settings(max_examples=5, deadline=None)
@given(MASKS, OPTIONS, st.sampled_from(sorted(GRIDS)))
def test_polygons_of_a_noise_mask_are_valid_in_every_format(
    mask: np.ndarray, options: VectorOptions, place: str
) -> None:
    made = traced(mask, GRIDS[place], options)
    assert shapely.is_valid(made.geometry).all()
    check_files(made)


def test_polygons_lie_inside_the_image() -> None:
    """The lines fitted to walls may intersect beyond the border; before, 3 px were seen."""
    mask = np.zeros((40, 50), np.uint8)
    for row in range(40):
        # A building that leaves the image at an acute angle, and its mirror image.
        mask[row, : max(0, 20 - row)] = 1
        mask[row, 50 - max(0, row // 2 - 4) :] = 1
    made = traced(mask, GeoGrid(mask.shape), VectorOptions())
    assert len(made) == 2
    left, top, right, bottom = shapely.total_bounds(made.geometry)
    assert (left, top) >= (0, 0)
    assert (right, bottom) <= (50, 40)


@pytest.mark.campaign
@pytest.mark.parametrize("place", ["pixels", "metres"])
@settings(max_examples=10, deadline=None)
@given(mask=MASKS, options=OPTIONS, cut=st.integers(1, 69))
def test_polygons_of_blocks_lie_inside_the_image_too(
    place: str, mask: np.ndarray, options: VectorOptions, cut: int
) -> None:
    grid = GRIDS[place]
    made = traced(mask, grid, options)
    with FootprintAssembler(grid, (1,), 1, options) as assembler:
        for window in (Window(0, 0, cut, 90), Window(cut, 0, 70 - cut, 90)):
            block = mask[window.slices()]
            score = np.full(block.shape, 200, np.uint8)
            occurring = np.unique(block).tolist()
            outlines = assembler.tracing.trace(window, block, score, occurring)
            assembler.feed_outlines(outlines)
        with assembler.finish() as found:
            blocks = found.whole()
    assert shapely.to_wkb(blocks.geometry).tolist() == shapely.to_wkb(made.geometry).tolist()
    corners = shapely.get_coordinates(made.geometry)
    x, y = corners.T if grid.crs is None else ~grid.transform @ corners.T
    assert (x >= -1e-6).all()
    assert (x <= 90 + 1e-6).all()
    assert (y >= -1e-6).all()
    assert (y <= 70 + 1e-6).all()


@given(st.integers(0, 2**32), st.sampled_from([0.3, 0.1 * 3, 1 / 7, 0.5971642835]))
def test_holes_that_touch_their_wall_are_valid_on_the_ground(seed: int, gsd_m: float) -> None:
    """A hole whose tip lies on a sloped wall is valid in pixels; rounding may make it cross
    the wall.
    """
    rng = np.random.default_rng(seed)
    touching = []
    for x, rise in zip(rng.integers(2, 20, 50).tolist(), rng.integers(1, 9, 50).tolist()):
        shell = [(0, 0), (2 * x, 2 * rise), (2 * x, 40), (0, 40)]
        touching.append(shapely.Polygon(shell, [[(x, rise), (x + 1, 30), (x - 1, 30)]]))
    polygons = np.array(touching)
    assert shapely.is_valid(polygons).all()
    grid = GeoGrid((100, 100), Affine(gsd_m, 0, 4107309.3, 0, -gsd_m, -145797.7), CRS(3857))
    made = make_footprints(polygons, np.ones(len(polygons), np.float32), grid)
    assert shapely.is_valid(made.geometry).all()
    areas = shapely.area(polygons) * gsd_m**2
    np.testing.assert_allclose(shapely.area(made.geometry), areas, rtol=1e-6)
