"""rooftrace without what only POSIX has, and one module that knows of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from town import write_pairs

FOLDER = Path(__file__).parents[1] / "without_posix"
SOURCES = Path(__file__).parents[2] / "src/rooftrace"
ONLY_HERE = "core/system.py"
POSIX = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop", "msvcrt")
NAMES = ("signal.SIGKILL", "signal.SIGHUP", "os.fork", "os.killpg", "os.setsid", "os.getuid",
         "os.geteuid", "os.uname", "mallopt", '"/proc/', '"/sys/')  # fmt: skip


def run(*arguments: object) -> dict[str, Any]:
    path = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "rooftrace", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, text=True, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_one_module_knows_what_only_some_systems_have() -> None:
    words = (*(f"import {name}\n" for name in POSIX), *NAMES)
    for path in SOURCES.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found = [word for word in words if word in text]
        assert not found or path.relative_to(SOURCES).as_posix() == ONLY_HERE, (path, found)


@pytest.mark.campaign
def test_an_image_is_predicted(bundle: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "data", range(2), shape_yx=(300, 300), gsd_m=0.3)
    report = run(
        "predict", tmp_path / "data/images", "-m", bundle, "-o", tmp_path / "out", "--json"
    )
    assert len(report["outputs"]) == 2
    assert report["peak_rss_mb"] > 50
