"""Experiment trackers beside a run that is resumed; one of them fails and catches up."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from rooftrace.train import tracking
from rooftrace.train.config import TrainConfig

ROWS = [{"epoch": float(n), "val_iou": n / 10} for n in range(1, 5)]


class Memory(tracking.Logger):
    name, version, fails_at = "memory", "7", 9

    def __init__(self, run: Path, store: Path, key: str | None, name: str) -> None:
        self.got = GOT.setdefault(name, [])

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if step >= self.fails_at and self.got is GOT["mlflow"]:
            raise ConnectionError("server away")
        self.got.append((step, *metrics))

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.got.append(params["data.train.0.path"])


GOT: dict[str, list[Any]] = {}


def test_a_resumed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, warnings = ("tensorboard", "mlflow"), list[str]()
    config = TrainConfig.model_validate({"data": {"train": [{"path": "data"}]}, "track": names})
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    for name in names:
        monkeypatch.setitem(tracking.TRACKERS, name, partial(Memory, name=name))
    for fails_at, last in ((2, 2), (9, 4)):
        monkeypatch.setattr(Memory, "fails_at", fails_at)
        with tracking.Tracking(config, tmp_path, warnings.append) as tracked:
            tracked.begin()
            tracked.add(ROWS[: last - 1], "fold1/")
            tracked.add(ROWS[:last], "fold1/")
            tracked.finish({"best": 0.5}, last)
    ends = [(3, row := "fold1/val_iou"), (4, row), (4, "best")]
    assert GOT["tensorboard"] == ["data", (1, row), (2, row), (2, "best"), *ends]
    assert GOT["mlflow"] == ["data", (1, row), (2, row), *ends]
    assert ["mlflow failed" in one for one in warnings] == [True]
