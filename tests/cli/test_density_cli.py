"""`rooftrace density` on the command line."""

import csv
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from PIL import Image

from command_line import call, command
from raster_files import write_geotiff
from rooftrace.io.vector_read import VectorFile
from tiny_models import write_tiny_bundle


def test_cells(tmp_path: Path) -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask.flat[:60] = 1
    Image.fromarray(mask).save(tmp_path / "m.png")
    given = ("density", tmp_path / "m.png", "-o", tmp_path / "new" / "d", "--cell", 5, "--gsd", 1)
    code, _, text = command(*given)
    assert (code, "2 × 2 cells of 5 m" in text) == (0, True)
    code, answer = call(*given, "--threshold", 0.7)
    assert (code, answer["total"]["built_up_share"]) == (0, 0.6)
    assert answer["classes"] == {"dense": 2, "sparse": 2, "not observed": 0}
    assert all(Path(file).exists() for file in answer["files"])


def test_polygons_alone_have_the_mask_beside_them(tmp_path: Path) -> None:
    """Of two wards, one was seen whole, the other at its edge."""
    mask = np.full((1, 100, 200), 255, np.uint8)
    mask[0, :, :104] = 0
    mask[0, 20:90, :100] = 1
    write_geotiff(tmp_path / "town_mask.tif", mask, nodata=255)

    def outlines(name: str, wards: list[str], *boxes: shapely.Polygon) -> Path:
        # Pixels of half a metre from (5e5, 9e6) on, see `raster_files.PLACE`.
        placed = [shapely.transform(one, lambda xy: xy * (0.5, -0.5) + (5e5, 9e6)) for one in boxes]
        path = tmp_path / name
        gpd.GeoDataFrame({"ward": wards}, geometry=placed, crs=32737).to_file(path)
        return path

    found = outlines("town_buildings.gpkg", [""], shapely.box(0, 20, 100, 90))
    wards = outlines(
        "wards.gpkg", ["Old town", "Harbour"], shapely.box(0, 0, 100, 100),
        shapely.box(100, 0, 200, 100),
    )  # fmt: skip
    given = ("density", found, "-o", tmp_path / "d")
    code, _, text = command(*given, "--zones", wards)
    assert code == 0, text
    assert "town_mask.tif, beside town_buildings.gpkg, says which ground was seen" in text
    assert ("70.0%" in text, "no class" in text) == (True, True)
    rows = list(csv.DictReader((tmp_path / "d.csv").read_text().splitlines()))
    assert [(row["ward"], row["built_up_share"], row["class"]) for row in rows] == [
        ("Old town", "0.7", "dense"), ("Harbour", "0", ""),
    ]  # fmt: skip
    for zones, said in (("no.gpkg", "does not exist"), ("town_mask.tif", "is an image; expected")):
        code, _, text = command(*given, "--zones", tmp_path / zones)
        assert code == 3
        assert said in text
    # The folder of a prediction is its polygons.
    (tmp_path / "run.json").write_text("{}")
    total = call("density", tmp_path, "-o", tmp_path / "f")[1]["total"]
    assert total == call(*given)[1]["total"]
    with Image.open(tmp_path / "d.png") as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_panels_are_not_called_buildings_and_specks_of_their_mask_are_noted(tmp_path: Path) -> None:
    model = write_tiny_bundle(tmp_path / "pv.rooftrace", classes=("ground", "solar_panel"))
    town = np.full((3, 90, 120), 30, np.uint8)
    town[:, 20:50, 20:70] = town[:, 80, 80] = 250
    image = write_geotiff(tmp_path / "town.tif", town)
    _, _, text = command("predict", image, "-m", model, "-o", tmp_path / "out", "--min-area", 10)
    assert "town.tif: 1 solar_panel polygon, 13.9% solar_panel, " in text
    given = ("-o", tmp_path / "d", "--building", "solar_panel")
    for path, count, notes in ((tmp_path / "out", 1, 0), (tmp_path / "out/town_mask.tif", 2, 1)):
        _, answer = call("density", path, *given)
        assert answer["total"]["buildings"] == count
        assert sum("below 10 m²: --min-area 10" in note for note in answer["notes"]) == notes


def test_one_status_of_a_comparison_is_counted(tmp_path: Path) -> None:
    def town(name: str, *west: int) -> Path:
        boxes = [shapely.box(5e5 + x, 9e6, 5e5 + x + 10, 9e6 + 10) for x in west]
        table = {"side": ["left"] * len(west), "status": "built"}
        gpd.GeoDataFrame(table, geometry=boxes, crs=32737).to_file(tmp_path / name)
        return tmp_path / name

    new, old = town("new.gpkg", 0, 60), town("old.gpkg", 0, 20, 40)
    ward = tmp_path / "ward.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(5e5, 9e6, 5e5 + 99, 9e6 + 9)], crs=32737).to_file(ward)
    given = ("density", tmp_path / "sides.gpkg", "--zones", ward, "-o")

    def compare(*layers: object) -> None:
        assert command("compare", *layers, "-o", tmp_path / "c")[0] == 0
        # A user of QGIS may remove all others.
        columns = ["side", "status"]
        gpd.read_file(tmp_path / "c" / "compare.gpkg", columns=columns).to_file(given[1])

    compare(new, old)
    # Other commands take the newer layer: heights gave three of four of its buildings none.
    assert VectorFile(given[1]).read(buildings=True).counts.older == 3
    gpd.read_file(given[1], where="status = 'gone'").to_file(tmp_path / "gone.gpkg")
    assert len(VectorFile(tmp_path / "gone.gpkg").read(buildings=True)) == 2
    code, _, text = command(*given, tmp_path / "d")
    assert code == 2
    assert "both layers of a comparison" in text
    counts = {}
    for status in ("gone", "new", "same", "same (old)"):
        code, _, text = command(*given, tmp_path / "d", "--building", status)
        assert (code, "give the mask" in text) == (0, False), text
        row = next(csv.DictReader((tmp_path / "d.csv").read_text().splitlines()))
        assert row["zone"] == "zone 1"  # the ward has no name
        counts[status] = row["buildings"]
    assert counts == {"gone": "2", "new": "1", "same": "1", "same (old)": "1"}
    compare(new, "--reference", old)
    assert command(*given, tmp_path / "d", "--building", "only in the map")[0] == 0
    assert command("density", new, "-o", tmp_path / "d")[0] == 0, "its sides are others"
