"""Standard streams that the caller has closed, or that lead to a full disk."""

from __future__ import annotations

import json
import os
import shlex
import shutil
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


def run(folder: Path, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = shlex.join([sys.executable, "-m", "rooftrace"])
    return subprocess.run(
        ["sh", "-c", f"{program} {command}"],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


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


def test_a_terminal_without_columns_has_the_usual_width(mask: Path) -> None:
    done = run(mask.parent, "--help", COLUMNS="0")
    assert done.returncode == 0
    assert "predict" in done.stdout


def test_a_name_in_a_locale_without_its_letters_has_the_locale_as_remedy(mask: Path) -> None:
    mask.rename(mask.with_name("dächer.tif"))
    command = "vectorize dächer.tif -o a.geojson"
    done = run(mask.parent, command, PYTHONUTF8="0", LC_ALL="C", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2
    assert "Set a locale of UTF-8, such as LC_ALL=C.UTF-8, and unset PYTHONUTF8." in done.stderr
    assert run(mask.parent, command, LC_ALL="C.UTF-8").returncode == 0


def test_too_many_open_files_have_their_remedy(mask: Path) -> None:
    shutil.copy(mask, mask.with_name("other.tif"))
    # The first image has all modules loaded, which are files, too.
    script = """
import resource
from rooftrace.core.errors import DataError
from rooftrace.io.raster import open_raster
open_raster("m.tif").read()
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
try:
    open_raster("other.tif").read()
except DataError as error:
    print(error)
"""
    given = [sys.executable, "-c", script]
    done = subprocess.run(given, cwd=mask.parent, capture_output=True, text=True, check=False)
    assert "other.tif cannot be read as an image (header)" in done.stdout, done.stderr
    assert "Too many open files. Raise the limit of open files: ulimit -n 1024" in done.stdout
