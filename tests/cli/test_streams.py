"""Standard streams that the caller has closed, or that lead to a full disk."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from raster_files import write_geotiff

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="redirects as on Linux")


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    data = np.zeros((1, 64, 64), dtype=np.uint8)
    data[:, 20:40, 20:40] = 1
    return write_geotiff(tmp_path / "m.tif", data)


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    program = shlex.join([sys.executable, "-m", "rooftrace"])
    shell = ["sh", "-c", f"{program} {command}"]
    return subprocess.run(shell, cwd=folder, capture_output=True, text=True, check=False)


def test_closed_streams_change_nothing_but_the_words(mask: Path) -> None:
    done = run(mask.parent, "vectorize m.tif -o a.geojson")
    assert done.returncode == 0
    closed = run(mask.parent, "vectorize m.tif -o b.geojson --json <&- >&- 2>&-")
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")
    one, other = (json.loads((mask.parent / f"{name}.geojson").read_text()) for name in "ab")
    assert one["features"] == other["features"]
    assert run(mask.parent, "vectorize none.tif -o c.geojson --json >&-").returncode == 3


def test_a_full_disk_takes_the_words_and_not_the_work(mask: Path) -> None:
    full = run(mask.parent, "vectorize m.tif -o a.gpkg --json >/dev/full")
    assert full.returncode == 5
    assert "cannot be written to stdout: No space left on device" in full.stderr
    assert (mask.parent / "a.gpkg").is_file()
    assert run(mask.parent, "vectorize m.tif -o b.gpkg 2>/dev/full").returncode == 0
    failed = run(mask.parent, "vectorize none.tif -o c.gpkg --json >/dev/full")
    assert failed.returncode == 3
    assert "none.tif" in failed.stderr
    assert run(mask.parent, "vectorize none.tif -o c.gpkg 2>/dev/full").returncode == 3
