"""Test calls in processes of this machine."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rooftrace.core.errors import PredictError
from rooftrace.core.parallel import in_order
from rooftrace.core.processes import Processes
from rooftrace.labels import source

pytestmark = pytest.mark.campaign

_CALLS = """
    import os, time
    from rooftrace.core.processes import Processes
    if __name__ == "__main__":
        with Processes(2) as processes:
            print(processes.submit(os.getpid).result(), flush=True)
            time.sleep(60)
    """

_SCENES = """
    import multiprocessing, os, time
    from rooftrace.labels.source import SceneEntry, SceneSet, map_entries
    def work(source, entry):
        if multiprocessing.parent_process() is None:
            time.sleep(0.2)
            return
        os.write(1, b"%d\\n" % os.getpid())  # at once: two processes write
        time.sleep(60)
    if __name__ == "__main__":
        entries = [SceneEntry(str(number), None) for number in range(60)]
        map_entries(SceneSet("name", "kind", ("a", "b"), 1, tuple(entries), print), work)
    """


def test_results_come_in_order_and_errors_are_raised() -> None:
    with Processes(2) as processes:
        processes.start()
        assert list(in_order(divmod, [(9, 2), (8, 3)], processes)) == [(4, 1), (2, 2)]
        pids = {processes.submit(os.getpid).result() for _ in range(4)}
        assert os.getpid() not in pids
        with pytest.raises(ZeroDivisionError):
            processes.submit(divmod, 1, 0).result()


def test_a_process_that_was_killed_is_an_error_with_a_remedy() -> None:
    with Processes(2) as processes:
        assert processes.submit(abs, -1).result() == 1
        assert not processes.has_lost
        killed = processes.submit(signal.raise_signal, signal.SIGKILL)
        with pytest.raises(PredictError, match="ended unexpectedly") as caught:
            killed.result()
        assert "memory" in caught.value.remedy
        with pytest.raises(PredictError, match="ended unexpectedly"):
            processes.submit(abs, 1).result()
        assert processes.has_lost


def scenes(monkeypatch: pytest.MonkeyPatch) -> source.SceneSet:
    """Return scenes that are given to other processes at once."""
    monkeypatch.setattr(source, "_TRIAL_S", -1)
    monkeypatch.setattr(source, "_WORTH_S", -1)
    entries = tuple(source.SceneEntry(str(number), None) for number in range(100))
    return source.SceneSet("name", "kind", ("a", "b"), 1, entries, print)


def name_and_process(_: source.SceneSet, entry: source.SceneEntry) -> tuple[str, int]:
    return entry.id, os.getpid()


def end_the_process(_: source.SceneSet, entry: source.SceneEntry) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_scenes_keep_their_order_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = source.map_entries(scenes(monkeypatch), name_and_process, workers=2)
    assert [name for name, _ in found] == [str(number) for number in range(100)]
    assert os.getpid() not in {process for _, process in found}
    assert not source._JOBS


def test_a_killed_process_that_read_scenes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PredictError, match="shared the work ended unexpectedly") as caught:
        source.map_entries(scenes(monkeypatch), end_the_process, workers=2)
    assert "memory" in caught.value.remedy


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
@pytest.mark.parametrize("script", [_CALLS, _SCENES])
def test_they_end_with_their_parent(script: str, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc", parent.stdout.readline().strip())
        assert worker.exists()
        parent.kill()
    for _ in range(600):
        if not worker.exists() or "Z (zombie)" in (worker / "status").read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the process lives on")
