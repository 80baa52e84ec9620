"""The benchmark of compare runs at a tiny size, and finds the changes that it made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.mark.campaign
def test_compare(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    command = [sys.executable, BENCH / "compare.py", "--work", tmp_path]
    command += ["--buildings", "2000", "--plain-buildings", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["rows"]
    assert rows["ours_1000"]["matched"] == rows["plain_1000"]["matched"]
    found = {name: row for name, row in rows["command_2000"]["statuses"].items() if any(row)}
    assert set(found) == {"same", "changed", "moved", "split", "new", "gone"}
    assert found["split"] == [200, 100]
    assert found["new"][0] == found["gone"][1] == 100
