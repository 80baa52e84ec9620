"""Polygons of other tools are judged as they were drawn."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from external_scenes import HOUSES, PLACE, houses, judged, write_png, write_polygons, write_tiff

from rooftrace.core.errors import DataError, GeoreferenceError, LabelError


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """The three houses as polygons over their image."""
    rgb = np.repeat(houses()[None] * np.uint8(200) + np.uint8(20), 3, axis=0)
    write_tiff(tmp_path / "data/images/a.tif", rgb)
    return write_polygons(tmp_path / "data/labels.gpkg")


def test_polygons_are_not_traced_anew(truth: Path, tmp_path: Path) -> None:
    # A corner cut by a tenth of a pixel is seen, though it changes no pixel.
    left, top, right, bottom = HOUSES[0]
    cut = shapely.Polygon(
        [(left + 0.1, top), (right, top), (right, bottom), (left, bottom), (left, top + 0.1)]
    )
    world = shapely.transform(cut, lambda xy: np.stack(PLACE @ xy.T, axis=1))
    gpd.GeoDataFrame(geometry=[world], crs="EPSG:32736").to_file(tmp_path / "p.gpkg")
    report = judged(tmp_path / "p.gpkg", truth)
    assert report.to_json()["polygons"]["corners"] == 5
    assert report.objects.matched == 1


@pytest.mark.parametrize("values", [[0.9, 0.8, 0.4], [90, 80.0, 40]], ids=["share", "per cent"])
def test_a_score_gives_calibration_and_average_precision(
    truth: Path, tmp_path: Path, values: list[float]
) -> None:
    report = judged(write_polygons(tmp_path / "p.gpkg", Confidence=values), truth)
    assert report.reliability is not None
    assert report.images[0].score.tolist() == pytest.approx([0.9, 0.8, 0.4])
    assert report.images[0].right.all()
    assert report.coco is not None
    assert report.coco["ap50"] == pytest.approx(1)


@pytest.mark.parametrize("values", [[1, 2, 3], [0.5, None, 0.5], ["high", "low", "low"]])
def test_what_is_no_score_is_reported(truth: Path, tmp_path: Path, values: list[object]) -> None:
    path = write_polygons(tmp_path / "p.gpkg", score=values)
    report = judged(path, truth)
    assert report.reliability is None
    assert any("not read as a score" in note for note in report.notes)


def test_the_class_of_a_polygon(truth: Path, tmp_path: Path) -> None:
    mixed = write_polygons(tmp_path / "mixed.gpkg", **{"class": ["building", "road", "Building"]})
    assert judged(mixed, truth).objects.predicted == 2
    kinds = write_polygons(tmp_path / "kinds.gpkg", **{"class": ["hut", "house", "villa"]})
    assert judged(kinds, truth).objects.predicted == 3


def test_names_of_classes_have_to_be_those_of_the_labels(tmp_path: Path) -> None:
    labels = {"classes": ["nothing", "building", "road"], "building": "building"}
    write_tiff(tmp_path / "truth/a.tif", houses(0) + houses(1) * np.uint8(2))
    path = write_polygons(tmp_path / "p.gpkg", 0, 1, **{"class": ["building", "road"]})
    report = judged(path, tmp_path / "truth", labels=labels)
    assert (report.pooled.iou(1), report.pooled.iou(2)) == (1, 1)
    path = write_polygons(tmp_path / "p.gpkg", 0, 1, **{"class": ["building", "street"]})
    with pytest.raises(LabelError, match="unknown classes 'street'"):
        judged(path, tmp_path / "truth", labels=labels)


def test_polygons_in_pixels(tmp_path: Path) -> None:
    write_png(tmp_path / "data/images/a.png", np.zeros((*houses().shape, 3), np.uint8))
    write_png(tmp_path / "data/masks/a.png", houses() * np.uint8(255))
    boxes = [shapely.box(*house) for house in HOUSES]
    path = tmp_path / "predicted/town/a_buildings.geojson"
    path.parent.mkdir(parents=True)
    path.write_text(gpd.GeoSeries(boxes).to_json())
    plain = judged(tmp_path / "predicted", tmp_path / "data").to_json()
    assert plain["pixel"]["iou"] == plain["objects"]["f1"] == 1
    write_polygons(tmp_path / "ground.gpkg")
    with pytest.raises(GeoreferenceError, match="labelled scenes have no georeference"):
        judged(tmp_path / "ground.gpkg", tmp_path / "data")
    # As QGIS draws on a picture without a georeference.
    path.write_text(gpd.GeoSeries(boxes).affine_transform([1, 0, 0, -1, 0, 0]).to_json())
    with pytest.raises(GeoreferenceError, match="touches a labelled scene") as caught:
        judged(tmp_path / "predicted", tmp_path / "data")
    assert "y down" in caught.value.remedy


def test_what_does_not_fit_is_reported(truth: Path, tmp_path: Path) -> None:
    far = gpd.read_file(truth).translate(9000, 0)
    far.to_file(tmp_path / "far.gpkg")
    with pytest.raises(GeoreferenceError, match="None of the polygons"):
        judged(tmp_path / "far.gpkg", truth)
    (tmp_path / "broken.gpkg").write_bytes(b"SQLite format 3\0nonsense")
    with pytest.raises(DataError, match="cannot be read as vector data"):
        judged(tmp_path / "broken.gpkg", truth)
