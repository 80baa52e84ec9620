"""Buildings counted one by one, through the whole evaluation."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine

from raster_files import write_geotiff
from rooftrace.core.errors import DataError
from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.labels.config import SourceConfig
from tiny_models import write_tiny_bundle

HOUSES = ((10, 10, 40, 40), (40, 10, 70, 40), (20, 60, 40, 90))
"""Left, top, right, bottom in pixels: two that touch and one by itself."""

PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 9_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bright image of the houses, `images/a.tif`; the model `bright.rooftrace`."""
    write_tiny_bundle(tmp_path / "bright.rooftrace")
    pixels = np.zeros((3, 100, 120), np.uint8)
    for left, top, right, bottom in HOUSES:
        pixels[:, top:bottom, left:right] = 250
    for part, data in (("images", pixels), ("masks", pixels[:1] // 250 * 255)):
        (tmp_path / part).mkdir()
        write_geotiff(tmp_path / part / "a.tif", data, crs=32736, transform=PLACE)
    return tmp_path


def objects(folder: Path, data: SourceConfig) -> dict[str, object]:
    report = run_evaluate(folder / "bright.rooftrace", data, None, EvalOptions()).first
    assert dict(report.headline_figures)["F1 of buildings (pooled)"].value == report.objects.f1
    return report.to_json()["objects"]


def test_footprints_separate_houses_that_the_model_joins(folder: Path) -> None:
    outlines = [
        shapely.transform(shapely.box(*house), lambda xy: np.stack(PLACE @ xy.T, axis=1))
        for house in HOUSES
    ]
    labels = folder / "labels.gpkg"
    gpd.GeoDataFrame(geometry=outlines, crs=32736).to_file(labels, engine="pyogrio")
    found = objects(folder, SourceConfig(path=str(labels)))
    expected = {
        "labelled": 3, "predicted": 2, "matched": 1, "split": 0, "merged": 1,
        "precision": 0.5, "recall": 0.333333, "f1": 0.4,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_of_a_mask_connected_regions_count(folder: Path) -> None:
    found = objects(folder, SourceConfig(path=str(folder)))
    assert (found["labelled"], found["matched"], found["f1"]) == (2, 2, 1)


def test_images_without_a_label_are_refused(folder: Path) -> None:
    (folder / "masks/a.tif").unlink()
    images = SourceConfig(path=str(folder / "images"))
    with pytest.raises(DataError, match="has 1 image and no label for any"):
        run_evaluate(folder / "bright.rooftrace", images, None, EvalOptions())
