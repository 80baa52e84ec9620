"""`rooftrace demo`, and the program that installs the core and runs it."""

from __future__ import annotations

import json
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from command_line import command

ROOT = Path(__file__).parents[2]


def test_the_demo_writes_what_a_prediction_writes(tmp_path: Path) -> None:
    code, out, said = command("demo", "-o", tmp_path / "out", "--json")
    assert code == 0, said
    (image,) = json.loads(out)["outputs"]
    assert image["buildings"] > 900
    assert Path(image["polygons"]).is_file()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["demo", "-o", "out"]),
        (["a.tif", "b.tif", "-o", "maps"], ["predict", "a.tif", "b.tif", "-o", "maps"]),
    ],
)
def test_the_environment_is_made_once_and_the_command_runs_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], expected: list[str]
) -> None:
    """`make demo` without its installation, which `test_wheel` does."""
    program = runpy.run_path(str(ROOT / "tools/demo.py"))
    calls: list[list[str]] = []

    def run(arguments: list[object], check: bool) -> SimpleNamespace:
        calls.append([str(one) for one in arguments])
        return SimpleNamespace(returncode=3)

    def create(folder: Path, clear: bool, with_pip: bool) -> None:
        folder.mkdir(exist_ok=True)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("venv.create", create)
    monkeypatch.setitem(program["installed"].__globals__, "ENVIRONMENT", tmp_path / "env")
    monkeypatch.setattr("sys.argv", ["demo.py", *given])
    for _ in range(2):
        with pytest.raises(SystemExit, match="3"):
            program["main"]()
    installations = [call for call in calls if "pip" in call]
    assert len(installations) == 1
    assert Path(calls[-1][0]).name == "rooftrace"
    assert calls[-1][1:] == expected
