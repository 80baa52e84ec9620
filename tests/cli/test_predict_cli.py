"""What `rooftrace predict` can be told, through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely import box

from rooftrace.cli import main
from rooftrace.cli.show import pixel_bar
from rooftrace.engines.selftest import tiny_bundle
from rooftrace.io.masks import NODATA
from rooftrace.models.bundle import write_bundle

SIDE, GSD_M, LEFT, TOP = 400, 1.0, 500_000, 9_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and a scene of nine bright houses of 20 × 30 m, one with a yard of 4 m²."""
    tiny = tiny_bundle()
    write_bundle(tmp_path / "tiny.rooftrace", tiny.spec, tiny.parts)
    data = np.full((3, SIDE, SIDE), 30, dtype=np.uint8)
    for row in range(40, SIDE - 60, 100):
        for col in range(20, SIDE - 60, 130):
            data[:, row : row + 20, col : col + 30] = 220
    data[:, 48:50, 30:32] = 30
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", count=3, height=SIDE, width=SIDE,
        dtype="uint8", crs="EPSG:32737", transform=Affine(GSD_M, 0, LEFT, 0, -GSD_M, TOP),
    ) as out:  # fmt: skip
        out.write(data)
    return tmp_path


def predict(
    capsys: pytest.CaptureFixture[str], folder: Path, *options: object
) -> tuple[int, dict[str, Any]]:
    arguments = ["predict", folder / "scene.tif", "-m", folder / "tiny.rooftrace",
                 "-o", folder / "out", *options, "--json"]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    code = stopped.value.code
    assert isinstance(code, int)
    return code, json.loads(capsys.readouterr().out)


def test_everything_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, done = predict(capsys, folder)
    assert code == 0
    (output,) = done["outputs"]
    assert output["buildings"] == 9
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {
        "scene_mask.tif", "scene_buildings.gpkg", "scene_preview.png", "scene_density.tif",
        "scene_density.gpkg", "scene_density.png", "run.json",
    }  # fmt: skip
    with rasterio.open(output["density"]) as density:
        share = density.read(1)
    cell = share[np.isfinite(share)]
    # 9 houses of 600 m², but for the yard, on 16 ha.
    assert cell.mean() == pytest.approx((9 * 600 - 4) / SIDE**2, rel=0.02)


def test_only_what_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, done = predict(capsys, folder, "--outputs", "mask")
    assert code == 0
    (output,) = done["outputs"]
    assert {path.name for path in (folder / "out").iterdir()} == {"scene_mask.tif", "run.json"}
    assert (output["polygons"], output["preview"], output["buildings"]) == (None, None, None)
    code, done = predict(capsys, folder, "--outputs", "polygons", "-o", folder / "two")
    assert code == 0
    assert {path.name for path in (folder / "two").iterdir()} == {
        "scene_buildings.gpkg", "run.json",
    }  # fmt: skip
    assert done["outputs"][0]["buildings"] == 9


def test_outputs_that_do_not_exist(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("masks", "", "mask,polygon"):
        code, done = predict(capsys, folder, "--outputs", given)
        assert code == 2
        assert "expected some of mask, polygons, preview, density" in done["error"]["message"]


def test_an_area_limits_the_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    area = gpd.GeoDataFrame(geometry=[box(LEFT, TOP - 100, LEFT + 140, TOP)], crs="EPSG:32737")
    area.to_crs(4326).to_file(folder / "area.geojson")
    code, done = predict(capsys, folder, "--area", folder / "area.geojson")
    assert code == 0
    (output,) = done["outputs"]
    assert output["buildings"] == 1
    with rasterio.open(output["mask"]) as dataset:
        mask = dataset.read(1)
    assert (mask[110:] == NODATA).all()
    assert (mask[2:98, 2:138] != NODATA).all()
    far = gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=4326)
    far.to_file(folder / "far.geojson")
    code, done = predict(capsys, folder, "--area", folder / "far.geojson")
    assert (code, done["error"]["type"]) == (3, "DataError")


def test_holes_and_stairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def outlines(*options: object) -> gpd.GeoDataFrame:
        code, done = predict(capsys, folder, *options)
        assert code == 0
        return gpd.read_file(done["outputs"][0]["polygons"])

    def holes(frame: gpd.GeoDataFrame) -> int:
        return sum(len(polygon.interiors) for polygon in frame.geometry)

    assert holes(outlines()) == 1
    filled = outlines("--min-hole", "10", "--min-area", "10", "-o", folder / "filled")
    assert holes(filled) == 0
    kept = outlines("--no-regularize", "--no-separate", "-o", folder / "stairs")
    assert len(kept) == len(filled) == 9
    code, done = predict(capsys, folder, "--min-hole", "10", "-o", folder / "refused")
    assert (code, done["error"]["type"]) == (2, "ConfigError")


def test_options_that_mean_nothing_here_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in (["--on-error", "nodata"], ["--scale", "2"], ["--outputs", "mask"]):
        with pytest.raises(SystemExit) as stopped:
            main(["predict", str(folder / "scene.tif"), "--rle", str(folder / "t.csv"), *given,
                  "--json"])  # fmt: skip
        assert stopped.value.code == 2
        assert (
            f"{given[0]} has no use with --rle"
            in json.loads(capsys.readouterr().out)["error"]["message"]
        )


def test_the_bar_tells_pixels_rate_and_buildings(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from rooftrace.cli import show

    console = Console(force_terminal=True, width=140, record=True)
    monkeypatch.setattr(show, "people", console)
    with pixel_bar("predict", hidden=False) as tell:
        assert tell is not None
        tell(5_000_000, 10_000_000, 1234)
    shown = console.export_text()
    assert "5.0 of 10.0 Mpx" in shown
    assert "Mpx/s" in shown
    assert "1,234 buildings" in shown
