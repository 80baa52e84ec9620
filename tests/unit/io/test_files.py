"""Files that appear under their name when they are complete."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rooftrace.core.errors import ConfigError, ExportError
from rooftrace.io.files import check_outputs, write_atomically


def test_a_result_does_not_replace_an_input(tmp_path: Path) -> None:
    given, other = tmp_path / "given.tif", tmp_path / "other.tif"
    given.write_text("given")
    other.write_text("other")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "hard.tif").hardlink_to(given)
    check_outputs([other, tmp_path / "new.tif"], [given, None, tmp_path / "absent.tif"])
    for same in (given, tmp_path / "link" / "given.tif", tmp_path / "hard.tif"):
        with pytest.raises(ConfigError, match=r"would replace the input .*given\.tif"):
            check_outputs([other, same], [None, given])


def test_a_geopackage_with_other_layers_is_not_replaced(tmp_path: Path) -> None:
    def written(name: str, *layers: str) -> Path:
        with closing(sqlite3.connect(tmp_path / name)) as database, database:
            database.execute("CREATE TABLE gpkg_contents (table_name TEXT)")
            rows = [(layer,) for layer in layers]
            database.executemany("INSERT INTO gpkg_contents VALUES (?)", rows)
        return tmp_path / name

    (tmp_path / "text.gpkg").write_text("no database")
    own = written("town.gpkg", "town", "layer_styles")
    check_outputs([own, tmp_path / "text.gpkg", tmp_path / "new.gpkg"], [])
    project = written("project.gpkg", "roads", "project", "parcels")
    with pytest.raises(ConfigError, match="replace other data: parcels, roads") as refused:
        check_outputs([own, project], [])
    assert f"ogr2ogr -update {project} " in refused.value.remedy
    (tmp_path / "town.gdb").mkdir()
    (tmp_path / "town.gdb/notes.txt").touch()
    with pytest.raises(ConfigError, match=r"replace other data: notes\.txt"):
        check_outputs([tmp_path / "town.gdb"], [])


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ExportError, match=r"out is a file, not a folder"):
        write_atomically(tmp_path / "out" / "deep" / "a.txt", b"")
    assert (tmp_path / "out").read_text() == "mine"
