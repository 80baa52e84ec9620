"""Labels without imagery: masks, polygons or a table alone."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from external_scenes import (
    HOUSES,
    PLACE,
    SHAPE,
    houses,
    judged,
    write_polygons,
    write_tiff,
)

from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError


@pytest.mark.parametrize("folder", [True, False])
def test_masks(tmp_path: Path, folder: bool) -> None:
    write_tiff(tmp_path / "truth/a_gt.tif", houses())
    write_tiff(tmp_path / "predicted/a_mask.tif", houses(0, 1) * np.uint8(255))
    inner = ("", "") if folder else ("a_mask.tif", "a_gt.tif")
    report = judged(tmp_path / "predicted" / inner[0], tmp_path / "truth" / inner[1])
    assert (report.objects.labelled, report.objects.matched) == (3, 2)
    assert report.built_up is not None, "the georeference gives metres"
    assert any("its 1 rasters are labels" in note for note in report.notes)


@pytest.mark.parametrize("crs", ["EPSG:32736", "EPSG:4326"])
def test_polygons_against_a_raster(tmp_path: Path, crs: str) -> None:
    truth = write_polygons(tmp_path / "labels/truth.gpkg", crs=crs)
    write_tiff(tmp_path / "predicted/scene.tif", houses(0, 1))
    report = judged(tmp_path / "predicted/scene.tif", truth)
    assert report.pooled.pixels == SHAPE[0] * SHAPE[1]
    assert report.pooled.matrix[1].tolist() == [houses(2).sum(), houses(0, 1).sum()]
    assert (report.objects.labelled, report.objects.matched) == (3, 2)
    assert any("the grid of the rasters" in note for note in report.notes)


def test_polygons_that_no_raster_shows_are_reported(tmp_path: Path) -> None:
    truth = write_polygons(tmp_path / "labels/truth.gpkg")
    part = houses()[:, : HOUSES[0][2] + 2]
    write_tiff(tmp_path / "predicted/a.tif", part)
    report = judged(tmp_path / "predicted", truth)
    assert any("1 of 3 polygons" in note for note in report.notes)
    write_tiff(tmp_path / "predicted/a.tif", part, PLACE @ Affine.translation(9000, 0))
    with pytest.raises(GeoreferenceError, match="touch none of the predictions"):
        judged(tmp_path / "predicted", truth)
    write_tiff(tmp_path / "predicted/a.tif", part, None)
    with pytest.raises(
        GeoreferenceError, match="has no georeference, so the polygons cannot be drawn"
    ):
        judged(tmp_path / "predicted", truth)


def test_polygons_against_polygons(tmp_path: Path) -> None:
    truth = write_polygons(tmp_path / "truth.gpkg")
    predicted = write_polygons(tmp_path / "predicted/p.geojson", 0, 1, crs="EPSG:4326")
    report = judged(predicted, truth, gsd_m=0.1)
    areas = [(right - left) * (bottom - top) * 0.25 for left, top, right, bottom in HOUSES]
    assert report.pooled.matrix[1].sum() * 0.01 == pytest.approx(sum(areas), rel=0.01)
    assert (report.objects.labelled, report.objects.matched) == (3, 2)
    assert report.to_json()["polygons"]["polis_m"] == pytest.approx(0, abs=1e-4)
    with pytest.raises(ConfigError, match="size of a pixel is unknown") as raised:
        judged(predicted, truth)
    assert "--gsd" in raised.value.remedy
    with pytest.raises(ConfigError, match=r"pixels of 0\.0001 m"):
        judged(predicted, truth, gsd_m=0.0001)
    gpd.read_file(truth).iloc[:0].to_file(tmp_path / "none.gpkg")
    with pytest.raises(DataError, match="holds no polygon"):
        judged(predicted, tmp_path / "none.gpkg", gsd_m=0.1)


def test_predicted_polygons_outside_of_the_labels_are_named(tmp_path: Path) -> None:
    truth = write_polygons(tmp_path / "truth.gpkg", 0, 1)
    same = write_polygons(tmp_path / "same.gpkg", 0, 1)
    assert not any("lie outside" in note for note in judged(same, truth, gsd_m=0.1).notes)
    own = gpd.read_file(same).geometry
    more = [*own, shapely.affinity.translate(own[0], -180, 0)]
    gpd.GeoDataFrame(geometry=more, crs=own.crs).to_file(tmp_path / "more.gpkg")
    report = judged(tmp_path / "more.gpkg", truth, gsd_m=0.1)
    assert report.objects.matched == 2
    note = "more.gpkg: 1 of 3 polygons lie outside of the labels' bounds and are left out."
    assert note in report.notes
