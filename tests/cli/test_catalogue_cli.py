"""`rooftrace catalogue`, through the real command."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from command_line import Finished, command
from raster_files import write_geotiff
from tiny_models import write_tiny_bundle


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two scenes side by side, with one house on the line between them."""
    write_tiny_bundle(tmp_path / "tiny.rooftrace")
    data = np.full((3, 200, 400), 30, np.uint8)
    data[:, 90:110, 180:220] = 220
    data[:, 20:40, 20:60] = 220
    for number, name in enumerate(("west", "east")):
        path = tmp_path / "scenes" / name / "s.tif"
        path.parent.mkdir(parents=True)
        write_geotiff(
            path, data[:, :, 200 * number :][:, :, :200], crs="EPSG:32737",
            transform=Affine(1, 0, 5e5 + 200 * number, 0, -1, 9e6),
        )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    return tmp_path


def catalogue(*arguments: str, name: str = "catalogue") -> Finished:
    return command(name, *arguments, "-m", "tiny.rooftrace", "-o", "out")


def test_a_folder_of_folders_is_one_layer(folder: Path) -> None:
    done = catalogue("scenes", "--json", "--level", "14")
    assert done.code == 0
    report = done.json
    assert (report["scenes"], report["failed"]) == (2, [])
    assert (report["found"], report["buildings"]) == (3, 2)
    frame = geopandas.read_parquet("out/buildings")
    assert sorted(frame["area_m2"].round(-1)) == [800, 800]
    assert frame["quadkey"].astype(str).str.len().isin([13, 14]).all()
    assert {path.name for path in Path("out/scenes").glob("*.*")} >= {"west_s_buildings.gpkg"}
    assert not list(Path("out/scenes").glob("*_mask*"))


def test_a_remedy_names_the_command_that_has_the_option(folder: Path) -> None:
    Path("coarse").mkdir()
    write_tiny_bundle(folder / "tiny.rooftrace", gsd_m=0.4)
    with rasterio.open("scenes/west/s.tif") as image:
        profile = image.profile | {"transform": Affine(30, 0, 500_000, 0, -30, 9_000_000)}
        data = image.read()
    write_geotiff("coarse/s.tif", data, **profile)
    done = catalogue("coarse", "--json")
    assert done.code == 4
    assert done.json["error"]["remedy"].endswith("with rooftrace predict --gsd.")
    done = catalogue("coarse", "--json", name="predict")
    assert done.json["error"]["remedy"].endswith("right one with --gsd.")


@pytest.mark.campaign
def test_only_the_area_is_predicted(folder: Path) -> None:
    # The upper half of the western scene, with one of the two houses.
    area = geopandas.GeoDataFrame(
        geometry=[shapely.box(500_010, 8_999_920, 500_190, 8_999_995)], crs="EPSG:32737"
    )
    area.to_file("area.gpkg", layer="part")
    area.translate(1e5).to_file("area.gpkg", layer="elsewhere")
    assert "Choose the layer: --layer" in catalogue("scenes", "--area", "area.gpkg").err
    done = catalogue("scenes", "--area", "area.gpkg", "--layer", "part")
    assert done.code == 0
    text = " ".join(done.err.split())
    assert "1 scene lies outside of area.gpkg" in text
    assert "1 of 1 scene: 1 building in 1 file" in text
    assert catalogue("scenes").code == 0
    assert len(geopandas.read_parquet("out/buildings")) == 2
    done = catalogue("scenes", "--area", "area.gpkg", "--layer", "elsewhere")
    assert done.code == 3
    assert "The area area.gpkg lies outside of 2 scenes of scenes" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("catalogue", ["scenes", "scenes/west/s.tif"], "unexpected extra argument"),
        ("catalogue", ["scenes", "--gsd", "1"], "No such option: --gsd"),
        ("catalogue", ["scenes", "--datetime", "2024"], "--datetime 2024 is for searches"),
        ("catalogue", ["scenes", "--asset", "visual"], "--asset visual is for STAC items"),
        ("predict", ["scenes/west/s.tif", "--strict"], "No such option: --strict"),
        ("predict", ["scenes/west/s.tif", "--level", "9"], "No such option: --level"),
        ("predict", ["scenes/west/s.tif", "--workers", "2"], "--workers requires --cluster ray"),
        ("predict", ["scenes"], "scenes is a catalogue"),
    ],
)
def test_errors(name: str, arguments: list[str], message: str, folder: Path) -> None:
    code, _, text = catalogue(*arguments, name=name)
    assert code == 2
    assert message in " ".join(text.split())
