"""`rooftrace predict` of a catalogue, through the real command."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine

from rooftrace.cli import main
from rooftrace.engines.selftest import tiny_bundle
from rooftrace.models.bundle import write_bundle


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two scenes side by side, with one house on the line between them."""
    tiny = tiny_bundle()
    write_bundle(tmp_path / "tiny.rooftrace", tiny.spec, tiny.parts)
    data = np.full((3, 200, 400), 30, np.uint8)
    data[:, 90:110, 180:220] = 220
    data[:, 20:40, 20:60] = 220
    for number, name in enumerate(("west", "east")):
        path = tmp_path / "scenes" / name / "s.tif"
        path.parent.mkdir(parents=True)
        with rasterio.open(
            path, "w", driver="GTiff", count=3, height=200, width=200, dtype="uint8",
            crs="EPSG:32737", transform=Affine(1, 0, 5e5 + 200 * number, 0, -1, 9e6),
        ) as out:  # fmt: skip
            out.write(data[:, :, 200 * number :][:, :, :200])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *arguments, "-m", "tiny.rooftrace", "-o", "out"])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_a_folder_of_folders_is_one_layer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("scenes", "--json", "--level", "14") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["scenes"], told["failed"], told["found"], told["buildings"]) == (2, [], 3, 2)
    frame = geopandas.read_parquet("out/buildings")
    assert sorted(frame["area_m2"].round(-1)) == [800, 800]
    assert frame["quadkey"].astype(str).str.len().isin([13, 14]).all()
    assert {path.name for path in Path("out/scenes").glob("*.*")} >= {"west_s_buildings.gpkg"}
    assert not list(Path("out/scenes").glob("*_mask*"))


def test_what_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("scenes/east/s.tif").write_bytes(b"II*\0 torn")
    assert predict("scenes") == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "failed: east_s:" in told
    assert "1 of 2 scenes: 2 buildings in 1 files, of 2 that the scenes show" in told
    assert "manifest out/manifest.json" in told
    assert predict("scenes") == 0
    assert "1 scenes were done by an earlier run" in " ".join(capsys.readouterr().err.split())
    assert predict("scenes", "--strict") == 3


def test_a_flat_folder_is_one_when_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("scenes/west", "--catalogue", "--json") == 0
    assert json.loads(capsys.readouterr().out)["buildings"] == 2
    assert predict("scenes/west") == 0
    assert Path("out/s_mask.tif").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scenes", "scenes/west/s.tif"], "2 inputs were given"),
        (["scenes", "--gsd", "1"], "each scene has its own"),
        (["scenes", "--area", "tiny.rooftrace"], "--area has no use for a catalogue"),
        (["scenes/west/s.tif", "--strict"], "--strict belongs to a catalogue"),
        (["scenes/west/s.tif", "--level", "9"], "--level belongs to a catalogue"),
        (["https://host/a.tif", "--catalogue"], "cannot be one"),
        (["scenes", "--asset", "visual"], "--asset visual is for STAC items"),
        (["scenes/west/s.tif", "--workers", "2"], "--workers belongs to --cluster ray"),
    ],
)
def test_what_does_not_fit(
    arguments: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(*arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())
