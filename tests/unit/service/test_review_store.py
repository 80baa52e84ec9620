"""The store of a review: nothing is lost, undo works, reviewers do not overwrite each other."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import CRS

from rooftrace.io.vector_read import VectorFile
from rooftrace.service import review_store as module
from rooftrace.service.outline_edits import OutlineError, OutlineRules, join_outlines, split_outline
from rooftrace.service.review_store import (
    Edit,
    PredictedLayer,
    ReviewConflictError,
    ReviewFileError,
    ReviewLockedError,
    ReviewStore,
)

UTM = CRS(32736)


def layer_of(fingerprint: str = "a", crs: CRS | None = UTM) -> PredictedLayer:
    houses = [shapely.box(x, 0, x + 8, 8) for x in range(0, 100, 10)]
    return PredictedLayer(
        "town_buildings.gpkg", np.arange(1, 11), np.array(houses, np.object_), crs, fingerprint
    )


@pytest.fixture
def store(tmp_path: Path) -> ReviewStore:
    return ReviewStore(tmp_path / "town_review.gpkg", layer_of())


def accept(store: ReviewStore, number: int, seen: int = 0, who: str = "Ada") -> int:
    (made,) = store.change(who, "accept", {number: seen}, [Edit(number, "keep")])
    return made.revision


def test_nothing_is_written_before_the_first_change(store: ReviewStore) -> None:
    assert store.touched() == ([], [])
    assert store.statuses() == (0, {})
    found = store.get(3)
    assert found is not None
    assert (found.status, found.revision) == ("open", 0)
    assert store.get(77) is None
    assert store.undo("Ada") == ()
    assert store.touched() == ([], [])
    assert not store.path.exists()


def test_decisions_are_in_a_geopackage_that_gdal_reads(store: ReviewStore) -> None:
    accept(store, 1)
    store.change("Ada", "reject", {2: 0}, [Edit(2, "reject")])
    wider = shapely.box(20, 0, 29, 8)
    store.change("Bo", "redraw", {3: 0}, [Edit(3, "keep", wider)])
    (drawn,) = store.change("Bo", "add", {}, [Edit(None, "keep", shapely.box(0, 20, 5, 25))])
    assert drawn.id == 11
    assert store.statuses() == (4, {1: "accepted", 2: "rejected", 3: "changed", 11: "added"})
    assert [one.id for one in store.touched(2)[0]] == [3, 11]
    layers = dict(pyogrio.list_layers(store.path))
    assert layers["town_review"] == "MultiPolygon"
    read = VectorFile(store.path).read(("status", "reviewer"))
    assert read.values["status"].tolist() == ["accepted", "rejected", "changed", "added"]
    assert read.crs == store.layer.crs
    assert shapely.equals(read.geometry[2], wider)
    info = pyogrio.read_info(store.path, layer="town_review")
    assert (info["features"], info["fid_column"]) == (4, "fid")
    # The spatial index is kept up to date.
    inside = pyogrio.read_dataframe(store.path, layer="town_review", bbox=(0, 19, 6, 26))
    assert inside["status"].tolist() == ["added"]
    with sqlite3.connect(store.path) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert file.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    file.close()


def test_an_accepted_building_keeps_its_own_outline(store: ReviewStore) -> None:
    first = store.change("Ada", "redraw", {1: 0}, [Edit(1, "keep", shapely.box(0, 0, 9, 9))])
    second = store.change("Ada", "reject", {1: first[0].revision}, [Edit(1, "reject")])
    third = store.change("Ada", "accept", {1: second[0].revision}, [Edit(1, "keep")])
    assert third[0].status == "changed"
    back = store.change(
        "Ada", "redraw", {1: third[0].revision}, [Edit(1, "keep", store.layer.outline(1))]
    )
    assert back[0].status == "accepted"


def test_undo_goes_back_change_by_change(store: ReviewStore) -> None:
    accept(store, 1)
    rejected = store.change("Ada", "reject", {1: 1}, [Edit(1, "reject")])
    assert rejected[0].revision == 2
    store.change("Ada", "add", {}, [Edit(None, "keep", shapely.box(0, 20, 5, 25))])
    assert store.undo("Ada") == ()
    assert store.get(11) is None
    assert store.touched(3) == ([], [11])
    (again,) = store.undo("Ada")
    assert (again.status, again.revision) == ("accepted", 5)
    (opened,) = store.undo("Ada")
    assert opened.status == "open"
    assert store.undo("Ada") == ()
    assert [one.status for one in store.touched()[0]] == ["open"]
    # A number is not used again, since another page may still show it.
    (drawn,) = store.change("Ada", "add", {}, [Edit(None, "keep", shapely.box(0, 20, 5, 25))])
    assert drawn.id == 12


def test_a_stale_revision_is_a_conflict_that_shows_the_other_state(store: ReviewStore) -> None:
    accept(store, 1, who="Ada")
    with pytest.raises(ReviewConflictError, match="Ada has changed building 1") as caught:
        store.change("Bo", "reject", {1: 0, 2: 0}, [Edit(1, "reject"), Edit(2, "reject")])
    assert [one.status for one in caught.value.buildings] == ["accepted"]
    # All or nothing: the other building of the change is untouched.
    assert store.statuses()[1] == {1: "accepted"}


def test_undo_does_not_take_back_what_another_has_decided_since(store: ReviewStore) -> None:
    revision = accept(store, 1, who="Ada")
    store.change("Bo", "reject", {1: revision}, [Edit(1, "reject")])
    with pytest.raises(ReviewConflictError, match="Bo has changed"):
        store.undo("Ada")
    assert [one.status for one in store.undo("Bo")] == ["accepted"]
    assert [one.status for one in store.undo("Ada")] == ["open"]


def test_of_several_writers_one_wins_each_building(store: ReviewStore) -> None:
    won: list[int] = []
    lost: list[int] = []

    def work(who: str) -> None:
        own = ReviewStore(store.path, store.layer)
        for number in range(1, 11):
            try:
                accept(own, number, who=who)
                won.append(number)
            except ReviewConflictError:
                lost.append(number)

    threads = [threading.Thread(target=work, args=(f"R{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, 11))
    assert len(lost) == 30
    assert store.statuses()[0] == 10


def test_a_file_that_another_program_holds_is_a_sentence(
    store: ReviewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.05)
    accept(store, 1)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ReviewLockedError, match="held by another program"):
        accept(store, 2)
    with pytest.raises(ReviewLockedError):
        store.get(1)
    other.execute("ROLLBACK")
    other.close()
    accept(store, 2)
    assert set(store.statuses()[1]) == {1, 2}


@pytest.mark.parametrize("damage", ["text", "head", "empty", "another", "not UTF-8"])
def test_a_damaged_file_is_a_sentence_and_is_not_replaced(damage: str, store: ReviewStore) -> None:
    accept(store, 1)
    if damage == "another":
        other = sqlite3.connect(store.path)
        other.execute("DROP TABLE review_changes")
        other.commit()
        other.close()
    elif damage == "not UTF-8":
        other = sqlite3.connect(store.path)
        other.execute("UPDATE review_source SET fingerprint = CAST(x'e8ff' AS TEXT)")
        other.commit()
        other.close()
    else:
        whole = store.path.read_bytes()
        broken = {"text": b"no database " * 400, "empty": b"", "head": b"\0" * 200 + whole[200:]}
        store.path.write_bytes(broken[damage])
    before = store.path.read_bytes()
    with pytest.raises(ReviewFileError, match=r"town_review\.gpkg is damaged or is not a review"):
        accept(store, 2)
    with pytest.raises(ReviewFileError):
        store.touched()
    assert store.path.read_bytes() == before


def test_the_review_of_other_polygons_is_refused(store: ReviewStore) -> None:
    accept(store, 1)
    with pytest.raises(ReviewFileError, match="predicted again"):
        ReviewStore(store.path, layer_of("b")).touched()


PROGRAM = """
import sys
from pathlib import Path
from test_review_store import accept, layer_of
from rooftrace.service.review_store import ReviewStore
store = ReviewStore(Path(sys.argv[1]), layer_of())
seen = 0
while True:
    seen = accept(store, 1, seen)
    print(seen, flush=True)
