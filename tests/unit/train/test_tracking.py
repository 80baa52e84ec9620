"""Experiment trackers beside a run: one that is resumed, one that fails, one that is missing."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from rooftrace.core.errors import MissingExtraError
from rooftrace.train import tracking
from rooftrace.train.config import TrainConfig

ROWS = [{"epoch": float(n), "val_iou": n / 10, "lr": 1e-3} for n in range(1, 5)]


class Memory(tracking.Logger):
    """Keeps what it receives; fails from a step on."""

    name, version = "memory", ""

    def __init__(self, key: str | None, fails_at: float = 9) -> None:
        self.version, self.fails_at = key or "id 1", fails_at
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.params: list[dict[str, Any]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if step >= self.fails_at:
            raise ConnectionError("server away")
        self.steps.append((step, metrics))

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.params.append(params)


def test_a_resumed_run_goes_on_and_a_failed_tracker_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("tensorboard", "mlflow")
    config = TrainConfig.model_validate({"data": {"train": [{"path": "data"}]}, "track": names})
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    warnings: list[str] = []

    def run(count: int, fails_at: float) -> list[Memory]:
        made = {"tensorboard": 9.0, "mlflow": fails_at}
        loggers: list[Memory] = []
        for name, at in made.items():

            def make(run: Path, store: Path, key: str | None, at: float = at) -> Memory:
                loggers.append(Memory(key, at))
                return loggers[-1]

            monkeypatch.setitem(tracking.TRACKERS, name, make)
        with tracking.Tracking(config, tmp_path, warnings.append) as tracked:
            tracked.begin()
            for end in range(1, count + 1):
                tracked.add(ROWS[:end], "fold1/")
            tracked.finish({"best_iou/iou": 0.5}, count)
        return loggers

    first, failing = run(2, fails_at=2)
    assert [step for step, _ in first.steps] == [1, 2, 2]
    assert first.steps[0][1] == {"fold1/val_iou": 0.1, "fold1/lr": 1e-3}
    assert first.params[0]["data.train.0.path"] == "data"
    assert [step for step, _ in failing.steps] == [1]
    assert len(warnings) == 1
    assert "mlflow failed" in warnings[0]
    again, caught_up = run(4, fails_at=9)
    assert [step for step, _ in again.steps] == [3, 4, 4]
    assert [step for step, _ in caught_up.steps] == [2, 3, 4, 4]
    assert again.version == "id 1"
    assert not again.params
    monkeypatch.undo()
    if tracking.find_spec("mlflow") is None:
        with pytest.raises(MissingExtraError, match="pip install mlflow"):
            tracking.check_trackers(config.model_copy(update={"track": ("mlflow",)}))
