"""`rooftrace runs` as it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import command
from rooftrace.cli.show import people


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    # Once it has been made, the console looks at no variable for its width.
    monkeypatch.setattr(people, "_width", 240)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, lr, iou in (("slow", 1e-4, 0.4), ("quick[red]", 1e-3, 0.6)):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        config = {"epochs": 2, "model": {}, "data": {}, "optimizer": {"lr": lr}}
        (run / "config.json").write_text(json.dumps(config))
        (run / "metrics.csv").write_text(f"epoch,val_iou,val_loss,seconds\n1,{iou},0.3,90\n")
    return tmp_path / "runs"


def test_for_people(folder: Path) -> None:
    code, out, output = command("runs", folder)
    assert (code, out) == (0, "")
    assert output.index("quick[red]") < output.index("slow")
    assert "0.6000 (1)" in output
    assert "unfinished: 1 of 2 epochs" in output
    line = next(line for line in output.splitlines() if "optimizer.lr" in line)
    assert "0.001" in line
    (folder / "slow" / "metrics.csv").write_text("epoch,val_iou\n1,0.5\n2,0.")
    assert "slow: metrics.csv is damaged: line 3 is left out." in command("runs", folder)[2]


def test_a_key_that_some_runs_do_not_have_takes_one_line(folder: Path) -> None:
    for name, momentum in (("quick[red]", 0.95), ("slow", None)):
        path = folder / name / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"optimizer": {"momentum": momentum}}))
    output = command("runs", folder)[2]
    lines = output[output.index("optimizer.momentum") :].splitlines()
    assert "0.95" in lines[0]
    assert "null" not in output
    assert "–" not in lines[1]


def test_for_programs_and_as_a_page(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "runs.html"
    code, out, output = command("runs", folder, "--sort", "name", "-o", page, "--json")
    assert (code, output) == (0, "")
    answer = json.loads(out)
    assert [run["name"] for run in answer["runs"]] == ["quick[red]", "slow"]
    assert answer["differing"] == ["optimizer.lr"]
    assert answer["runs"][1]["config"] == {"optimizer.lr": 1e-4}
    assert answer["report"] == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "page: " in command("runs", folder, "-o", page)[2]


def test_mistakes_are_reported(folder: Path, tmp_path: Path) -> None:
    code, out, _ = command("runs", folder, "--sort", "iou", "--json")
    assert code == 2
    assert "val_iou" in json.loads(out)["error"]["message"]
    assert command("runs", tmp_path / "absent")[0] == 3
    (tmp_path / "file").write_text("")
    code, _, output = command("runs", folder, "-o", tmp_path / "file" / "page.html")
    assert code == 5
    assert "could not be written" in output
    record = folder / "slow" / "config.json"
    before = record.read_bytes()
    for out, page in ((record, f"{record}.html"), (tmp_path, tmp_path / "runs.html")):
        code, _, output = command("runs", folder, "-o", out)
        assert (code, f"For example: -o {page}" in "".join(output.splitlines())) == (2, True)
    assert record.read_bytes() == before
