import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import CRS

from rooftrace.core.errors import DataError
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


def test_rows_are_houses_that_touch():
    scene = generate_scene(3, (256, 256), 0.4, districts=["rows"])
    outlines = np.array(scene.buildings, dtype=object)
    one, other = shapely.STRtree(outlines).query(outlines, predicate="dwithin", distance=0.01)
    assert len(set(one[one != other])) > 0.8 * len(outlines)


def test_built_up_share(scenes):
    share = [float(scene.mask().mean()) for scene in scenes.values()]
    assert min(share) > 0.04
    assert max(share) < 0.5
    assert 0.1 < np.mean(share) < 0.35


def test_seeds_differ(scenes):
    means = {tuple(scene.image.mean(axis=(1, 2)).round(1)) for scene in scenes.values()}
    assert len(means) == len(scenes)


@pytest.mark.campaign
@pytest.mark.parametrize("shape_yx", [(64, 64), (128, 200), (256, 256)])
def test_small_scenes_hold_buildings(shape_yx):
    for seed in range(8):
        assert generate_scene(seed, shape_yx).mask().any()


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("shape_yx", "gsd_m"), [((64, 1200), 0.3), ((64, 64), 0.05), ((300, 200), 2.0), ((65, 71), 1.0)]
)
def test_odd_shapes_and_resolutions(shape_yx, gsd_m):
    scene = generate_scene(5, shape_yx, gsd_m)
    assert scene.image.shape == (3, *shape_yx)
    assert scene.mask().shape == shape_yx
    assert scene.mask().any()
    assert scene.image.std() > 10


def test_buildings_look_unlike_the_ground_around_them(scenes):
    # Not every roof contrasts with the ground, but the truth must belong to this image.
    for scene in scenes.values():
        inside = scene.mask().astype(bool)
        contrast = abs(scene.image[:, inside].mean(axis=1) - scene.image[:, ~inside].mean(axis=1))
        assert contrast.max() > 4


def test_resolution_changes_pixels_not_places():
    coarse = generate_scene(4, (160, 160), gsd_m=0.6)
    assert coarse.grid.bounds_xy[2] - coarse.grid.bounds_xy[0] == pytest.approx(96)
    assert coarse.mask().any()


@pytest.mark.parametrize(
    ("kwargs", "part"),
    [
        ({"seed": -1}, "seed -1"),
        ({"seed": 0, "shape_yx": (32, 256)}, "(32, 256)"),
        ({"seed": 0, "gsd_m": 9.0}, "9.0 m per pixel"),
        ({"seed": 0, "crs": 4326}, "EPSG:4326"),
        ({"seed": 0, "districts": ["row"]}, "['row']"),
    ],
)
def test_errors_say_what_was_received(kwargs, part):
    with pytest.raises(DataError) as caught:
        generate_scene(**kwargs)
    assert part in caught.value.message
    assert caught.value.remedy


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


def test_jpeg_is_close_and_smaller(tmp_path, scenes):
    scene = scenes[1]
    plain, _ = scene.write(tmp_path, "plain")
    lossy, _ = scene.write(tmp_path, "lossy", jpeg_quality=90)
    with rasterio.open(lossy) as source:
        assert source.compression.value == "JPEG"
        difference = np.abs(source.read().astype(int) - scene.image).mean()
    assert difference < 4
    assert lossy.stat().st_size < plain.stat().st_size / 2


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
