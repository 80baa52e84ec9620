"""Labels without imagery: masks, polygons or a table alone."""

from pathlib import Path

import numpy as np
import pytest
from external_scenes import SHAPE, houses, judged, write_polygons, write_tiff

from rooftrace.core.errors import DataError


@pytest.mark.parametrize("folder", [True, False])
def test_masks(tmp_path: Path, folder: bool) -> None:
    write_tiff(tmp_path / "truth/a_gt.tif", houses())
    write_tiff(tmp_path / "predicted/a_mask.tif", houses(0, 1) * np.uint8(255))
    inner = ("", "") if folder else ("a_mask.tif", "a_gt.tif")
    given = tmp_path / "predicted" / inner[0], tmp_path / "truth" / inner[1]
    area = write_polygons(tmp_path / "area.geojson", 0, crs="EPSG:4326")
    inside = judged(*given, area=str(area)).pooled
    assert inside.pixels == inside.matrix[1, 1] == houses(0).sum()
    report = judged(*given)
    assert (report.objects.labelled, report.objects.matched) == (3, 2)
    assert report.built_up is not None, "the georeference gives metres"
    assert any("its 1 rasters are labels" in note for note in report.notes)


@pytest.mark.parametrize("crs", ["EPSG:32736", "EPSG:4326"])
def test_a_predicted_mask_serves_as_the_image_of_polygons(tmp_path: Path, crs: str) -> None:
    truth = write_polygons(tmp_path / "labels/truth.gpkg", crs=crs)
    mask = write_tiff(tmp_path / "predicted/scene.tif", houses(0, 1))
    report = judged(mask, truth, images=str(mask.parent))
    assert report.pooled.pixels == SHAPE[0] * SHAPE[1]
    assert report.pooled.matrix[1].tolist() == [houses(2).sum(), houses(0, 1).sum()]
    assert (report.objects.labelled, report.objects.matched) == (3, 2)


def test_polygons_without_imagery_are_compared_by_another_command(tmp_path: Path) -> None:
    truth = write_polygons(tmp_path / "truth/truth.gpkg")
    predicted = write_polygons(tmp_path / "predicted/p.geojson", 0, 1, crs="EPSG:4326")
    with pytest.raises(DataError) as raised:
        judged(predicted, truth)
    assert "--images" in raised.value.remedy
    assert "rooftrace compare NEW --reference MAP" in raised.value.remedy
