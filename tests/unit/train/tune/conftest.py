"""A small search, and studies of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

if TYPE_CHECKING:
    from optuna.study import Study

    from rooftrace.train.tune_space import Tuning

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
