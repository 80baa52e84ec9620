"""`rooftrace density` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rooftrace.cli import main


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    folder = tmp_path / "masks"
    folder.mkdir()
    for number, share in enumerate((5, 10, 40, 60)):
        mask = np.zeros((10, 10), np.uint8)
        mask.flat[:share] = 1
        Image.fromarray(mask).save(folder / f"{number}.png")
    (tmp_path / "labels.csv").write_text(
        "image,label\n0.png,sparse\n1.png,sparse\n2.png,dense\n3.png,dense\n"
    )
    return folder


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["density", *map(str, arguments)])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_cells(masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (masks / "3.png", "-o", tmp_path / "new" / "d", "--cell", 5, "--gsd", 1)
    assert call(*given) == 0
    assert "2 × 2 cells of 5 m" in capsys.readouterr().err
    assert call(*given, "--threshold", 0.7, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["total"]["built_up_share"] == 0.6
    assert answer["classes"] == {"dense": 2, "sparse": 2, "not observed": 0}
    assert all(Path(file).exists() for file in answer["files"])


def test_a_fit_and_its_use(masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(masks, "--fit", tmp_path / "labels.csv", "-o", tmp_path / "fit") == 0
    told = capsys.readouterr().err
    assert "dense from 0.2500 on" in told
    assert "fewer than 10" in told
    assert (
        call(masks, "--by-image", "--threshold", tmp_path / "fit.json", "-o", tmp_path / "t",
             "--json")
        == 0
    )  # fmt: skip
    answer = json.loads(capsys.readouterr().out)
    assert answer["threshold"]["threshold"] == 0.25
    assert answer["classes"] == {"dense": 2, "sparse": 2, "not observed": 0}


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--by-image", "--cell", "10"], 2, "--cell has no use with --by-image"),
        (["--by-image", "--threshold", "2"], 2, "--threshold"),
        (["--by-image", "--threshold", "no.json"], 2, "no.json cannot be read"),
        (["--fit", "labels.csv", "--threshold", "0.2"], 2, "--threshold has no use with --fit"),
        (["--zones", "z.gpkg", "--cell", "10"], 2, "--cell has no use with --zones"),
        (["--glob", "*.png"], 2, "--glob"),
        ([], 2, "is a folder"),
    ],
)
def test_what_does_not_go_together(
    options: list[str], code: int, told: str, masks: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert call(masks, "-o", tmp_path / "x", *options) == code
    assert told in capsys.readouterr().err
    assert call(masks, masks, "-o", tmp_path / "x", "--by-image") == 2
