import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import CRS

from town import SyntheticScene, generate_scene, write_pairs

SEEDS = (0, 1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def scenes() -> dict[int, SyntheticScene]:
    return {seed: generate_scene(seed, (384, 320)) for seed in SEEDS}


@pytest.mark.campaign
def test_same_seed_same_scene(scenes):
    again = generate_scene(3, (384, 320))
    assert np.array_equal(again.image, scenes[3].image)
    assert again.buildings == scenes[3].buildings


def test_shapes_and_grid(scenes):
    scene = scenes[0]
    assert scene.image.shape == (3, 384, 320)
    assert scene.image.dtype == np.uint8
    assert scene.grid.shape == (384, 320)
    assert scene.grid.crs == CRS.from_epsg(32736)
    assert scene.grid.gsd_m == pytest.approx(0.3, rel=2e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_footprints_are_valid_inside_and_do_not_overlap(scenes, seed):
    scene = scenes[seed]
    polygons = np.array(scene.buildings)
    assert shapely.is_valid(polygons).all()
    left, bottom, right, top = scene.grid.bounds_xy
    bounds = shapely.bounds(polygons)
    assert (bounds[:, 0] >= left - 1e-6).all()
    assert (bounds[:, 1] >= bottom - 1e-6).all()
    assert (bounds[:, 2] <= right + 1e-6).all()
    assert (bounds[:, 3] <= top + 1e-6).all()
    first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    pairs = first < second
    shared = shapely.area(shapely.intersection(polygons[first[pairs]], polygons[second[pairs]]))
    assert shared.max(initial=0.0) < 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_mask_is_the_pixels_whose_centre_lies_in_a_footprint(scenes, seed):
    scene = scenes[seed]
    rows, cols = np.mgrid[0 : scene.grid.height, 0 : scene.grid.width] + 0.5
    x, y = scene.grid.to_world(cols, rows)
    union = shapely.union_all(np.array(scene.buildings))
    shapely.prepare(union)
    expected = shapely.contains_xy(union, x, y)
    # A centre on an edge may count for either side.
    assert np.mean(expected != scene.mask()) < 1e-4


def test_resolution_changes_pixels_not_places():
    coarse = generate_scene(4, (160, 160), gsd_m=0.6)
    assert coarse.grid.bounds_xy[2] - coarse.grid.bounds_xy[0] == pytest.approx(96)
    assert coarse.mask().any()


def test_written_files_read_back(tmp_path, scenes):
    scene = scenes[1]
    image, truth = scene.write(tmp_path, "s")
    with rasterio.open(image) as source:
        assert source.crs.to_epsg() == 32736
        assert source.profile["tiled"]
        assert np.array_equal(source.read(), scene.image)
        assert source.transform == scene.grid.transform
    frame = gpd.read_file(truth)
    assert frame.crs.to_epsg() == 32736
    assert len(frame) == len(scene.buildings)
    assert frame.area.sum() == pytest.approx(sum(p.area for p in scene.buildings))


def test_pairs(tmp_path):
    names = write_pairs(tmp_path, [7, 8], shape_yx=(256, 256))
    assert names == ["synthetic_00007", "synthetic_00008"]
    for name in names:
        image_path, mask_path = (tmp_path / part / f"{name}.tif" for part in ("images", "masks"))
        with rasterio.open(image_path) as image, rasterio.open(mask_path) as mask:
            assert image.transform == mask.transform
            assert image.count == 3
            values = np.unique(mask.read(1))
        assert set(values.tolist()) <= {0, 255}
        assert 255 in values
