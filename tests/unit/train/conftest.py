"""Fixtures of the tests of training, and a small search with its studies."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from optuna.study import Study

    from rooftrace.train.tune_space import Tuning


@pytest.fixture
def clean_workers(monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Start method of processes that prepare samples, in place of a fork of this process.

    Earlier tests have left threads in this process, of servers and of Ray for example, and a fork
    can wait for ever for a lock that one of them held. The fork itself is tested by the tests that
    run `rooftrace train` as a process.
    """
    method = "forkserver" if sys.platform == "linux" else None
    if method is not None:
        # The server imports torch once, and not each worker for itself.
        multiprocessing.get_context(method).set_forkserver_preload(["rooftrace.train.datamodule"])
    monkeypatch.setattr("rooftrace.train.datamodule.loader_start_method", lambda: method)
    return method


SPACE = """
epochs = 4
loss = { choices = ["ce", "dice", "0.6*ce + 0.4*dice"] }
[optimizer]
lr = { low = 1e-4, high = 1e-1, log = true }
[data]
split = "split.json"
[[data.train]]
path = "data"
[tune]
startup_trials = 3
pruner_startup_trials = 2
warmup_epochs = 2
"""


@pytest.fixture
def tuning(tmp_path: Path) -> Tuning:
    from rooftrace.train.tune_space import read_tuning

    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")
    return read_tuning(tmp_path / "space.toml")


@pytest.fixture
def opened(tuning: Tuning, tmp_path: Path) -> Callable[..., AbstractContextManager[Study]]:
    """Opens the study `space`."""
    from rooftrace.train.tune import open_study

    def open_it(**changed: Any) -> Any:
        return open_study(changed.get("tuning", tuning), tmp_path)

    return open_it
