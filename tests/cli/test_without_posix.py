"""rooftrace without what only POSIX has, and one module that knows of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from town import write_pairs

if TYPE_CHECKING:
    pass

FOLDER = Path(__file__).parents[1] / "without_posix"
SOURCES = Path(__file__).parents[2] / "src/rooftrace"
ONLY_HERE = "core/system.py"
POSIX = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop", "msvcrt")
NAMES = ("signal.SIGKILL", "signal.SIGHUP", "os.fork", "os.killpg", "os.setsid", "os.getuid",
         "os.geteuid", "os.uname", "mallopt", '"/proc/', '"/sys/')  # fmt: skip


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "rooftrace", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env=environment, **options)


def run(*arguments: object) -> dict[str, Any]:
    process = start(*arguments, stderr=subprocess.PIPE)
    out, said = process.communicate()
    assert process.returncode == 0, said
    return dict(json.loads(out))


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


@pytest.mark.campaign
def test_a_server_answers_and_runs_a_job(bundle: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "data", range(1), shape_yx=(200, 200), gsd_m=0.3)
    (image,) = (tmp_path / "data/images").iterdir()
    options = ["-m", bundle, "--jobs", tmp_path / "jobs", "--port", "0", "--json"]
    process = start("serve", *options)
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with httpx.Client(base_url=url, timeout=60) as client:
            files = {"file": (image.name, image.read_bytes())}
            mask = client.post("/v1/predict", files=files)
            assert mask.status_code == 200, mask.text
            job = client.post("/v1/jobs", files=files).json()
            until = time.monotonic() + 90
            while job["state"] in ("queued", "running"):
                assert time.monotonic() < until
                time.sleep(0.1)
                job = client.get(job["links"]["self"]).json()
            assert job["state"] == "done", job["error"]
    finally:
        process.terminate()
        process.communicate(timeout=30)
