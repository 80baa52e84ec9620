"""Training over two nodes, which here are two torchrun agents on one machine."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")

from rooftrace.models.bundle import read_bundle

pytestmark = pytest.mark.campaign

_WITHIN_S = 300


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(config: Path, run: Path, *options: str, nodes: int = 2) -> list[subprocess.Popen[str]]:
    """Run one command on each node."""
    port = free_port()
    command = [
        sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", "--nproc-per-node=1",
        "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test",
        "--max-restarts=0", "-m", "rooftrace", "train", str(config), "-o", str(run), *options,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(nodes)
    ]


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    found = []
    try:
        for process in processes:
            output, _ = process.communicate(timeout=_WITHIN_S)
            found.append((process.returncode, output))
    finally:
        for process in processes:
            process.kill()
    return found


def epochs(run: Path) -> list[str]:
    with (run / "metrics.csv").open() as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def test_two_nodes_train_one_model(tiny_folder: Path, tmp_path: Path) -> None:
    config = tiny_folder / "tiny.toml"
    output = ended(start(config, tmp_path / "run", "--json"))
    assert [code for code, _ in output] == [0, 0], output
    # One of them speaks, and writes.
    answers = [line for _, text in output for line in text.splitlines() if line.startswith("{")]
    assert sum('"best_iou"' in text for _, text in output) == 1, answers
    assert epochs(tmp_path / "run") == ["1", "2"]
    bundle = read_bundle(tmp_path / "run" / "best_iou.rooftrace")
    assert bundle.spec.name == "tiny"
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (settings["devices"], settings["nodes"]) == (1, 2)
    # The same steps as one process takes: 8 samples in batches of 4.
    going_on = ended(start(config, tmp_path / "run", "--resume", "--set", "epochs=3"))
    assert [code for code, _ in going_on] == [0, 0], going_on
    assert epochs(tmp_path / "run") == ["1", "2", "3"]


def test_a_number_of_devices_that_is_another_is_an_error(tiny_folder: Path, tmp_path: Path) -> None:
    output = ended(start(tiny_folder / "tiny.toml", tmp_path / "run", "--set", "devices=4"))
    assert all(code != 0 for code, _ in output)
    assert any(
        "torchrun started 2 processes, 1 on this machine" in " ".join(text.split())
        for _, text in output
    ), output


def test_a_node_that_fails_leaves_no_other_waiting(tiny_folder: Path, tmp_path: Path) -> None:
    """One of two is killed in mid-run: the other ends, too."""
    processes = start(
        tiny_folder / "tiny.toml", tmp_path / "run", "--set", "epochs=500",
        "--set", "stop.patience=0",
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.csv"
    while not metrics.exists():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    for child in _children(processes[1].pid):
        os.kill(child, 9)
    output = ended(processes)
    assert all(code != 0 for code, _ in output)
    assert epochs(tmp_path / "run")


def _children(pid: int) -> list[int]:
    psutil = pytest.importorskip("psutil")
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
