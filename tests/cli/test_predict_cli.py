"""The options of `rooftrace predict`, through the real command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine

from command_line import call
from raster_files import write_geotiff
from rooftrace.io.vector_read import VectorFile
from tiny_models import write_tiny_bundle
from town import generate_scene

SIDE, GSD_M, LEFT, TOP = 400, 1.0, 500_000, 9_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and a scene of nine bright houses of 20 × 30 m, one with a yard of 4 m²."""
    write_tiny_bundle(tmp_path / "tiny.rooftrace")
    data = np.full((3, SIDE, SIDE), 30, dtype=np.uint8)
    for row in range(40, SIDE - 60, 100):
        for col in range(20, SIDE - 60, 130):
            data[:, row : row + 20, col : col + 30] = 220
    data[:, 48:50, 30:32] = 30
    write_geotiff(
        tmp_path / "scene.tif", data, crs="EPSG:32737",
        transform=Affine(GSD_M, 0, LEFT, 0, -GSD_M, TOP),
    )  # fmt: skip
    return tmp_path


def predict(folder: Path, *options: object) -> tuple[int, dict[str, Any]]:
    given = ("-m", folder / "tiny.rooftrace", "-o", folder / "out")
    return call("predict", folder / "scene.tif", *given, *options)


def test_everything_is_written(folder: Path) -> None:
    code, done = predict(folder)
    assert code == 0
    (output,) = done["outputs"]
    assert output["buildings"] == 9
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {
        "scene_mask.tif", "scene_mask.qml", "scene_buildings.gpkg", "scene_preview.png",
        "scene_density.tif", "scene_density.gpkg", "scene_density.png", "run.json",
    }  # fmt: skip
    with rasterio.open(output["density"]) as density:
        share = density.read(1)
    cell = share[np.isfinite(share)]
    # 9 houses of 600 m², but for the yard, on 16 ha.
    assert cell.mean() == pytest.approx((9 * 600 - 4) / SIDE**2, rel=0.02)


def test_polygons_are_written_in_the_formats_that_are_asked_for(folder: Path) -> None:
    formats = ("kml", ".shp.zip", "csv", "fgb", "parquet")
    given = [part for name in formats for part in ("--format", name)]
    _, done = predict(folder, "--outputs", "polygons", *given)
    named = Path(done["outputs"][0]["polygons"])
    truth = gpd.read_file(named, layer=named.stem).to_crs(32737).union_all()
    for name in formats:
        layer = VectorFile(named.with_suffix(f".{name.removeprefix('.')}")).read(["id", "score"])
        assert (len(layer), layer.counts.repaired) == (9, 0)
        assert sorted(map(int, layer.values["id"])) == [*range(1, 10)]
        found = gpd.GeoSeries(list(layer.geometry), crs=layer.crs).to_crs(32737).union_all()
        assert found.symmetric_difference(truth).area < 9
    assert call("predict", folder / "scene.tif", "-o", folder / "x", "--format", "dwg")[0] == 5
    only = ("--outputs", "mask", "--format", "kml")
    assert predict(folder, *only)[0] == 2
    # A format that cannot hold the polygons fails the run.
    bare = np.array(rasterio.open(folder / "scene.tif").read())
    write_geotiff(folder / "scene.tif", bare, crs=None, transform=None)
    code, answer = predict(folder, "--gsd", "1", "--format", "kml", "-o", folder / "bare")
    assert (code, "in pixels of an image" in str(answer)) == (3, True)


def test_the_demo_predicts_its_scene_with_the_default_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, _ = generate_scene(3, (256, 256), gsd_m=0.3).write(tmp_path, "demo")
    monkeypatch.setattr("rooftrace.io.files.demo_scene_path", lambda: image)
    code, done = call("demo", "-o", tmp_path / "out")
    assert code == 0, done
    assert done["outputs"][0]["buildings"] > 5
