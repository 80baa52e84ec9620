"""When a run has learnt what it can."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import rooftrace.models._torch  # noqa: F401

# isort: split
import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from rooftrace.io.console import print_plain
from rooftrace.train.config import StopConfig
from rooftrace.train.monitor import sign_of

__all__ = ["Standing", "Stopping", "standing", "why_ended"]

Rows = Sequence[Mapping[str, float]]


class HasRows(Protocol):
    """What remembers the figures of each epoch so far: the run's recorder."""

    @property
    def rows(self) -> Rows: ...


@dataclass(frozen=True)
class Standing:
    """How a run stands by one figure.

    Args:
        epoch: the best so far, from 1; 0 where the figure was never a number.
        value: of that epoch.
        waited: epochs since.
        diverged: the figure is a loss, and no longer a finite number.
    """

    epoch: int
    value: float
    waited: int
    diverged: bool

    def is_over(self, patience: int) -> bool:
        return self.diverged or self.waited >= patience


def standing(rows: Rows, stop: StopConfig) -> Standing:
    """What the figures of all epochs say; an epoch is better by more than `stop.min_delta`."""
    sign = sign_of(stop.monitor, stop.mode)
    epoch, best = 0, math.nan
    for number, row in enumerate(rows, start=1):
        value = row[stop.monitor]
        if math.isfinite(value) and (epoch == 0 or sign * (value - best) > stop.min_delta):
            epoch, best = number, value
    diverged = bool(rows) and "loss" in stop.monitor and not math.isfinite(rows[-1][stop.monitor])
    return Standing(epoch, best, len(rows) - epoch, diverged)


def why_ended(rows: Rows, epochs: int, stop: StopConfig) -> str:
    """A clause for people."""
    if len(rows) >= epochs:
        return f"all {epochs} epochs done"
    if standing(rows, stop).diverged:
        return f"{stop.monitor} is no longer a finite number"
    return f"no better {stop.monitor} for {stop.patience} epochs"


class Stopping(Callback):
    """Ends a run after `patience` epochs without a better figure, and says how near that is.

    It looks at the rows of all epochs each time, so a resumed run stops where it would have, also
    by another figure than it began with.
    """

    def __init__(self, stop: StopConfig, recorder: HasRows, console: Console | None) -> None:
        self._stop, self._recorder, self._console = stop, recorder, console

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._decide(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        now = self._decide(trainer)
        if now.waited and not now.diverged:
            best = f"best {now.value:.4g} in epoch {now.epoch}" if now.epoch else "none so far"
            print_plain(
                self._console,
                f"no better {self._stop.monitor} for {now.waited} of {self._stop.patience} "
                f"epochs; {best}",
            )

    def _decide(self, trainer: L.Trainer) -> Standing:
        now = standing(self._recorder.rows, self._stop)
        trainer.should_stop = trainer.should_stop or now.is_over(self._stop.patience)
        return now
