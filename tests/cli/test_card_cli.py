"""`rooftrace card` writes two files, and notes facts that the bundle does not have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import command
from tiny_models import write_tiny_bundle


def test_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_bundle(tmp_path / "tiny.rooftrace", licence="", attribution="the authors")
    done = command("card", "tiny.rooftrace")
    assert done.code == 0, done.err
    assert "note: The bundle has no licence; the card calls it unknown." in done.err
    assert (tmp_path / "card/README.md").read_text().startswith("---\nlibrary_name: rooftrace\n")
    again = command("card", "tiny.rooftrace", "-o", "here", "--json")
    assert again.json["card"] == "here/README.md"
    assert json.loads(Path(again.json["item"]).read_text())["type"] == "Feature"
    missing = command("card", "absent.rooftrace", "-o", "none")
    assert missing.code == 4
    assert not (tmp_path / "none").exists()
