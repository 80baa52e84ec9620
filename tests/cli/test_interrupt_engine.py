"""Ctrl-C ends a command whose network never returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foreign_models import endless_graph
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.models.bundle import GRAPH_NAME, write_bundle

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.campaign
def test_a_second_ctrl_c_ends_a_network_that_never_returns(tmp_path: Path) -> None:
    tiny = tiny_bundle()
    graph = endless_graph(tiny.parts[GRAPH_NAME])
    write_bundle(tmp_path / "endless.rooftrace", tiny.spec, {**tiny.parts, GRAPH_NAME: graph})
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    process = subprocess.Popen(
        [sys.executable, "-m", "rooftrace", "predict", str(tmp_path / "a.png"), "--gsd", "0.4",
         "-m", str(tmp_path / "endless.rooftrace"), "-o", str(tmp_path / "out"),
         "--engine", "onnxruntime"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        while process.poll() is None and not (tmp_path / "out").exists():
            time.sleep(0.05)
        time.sleep(3)
        for _ in range(2):
            assert process.poll() is None, process.communicate()[1]
            os.kill(process.pid, signal.SIGINT)
            time.sleep(1)
        _, output = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert output.endswith("stopped\n")
    assert "Traceback" not in output
    assert not [*(tmp_path / "out").glob("a_*")]
