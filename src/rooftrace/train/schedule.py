"""The learning rate as a factor of its base value.

Kept apart from the optimiser so that its whole state is three numbers in the checkpoint, and a
resumed run goes on at exactly the rate it would have had.
"""

from __future__ import annotations

import math
from typing import Any

from rooftrace.train.config import ScheduleConfig

__all__ = ["Schedule"]


class Schedule:
    """The factor of each step.

    Args:
        config: which schedule.
        base_lr: what the factor is of; `min_lr` is a rate, not a factor.
        total_steps: of the whole run, for `cosine`.
    """

    def __init__(self, config: ScheduleConfig, *, base_lr: float, total_steps: int) -> None:
        self._config = config
        self._lowest = min(1.0, config.min_lr / base_lr)
        self._total = max(1, total_steps)
        self._plateau = 1.0
        self._best = math.inf
        self._waited = 0

    def factor(self, step: int) -> float:
        """For the step with this number, counted from 0."""
        warmup = self._config.warmup_steps
        rise = min(1.0, (step + 1) / (warmup + 1))
        if self._config.kind == "cosine":
            share = min(1.0, max(0.0, (step - warmup) / max(1, self._total - warmup)))
            fall = self._lowest + (1 - self._lowest) * (1 + math.cos(math.pi * share)) / 2
            return rise * fall
        return rise * self._plateau

    def observe(self, val_loss: float) -> None:
        """Take note of an epoch's validation loss; `plateau` may lower the rate."""
        if val_loss < self._best:
            self._best, self._waited = val_loss, 0
            return
        self._waited += 1
        if self._config.kind == "plateau" and self._waited > self._config.patience:
            self._plateau = max(self._lowest, self._plateau * self._config.factor)
            self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        return {"plateau": self._plateau, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._plateau = state["plateau"]
        self._best = state["best"]
        self._waited = state["waited"]
