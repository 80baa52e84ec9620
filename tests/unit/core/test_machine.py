"""Memory of a process."""

import subprocess
import sys
from importlib import metadata

import pytest

from rooftrace.core.parallel import core_count
from rooftrace.core.system import installed_versions, version_of

FRAGMENTS = """
import sys
import numpy as np
from rooftrace.core.system import limit_kept_memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

limit_kept_memory()
del_first = np.ones(20_000_000, np.uint8)
del del_first
before = resident_mb()
buffers, kept = [], []
for _ in range(40):
    buffers.append(np.ones(4_000_000, np.uint8))
    kept.append(np.ones(30_000, np.uint8))
print(resident_mb() - before)
buffers.clear()
print(resident_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a function of glibc")
def test_freed_buffers_are_returned_to_the_system() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FRAGMENTS], capture_output=True, text=True, check=True
    )
    peak, left = map(float, done.stdout.split())
    assert peak > 150
    assert left < 20


ARENAS = """
import ctypes, subprocess, sys, threading
from rooftrace.core.system import limit_arenas

if sys.argv[1] != "usual":
    limit_arenas()
if sys.argv[1] == "started":
    sys.exit(subprocess.run([*sys.orig_argv[:-1], "usual"]).returncode)
barrier = threading.Barrier(24)
def work():
    kept = [bytearray(1000) for _ in range(100)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a function of glibc")
def test_there_is_an_arena_for_each_core() -> None:
    counts = {}
    for how in ("started", "usual"):
        done = subprocess.run(
            [sys.executable, "-c", ARENAS, how], capture_output=True, text=True, check=True
        )
        counts[how] = done.stderr.count("Arena ")
    assert counts["started"] <= core_count() < counts["usual"]


HIDDEN = """
import gc, sys
from rooftrace.core.system import importing

with importing(["json", "colorsys", "sys"]):
    assert not gc.isenabled()
    try:
        import colorsys
        print("found")
    except ImportError:
        print("hidden")
    import sys
import colorsys
print(gc.isenabled(), gc.get_freeze_count() > 0, "colorsys" in sys.modules)
"""


def test_packages_are_hidden_while_a_process_starts_and_no_longer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["hidden", "True", "True", "True"]


def test_another_distribution_of_a_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise metadata.PackageNotFoundError(name)
        return "1.31.1"

    monkeypatch.setattr(metadata, "version", version)
    version_of.cache_clear()
    assert installed_versions(["onnxruntime", "openvino"]) == {"onnxruntime": "1.31.1"}
    version_of.cache_clear()
