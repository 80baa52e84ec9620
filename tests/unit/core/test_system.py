"""What Windows does in another way: locks of bytes, folders, memory, paths."""

import os
from pathlib import Path

import pytest

from msvcrt_locks import Msvcrt
from rooftrace.core import system
from rooftrace.core.errors import ConfigError, ExportError
from rooftrace.flows.catalogue.scenes import _located
from rooftrace.io.files import locked
from rooftrace.io.imagery_search import linked_address
from rooftrace.labels.label_files import _names
from rooftrace.labels.split import parse_reference


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Msvcrt:
    stand_in = Msvcrt()
    monkeypatch.setattr(system, "_fcntl", None)
    monkeypatch.setattr(system, "_msvcrt", stand_in)
    return stand_in


def test_a_lock_of_a_byte_keeps_others_out_and_names_its_holder(
    windows: Msvcrt, tmp_path: Path
) -> None:
    """A lock file is opened at its end, which moves when the holder writes its name into it."""
    with locked(tmp_path / "lock", "out"):
        text = (tmp_path / "lock").read_text(encoding="utf-8")
        assert text.startswith(f"process {os.getpid()}")
        ((_, byte),) = windows.held
        assert byte > len(text)
        with (
            pytest.raises(ExportError, match=f"written to by process {os.getpid()}"),
            locked(tmp_path / "lock", "out"),
        ):
            pass
        with (tmp_path / "lock").open("a+") as file, pytest.raises(PermissionError):
            system.take_lock(file)


def test_the_folders_of_a_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert system.user_folder("state") == Path.home() / ".local/state/rooftrace"
    monkeypatch.setattr(system, "_IS_WINDOWS", True)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert system.user_folder("cache") == tmp_path / "rooftrace/cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert system.user_folder("cache") == tmp_path / "mine/rooftrace"


def test_memory_is_reported_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = system.peak_rss_mb()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "")
    assert system.peak_rss_mb() == pytest.approx(peak, rel=0.5)
    monkeypatch.setattr(system, "_resource", None)
    assert system.peak_rss_mb() == 0


ITEM = {"links": [{"rel": "self", "href": "https://host/items/a.json"}]}


def test_a_drive_is_no_scheme_and_no_relative_path() -> None:
    drive = r"C:\scenes\a.tif"
    assert next(_names(drive)) == "C:/scenes/a.tif"
    assert "scenes/a.tif" in list(_names(drive))
    assert _located("items.json", ITEM, drive) == drive
    with pytest.raises(ConfigError, match="expected FILE:PART"):
        parse_reference(r"C:\\split.json")
    assert parse_reference("C:/split.json:val") == (Path("C:/split.json"), "val")
    assert _located("items.json", ITEM, "a.tif") == "https://host/items/a.tif"
    assert linked_address("/data/catalog.json", "file:///data/a%20b.tif") == "/data/a b.tif"
