"""Run pytest, then run each failed test once more, alone.

A test that fails beside others and passes alone is reported as unsteady, and the run counts as
passed. A test that is named twice is mended at its cause or becomes a campaign.

    python tools/run_tests.py -n 2 -m "not campaign"

All arguments are passed to pytest. The exit status is pytest's, or 0 if only unsteady tests failed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build/tests/pytest_cache"
"""Folder of pytest's cache for these runs; emptied first, so that it lists only their failures."""

TESTS_FAILED = 1
"""Exit status of pytest where tests failed and nothing else went wrong."""

MIN_ROOM_BYTES = 6 * 2**30
"""Minimum free memory with which temporary files of tests lie in it."""

MOST_RERUN = 10
"""Maximum number of failed tests that are run again; more of them are a defect, not chance."""


def pytest(*arguments: str) -> int:
    """Run pytest in the repository's root and return its exit status."""
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={CACHE}", *arguments]
    with tempfile.TemporaryDirectory(prefix="rooftrace.", dir=in_memory()) as folder:
        environment = os.environ | {"TMPDIR": folder}
        return subprocess.run(command, cwd=ROOT, check=False, env=environment).returncode


def in_memory() -> str | None:
    """Return a folder in memory, where small files are made and removed faster; None without room.

    The files of a run take about 2 GB.
    """
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return None
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(memory["MemAvailable"].split()[0]) * 1024
    room = min(available, shutil.disk_usage(shared).free)
    return str(shared) if room >= MIN_ROOM_BYTES else None


def main(arguments: list[str]) -> int:
    """Run the tests, and the failed ones again; return the exit status."""
    shutil.rmtree(CACHE, ignore_errors=True)
    status = pytest(*arguments)
    if status != TESTS_FAILED:
        return status
    record = CACHE / "v/cache/lastfailed"
    failed = sorted(json.loads(record.read_text(encoding="utf-8"))) if record.is_file() else []
    if not 0 < len(failed) <= MOST_RERUN:
        return status
    print(f"Running {len(failed)} failed tests again, alone ...", flush=True)
    again = pytest(*arguments, "-n", "0", "--last-failed", "--last-failed-no-failures", "none")
    if again:
        return again
    for name in failed:
        print(f"unsteady: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
