"""The checks before a commit: readable, all here, and each can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("pre_commit")

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / ".pre-commit-config.yaml"


def pre_commit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pre_commit", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_configuration_is_valid_and_fetches_nothing() -> None:
    done = pre_commit(ROOT, "validate-config", str(CONFIG))
    assert done.returncode == 0, done.stdout
    read = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert {repo["repo"] for repo in read["repos"]} == {"local"}
    hooks = [hook for repo in read["repos"] for hook in repo["hooks"]]
    assert {hook["language"] for hook in hooks} <= {"system", "pygrep"}


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("hook", "name", "bad"),
    [
        ("ruff-check", "bad.py", "import os\n"),
        ("ruff-format", "bad.py", "x = {  'a':1 }\n"),
        ("trailing-blanks", "bad.md", "a line \n"),
        ("conflict-marks", "bad.txt", "<<<<<<< ours\n"),
        ("breakpoints", "bad.py", "breakpoint()\n"),
        ("large-files", "bad.bin", "0" * (12 * 2**20 + 1)),
    ],
)
def test_a_hook_stops_what_it_is_for(tmp_path: Path, hook: str, name: str, bad: str) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    text = CONFIG.read_text(encoding="utf-8")
    (tmp_path / CONFIG.name).write_text(text, encoding="utf-8")
    (tmp_path / "good.md").write_text("a line\n", encoding="utf-8")
    (tmp_path / name).write_text(bad, encoding="utf-8")
    subprocess.run(["git", "add", name, "good.md", CONFIG.name], cwd=tmp_path, check=True)
    assert pre_commit(tmp_path, "run", hook, "--files", "good.md").returncode == 0
    stopped = pre_commit(tmp_path, "run", hook, "--files", name)
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert "Failed" in stopped.stdout
