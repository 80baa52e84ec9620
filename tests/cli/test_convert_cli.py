"""`rooftrace convert` through the real command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import command
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from town import write_pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert") / "Daten ä"
    write_pairs(folder, range(2), shape_yx=(64, 64), gsd_m=0.4)
    return folder


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
    assert f"{again}: 1 scenes as rle, read as coco: 2 images" in text
    assert again.read_text().startswith("ImageId,EncodedPixels\n")
    assert len(open_source(SourceConfig(path=str(again), order="column"))) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--to", "cocos", "-o", "out"], 2, "Did you mean 'coco'?"),
        (["--to", "images", "-o", "out"], 2, "cannot be written as images"),
        (["--to", "coco", "-o", "out"], 2, "does not end in .json"),
        (["--to", "folder", "-o", "out", "--order", "diagonal"], 2, "diagonal"),
        (["--to", "folder", "-o", "."], 2, "exists and is not empty"),
        (["--to", "folder"], 2, "Missing option"),
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
