"""`rooftrace runs` as it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rooftrace.cli import main
from rooftrace.cli.show import people


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    # Once it has been made, the console looks at no variable for its width.
    monkeypatch.setattr(people, "_width", 240)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["runs", *map(str, arguments)])
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, captured.out, captured.err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, lr, iou in (("slow", 1e-4, 0.4), ("quick[red]", 1e-3, 0.6)):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        config = {"epochs": 2, "model": {}, "data": {}, "optimizer": {"lr": lr}}
        (run / "config.json").write_text(json.dumps(config))
        (run / "metrics.csv").write_text(f"epoch,val_iou,val_loss,seconds\n1,{iou},0.3,90\n")
    return tmp_path / "runs"


def test_for_people(folder: Path, call: Any) -> None:
    code, out, told = call(folder)
    assert (code, out) == (0, "")
    assert told.index("quick[red]") < told.index("slow")
    assert "0.6000 (1)" in told
    assert "unfinished: 1 of 2 epochs" in told
    line = next(line for line in told.splitlines() if "optimizer.lr" in line)
    assert "0.001" in line
    (folder / "slow" / "metrics.csv").write_text("epoch,val_iou\n1,0.5\n2,0.")
    assert "slow: metrics.csv is damaged: line 3 is left out." in call(folder)[2]


def test_for_programs_and_as_a_page(folder: Path, tmp_path: Path, call: Any) -> None:
    page = tmp_path / "new" / "runs.html"
    code, out, told = call(folder, "--sort", "name", "-o", page, "--json")
    assert (code, told) == (0, "")
    answer = json.loads(out)
    assert [run["name"] for run in answer["runs"]] == ["quick[red]", "slow"]
    assert answer["differing"] == ["optimizer.lr"]
    assert answer["runs"][1]["config"] == {"optimizer.lr": 1e-4}
    assert answer["report"] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "page: " in call(folder, "-o", page)[2]


def test_mistakes_are_told(folder: Path, tmp_path: Path, call: Any) -> None:
    code, out, _ = call(folder, "--sort", "iou", "--json")
    assert code == 2
    assert "val_iou" in json.loads(out)["error"]["message"]
    assert call(tmp_path / "absent")[0] == 3
    (tmp_path / "file").write_text("")
    code, _, told = call(folder, "-o", tmp_path / "file" / "page.html")
    assert code == 5
    assert "could not be written" in told