"""


@pytest.mark.campaign
def test_what_was_acknowledged_survives_a_kill(store: ReviewStore) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    for stop in (3, 30):
        store.path.unlink(missing_ok=True)
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(store.path)],
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) == stop:
                    break
            # In the midst of a later write.
            process.send_signal(signal.SIGKILL)
            known = [stop, *map(int, process.stdout)]
        found = store.get(1)
        assert found is not None
        assert known[-1] <= found.revision <= known[-1] + 1
        assert accept(store, 1, found.revision) == found.revision + 1


RULES = OutlineRules(shapely.box(0, 0, 100, 100), 0.5)


def test_corners_that_were_not_moved_stay_exactly_the_same() -> None:
    earlier = shapely.box(1 / 3, 1 / 7, 9, 8)
    xy = shapely.get_coordinates(earlier) + 1e-8
    xy[2] += 2
    made = RULES.checked(shapely.Polygon(xy), earlier)
    same = (shapely.get_coordinates(made) == shapely.get_coordinates(earlier)).all(axis=1)
    assert same.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        (shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)]), "crosses itself"),
        (shapely.box(200, 200, 210, 210), "outside of the scene"),
        (shapely.box(1, 1, 1.2, 1.2), "smaller than a pixel"),
    ],
)
def test_outlines_that_are_refused(outline: shapely.Polygon, reason: str) -> None:
    with pytest.raises(OutlineError, match=reason):
        RULES.checked(outline)


def test_an_outline_is_cut_at_the_edge_of_the_scene() -> None:
    assert RULES.checked(shapely.box(-5, 0, 5, 5)).bounds == (0, 0, 5, 5)


def test_split_and_merge() -> None:
    court = shapely.box(0, 0, 10, 10) - shapely.box(4, 4, 6, 6)
    pieces = split_outline(court, shapely.LineString([(-1, 5), (11, 5)]), RULES)
    assert [round(one.area) for one in pieces] == [48, 48]
    assert join_outlines(pieces, RULES).area == pytest.approx(96)
    with pytest.raises(OutlineError, match="does not cut"):
        split_outline(court, shapely.LineString([(-1, 5), (3, 5)]), RULES)
    with pytest.raises(OutlineError, match="smaller than a pixel"):
        split_outline(court, shapely.LineString([(-0.1, 0.4), (0.4, -0.1)]), RULES)
    near = join_outlines([shapely.box(0, 0, 5, 5), shapely.box(5.2, 0, 9, 5)], RULES)
    assert near.geom_type == "Polygon"
    assert near.area == pytest.approx(45)
    with pytest.raises(OutlineError, match="do not touch"):
        join_outlines([shapely.box(0, 0, 5, 5), shapely.box(7, 0, 9, 5)], RULES)
