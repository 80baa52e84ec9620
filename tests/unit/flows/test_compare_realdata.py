"""True changes that were made by hand in a real layer are found, each as such."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window
from shapely import affinity, box

from command_line import call
from raster_files import write_geotiff
from rooftrace.flows.compare.options import CompareOptions
from rooftrace.flows.compare.run import run_compare
from rooftrace.metrics.polygons import PolygonCounts
from rooftrace.predict.model_set import read_models
from rooftrace.vector.match import PolygonOverlaps

COUNT = 10
"""Number of changes of each kind."""


@pytest.mark.realdata
@pytest.mark.parametrize("place", ["nairobi", "zanzibar"])
def test_changes_made_in_a_real_layer_are_found(realdata: Path, tmp_path: Path, place: str) -> None:
    labels = gpd.read_file(realdata / "oam" / place / "labels.geojson")
    metres = labels.to_crs(labels.estimate_utm_crs())
    houses = shapely.make_valid(metres.geometry.to_numpy())
    # Only houses that stand alone are changed, so that a change of one is none of another.
    near = shapely.STRtree(houses).query(houses, predicate="dwithin", distance=6)
    alone = np.flatnonzero((np.bincount(near[0]) == 1) & (shapely.area(houses) > 30))
    alone = alone[: 4 * COUNT]
    assert len(alone) == 4 * COUNT
    _, moved, divided, extended = alone.reshape(4, COUNT)
    new = [house for index, house in enumerate(houses) if index not in set(alone.tolist())]
    new += [affinity.translate(houses[index], 4, 3) for index in moved]
    for index in divided:
        house, middle = houses[index], houses[index].centroid
        half = box(middle.x - 500, middle.y - 500, middle.x, middle.y + 500)
        new += [house & half, house - half]
    new += [shapely.buffer(houses[index], 3.5, join_style="mitre") for index in extended]
    left, bottom, right, top = shapely.total_bounds(houses)
    free = [box(x, y, x + 8, y + 8) for x in np.arange(left, right, 25.0)
            for y in np.arange(bottom, top, 25.0)]  # fmt: skip
    tree = shapely.STRtree(houses)
    added = [one for one in free if not len(tree.query(one.buffer(12)))][:COUNT]
    new += added
    path = tmp_path / "new.gpkg"
    gpd.GeoDataFrame(geometry=new, crs=metres.crs).to_file(path)
    area = tmp_path / "area.gpkg"
    frame = box(left - 50, bottom - 50, right + 50, top + 50)
    gpd.GeoDataFrame(geometry=[frame], crs=metres.crs).to_file(area)
    report = run_compare(
        path, realdata / "oam" / place / "labels.geojson", tmp_path / "out",
        CompareOptions(area=area),
    )  # fmt: skip
    assert report.offset is None or report.offset.length_m < 0.1
    found = {row.status: (row.new, row.old) for row in report.table}
    assert found["new"] == (COUNT, 0)
    assert found["gone"] == (0, COUNT)
    assert found["moved"] == (COUNT, COUNT)
    assert found["split"] == (2 * COUNT, COUNT)
    assert found["changed"] == (COUNT, COUNT)
    assert found["outside"] == (0, 0)
    sides = gpd.read_file(tmp_path / "out" / "compare.gpkg").to_crs(metres.crs)
    was_moved = sides[(sides.side == "new") & (sides.status == "moved")]
    np.testing.assert_allclose(was_moved.offset_m, 5, atol=0.02)
    was_changed = sides[(sides.side == "old") & (sides.status == "changed")]
    centres = shapely.centroid(houses[extended])
    distance = [was_changed.geometry.distance(centre).min() for centre in centres]
    assert max(distance) == 0


@pytest.mark.realdata
@pytest.mark.campaign
def test_two_zooms_of_one_ground_have_no_sure_change(realdata: Path, tmp_path: Path) -> None:
    """Predict a town at two zooms of one image, and paint one house out of the newer one."""
    files = []
    for zoom, scale in ((21, 2), (20, 1)):
        path = realdata / "scenes" / f"zanzibar_z{zoom}.tif"
        with rasterio.open(path) as scene:
            window = Window(1024 * scale, 0, 1280 * scale, 1280 * scale)
            pixels, valid = scene.read(window=window), scene.dataset_mask(window=window)
            place = {
                "crs": scene.crs,
                "transform": scene.transform @ Affine.translation(1024 * scale, 0),
            }
        files.append(write_geotiff(tmp_path / path.name, pixels * (valid > 0), nodata=0, **place))
    models = read_models(None)
    report = run_compare(files[0], files[1], tmp_path / "out", models=models)
    (same,) = [row for row in report.table if row.new or row.old]
    assert same.status == "same"
    assert min(same.new, same.old) >= 50
    # The polygons alone differ.
    sides = gpd.read_file(tmp_path / "out" / "compare.gpkg")
    assert sides.change_share.notna().sum() >= 5
    assert sides.partner_id.isna().any()
    sure = sides[(sides.side == "old") & sides.change_share.isna() & sides.area_m2.between(60, 200)]
    outline = sure.geometry.iloc[0].buffer(1.5)
    with rasterio.open(files[0], "r+") as image:
        painted = rasterize([outline], image.shape, transform=image.transform) > 0
        pixels = image.read()
        ground = np.median(pixels[:, (pixels > 0).all(axis=0) & ~painted], axis=1)
        noise = np.random.default_rng(0).normal(0, 6, (3, int(painted.sum())))
        pixels[:, painted] = np.clip(ground[:, None] + noise, 1, 255)
        image.write(pixels)
    report = run_compare(files[0], files[1], tmp_path / "painted", models=models)
    found = {row.status: (row.new, row.old) for row in report.table if row.new or row.old}
    assert found["gone"] == (0, 1)
    assert set(found) == {"same", "gone"}


@pytest.mark.realdata
@pytest.mark.campaign
@pytest.mark.parametrize("place", ["kampala", "zanzibar"])
def test_pairs_are_those_of_evaluate_and_others_at_edges(
    realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Predict a town, and compare the buildings with its labels in both ways."""
    scene = realdata / "scenes" / f"{place}_z20.tif"
    code, _ = call("predict", scene, "-o", tmp_path / "predicted")
    assert code == 0
    # Beside images, the labels would be those of the images.
    labels = tmp_path / "labels.geojson"
    shutil.copy(realdata / "oam" / place / "labels.geojson", labels)
    buildings = tmp_path / "predicted" / f"{place}_z20_buildings.gpkg"
    report = run_compare(buildings, labels, tmp_path / "out", CompareOptions(imagery=(scene,)))
    seen: dict[str, Any] = {}
    measure = PolygonCounts.of

    def record(truth: Any, predicted: Any, **options: Any) -> PolygonCounts:
        seen.update(options, sides=(truth, predicted))
        return measure(truth, predicted, **options)

    monkeypatch.setattr(PolygonCounts, "of", record)
    code, figures = call("evaluate", "--predictions", tmp_path / "predicted", labels)
    assert code == 0, figures
    with rasterio.open(scene) as image:
        to_pixels, crs = ~image.transform, image.crs
    whole = [
        gpd.read_file(path).to_crs(crs).make_valid().affine_transform(to_pixels.to_shapely())
        for path in (labels, buildings)
    ]
    np.testing.assert_allclose(
        shapely.area(whole[1].to_numpy()), shapely.area(seen["sides"][1]), rtol=1e-6
    )
    pairs = PolygonOverlaps.of(*(side.to_numpy() for side in whole)).matches(0.5)
    assert report.matched == len(pairs.one) > 50
    # Evaluate cuts labels at the edge of the image, and leaves out what an edge has cut.
    overlaps = PolygonOverlaps.of(*seen["sides"])
    left, left_predicted = overlaps.without(seen["usable_truth"], seen["usable_predicted"])
    cut = overlaps.matches(0.5)
    counted = left[cut.one] & left_predicted[cut.other]
    assert figures["polygons"]["pairs"] == counted.sum()
    of_both, at_edges = ({*cut.other[kept].tolist()} for kept in (counted, ~counted))
    of_compare = {*pairs.other.tolist()}
    assert of_both <= of_compare
    assert of_compare - of_both <= at_edges
