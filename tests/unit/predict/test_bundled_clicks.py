"""The bundled network for clicks, on a generated town that it was not trained on."""

from importlib import resources

import geopandas as gpd
import numpy as np
import pytest
import shapely
from rasterio.features import rasterize

from rooftrace.core.errors import BundleError
from rooftrace.core.types import RasterSource, Window
from rooftrace.engines.base import PointwiseEngine
from rooftrace.io.raster import open_raster
from rooftrace.models.bundle import click_bundle
from rooftrace.models.clicks import next_click
from rooftrace.predict.clicks import ClickModel, ClickSegmenter, load_clicks
from rooftrace.predict.predictor import Predictor

SIDE = 160
ASSETS = resources.files("rooftrace") / "assets"


@pytest.fixture(scope="module")
def town() -> RasterSource:
    return open_raster(str(ASSETS / "demo_scene.tif"))


@pytest.fixture(scope="module")
def model() -> ClickModel:
    return load_clicks()


@pytest.fixture(scope="module")
def houses(town: RasterSource) -> list[shapely.Polygon]:
    """Return 10 buildings of all sizes above 40 m², in pixels and away from the edge."""
    labels = gpd.read_file(str(ASSETS / "demo_scene_truth.gpkg"))
    pixels = shapely.transform(labels.geometry.to_numpy(), town.grid.to_pixels)
    inner = shapely.box(SIDE, SIDE, town.grid.width - SIDE, town.grid.height - SIDE)
    large = shapely.area(pixels) * (town.grid.gsd_m or 1) ** 2 >= 40
    kept = pixels[large & shapely.contains(inner, pixels)]
    order = np.argsort(shapely.area(kept), kind="stable")
    return list(kept[order[:: len(kept) // 10]][:10])


def ious(town: RasterSource, model: ClickModel, house: shapely.Polygon, count: int) -> list[float]:
    """Return the IoU after each of several clicks of a simulated annotator."""
    centre = house.representative_point()
    window = Window(int(centre.y) - SIDE, int(centre.x) - SIDE, 2 * SIDE, 2 * SIDE)
    moved = shapely.transform(house, lambda xy: xy - (window.col, window.row))
    truth = rasterize([moved], out_shape=window.shape_yx, dtype="uint8").astype(np.bool_)
    known, shown = np.ones_like(truth), np.zeros_like(truth)
    segmenter, found = ClickSegmenter(town, model), []
    for _ in range(count):
        click = next_click(truth, shown, known)
        if click is None:
            break
        answer = segmenter.click(
            window.row + click.row, window.col + click.col, positive=click.positive
        )
        whole = np.zeros(town.grid.shape, np.bool_)
        whole[answer.window.slices()] = answer.mask
        shown = whole[window.slices()]
        both = (truth & shown).sum()
        found.append(float(both / (truth.sum() + whole.sum() - both)))
    return found


def test_it_predicts_no_whole_images() -> None:
    bundle = click_bundle()
    with pytest.raises(BundleError, match=r"is a model for clicks.*predicts whole images"):
        Predictor(bundle, PointwiseEngine())


@pytest.mark.campaign
def test_clicks_outline_the_buildings_of_a_town(
    town: RasterSource, model: ClickModel, houses: list[shapely.Polygon]
) -> None:
    found = [ious(town, model, house, 4) for house in houses]
    first = np.median([one[0] for one in found])
    best = np.median([max(one) for one in found])
    assert first > 0.55
    assert best > max(0.7, first)


def test_each_house_has_an_outline_of_its_own(
    town: RasterSource, model: ClickModel, houses: list[shapely.Polygon]
) -> None:
    for house in houses[::3]:
        centre = house.representative_point()
        answer = ClickSegmenter(town, model).click(centre.y, centre.x)
        [outline] = answer.outlines[shapely.contains(answer.outlines, centre)]
        assert outline.is_valid
        assert 0.2 < outline.area / house.area < 5
