"""`rooftrace compare` through the real command: true changes are found and written."""

import json
import re
from base64 import b64decode
from functools import partial
from io import BytesIO
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from PIL import Image
from shapely import affinity, box

from building_layers import (
    EAST,
    NORTH,
    SIDE,
    TRUTH_NEW,
    TRUTH_OLD,
    UTM,
    changed,
    counts,
    houses,
    write,
    write_layers,
)
from command_line import call, command
from raster_files import write_geotiff
from rooftrace.flows.compare.outputs import MEANINGS
from rooftrace.io import vector_layers
from rooftrace.io.spill_file import SpillFile
from rooftrace.io.vector_read import VectorFile
from rooftrace.vector import match


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_layers(tmp_path_factory.mktemp("layers"))


def test_true_changes_are_found_each_as_such(layers: tuple[Path, Path], tmp_path: Path) -> None:
    _, answer = call("compare", *layers, "-o", tmp_path)
    assert counts(answer, "old") == TRUTH_OLD
    assert counts(answer, "new") == TRUTH_NEW
    sides = gpd.read_file(tmp_path / "compare.gpkg")
    assert sides.crs.to_epsg() == 4326
    assert len(sides) == sum(counts(answer, "old").values()) + sum(counts(answer, "new").values())
    moved = sides[(sides.status == "moved") & (sides.side == "new")]
    np.testing.assert_allclose(moved.offset_east_m, 5, atol=0.01)
    np.testing.assert_allclose(moved.area_ratio, 1, atol=0.001)
    assert set(moved.partner_id) == {str(100 + i) for i in range(1, SIDE**2, SIDE)}
    grown = sides[(sides.status == "changed") & (sides.side == "new")]
    assert ((grown.iou > 0.5) & (grown.iou <= 1 / 1.7 + 1e-6)).all()
    np.testing.assert_allclose(grown.area_ratio, 1.7, rtol=1e-3)
    number = np.where(sides.side == "old", sides.id, sides.partner_id)[sides.partner_id.notna()]
    change = sides.height_change[sides.partner_id.notna()]
    np.testing.assert_allclose(change, 9 - (number.astype(int) - 100) / 10, atol=0.01)
    assert len(change) == sides.height_change.notna().sum()
    review = gpd.read_file(tmp_path / "review.geojson")
    assert set(review.status) == {"changed", "moved", "split", "new", "gone"}
    saved = json.loads((tmp_path / "compare.json").read_text())
    assert saved["statuses"] == answer["statuses"]
    page = (tmp_path / "report.html").read_text()
    assert f"<b>{5 * SIDE}</b><span>to review</span>" in page
    assert all(meaning in page for meaning in MEANINGS.values())
    assert page.count('class="example"') == 5 * 6
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.campaign
def test_results_do_not_depend_on_the_size_of_chunks_and_blocks(
    layers: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = gpd.read_file(layers[1])
    # Repeated, without an id, with another class, with a part of its own, and with mixed texts.
    old = pd.concat([old, old.iloc[[3, 3, 90]], old.iloc[:2].translate(0, 1).to_frame("geometry")])
    old.loc[old.name == "house 9", "geometry"] = shapely.MultiPolygon(
        [box(15, 45.1, 15.0001, 45.1001), box(15.0003, 45.1, 15.0004, 45.1001)]
    )
    old["class"] = np.where(np.arange(len(old)) % 50 == 7, "tree", "Building")
    old.to_file(tmp_path / "old.gpkg")
    options = ("--keep", "both", "--remove-offset")
    _, whole = call("compare", layers[0], tmp_path / "old.gpkg", "-o", tmp_path / "a", *options)
    assert [note.split(": ")[1][:2] for note in whole["notes"][:2]] == ["3 ", "3 "], whole["notes"]
    monkeypatch.setattr(vector_layers, "_CHUNK_ROWS", 5)
    monkeypatch.setattr(vector_layers, "_MOST_CHUNKS", 1000)
    monkeypatch.setattr(match, "_PER_BLOCK", 10)
    monkeypatch.setattr(match, "_PACKED_AT_ONCE", 7)
    monkeypatch.setattr(match, "SpillFile", partial(SpillFile, in_memory_bytes=0))
    _, again = call("compare", layers[0], tmp_path / "old.gpkg", "-o", tmp_path / "b", *options)
    assert again["notes"] == whole["notes"]
    for file in (tmp_path / "a").iterdir():
        one, other = (re.sub(rb'"created": "[^"]+"', b"", (tmp_path / run / file.name).read_bytes())
                      for run in "ab")  # fmt: skip
        assert one == other, file.name


def test_an_offset_is_noted_and_removed(tmp_path: Path) -> None:
    old = houses()
    hall, corner = (box(EAST - 200, NORTH, EAST - 200 + s, NORTH + s) for s in (50, 20))
    shifted = [affinity.translate(house, 4, -3) for house in (*changed(old), corner)]
    new = write(tmp_path / "shifted.gpkg", shifted)
    before = write(tmp_path / "before.gpkg", [*old, hall])
    _, answer = call("compare", new, before, "-o", tmp_path / "a")
    assert gpd.read_file(tmp_path / "a" / "compare.gpkg").status[len(shifted) - 1] == "changed"
    assert answer["offset"]["east_m"] == pytest.approx(4, abs=0.05)
    assert any("4.0 m to the east and 3.0 m to the south" in note for note in answer["notes"])
    truth = TRUTH_OLD | {"gone": 13}
    assert counts(answer, "old") != truth
    _, answer = call("compare", new, before, "-o", tmp_path / "b", "--remove-offset")
    assert counts(answer, "old") == truth
    sides = gpd.read_file(tmp_path / "b" / "compare.gpkg").to_crs(UTM)
    same = sides[(sides.status == "same") & (sides.side == "new")]
    np.testing.assert_allclose(same.centroid.x.min(), min(h.centroid.x for h in old), atol=0.1)


@pytest.mark.parametrize(
    ("keep", "from_old", "from_new"),
    [("old", 144, 12), ("new", 0, 156), ("both", 96 + 12, 12 + 12 + 24 + 12)],
)
def test_a_conflated_layer_has_each_building_once_with_the_old_attributes(
    layers: tuple[Path, Path], tmp_path: Path, keep: str, from_old: int, from_new: int
) -> None:
    _, answer = call("compare", *layers, "-o", tmp_path, "--keep", keep)
    assert answer["conflated"] == {"old": from_old, "new": from_new}
    made = gpd.read_file(tmp_path / "conflated.gpkg", layer="conflated")
    assert len(made) == from_old + from_new
    # No building lies in another one.
    metres = made.to_crs(UTM)
    pairs = metres.sindex.query(metres.geometry, predicate="intersects").T
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    geometry = metres.geometry.to_numpy()
    common = shapely.area(shapely.intersection(geometry[pairs[:, 0]], geometry[pairs[:, 1]]))
    smaller = np.minimum(shapely.area(geometry[pairs[:, 0]]), shapely.area(geometry[pairs[:, 1]]))
    assert (common < 0.5 * smaller).all()
    known = made[made.compare_status.isin(["same", "changed", "moved", "split", "gone"])]
    np.testing.assert_array_equal(known.id, known.compare_old_id.astype(int))
    np.testing.assert_array_equal(known.name, [f"house {i - 100:.0f}" for i in known.id])
    np.testing.assert_array_equal(known.levels, (known.id - 100) / 2)
    added = made[made.compare_status == "new"]
    assert len(added) == 12
    assert added[["id", "name", "levels", "compare_old_id"]].isna().all(axis=None)
    assert added.compare_score.notna().all()
    assert ("gone" in set(made.compare_status)) == (keep != "new")
    if keep == "old":
        own = VectorFile(layers[1]).read().geometry
        assert shapely.equals_exact(made.geometry.to_numpy()[: len(own)], own, 0).all()


def test_no_id_is_lost_where_an_outline_replaces_several_or_divides_one(tmp_path: Path) -> None:
    halves = [box(x, NORTH, x + 10, NORTH + 9) for x in (EAST, EAST + 10)]
    whole = box(EAST, NORTH, EAST + 20, NORTH + 9)
    outlines = [whole, *(affinity.translate(half, 50) for half in halves)]
    # GDAL reads the date in a GeoJSON as such.
    origin = {"imagery_date": ["2023-06-15"] * 3, "source": ["© Survey"] * 3, "model": ["m"] * 3}
    result = {"score": [0.9] * 3, "area_m2": [9] * 3}
    new = write(tmp_path / "new.geojson", outlines, **origin, **result)
    undated = write(tmp_path / "undated.gpkg", outlines)
    later = write(tmp_path / "later.gpkg", outlines, imagery_date=["2025"] * 3)
    old = tmp_path / "old.gpkg"
    # A map of another kind may have such columns, too.
    surveyed = {"source": ["field book"] * 3, "model": ["GNSS"] * 3, "egid": ["7", "8", "9"]}
    write(old, [*halves, affinity.translate(whole, 50)], **surveyed)
    # Outlines that a later comparison keeps have the date of theirs.
    for given, keep in ((new, "new"), (later, "both"), (undated, "new")):
        out = tmp_path / keep
        _, answer = call("compare", given, old, "-o", out, "--keep", keep, "--id", "egid")
        old = out / "conflated.gpkg"
        made = gpd.read_file(old)
        assert [*made.compare_date.dropna()] == ([] if given == undated else ["2023-06-15"] * 3)
        assert made.egid.tolist() == ["7", "9", "9"]
        if given == new:
            text = (out / "report.html").read_text("utf-8")
            assert "new.geojson: © Survey, 2023-06-15 ·" in text
            assert "field book" not in text
            assert made.compare_old_id.tolist() == ["7;8", "9", "9"]
            assert sum("1 building of OLD is" in note for note in answer["notes"]) == 2
    call("compare", new, tmp_path / "old.gpkg", "-o", tmp_path, "--keep", "old", "--id", "fid")
    assert gpd.read_file(tmp_path / "conflated.gpkg").compare_old_id.tolist() == ["1", "2", "3"]


def test_a_hall_and_the_houses_in_its_place_replace_each_other(tmp_path: Path) -> None:
    hall = write(tmp_path / "hall.gpkg", [box(EAST, NORTH, EAST + 40, NORTH + 40)], egid=[9])
    small = [box(x, NORTH + 5, x + 6, NORTH + 11) for x in (EAST + 5, EAST + 20)]
    houses = write(tmp_path / "houses.gpkg", small, egid=[7, 8])
    area = write(tmp_path / "area.gpkg", [box(EAST - 9, NORTH - 9, EAST + 49, NORTH + 49)])
    # The hall has the ids of the houses below it; they do not have that of the hall.
    for new, old, kept in (
        (hall, houses, {"old": ["7", "8"], "new": ["7;8"], "both": ["7;8"]}),
        (houses, hall, {"old": ["9"], "new": [None, None], "both": [None, None]}),
    ):
        for keep, ids in kept.items():
            out = tmp_path / keep
            options = ("--keep", keep, "--id", "egid", "--area", area, "--format", "osm")
            _, answer = call("compare", new, old, "-o", out, *options)
            sides = [counts(answer, side) for side in ("new", "old")]
            assert sides == [{"new": 1 + (new == houses)}, {"gone": 1 + (old == houses)}]
            assert gpd.read_file(out / "conflated.gpkg").compare_old_id.tolist() == ids
            assert "<way" not in (out / "compare.osm").read_text()
    # A part of the hall of a map of the same time was found.
    _, answer = call("compare", houses, "--reference", hall, "-o", tmp_path, "--area", area)
    assert counts(answer, "new") == {"changed": 2}


def repeats(left: float) -> dict[str, shapely.Polygon]:
    """Return two outlines of one house that share 90 of 100 m², and a shed in it."""
    lower = box(EAST + left, NORTH, EAST + left + 10, NORTH + 10)
    shed = box(EAST + left + 3, NORTH + 3, EAST + left + 6, NORTH + 6)
    return {"lower": lower, "upper": affinity.translate(lower, 0, 1), "shed": shed}


@pytest.mark.parametrize(
    ("keep", "kept", "left_out"),
    [
        # The known house has OLD's outline or NEW's best one; its repeats have changed.
        ("old", {"old known"}, 2),
        ("new", {"known lower"}, 4),
        ("both", {"old known"}, 2),
    ],
)
def test_a_new_layer_that_overlaps_itself_gives_each_building_once(
    tmp_path: Path, keep: str, kept: set[str], left_out: int
) -> None:
    known, added = repeats(0), repeats(50)
    # The score decides among outlines that OLD does not have, unless both touch by less than half.
    new = {f"known {name}": one for name, one in known.items()}
    new |= {f"added {name}": one for name, one in added.items()}
    new["beside"] = affinity.translate(added["upper"], 6, 0)
    score = [0.1, 0.9, 0.9, 0.3, 0.8, 0.2, 0.1]
    path = write(tmp_path / "new.gpkg", [*new.values()], name=[*new], score=score)
    old = write(tmp_path / "old.gpkg", [known["lower"]], name=["old known"])
    _, answer = call(
        "compare", path, old, "-o", tmp_path / "out", "--keep", keep, "--format", "osm", "--area",
        write(tmp_path / "area.gpkg", [box(EAST - 20, NORTH - 20, EAST + 90, NORTH + 40)]),
    )  # fmt: skip
    assert counts(answer, "new") == {"same": 1, "changed": 2, "new": 4}
    made = gpd.read_file(tmp_path / "out" / "conflated.gpkg")
    expected = kept | {"added upper", "beside"}
    truth = new | {"old known": known["lower"]}
    assert len(made) == len(expected) == sum(answer["conflated"].values())
    for name in expected:
        layer = "old" if name in known or name.startswith("old") else "new"
        of_layer = made[made.compare_layer == layer]
        assert of_layer.geometry.geom_equals(truth[name]).sum() == 1, name
    assert any(f"{left_out} buildings of NEW are left out" in n for n in answer["notes"])
    whole = gpd.read_file(tmp_path / "out" / "compare.gpkg").query("status == 'new'")
    assert whole[whole.to_add == True].id.tolist() == ["5", "7"]  # noqa: E712
    note = next(note for note in answer["notes"] if note.startswith("compare.osm"))
    assert re.search("2 new buildings.*a better outline", note)


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_attributes_of_the_old_layer_keep_their_types(suffix: str, tmp_path: Path) -> None:
    day = pd.to_datetime(["2024-01-31", None, "2024-03-01"]).astype("datetime64[ms]")
    attributes = {
        "osm_id": pd.array([2**60 + 1, None, 5], "Int64"),
        "whole": np.array([1, 2, 3], np.int32), "share": [1.5, None, 3.0],
        "flag": [True, False, True], "day": day, "text": ["a", "b", None],
        "building": ["house", "yes", "yes"],
    }  # fmt: skip
    old = write(tmp_path / "old.gpkg", [box(x, 0, x + 10, 10) for x in (0, 30, 60)], **attributes)
    if suffix == ".parquet":
        gpd.read_file(old).assign(**attributes).to_parquet(old := tmp_path / "old.parquet")
    new = write(tmp_path / "new.gpkg", [box(x, 0, x + 10, 10) for x in (0, 31, 90)])
    assert call("compare", new, old, "-o", tmp_path / "out", "--keep", "old")[0] == 0
    made = VectorFile(tmp_path / "out" / "conflated.gpkg").read(
        [*attributes, "compare_old_id", "compare_source"], typed=True, buildings=True
    )
    values = {name: column.tolist() for name, column in made.values.items()}
    assert values["osm_id"] == [2**60 + 1, None, 5, None]
    assert values["compare_old_id"] == [str(2**60 + 1), "row 2", "5", None]
    assert values["compare_source"] == [None, None, None, "new.gpkg"]
    assert values["whole"] == [1, 2, 3, None]
    assert made.values["whole"].dtype == np.int32
    assert values["share"] == pytest.approx([1.5, np.nan, 3.0, np.nan], nan_ok=True)
    assert values["flag"] == [True, False, True, None]
    assert values["day"] == [*day.to_pydatetime()[:1], None, day.to_pydatetime()[2], None]
    assert values["text"] == ["a", "b", None, None]


def test_a_building_is_gone_only_where_the_imagery_shows_ground(
    layers: tuple[Path, Path], tmp_path: Path
) -> None:
    left, top = EAST - 10, NORTH + 25.0 * SIDE + 10
    place = {"crs": f"EPSG:{UTM}", "transform": Affine(1, 0, left, 0, -1, top)}
    # Six of the twelve rows of houses lie under nodata.
    image = np.zeros((320, 320), np.uint8)
    for bright, notes in (
        (90, []),
        (250, ["6 of 6 buildings looked at that are gone. If a cloud"]),
    ):
        image[160:] = bright
        scene = write_geotiff(tmp_path / "scene.tif", image, nodata=0, **place)
        _, answer = call("compare", *layers, "-o", tmp_path / "a", "--imagery", scene)
        assert answer["coverage"] == "imagery"
        assert counts(answer, "old") == TRUTH_OLD | {"changed": 6, "gone": 6, "outside": 12}
        assert re.findall(r"white at (.*cloud)", str(answer["notes"])) == notes
    # By district, what no image shows is no zero, and no ground of a share.
    districts = [
        box(left, top - low, left + 320, top - high) for low, high in ((150, 0), (320, 150))
    ]
    zones = write(tmp_path / "zones.gpkg", districts)
    told = ("density", tmp_path / "a/compare.gpkg", "--building", "gone", "--zones", zones)
    assert call(*told, "-o", tmp_path / "lost")[0] == 0
    lost = pd.read_csv(tmp_path / "lost.csv")
    np.testing.assert_array_equal(lost.buildings, [np.nan, 6])
    assert lost.observed_share.tolist() == pytest.approx([0, 160 / 170], rel=1e-3)
    area = write(tmp_path / "area.gpkg", [box(left, NORTH - 10, left + 400, NORTH + 145)], 3857)
    _, answer = call("compare", *layers, "-o", tmp_path / "b", "--area", area)
    assert answer["coverage"] == "area"
    # Beyond an area, matches count as little as misses.
    for side, truth in (("old", TRUTH_OLD), ("new", TRUTH_NEW)):
        half = {status: count // 2 for status, count in truth.items()}
        assert counts(answer, side) == half | {"outside": sum(half.values())}
    seen = gpd.read_file(tmp_path / "b/compare_observed.gpkg").to_crs(UTM)
    assert seen.area.sum() == pytest.approx(400 * 155, rel=1e-3)
    # What a layer says was seen counts as an image does.
    _, again = call("compare", tmp_path / "b/compare.gpkg", layers[1], "-o", tmp_path / "d")
    assert (again["coverage"], counts(again, "old")["gone"]) == ("observed", 6)
    _, again = call("compare", layers[1], tmp_path / "b/compare.gpkg", "-o", tmp_path / "d")
    assert counts(again, "new")["new"] == 6
    # Damage of the image hides ground: away from the buildings, and where they lie.
    write_geotiff(scene, np.full((320, 4096), 90, np.uint8), tiled=True, **place)
    scene.write_bytes(scene.read_bytes()[:-100_000])
    _, answer = call("compare", *layers, "-o", tmp_path / "b", "--imagery", scene)
    assert counts(answer, "old") == TRUTH_OLD
    assert "The ground of 1 block counts as not seen." in str(answer["notes"])
    seen = gpd.read_file(tmp_path / "b/compare_observed.gpkg")
    assert seen.area.sum() == pytest.approx(2048 * 320, rel=1e-4)
    place["transform"] @= Affine.translation(-2100, 0)
    write_geotiff(scene, np.full((320, 4096), 90, np.uint8), tiled=True, **place)
    scene.write_bytes(scene.read_bytes()[:-100_000])
    _, answer = call("compare", *layers, "-o", tmp_path / "b", "--imagery", scene)
    assert counts(answer, "old")["outside"] == TRUTH_OLD["gone"] + TRUTH_OLD["changed"]
    _, answer = call("compare", *layers, "-o", tmp_path / "c")
    assert answer["coverage"] == "bounds"
    assert any("does not say which ground was seen" in note for note in answer["notes"])


def test_buildings_that_others_cover_are_seen_in_any_order(tmp_path: Path) -> None:
    image = np.full((200, 200), 90, np.uint8)
    # A roof as bright as nodata.
    image[40:50, 40:50] = 255
    scene = write_geotiff(
        tmp_path / "scene.tif", image, crs=f"EPSG:{UTM}", nodata=255,
        transform=Affine(1, 0, EAST, 0, -1, NORTH + 200),
    )  # fmt: skip
    same = box(EAST + 20, NORTH + 20, EAST + 30, NORTH + 30)
    roof = box(EAST + 40, NORTH + 150, EAST + 50, NORTH + 160)
    new = write(tmp_path / "new.gpkg", [same])
    part = box(EAST + 105, NORTH + 105, EAST + 110, NORTH + 110)
    whole = box(EAST + 100, NORTH + 100, EAST + 120, NORTH + 120)
    # Both lie in one pixel.
    sheds = [box(EAST + x, NORTH + 50.1, EAST + x + 0.4, NORTH + 50.5) for x in (60.1, 60.55)]
    for name, gone in (("a", [part, whole]), ("b", [whole, part]), ("c", sheds)):
        old = write(tmp_path / f"{name}.gpkg", [same, *gone, roof])
        _, answer = call("compare", new, old, "-o", tmp_path / name, "--imagery", scene)
        found = counts(answer, "old")
        assert (found["gone"], found["outside"]) == (2, 1), name


@pytest.mark.parametrize("keep", ["old", "new", "both"])
def test_a_building_that_the_edge_of_the_imagery_cuts_is_no_change(
    tmp_path: Path, keep: str
) -> None:
    whole = box(EAST + 10, NORTH + 10, EAST + 50, NORTH + 30)
    cut = box(EAST + 32, NORTH + 10, EAST + 50, NORTH + 30)
    apart = box(EAST + 60, NORTH + 10, EAST + 70, NORTH + 20)
    # Of two more, 70 % are seen: a house that is the same, and a hall that was divided.
    house, hall = (box(EAST + 18, NORTH + y, EAST + 64, NORTH + y + 8) for y in (-8, 40))
    seen = [box(EAST + 32, NORTH - 8, EAST + 64, NORTH)]
    seen += [box(EAST + x, NORTH + 40, EAST + x + 15, NORTH + 48) for x in (32, 48)]
    is_cut = [True, keep == "new", True, True, False]
    new = write(tmp_path / "new.gpkg", [cut, apart, *seen], cut=is_cut)
    old = write(tmp_path / "old.gpkg", [whole, house, hall])
    image = np.full((60, 100), 90, np.uint8)
    image[:, :32] = 0
    scene = write_geotiff(
        tmp_path / "scene.tif", image, crs=f"EPSG:{UTM}", nodata=0,
        transform=Affine(1, 0, EAST, 0, -1, NORTH + 50),
    )  # fmt: skip
    area = write(tmp_path / "area.gpkg", [box(EAST + 32, NORTH - 10, EAST + 100, NORTH + 50)])
    where = "--format", "osm", *(("--area", area) if keep == "new" else ("--imagery", scene))
    _, answer = call("compare", new, old, "-o", tmp_path / "out", *where, "--keep", keep)
    assert (tmp_path / "out" / "compare.osm").read_text().count("<way") == (keep != "new")
    assert counts(answer, "new") == {"same": 1, "split": 2, "new": 1, "outside": 1}
    assert counts(answer, "old") == {"same": 1, "split": 1, "outside": 1}
    assert answer["conflated"] == {"old": 3, "new": 1}
    made = gpd.read_file(tmp_path / "out" / "conflated.gpkg", layer="conflated")
    assert made.area.sum() == pytest.approx(sum(one.area for one in (whole, house, hall, apart)))
    new = write(new, [cut, apart, *seen], cut=is_cut, review=["open", "accepted", *["open"] * 3])
    call("compare", new, old, "-o", tmp_path / "out", *where)
    assert (tmp_path / "out" / "compare.osm").read_text().count("<way") == 1


def test_a_building_on_the_seam_of_images_is_seen_by_all_together(tmp_path: Path) -> None:
    same = box(EAST + 60, NORTH + 10, EAST + 70, NORTH + 20)
    grown = box(EAST + 32, NORTH + 10, EAST + 50, NORTH + 30)
    old_one = box(EAST + 10, NORTH + 10, EAST + 50, NORTH + 30)
    gone = box(EAST + 2, NORTH + 35, EAST + 92, NORTH + 45)
    new = write(tmp_path / "new.gpkg", [grown, same])
    old = write(tmp_path / "old.gpkg", [old_one, same, gone])

    def found(*edges: tuple[int, int]) -> dict[str, int]:
        """Compare with images that show columns of ground, in metres from the left."""
        images: list[object] = []
        for left, right in edges:
            path = tmp_path / f"{left}_{right}.tif"
            write_geotiff(
                path, np.full((60, right - left), 90, np.uint8), crs=f"EPSG:{UTM}",
                transform=Affine(1, 0, EAST + left, 0, -1, NORTH + 55),
            )  # fmt: skip
            images += ["--imagery", path]
        _, answer = call("compare", new, old, "-o", tmp_path / "out", *images)
        return counts(answer, "old")

    assert found((0, 100)) == {"changed": 1, "gone": 1, "same": 1}
    # Each of the three shows a third of the building that is gone, and half of the other at most.
    assert found((0, 32), (32, 62), (62, 100)) == {"changed": 1, "gone": 1, "same": 1}
    # Two that show the same part are no more than one of them.
    assert found((0, 40), (1, 41)) == {"outside": 2, "same": 1}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["Height", "height"], ["Height", "old_height"]),
        (["Compare_Layer", "fid_", "geom"], ["old_Compare_Layer", "fid_", "old_geom"]),
    ],
)
def test_attributes_whose_names_collide_are_renamed(
    tmp_path: Path, given: list[str], names: list[str]
) -> None:
    house = box(EAST, NORTH, EAST + 10, NORTH + 10)
    new = write(tmp_path / "new.gpkg", [house])
    columns = {name: [f"of {name}"] for name in given}
    old = write(tmp_path / "old.parquet", [house], **columns)
    assert call("compare", new, old, "-o", tmp_path / "out", "--keep", "old")[0] == 0
    table = gpd.read_file(tmp_path / "out" / "conflated.gpkg")
    assert [table[name][0] for name in names] == [f"of {name}" for name in given]
    assert table["compare_status"].tolist() == ["same"]


