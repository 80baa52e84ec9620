"""`rooftrace vectorize` on the command line."""

from pathlib import Path

import geopandas
import pytest
import rasterio

from command_line import call
from raster_files import write_geotiff
from town import SyntheticScene, generate_scene


@pytest.fixture
def scene(tmp_path: Path) -> SyntheticScene:
    made = generate_scene(3, (200, 240))
    write_geotiff(
        tmp_path / "mask.tif", made.mask() * 255,
        crs=made.grid.crs.to_wkt() if made.grid.crs else None, transform=made.grid.transform,
    )  # fmt: skip
    return made


def test_a_mask_becomes_buildings(scene: SyntheticScene, tmp_path: Path) -> None:
    mask, out = tmp_path / "mask.tif", tmp_path / "maps" / "buildings.gpkg"
    code, output = call("vectorize", mask, "-o", out, "--min-area", 5, "--min-hole", 4)
    assert code == 0
    table = geopandas.read_file(out)
    assert output["polygons"] == len(table) == output["classes"][0]["polygons"] > 5
    assert output["classes"][0]["area_m2"] == pytest.approx(table["area_m2"].sum())
    assert table["area_m2"].min() >= 5
    assert 0 < output["regularized"] <= 1
    assert (output["pixels"], output["notes"]) == (48_000, [])
    assert table.crs == scene.grid.crs
    assert [file.name for file in out.parent.iterdir()] == ["buildings.gpkg"]
    # The folder of a prediction is its mask.
    (tmp_path / "run.json").write_text("{}")
    mask.rename(tmp_path / "town_mask.tif")
    # A geodatabase is a folder, which a second run may replace.
    for file in (out, tmp_path / "a.gdb", tmp_path / "a.gdb"):
        again = call("vectorize", tmp_path, "-o", file, "--min-area", 5, "--min-hole", 4)[1]
        assert again["classes"] == output["classes"]


def test_a_mask_without_a_crs_gets_the_one_that_is_given(
    scene: SyntheticScene, tmp_path: Path
) -> None:
    mask, out = tmp_path / "mask.tif", tmp_path / "buildings.gpkg"
    assert call("vectorize", mask, "-o", tmp_path / "known.gpkg")[0] == 0
    expected = geopandas.read_file(tmp_path / "known.gpkg")
    assert scene.grid.crs is not None
    crs = scene.grid.crs.to_string()
    assert "is in" in call("vectorize", mask, "-o", out, "--crs", 4326)[1]["error"]["message"]
    with rasterio.open(mask) as file:
        profile, pixels = file.profile | {"crs": None}, file.read()
    write_geotiff(tmp_path / "placed.tif", pixels, **profile)
    code, answer = call("vectorize", tmp_path / "placed.tif", "-o", out, "--crs", crs)
    assert (code, answer["notes"]) == (0, [])
    table = geopandas.read_file(out)
    assert table.crs == scene.grid.crs
    assert table.geometry.geom_equals(expected.geometry).all()
    assert table["area_m2"].to_list() == expected["area_m2"].to_list()
