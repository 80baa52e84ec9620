"""Buildings counted one by one, through the whole evaluation."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from rooftrace.data.config import SourceConfig
from rooftrace.engines.selftest import tiny_bundle
from rooftrace.flows.evaluate import EvalOptions, run_evaluate
from rooftrace.models.bundle import write_bundle

HOUSES = ((10, 10, 40, 40), (40, 10, 70, 40), (20, 60, 40, 90))
"""Left, top, right, bottom in pixels: two that touch and one by itself."""

PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 9_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bright image of the houses, `images/a.tif`; the model `bright.rooftrace`."""
    bundle = tiny_bundle()
    write_bundle(tmp_path / "bright.rooftrace", bundle.spec, bundle.parts)
    pixels = np.zeros((3, 100, 120), np.uint8)
    for left, top, right, bottom in HOUSES:
        pixels[:, top:bottom, left:right] = 250
    for part, data in (("images", pixels), ("masks", pixels[:1] // 250 * 255)):
        (tmp_path / part).mkdir()
        with rasterio.open(
            tmp_path / part / "a.tif", "w", driver="GTiff", count=len(data), height=100, width=120,
            dtype="uint8", crs=32736, transform=PLACE,
        ) as out:  # fmt: skip
            out.write(data)
    return tmp_path


def objects(folder: Path, data: SourceConfig) -> dict[str, object]:
    report = run_evaluate(folder / "bright.rooftrace", data, None, EvalOptions()).first
    assert dict(report.rows())["F1 of buildings (pooled)"] == f"{report.objects.f1:.4f}"
    return report.to_json()["objects"]


def test_footprints_tell_houses_apart_that_the_model_runs_together(folder: Path) -> None:
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
