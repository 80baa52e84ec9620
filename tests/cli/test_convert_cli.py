"""`rooftrace convert` through the real command."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine

from building_layers import EAST, NORTH, UTM, houses, write
from command_line import command
from raster_files import write_geotiff
from rooftrace.io.vector_write import WRITERS
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from town import write_pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert") / "Daten ä"
    write_pairs(folder, range(2), shape_yx=(64, 64), gsd_m=0.4)
    return folder


def test_what_a_format_cannot_hold_is_noted_by_the_name_of_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "town.gpkg", houses()[:2], height=[np.inf, 3.0], rectangularity=1.0)
    _, _, text = command("convert", path, "-o", tmp_path / "town.shp.zip")
    assert "town.shp.zip: a Shapefile has short column names" in text
    _, _, text = command("convert", path, "-o", tmp_path / "town.geojson")
    assert "Left out: infinite values of height, which JSON cannot hold." in text


def test_for_programs_and_for_people(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "c.json"
    code, shown, text = command("convert", data, "--to", "coco", "-o", out, "--json")
    assert (code, text) == (0, "")
    found = json.loads(shown)
    assert found == {
        "written": str(out), "kind": "coco", "scenes": 2, "left_out": [], "notes": [],
        "read_as": "folder: images/NAME.ext + masks/NAME.ext",
    }  # fmt: skip
    again = tmp_path / "again.csv"
    code, shown, text = command("convert",
        out, "--to", "rle", "-o", again, "--order", "column", "--columns", "ImageId, EncodedPixels",
        "--copy-images", "--part", "[:1]",
    )  # fmt: skip
    assert (code, shown) == (0, "")
    assert f"{again}: 1 scene as rle, read as coco: 2 images" in text
    assert again.read_text().startswith("ImageId,EncodedPixels\n")
    assert len(open_source(SourceConfig(path=str(again), order="column"))) == 1


@pytest.mark.parametrize(
    "name", ["map.shp", "map.kml", "map.geojson", "map.parquet", "map.json", "map.csv"]
)
def test_a_vector_file_is_written_in_another_format(tmp_path: Path, name: str) -> None:
    layer = write(tmp_path / "layer.gpkg", houses()[:5], storeys=[1, 2, 3, 4, 5])
    out = tmp_path / "new" / name
    code, shown, text = command("convert", layer, "-o", out)
    assert (code, shown) == (0, "")
    assert f"{out}: read 5 polygons of {layer} in EPSG:32633 (WGS 84 / UTM zone 33N)" in text
    table = (gpd.read_parquet if name.endswith("parquet") else gpd.read_file)(out)
    table = table if table.crs else table.set_crs(4326)
    assert table["storeys"].astype(int).tolist() == [1, 2, 3, 4, 5]
    assert (table.to_crs(UTM).centroid.distance(gpd.read_file(layer).centroid) < 0.02).all()
    _, _, text = command("convert", layer, "-o", tmp_path / name, "--glob", "a*")
    assert "There is no image that matches a*" in text
    place = {"crs": f"EPSG:{UTM}", "transform": Affine(0.5, 0, EAST, 0, -0.5, NORTH + 50)}
    image = write_geotiff(tmp_path / "a.tif", np.zeros((3, 90, 80), np.uint8), **place)
    # An image beside the file changes nothing, unless it is named.
    assert "5 polygons of" in command("convert", out, "-o", tmp_path / "back.gpkg")[2]
    _, _, text = command("convert", layer, "--images", image, "-o", tmp_path / name)
    kind = {".csv": "rle", ".json": "coco"}.get(out.suffix, "footprints")
    assert f"1 scene as {kind}" in text
    _, _, text = command("convert", layer, "-o", tmp_path / "map.gml")
    assert all(suffix in text for suffix in WRITERS)
    for name, form in (("plan.dwg", "DWG"), ("av.itf", "INTERLIS")):
        (tmp_path / name).write_bytes(b"AC1032")
        _, _, text = command("compare", layer, tmp_path / name, "-o", tmp_path / "x")
        assert f"{name} is {form}, which is not read" in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--to", "cocos", "-o", "out"], 2, "Did you mean 'coco'?"),
        (["--to", "images", "-o", "out"], 2, "cannot be written as images"),
        (["--to", "coco", "-o", "out"], 2, "does not end in .json"),
        (["--to", "folder", "-o", "."], 2, "exists and is not empty"),
        (["-o", "map.gml"], 5, "For a folder, add --to folder."),
        (["--to", "folder", "-o", "out", "--split", "s.json"], 2, "FILE:PART"),
        (["--to", "folder", "-o", "out", "--glob", "x*"], 3, "no image/mask pairs"),
    ],
)
def test_errors_are_explained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, message: str
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    found, shown, _ = command("convert", data, *arguments, "--json")
    assert found == code
    error = json.loads(shown)["error"]
    assert message in f"{error['message']} {error['remedy']}"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
