"""The benchmark of engines at a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import TinyRun

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

SCRIPT = Path(__file__).resolve().parents[3] / "bench" / "engines.py"


@pytest.mark.campaign
def test_rows_and_what_is_unavailable(tiny_run: TinyRun, tmp_path: Path) -> None:
    rows = ["torch_eager", "openvino_fp32"]
    gone = "onnxruntime_tensorrt_fp16"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--model", str(tiny_run.bundle), "--rows", *rows, gone,
         "--data", str(tiny_run.data), "--calibration", str(tiny_run.data),
         "--side", "64", "--seconds", "0.01", "--work", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["benchmark"] == "engines"
    found = dict(answer["rows"])
    for name in rows:
        row = found.pop(name)
        assert row["mpx_per_s"] > 0
        assert row["peak_rss_mb"] > 50
        assert row["file_mb"] > 0
        assert set(row["iou"]) == {"data"}
        assert abs(row["iou_change"]["data"]) < 0.3
    assert answer["rows"]["torch_eager"]["speed_to_eager"] == 1.0
    assert answer["rows"]["openvino_fp32"]["iou_change"] == {"data": 0.0}
    # Where there is a GPU it is a row as the others are.
    assert (gone in found) != (gone in answer["unavailable"])
