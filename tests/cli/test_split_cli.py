"""`rooftrace split` as it is called: what it says to people and to programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rooftrace.cli import main
from rooftrace.testing import generate_scene, write_pairs


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["split", *map(str, arguments)])
        shown = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, shown.out, shown.err

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs, two of them the same picture."""
    folder = tmp_path_factory.mktemp("split") / "data"
    write_pairs(folder, range(7), shape_yx=(64, 64))
    for part in ("images", "masks"):
        copy = folder / part / "copy_00000.tif"
        copy.write_bytes((folder / part / "synthetic_00003.tif").read_bytes())
    return folder


def test_for_programs(data: Path, tmp_path: Path, call: Any) -> None:
    out = tmp_path / "split.json"
    code, shown, _ = call(data, "-o", out, "--val", 0.25, "--test", 0.25, "--json")
    assert code == 0
    told = json.loads(shown)
    assert (told["split"], told["dropped"], told["copies"]) == (str(out), 0, 1)
    assert told["train"] + told["val"] + told["test"] == 8
    assert set(told["built_up"]) == {"train", "val", "test"}
    # The scenes are all drawn at the same place.
    assert "show ground that another part shows too" in told["notes"][0]
    written = json.loads(out.read_text())
    assert written["schema_version"] == 2
    part_of = {i: part for part, ids in written["parts"].items() for i in ids}
    assert part_of["copy_00000"] == part_of["synthetic_00003"]


def test_for_people(data: Path, tmp_path: Path, call: Any) -> None:
    out = tmp_path / "split.json"
    code, shown, told = call(data, "-o", out, "--val", 0.25, "--test", 0.25)
    assert (code, shown) == (0, "")
    assert "% built-up)" in told
    assert "1 near-duplicates stay with what they are copies of" in told
    given = (data, "-o", out, "--no-duplicates", "--no-stratify")
    code, shown, told = call(*given, "--val", 0.25, "--test", 0.25)
    assert (code, shown, told) == (0, "", f"{out}: train 4, val 2, test 2\n")


def test_by_block(tmp_path: Path, call: Any) -> None:
    generate_scene(3, (320, 320)).write(tmp_path, "scene")
    given = (tmp_path / "scene.tif", "-o", tmp_path / "s.json", "--set", "chip_px=32")
    sizes = ("--kind", "images", "--val", 0.2, "--test", 0.2)
    code, _, told = call(*given, *sizes, "--by", "block", "--gap-m", 5, "--block-m", 24)
    assert code == 0
    assert "blocks of 24 m, 5 m apart: " in told
    code, shown, _ = call(*given, *sizes, "--by", "block", "--json")
    assert code == 0
    assert json.loads(shown)["dropped"] > 0
    code, shown, _ = call(*given, *sizes, "--gap-m", 5, "--json")
    assert code == 2
    assert json.loads(shown)["error"]["remedy"] == "Add --by block."
