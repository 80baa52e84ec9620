"""Commands under a limit of address space, and the last net under every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Finished, command
from rooftrace import cli
from rooftrace.core.failures import DEBUG
from rooftrace.testing import demo_scene_path

resource = pytest.importorskip("resource")

ENOUGH_KB = 2_500_000
"""A limit under which the bundled scene is predicted, on a machine with two processors."""


def limited(kilobytes: int, *arguments: object) -> Finished:
    """Run a command in a process whose address space is limited, as by `ulimit -v`."""
    size = kilobytes * 1024
    done = subprocess.run(
        [sys.executable, "-m", "rooftrace", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=600,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
    )  # fmt: skip
    return Finished(done.returncode, done.stdout, done.stderr)


def test_too_little_for_the_libraries_is_said_before_they_are_loaded() -> None:
    done = limited(300_000, "predict", demo_scene_path(), "--json")
    assert done.code == 5, done.err
    assert done.err == ""
    error = done.json["error"]
    assert error["type"] == "OutOfMemoryError"
    assert "ulimit -v 300000" in error["remedy"]


@pytest.mark.campaign
@pytest.mark.parametrize(
    "kilobytes",
    [150_000, 300_000, 600_000, 900_000, 1_000_000, 1_100_000, 1_300_000, 1_500_000, 1_700_000],
)
def test_too_little_memory_is_one_sentence_with_its_remedy(kilobytes: int, tmp_path: Path) -> None:
    done = limited(kilobytes, "predict", demo_scene_path(), "-o", tmp_path / "out")
    assert done.code == 5, done.err
    assert "There is not enough memory" in done.err
    assert f"ulimit -v {kilobytes}" in done.err
    assert "Traceback" not in done.err
    assert "input_px" not in done.err
    assert not list(tmp_path.glob("out/*.*"))


@pytest.mark.campaign
def test_enough_memory_is_enough(tmp_path: Path) -> None:
    if (os.cpu_count() or 1) > 4:
        pytest.skip("each thread needs address space of its own")
    done = limited(ENOUGH_KB, "predict", demo_scene_path(), "-o", tmp_path, "--json")
    assert done.code == 0, done.err
    assert done.json["outputs"][0]["buildings"] > 100


# The last net.


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (RuntimeError("the plugin broke"), 1, "This is a defect: rooftrace density failed"),
        (KeyError("a"), 1, "KeyError: 'a'"),
        (OSError("libx.so: wrong ELF class"), 1, "wrong ELF class"),
        (ImportError("libx.so: not found", name="cv2"), 6, "libx.so: not found"),
        (MemoryError(), 5, "There is not enough memory for rooftrace density."),
    ],
)
def test_what_nothing_has_translated_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, code: int, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.delenv(DEBUG)
    monkeypatch.setattr(cli, "app", fail)
    done = command("density", "--json")
    assert (done.code, done.err) == (code, "")
    assert words in done.json["error"]["message"]
    plain = command("density")
    assert plain.code == code
    assert plain.out == ""
    assert words.split(":")[0] in " ".join(plain.err.split())


def test_a_defect_is_raised_where_the_environment_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a")

    monkeypatch.setattr(cli, "app", fail)
    # conftest.py sets the variable, so that no test takes a defect for a refusal.
    with pytest.raises(KeyError):
        command("density", "--json")


@pytest.mark.campaign
@pytest.mark.parametrize("debug", ["", "1"])
def test_a_library_that_cannot_be_loaded(tmp_path: Path, debug: str) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open', name='cv2')\n")
    (tmp_path / "rich.py").write_text("1 / 0\n")
    found = []
    for module in ("cv2", "rich"):
        folder = tmp_path / f"only_{module}"
        folder.mkdir()
        (tmp_path / f"{module}.py").rename(folder / f"{module}.py")
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-m", "rooftrace", "predict", demo_scene_path(), "--json"],
            capture_output=True, text=True, check=False, timeout=600,
            env=os.environ | {"PYTHONPATH": path, DEBUG: debug},
        )  # fmt: skip
        found.append(done)
    library, defect = found
    assert library.returncode == 6, library.stderr
    assert "libGL.so.1" in json.loads(library.stdout)["error"]["message"]
    assert defect.returncode == 1
    assert ("Traceback" in defect.stderr) == bool(debug)
    if not debug:
        assert "ZeroDivisionError" in json.loads(defect.stdout)["error"]["message"]
