"""Training and fine-tuning keep their promises when a fault hits them; see docs/security.md."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from command_line import call
from rooftrace.train import callbacks
from tiny_training import write_tiny_training

pytestmark = pytest.mark.campaign

FAST = 'model={architecture="PlainUnet", options={filters=4, depth=2}}'


def train(folder: Path, run: Path, *sets: str, resume: bool = False) -> tuple[int, dict[str, Any]]:
    options = [text for one in (FAST, *sets) for text in ("--set", one)]
    return call("train", folder / "tiny.toml", "-o", run, *options, *["--resume"] * resume)


def incomplete(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if ".part" in path.name]


Disk = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mount a small disk with the given options, or change those of the mounted one."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        remount = "remount," if mounted else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", remount + options, "tmpfs", str(folder)],
            check=False, capture_output=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted: {done.stderr.decode()}")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_train_on_a_full_disk_and_with_more_space_it_resumes(tiny_folder: Path, disk: Disk) -> None:
    # Room for the first checkpoint of 125 kB, but not for a second beside it.
    run = disk("size=320k") / "run"
    code, answer = train(tiny_folder, run, "epochs=3")
    assert code == 5, answer
    assert answer["error"]["type"] == "ExportError"
    assert str(run) in answer["error"]["message"]
    assert "No space left" in answer["error"]["message"]
    assert not incomplete(run)
    assert (run / "checkpoints/last.ckpt").exists()
    disk("size=64m")
    code, answer = train(tiny_folder, run, "epochs=3", resume=True)
    assert code == 0, answer
    assert answer["epochs"] == 3


def test_an_image_that_vanishes_before_or_between_runs_is_named(tmp_path: Path) -> None:
    write_tiny_training(tmp_path)
    run = tmp_path / "run"
    code, answer = train(tmp_path, run, "epochs=1")
    assert code == 0, answer
    before = (run / "checkpoints/last.ckpt").read_bytes()
    (tmp_path / "data/images/synthetic_00002.tif").unlink()
    for resume, where in ((True, run), (False, tmp_path / "other")):
        code, answer = train(tmp_path, where, "epochs=2", resume=resume)
        assert code == 3, answer
        assert "synthetic_00002" in answer["error"]["message"]
    assert (run / "checkpoints/last.ckpt").read_bytes() == before


def test_images_that_vanish_while_it_trains_end_it_with_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_training(tmp_path)
    run, written = tmp_path / "run", callbacks.MetricsRecorder.on_train_epoch_end

    def vanish(self: Any, *arguments: Any) -> None:
        written(self, *arguments)
        for path in (tmp_path / "data/images").iterdir():
            path.unlink()

    monkeypatch.setattr(callbacks.MetricsRecorder, "on_train_epoch_end", vanish)
    code, answer = train(tmp_path, run, "epochs=3")
    assert code == 3, answer
    assert "synthetic_0000" in answer["error"]["message"]
    assert not incomplete(run)
