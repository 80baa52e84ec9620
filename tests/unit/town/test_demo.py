import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from town import demo_scene, demo_scene_path, demo_truth_path
from town import scene as demo
from town.__main__ import main

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


def test_it_is_small_and_varied(scene):
    assert demo_scene_path().stat().st_size < 1.6e6
    share = float(scene.mask().mean())
    assert 0.15 <= share <= 0.25
    areas = shapely.area(np.array(scene.buildings))
    assert areas.max() > 1500
    assert np.median(areas) < 120
    assert any(polygon.interiors for polygon in scene.buildings)


def test_the_module_writes_both_files(monkeypatch, tmp_path, capsys, scene):
    monkeypatch.setattr(demo, "demo_scene", lambda: scene)
    main([str(tmp_path)])
    output = capsys.readouterr().out
    for path in (demo_scene_path(), demo_truth_path()):
        written = tmp_path / path.name
        assert str(written) in output
        assert written.stat().st_size == pytest.approx(path.stat().st_size, rel=0.1)