def test_a_map_of_the_same_time_is_no_earlier_date(
    layers: tuple[Path, Path], tmp_path: Path
) -> None:
    new, old = layers
    scene = write_geotiff(
        tmp_path / "scene.tif", np.full((3, 200, 200), 120, np.uint8), crs=UTM,
        transform=Affine(2, 0, EAST - 50, 0, -2, NORTH + 50),
    )  # fmt: skip
    _, answer = call("compare", new, "--reference", old, "-o", tmp_path, "--imagery", scene)
    seen = {side: sum(counts(answer, side).values()) for side in ("new", "old")}
    outside = {side: answer["statuses"]["outside"][side] for side in ("new", "old")}
    agreed = answer["against_map"]
    assert agreed["pairs"] == answer["matched"]
    assert agreed["only_map"] == answer["statuses"]["gone"]["old"]
    assert agreed["only_found"] == answer["statuses"]["new"]["new"]
    for side, name in (("old", "map"), ("new", "found")):
        parts = agreed["pairs"], agreed[f"otherwise_{name}"], agreed[f"only_{name}"]
        assert min(parts) > 0
        assert sum(parts) == seen[side] - outside[side]
    expected = [agreed["pairs"] / (seen[side] - outside[side]) for side in ("old", "new")]
    assert [agreed["recall"], agreed["precision"]] == pytest.approx(expected, abs=1e-4)
    review = gpd.read_file(tmp_path / "review.geojson")
    assert {"only found", "only in the map"} <= set(review.status)
    assert "gone" not in set(review.status)
    page = (tmp_path / "report.html").read_text()
    assert "<span>only in the map</span>" in page
    crops = re.findall('data:image/jpeg;base64,([^"]+)', page)
    assert len(crops) > 5
    # Beyond the image they are grey, not black.
    drawn = np.concatenate([np.unique(Image.open(BytesIO(b64decode(one)))) for one in crops])
    assert {110, 120} <= {*drawn.tolist()}
    assert drawn.min() > 100
    text = command("compare", new, "--reference", old, "-o", tmp_path, "--imagery", scene).err
    assert f"recall {agreed['pairs']} / {agreed['mapped']} = " in text
    assert " gone" not in text
    for given in ((new,), (new, old, "--reference", old)):
        assert call("compare", *given, "-o", tmp_path / "no")[0] == 2


@pytest.mark.parametrize("further", [{}, {"compare_layer": "old"}], ids=["dates", "conflated"])
def test_swapped_dates_and_other_models_are_noted(further: dict[str, str], tmp_path: Path) -> None:
    numbers = dict.fromkeys(("score", "area_m2"), np.ones(len(houses())))
    new = write(tmp_path / "town_2019-05.gpkg", houses(), **numbers, model="a")
    old = write(tmp_path / "town_2024.gpkg", houses(), **numbers, model="b", **further)
    notes = " ".join(call("compare", new, old, "-o", tmp_path / "out")[1]["notes"])
    assert all((s in notes) != bool(further) for s in ("order looks swapped", "models a, b: "))
