"""Ctrl-C ends a training at any moment, and the run can be resumed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.campaign

NET = 'model={architecture="PlainUnet", options={filters=4, depth=2}}'


def start(folder: Path, run: Path, *options: str) -> subprocess.Popen:
    sets = [part for one in (NET, "stop.patience=0") for part in ("--set", one)]
    command = [sys.executable, "-m", "rooftrace", "train", str(folder / "tiny.toml")]
    return subprocess.Popen(
        [*command, "-o", str(run), *sets, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that run in the background ignore it, and so would all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def interrupt(process: subprocess.Popen) -> tuple[int, str]:
    """Send the signal to all processes, as a terminal does; return exit code and output."""
    os.killpg(process.pid, signal.SIGINT)
    _, output = process.communicate(timeout=120)
    return process.returncode, output


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_at_any_moment(tiny_folder: Path, tmp_path: Path, workers: int) -> None:
    rng = random.Random(workers)
    resumed = 0
    for number in range(6 if workers else 3):
        run = tmp_path / str(number)
        process = start(tiny_folder, run, "--set", "epochs=400", "--set", f"workers={workers}")
        if number % 3:
            # Before, Python itself is starting, and has not begun with our code.
            time.sleep(rng.uniform(0.5, 8.0))
        else:  # on a busy machine, the imports alone may take longer
            while process.poll() is None and not (run / "checkpoints/last.ckpt").exists():
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, 1.0))
        code, output = interrupt(process)
        assert code == 130, output
        assert "Traceback" not in output
        assert output.splitlines()[-1].startswith("stopped")
        assert not list(run.rglob(".*"))
        if (run / "checkpoints/last.ckpt").exists() and resumed < 3:
            resumed += 1
            done = len((run / "metrics.csv").read_text().splitlines())
            again = start(tiny_folder, run, "--resume", "--set", f"epochs={done}")
            _, output = again.communicate(timeout=300)
            assert again.returncode == 0, output
    assert resumed
