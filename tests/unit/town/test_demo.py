import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from town import demo_scene, demo_scene_path, demo_truth_path

pytestmark = pytest.mark.campaign


@pytest.fixture(scope="module")
def scene():
    return demo_scene()


def test_the_generator_makes_the_shipped_pixels(scene):
    with rasterio.open(demo_scene_path()) as source:
        assert source.crs == scene.grid.crs
        assert source.transform == scene.grid.transform
        assert source.profile["tiled"]
        difference = np.abs(source.read().astype(np.int16) - scene.image)
    # JPEG changes brightness by a few levels and hue by more, but shifts no roof.
    assert difference.mean() < 5
    assert np.quantile(difference, 0.999) < 60


def test_the_generator_makes_the_shipped_truth(scene):
    frame = gpd.read_file(demo_truth_path())
    assert frame.crs == scene.grid.crs
    shipped, drawn = frame.geometry.to_numpy(), np.array(scene.buildings)
    assert len(shipped) == len(drawn)
    # Areas are compared because the first vertex of a ring depends on the version of GEOS.
    assert shapely.area(shapely.symmetric_difference(shipped, drawn)).max() < 1e-3
