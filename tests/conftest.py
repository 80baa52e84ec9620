"""Fixtures of all tests: real imagery where it is given, and one tiny model trained once."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import pickle
import re
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from rooftrace.core.system import take_lock
from rooftrace.engines import openvino as openvino_module
from rooftrace.engines import select as first_use_module
from tiny_training import TINY, write_tiny_training

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rooftrace.flows.train import TrainReport
    from rooftrace.service.job_store import JobStore

# Arithmetic is pinned for the whole run, before anything imports torch, and the commands that tests
# start inherit it. MKL picks its kernels by the processor and by the size of a batch, so that two
# processes that train as one would differ from one by more than rounding. Two threads that wait for
# one another at every step of a tiny network take twenty times as long on a busy machine.
os.environ["MKL_CBWR"] = "COMPATIBLE"
os.environ["OMP_NUM_THREADS"] = "1"

# A defect shows its traceback here, in place of the sentence that a person gets.
os.environ["ROOFTRACE_DEBUG"] = "1"

# A shell lets the jobs that it starts in the background ignore Ctrl-C, and so would all commands
# that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine must not fail a test that is right, so no example has a deadline. CI repeats the
# same examples, and more of them: a failure there can be repeated here.
settings.register_profile(
    "rooftrace",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=60 if os.environ.get("CI") else 20,
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("rooftrace")

# Torch sends traces of its exports to every log handler, and pytest installs one.
logging.getLogger("torch.__trace").addFilter(lambda record: False)

ROOT = Path(__file__).parents[1]
_CHECKED_BY = first_use_module._CHECKED_BY

_CAMPAIGN_FILE = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.campaign\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip files that hold campaigns only: importing them takes seconds, and none of it runs."""
    if config.getoption("-m") != "not campaign" or collection_path.suffix != ".py":
        return None
    return _CAMPAIGN_FILE.search(collection_path.read_text(encoding="utf-8")) is not None or None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Pause the garbage collector during the imports and keep it away from what they made.

    Imported modules live as long as the process, but each pass would visit all of them again.
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


@dataclass(frozen=True)
class TinyRun:
    """A run of the tiny configuration.

    Args:
        folder: `tiny.toml` with `data/` (6 pairs of 128 px at 0.3 m) and `split.json` (4, 1, 1).
        run: Folder that the training wrote.
        report: Report of the training.
    """

    folder: Path
    run: Path
    report: TrainReport

    @property
    def config(self) -> Path:
        return self.folder / "tiny.toml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def bundle(self) -> Path:
        return self.run / "best_iou.rooftrace"


@pytest.fixture(scope="session", autouse=True)
def _no_first_use() -> Iterator[None]:
    """Load graphs of tests without the child process, which takes a second for each of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first_use_module, "_CHECKED_BY", {})
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep compiled networks in a folder of the tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_module, "user_folder", lambda kind: folder / kind)
        yield


@pytest.fixture
def first_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Check graphs at their first use, with a record that ends with the test."""
    monkeypatch.setattr(first_use_module, "_CHECKED_BY", _CHECKED_BY)
    monkeypatch.setattr(first_use_module, "user_folder", lambda kind: tmp_path / kind)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real imagery; its README says what lies in it."""
    folder = os.environ.get("ROOFTRACE_DATA")
    if not folder:
        pytest.skip("ROOFTRACE_DATA is not set: no real imagery to read")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"ROOFTRACE_DATA = {folder!r} is not a folder")
    return path


@pytest.fixture(scope="session")
def tiny_run() -> TinyRun:
    """Return the tiny configuration's run, trained once for all tests that need a bundle.

    The run is kept in `build/tests`, named by the hash of what it is made from: the configuration,
    the package's source, the versions of the frameworks and the folder of the checkout, since a run
    records its paths. Processes that test side by side wait for the one that trains.
    """
    torch = pytest.importorskip("torch")
    from rooftrace.flows.train import run_train

    made_from = hashlib.sha256(f"{ROOT} {TINY} {sys.version} {torch.__version__}".encode())
    for source in sorted((ROOT / "src/rooftrace").rglob("*.py")):
        made_from.update(source.read_bytes())
    folder = ROOT / "build/tests" / made_from.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        while True:
            with suppress(OSError):
                take_lock(lock)
                break
            time.sleep(0.2)
        pickled = folder / "report.pickle"
        if not pickled.exists():
            shutil.rmtree(folder / "tiny", ignore_errors=True)
            write_tiny_training(folder / "tiny")
            report = run_train(folder / "tiny/tiny.toml", folder / "tiny/run")
            pickled.write_bytes(pickle.dumps(report))
        report = pickle.loads(pickled.read_bytes())
    return TinyRun(folder / "tiny", folder / "tiny/run", report)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `tiny.toml` and the data that it names, free to be written to."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_training(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that calls bright pixels buildings; tests only read it."""
    from tiny_models import write_tiny_bundle

    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.rooftrace")


@pytest.fixture(scope="session")
def wide_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same bundle with a context of 8 px, so that tiles and blocks overlap."""
    from tiny_models import write_tiny_bundle

    path = tmp_path_factory.mktemp("model") / "tiny.rooftrace"
    return write_tiny_bundle(path, input_multiple_px=32, context_px=8)


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    """Predict in tiles of 256 px and blocks of 300 px, so that a small image has several."""
    from rooftrace.predict import plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TILE_PX", 256)
        patch.setattr(plan, "BLOCK_PX", 300)
        yield


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    """Return an empty store of jobs."""
    from rooftrace.service.job_store import JobStore

    return JobStore(tmp_path / "jobs")
