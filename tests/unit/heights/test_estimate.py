"""Heights of generated towns: ground, eaves, ridge, shape, intervals, and what they depend on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import CRS, Transformer

from rooftrace.core.types import GeoGrid, Window
from rooftrace.heights.estimate import REASONS, Heights, level_parts
from rooftrace.heights.faces import slope_and_azimuth_deg
from rooftrace.heights.roof import measure_roofs
from rooftrace.heights.surface import Samples, Surface
from rooftrace.heights.survey import Places, RasterSurvey
from rooftrace.io.elevation import ElevationRaster, open_elevation
from rooftrace.io.gdal import CACHE
from rooftrace.io.georeferenced import ArraySource
from rooftrace.vector.match import PackedPolygons
from town.roofs import RoofTown, levels_town, make_roof_town

UTM = CRS.from_epsg(32631)
EAST, NORTH = 500_000.0, 5_000_000.0
BOX = np.array([shapely.box(-10, -5, 10, 5)], np.object_)


def surface_of(town: RoofTown, heights: np.ndarray, valid: np.ndarray | None = None) -> Surface:
    metres = town.surface.shape[0] * town.pixel_m
    transform = Affine(town.pixel_m, 0, EAST, 0, -town.pixel_m, NORTH + metres)
    grid = GeoGrid(heights.shape, transform, UTM)
    return Surface(ArraySource(heights[None], grid, valid))


def places_of(town: RoofTown) -> Places:
    outlines = shapely.transform(town.outlines, lambda xy: np.add(xy, (EAST, NORTH)))
    return Places(PackedPolygons.of(np.asarray(outlines, np.object_)), UTM)


def measure(town: RoofTown, *, terrain: bool = False, surface: Surface | None = None) -> Heights:
    places = places_of(town)
    ground = surface_of(town, town.terrain) if terrain else None
    return RasterSurvey(places, surface or surface_of(town, town.surface), ground).heights()


def rmse(values: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(values**2)))


@pytest.mark.parametrize("terrain", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_roofs_of_a_town_are_measured_to_centimetres(terrain: bool) -> None:
    town = make_roof_town(80, slope=0.2, seed=3)
    heights = measure(town, terrain=terrain)
    truth = town.top - town.ground
    known = heights.reason == 0
    assert known.mean() >= 0.95
    assert rmse(heights.ground - town.ground) <= 0.15
    names = heights.shape_names()
    right = names == town.shape
    assert right[known].mean() >= 0.9
    flat = town.shape == "flat"
    assert rmse((heights.height - truth)[flat]) <= 0.15
    gabled = (town.shape == "gabled") & right
    assert rmse((heights.height - truth)[gabled]) <= 0.3
    eaves = heights.height - heights.roof_height
    assert rmse((eaves - (town.eaves - town.ground))[gabled]) <= 0.3
    ridged = right & ~flat
    turn = (heights.direction - town.direction + 90) % 180 - 90
    assert np.nanmedian(np.abs(turn[ridged])) <= 2
    inside = (heights.low <= truth) & (truth <= heights.high)
    assert inside[known].mean() >= 0.9


@pytest.mark.parametrize("pixel_m", [pytest.param(0.25, marks=pytest.mark.campaign), 1.0])
def test_hipped_roofs_are_told_from_gabled_ones(pixel_m: float) -> None:
    town = make_roof_town(100, pixel_m=pixel_m, slope=0.1, seed=11)
    heights = measure(town)
    known, names = heights.is_known, heights.shape_names()
    assert (names == "hipped")[known & (town.shape == "hipped")].mean() >= 0.9
    assert (names == town.shape)[known].mean() >= 0.95
    hipped = known & (town.shape == "hipped") & (names == "hipped")
    error = heights.height - (town.top - town.ground)
    assert rmse(error[hipped]) <= max(0.3, 0.5 * pixel_m)


def test_a_constant_added_changes_nothing_but_the_ground() -> None:
    town = make_roof_town(20, seed=5, noise_m=0.0)
    high = replace(town, surface=(town.surface.astype(np.float64) + 1024).astype(np.float32))
    one, other = measure(town), measure(high)
    np.testing.assert_allclose(other.ground - one.ground, 1024, atol=0.02)
    np.testing.assert_allclose(other.height, one.height, atol=0.02)
    np.testing.assert_array_equal(other.shape, one.shape)
    assert RasterSurvey(places_of(town), surface_of(town, town.terrain)).offset() is None


def test_a_building_has_the_same_height_alone_as_in_its_town() -> None:
    town = make_roof_town(36, seed=7, touching=False)
    together = measure(town)
    for index in (0, 14, 35):
        alone = measure(replace(town, outlines=town.outlines[[index]]))
        assert alone.height[0] == pytest.approx(together.height[index], abs=0.05)


def test_what_cannot_be_measured_has_a_reason() -> None:
    town = make_roof_town(9, seed=2, trees=0, touching=False, slope=0.3)
    surface = town.surface.copy()
    valid = np.ones(surface.shape, np.bool_)
    rng = np.random.default_rng(0)
    rows, cols = np.indices(surface.shape)
    x = (cols + 0.5) * town.pixel_m
    y = (surface.shape[0] - rows - 0.5) * town.pixel_m
    inside = [shapely.contains_xy(outline, x, y) for outline in town.outlines]
    valid[inside[0]] = False
    surface[inside[1]] = town.terrain[inside[1]]
    surface[inside[2]] = town.terrain[inside[2]] + rng.uniform(1, 9, inside[2].sum())
    east = x > shapely.centroid(town.outlines[3]).x
    valid[inside[3] & east] = False
    twice = replace(town, outlines=np.append(town.outlines, town.outlines[4]))
    heights = measure(twice, terrain=True, surface=surface_of(town, surface, valid))
    assert [REASONS[number] for number in heights.reason[[0, 1, 2, 3, 4, 5, -1]]] == [
        "not covered by the surface", "no step at the outline", "mostly trees",
        "covered by the surface in part", "covered by another outline", "", "",
    ]  # fmt: skip
    assert np.isnan(heights.height[:5]).all()
    few = town.surface[::32, ::32]
    top = NORTH + town.surface.shape[0] * town.pixel_m
    place = Affine(32 * town.pixel_m, 0, EAST, 0, -32 * town.pixel_m, top)
    coarse = Surface(ArraySource(few[None], GeoGrid(few.shape, place, UTM)))
    reasons = {REASONS[number] for number in measure(town, surface=coarse).reason}
    assert reasons == {"fewer than 4 pixels or points inside"}
    above = measure(
        replace(town, terrain=town.surface + 5), terrain=True, surface=surface_of(town, surface)
    )
    assert REASONS[above.reason[4]] == "terrain lies above the surface"
    # A terrain model that holds the lower part of the walls.
    high = measure(replace(town, terrain=town.terrain + 5), terrain=True)
    assert (np.isnan(high.roof_height) == (town.eaves - town.ground < 5))[high.is_known].all()


@pytest.mark.parametrize(
    ("crs", "pixels"),
    [
        (32631, Affine.rotation(30) @ Affine.scale(0.5, -0.8)),
        (4326, Affine.scale(8e-6, -8e-6)),
    ],
)
def test_roof_planes_face_true_north_in_any_crs(crs: int, pixels: Affine) -> None:
    # Here, the north of UTM 31 is 2.6° from true north.
    plane = CRS.from_proj4("+proj=aeqd +lat_0=60 +lon_0=0 +datum=WGS84")
    there, utm = (Transformer.from_crs(plane, to, always_xy=True) for to in (crs, UTM))
    corner = np.array(there.transform(0, 0)) - pixels @ (30, 30)
    grid = GeoGrid((60, 60), Affine.translation(*corner) @ pixels, CRS(crs))
    rows, cols = np.indices((60, 60)) + 0.5
    east, north = there.transform(*grid.to_world(cols, rows), direction="INVERSE")
    # Falls by 30 degrees to 140, and by 15 to 320; the ridge lies 1 m from the centre.
    turn = 1j * np.exp(-1j * np.radians(140))
    place = (east + 1j * north) / turn - 1
    fall = np.where(place.real > 0, np.tan(np.pi / 6), -np.tan(np.pi / 12)) * place.real
    inside = (np.abs(place.real + 1) < 4) & (np.abs(place.imag) < 6)
    surface = np.where(inside, 59 - fall, 50)[None].astype(np.float32)
    corners = np.array([-4 - 6j, 4 - 6j, 4 + 6j, -4 + 6j]) * turn
    house = np.array([shapely.Polygon(np.transpose(utm.transform(corners.real, corners.imag)))])
    places = Places(PackedPolygons.of(house), UTM)
    survey = RasterSurvey(places, Surface(ArraySource(surface, grid)))
    of_groups: list[Heights] = []
    assert survey.heights(lambda _, some: of_groups.append(some)).faces.size == 0
    heights = of_groups[0]
    found = slope_and_azimuth_deg(heights.planes[0, :2])
    np.testing.assert_allclose(found, [[15, 30], [320, 140]], atol=0.5)
    np.testing.assert_allclose(shapely.area(heights.faces[0, :2]), [60, 36], atol=5)
    assert heights.plane_m2[0] == pytest.approx(60 / np.cos(np.pi / 12), abs=5)


def roof_of(xyz: np.ndarray) -> Samples:
    return Samples.grouped(np.zeros(len(xyz), np.int64), xyz, np.zeros(len(xyz)))


def test_level_slices_of_a_hipped_roof_are_no_planes() -> None:
    two_wings = ((11, 4, 0, -4), (4, 8, -7, 0))
    x, y = np.meshgrid(np.arange(-11.5, 12), np.arange(-8.5, 9))
    wings = [np.minimum(a - abs(x - u), b - abs(y - v)) for a, b, u, v in two_wings]
    down = np.maximum(*wings)
    z = 53 + down * np.tan(np.radians(24)) + np.random.default_rng(2).normal(0, 0.08, x.shape)
    outline = shapely.union(shapely.box(-11, -8, 11, 0), shapely.box(-11, -8, -3, 8))
    roof = roof_of(np.stack([x, y, z], axis=-1)[down > 0.7])
    roofs = measure_roofs(roof, np.array([outline]), 1.0, np.array([0.3]))
    slope, _ = slope_and_azimuth_deg(roofs.planes[0])
    assert roofs.share[0][np.abs(slope - 24) < 3].sum() > 0.8


def test_two_levels_of_a_roof_are_parted_where_they_meet() -> None:
    town = levels_town()
    heights = measure(town)
    assert heights.height[0] == pytest.approx(9, abs=0.05)
    assert heights.lower[0] == pytest.approx(4, abs=0.1)
    # On the second plane, north lies 30 degrees to the left of up.
    turn = np.array([[np.sqrt(3), -1], [1, np.sqrt(3)]]) / 2
    low, high = level_parts(town.outlines, heights, np.eye(2)[None])[0]
    on_plane = shapely.transform(town.outlines, lambda xy: xy @ turn)
    turned = level_parts(on_plane, heights, turn[None])[0][1][0]
    assert turned.symmetric_difference(shapely.transform(high[0], lambda xy: xy @ turn)).area < 0.01
    assert low[1] == pytest.approx(54, abs=0.1)
    assert high[1] == pytest.approx(59, abs=0.1)
    assert high[0].symmetric_difference(shapely.box(10, 10, 18, 20)).area < 5
    assert low[0].area + high[0].area == pytest.approx(200)


def test_neither_low_parts_nor_a_steep_edge_decide_the_top() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-10, 10, 1000), rng.uniform(-5, 5, 1000)
    crowded = np.column_stack([x, y, np.where(x > 2, 3.0, rng.uniform(7, 11, 1000))])
    x, y = (side.ravel() for side in np.meshgrid(np.arange(-9.5, 10), np.arange(-4.5, 5)))
    edged = np.column_stack([x, y, np.where(x > -7.5, 13.0, 13 + 1.5 * (x + 7.5))])
    for xyz, step_m, top in ((crowded, 0.3, 10.8), (edged, 1.0, 13)):
        roofs = measure_roofs(roof_of(xyz), BOX, step_m, np.array([0.17]))
        assert roofs.top[0] == pytest.approx(top, abs=0.2)


def test_narrow_windows_do_not_fill_the_cache_of_blocks(tmp_path: Path) -> None:
    path, size = tmp_path / "sparse.tif", 40_000
    profile = {
        "driver": "GTiff", "width": size, "height": 512, "count": 1, "dtype": "float32",
        "tiled": True, "crs": "EPSG:32631", "transform": Affine(1, 0, EAST, 0, -1, NORTH),
        "sparse_ok": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile):
        pass
    source = open_elevation([path])[0]
    before = CACHE.bytes
    for col in (0, 20_000, size - 30):
        house = np.array([shapely.box(col + 5, 100, col + 15, 110)])
        Surface(source).samples(house, 1, np.array([[col + 10.0, 105.0]]), 12.0)[0]
    assert CACHE.bytes == before


def test_zero_is_fill_beside_land_and_ground_around_a_tower() -> None:
    heights = np.zeros((1, 40, 40), np.float32)
    heights[0, 10:30, 10:30] = 30
    grid = GeoGrid((40, 40), Affine(1, 0, 5e5, 0, -1, 5e6), CRS.from_epsg(32633))
    # Heights above ground.
    assert ElevationRaster(ArraySource(heights, grid)).read().valid.all()
    heights[0, :, 10:] = 30
    source = ElevationRaster(ArraySource(heights, grid))
    assert (source.read().valid == (np.arange(40) > 11)).all()
    # A window of fill and no land has no heights, either.
    assert not source.read(Window(0, 0, 40, 9)).valid.any()
    # A warped model of land with buildings on it, in the middle of fill.
    warped = np.zeros((1, 40, 40), np.float32)
    warped[0, 3:37, 3:37] = np.linspace(30, 75, 34)
    valid = ElevationRaster(ArraySource(warped, grid)).read().valid
    assert (valid.sum(), valid[5:35, 5:35].all()) == (30**2, True)
    # What another part of the file shows counts in every window.
    heights[0, 0, 39] = 3
    assert ElevationRaster(ArraySource(heights, grid)).read(Window(5, 0, 30, 30)).valid.all()
