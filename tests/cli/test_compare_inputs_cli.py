"""Inputs of `rooftrace compare`: masks, other formats, layers that change, and bad ones."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from shapely import affinity, box

from building_layers import EAST, NORTH, SIDE, UTM, counts, houses, write, write_layers
from command_line import call, command
from raster_files import write_geotiff


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_layers(tmp_path_factory.mktemp("layers"))


def boxes(*places: tuple[int, int, int, int]) -> list[shapely.Polygon]:
    return [box(EAST + a, NORTH + b, EAST + c, NORTH + d) for a, b, c, d in places]


@pytest.mark.parametrize("ending", ["buildings", "polygons"])
def test_masks_are_vectorised_and_say_what_they_cover(tmp_path: Path, ending: str) -> None:
    mask = np.zeros((100, 200), np.uint8)
    mask[10:30, 10:40] = 1
    mask[50:80, 60:90] = 1
    mask[:, 150:] = 255
    place = {"crs": f"EPSG:{UTM}", "transform": Affine(0.5, 0, EAST, 0, -0.5, NORTH), "nodata": 255}
    new = write_geotiff(tmp_path / "mask.tif", mask, **place)
    blocks = [(5, -15, 20, -5), (30, -40, 45, -25), (55, -10, 60, -5), (80, -30, 85, -25)]
    old = write(tmp_path / "old.parquet", boxes(*blocks))
    _, answer = call("compare", new, old, "-o", tmp_path / "out")
    assert answer["coverage"] == "mask"
    assert counts(answer, "new") == {"same": 2}
    assert counts(answer, "old") == {"same": 2, "gone": 1, "outside": 1}
    # Where the background is nodata, as some tools write it, all of the mask was seen.
    tool = np.where(mask == 1, mask, 0)
    other = write_geotiff(tmp_path / "tool.tif", tool, **(place | {"nodata": 0}))
    _, answer = call("compare", other, old, "-o", tmp_path / "other")
    assert answer["coverage"] == "mask"
    assert counts(answer, "old") == {"same": 2, "gone": 2}
    assert any("declares 0, its background, as nodata" in note for note in answer["notes"])
    # The mask of a prediction lies beside its polygons.
    polygons = write(tmp_path / f"town_{ending}.gpkg", boxes(*blocks[:2]))
    new.rename(tmp_path / "town_mask.tif")
    _, again = call("compare", polygons, old, "-o", tmp_path / "out")
    assert (again["coverage"], again["statuses"]["gone"]["old"]) == ("mask", 1)
    assert any("town_mask.tif" in note for note in again["notes"])
    (tmp_path / "tiles").mkdir()  # placed by --crs
    write_geotiff(tmp_path / "tiles" / "a.tif", np.stack([mask] * 3), **(place | {"crs": None}))
    one = {"input": str(tmp_path / "tiles"), "mask": "town_mask.tif"}
    (tmp_path / "run.json").write_text(json.dumps({"input": "", "outputs": [one]}))
    _, folder = call("compare", tmp_path, old, "-o", tmp_path / "folder")
    assert (folder["coverage"], folder["statuses"]) == ("mask", again["statuses"])
    assert "data:image/jpeg" in (tmp_path / "folder" / "report.html").read_text()
    # A building on ground that the earlier image does not show is not growth.
    for earlier in (tmp_path / "town_mask.tif", polygons):
        _, answer = call("compare", old, earlier, "-o", tmp_path / "grown", "--keep", "both")
        assert counts(answer, "new") == {"same": 2, "new": 1, "outside": 1}
        assert answer["conflated"] == {"old": 2, "new": 2}
        assert any("shows in part" in one for one in answer["notes"]) == (earlier == polygons)
    inside = write_geotiff(tmp_path / "inside.tif", mask[:, :150], **place)
    _, answer = call("compare", inside, polygons, "-o", tmp_path / "in")
    assert not any("does not show" in note for note in answer["notes"])
    # A hall that the edge of one image cuts keeps its whole outline, whichever date has it.
    corner, hall, beside = ((30, -40, 45, -25), (30, -40, 130, -25), (5, -15, 20, -5))
    parts = write(tmp_path / "parts.parquet", boxes(corner, beside))
    whole = write(tmp_path / "whole.parquet", boxes(hall, beside))
    for pair in ((whole, tmp_path / "town_mask.tif"), (parts, whole)):
        for keep in ("new", "both"):
            _, answer = call("compare", *pair, "-o", tmp_path / "cut", "--keep", keep)
            assert counts(answer, "new") == counts(answer, "old") == {"same": 1, "outside": 1}
            kept = gpd.read_file(tmp_path / "cut" / "conflated.gpkg", layer="conflated")
            assert sorted(kept.area.round()) == [150, 1500]
    # Two houses below one outline that the edge of NEW's image cuts keep theirs.
    first, second = np.zeros((2, 100, 200), np.uint8)
    first[10:50, 10:82], first[:, 82:] = 1, 255
    second[10:50, 28:38] = second[10:50, 40:120] = 1
    pair = [write_geotiff(tmp_path / f"{n}.tif", m, **place) for n, m in enumerate((first, second))]
    for keep in ("new", "both"):
        _, answer = call("compare", *pair, "-o", tmp_path / "cut", "--keep", keep)
        assert answer["conflated"] == {"old": 2, "new": 0}


@pytest.mark.parametrize("names", ["", "empty water field building", "empty water field house"])
def test_the_buildings_of_a_mask_of_several_classes(tmp_path: Path, names: str) -> None:
    mask = np.zeros((100, 200), np.uint8)
    mask[10:30, 10:40], mask[50:80, 60:90], mask[10:40, 100:150] = 3, 1, 2
    place = {"crs": f"EPSG:{UTM}", "transform": Affine(0.5, 0, EAST, 0, -0.5, NORTH)}
    new = write_geotiff(tmp_path / "mask.tif", mask, **place)
    categories = "".join(f"<Category>{name}</Category>" for name in names.split())
    (tmp_path / "mask.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames>'
        "</PAMRasterBand></PAMDataset>"
    )
    old = write(tmp_path / "old.gpkg", [box(EAST + 5, NORTH - 15, EAST + 20, NORTH - 5)])
    code, answer = call("compare", new, old, "-o", tmp_path / "out")
    if "building" in names:
        assert (code, counts(answer, "new")) == (0, {"same": 1})
        return
    last = "house" if names else "3"
    assert code == 3
    assert f"{last}; expected a mask of buildings" in answer["error"]["message"]
    assert f"vectorize {new.name} --class CLASS" in answer["error"]["remedy"]
    made = tmp_path / "buildings.gpkg"
    assert call("vectorize", new, "--class", last, "-o", made)[0] == 0
    code, answer = call("compare", made, old, "-o", tmp_path / "out", "--imagery", new)
    assert (code, counts(answer, "new")) == (0, {"same": 1})


def test_an_empty_layer_is_an_answer_two_are_an_error(
    layers: tuple[Path, Path], tmp_path: Path
) -> None:
    empty = write(tmp_path / "empty.gpkg", [])
    _, answer = call("compare", empty, layers[1], "-o", tmp_path / "a", "--keep", "new")
    assert counts(answer, "old") == {"gone": SIDE**2}
    _, answer = call("compare", layers[0], empty, "-o", tmp_path / "b")
    assert list(counts(answer, "new")) == ["new"]
    other = write(tmp_path / "other.gpkg", [])
    _, answer = call("compare", empty, other, "-o", tmp_path / "c" / "d")
    assert not (tmp_path / "c").exists()
    assert "Neither" in answer["error"]["message"]


def test_repeated_and_invalid_polygons_are_noted(tmp_path: Path) -> None:
    house = box(EAST, NORTH, EAST + 10, NORTH + 10)
    bow = shapely.Polygon(
        [(EAST + 30, NORTH), (EAST + 40, NORTH + 10), (EAST + 40, NORTH), (EAST + 30, NORTH + 10)]
    )
    new = write(tmp_path / "new.gpkg", [house] * 2000 + [bow])
    old = write(tmp_path / "old.gpkg", [house, bow])
    _, answer = call("compare", new, old, "-o", tmp_path / "out")
    assert counts(answer, "new") == {"same": 2}
    assert any("1,999 polygons exactly on another one left out" in note for note in answer["notes"])
    assert any(
        "1 polygon with invalid outlines repaired, the area of 1 by" in note
        for note in answer["notes"]
    )


def test_bad_inputs_are_explained_before_anything_is_written(
    layers: tuple[Path, Path], tmp_path: Path
) -> None:
    far = write(tmp_path / "far.gpkg", [affinity.translate(h, 90_000, 0) for h in houses()])
    plain = tmp_path / "plain.shp"
    write(plain, [box(0, 0, 1, 1)])
    plain.with_suffix(".prj").unlink()
    points = tmp_path / "points.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=UTM).to_file(points)
    (tmp_path / "none").mkdir()
    (tmp_path / "file").touch()
    cases = [
        ((layers[0], far), 3, "show different places"),
        ((layers[0], plain), 3, "has no coordinate system"),
        ((layers[0], points), 3, "polygons"),
        ((layers[0], tmp_path / "missing.gpkg"), 3, "does not exist"),
        ((layers[0], tmp_path / "none"), 3, "has no GeoParquet"),
        ((layers[0], layers[0]), 2, "two layers"),
        ((*layers, "--move", 20), 2, "more than --max-move"),
        ((*layers, "--area", tmp_path / "no.gpkg"), 3, "does not exist"),
        ((*layers, "--imagery", tmp_path / "no.tif"), 3, "does not exist"),
    ]
    for arguments, code, words in cases:
        found, answer = call("compare", *arguments, "-o", tmp_path / "out")
        assert (found, words in answer["error"]["message"]) == (code, True), answer
        assert not list((tmp_path / "out").glob("*")), arguments
    found, answer = call("compare", *layers, "-o", tmp_path / "file")
    assert (found, "is a file" in answer["error"]["message"]) == (2, True)


TOWN = [box(EAST + 30 * n, NORTH - 20, EAST + 30 * n + 12, NORTH - 10) for n in range(3)]


def _gone_ids(old: Path, folder: Path, *options: str) -> list[str]:
    """Compare a town of three houses with one without the second; return the ids of old houses
    without a partner."""
    new = folder / "new.gpkg"
    gpd.GeoDataFrame(geometry=[TOWN[0], TOWN[2]], crs=UTM).to_file(new)
    assert call("compare", new, old, "-o", folder / "out", *options)[0] == 0
    table = gpd.read_file(folder / "out" / "compare.gpkg")
    gone = table[(table["side"] == "old") & table["partner_id"].isna()]
    return list(map(str, gone["id"]))


@pytest.mark.parametrize("column", ["fid", "OBJECTID"])
def test_the_ids_of_a_geopackage_are_its_fids(tmp_path: Path, column: str) -> None:
    old = tmp_path / "old.gpkg"
    town = gpd.GeoDataFrame({column: [2, 3, 4], "EGID": ["7", "08", None]}, geometry=TOWN, crs=UTM)
    town.to_file(old, layer_options={"FID": column})
    assert gpd.read_file(old).columns.tolist() == ["EGID", "geometry"]
    assert _gone_ids(old, tmp_path) == ["3"]
    assert _gone_ids(old, tmp_path, "--id", "EGID") == ["08"]
    error = command("compare", old, old.parent / "new.gpkg", "--id", "EGID", "-o", tmp_path).err
    assert "has no column 'EGID'" in error


@pytest.mark.parametrize(
    ("ids", "values", "expected"),
    [([2, 3, 4], {}, "3"), ([0, 1, 2], {}, "1"), (["a", "b", "c"], {}, "b"),
     ([None] * 3, {}, "row 2"), ([None] * 3, {"@id": "way/7"}, "way/7")],
)  # fmt: skip
def test_the_ids_of_a_geojson_are_those_of_its_features(
    tmp_path: Path, ids: list[int | str | None], values: dict[str, str], expected: str
) -> None:
    lonlat = gpd.GeoSeries(TOWN, crs=UTM).to_crs(4326)
    features = [
        {"type": "Feature", "properties": values, "geometry": shapely.geometry.mapping(one)}
        | ({} if given is None else {"id": given})
        for one, given in zip(lonlat, ids)
    ]
    old = tmp_path / "old.geojson"
    old.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert _gone_ids(old, tmp_path) == [expected]
