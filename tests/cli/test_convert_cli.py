"""`rooftrace convert`, as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rooftrace.cli import main
from rooftrace.data.config import SourceConfig
from rooftrace.data.kinds import open_source
from rooftrace.testing import write_pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert") / "Daten ä"
    write_pairs(folder, range(2), shape_yx=(64, 64), gsd_m=0.4)
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["convert", *map(str, arguments)])
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, captured.out, captured.err

    return run


def test_for_programs_and_for_people(call: Any, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "c.json"
    code, shown, told = call(data, "--to", "coco", "-o", out, "--json")
    assert (code, told) == (0, "")
    found = json.loads(shown)
    assert found == {
        "written": str(out), "kind": "coco", "scenes": 2, "left_out": [], "notes": [],
        "read_as": "folder: images/NAME.ext + masks/NAME.ext",
    }  # fmt: skip
    again = tmp_path / "again.csv"
    code, shown, told = call(
        out, "--to", "rle", "-o", again, "--order", "column", "--columns", "ImageId, EncodedPixels",
        "--copy-images", "--part", "[:1]",
    )  # fmt: skip
    assert (code, shown) == (0, "")
    assert f"{again}: 1 scenes as rle, read as coco: 2 images" in told
    assert again.read_text().startswith("ImageId,EncodedPixels\n")
    assert len(open_source(SourceConfig(path=str(again), order="column"))) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--to", "cocos", "-o", "out"], 2, "Did you mean 'coco'?"),
        (["--to", "images", "-o", "out"], 2, "cannot be written as images"),
        (["--to", "folder", "-o", "out", "--zoom", "19"], 2, "option zoom was given"),
        (["--to", "coco", "-o", "out"], 2, "does not end in .json"),
        (["--to", "folder", "-o", "out", "--order", "diagonal"], 2, "diagonal"),
        (["--to", "folder", "-o", "."], 2, "exists and is not empty"),
        (["--to", "folder"], 2, "Missing option"),
        (["--to", "folder", "-o", "out", "--split", "s.json"], 2, "FILE:PART"),
        (["--to", "folder", "-o", "out", "--glob", "x*"], 3, "no image/mask pairs"),
    ],
)
def test_what_goes_wrong_is_told(
    call: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    found, shown, _ = call(data, *arguments, "--json")
    assert found == code
    error = json.loads(shown)["error"]
    assert told in f"{error['message']} {error['remedy']}"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
