"""Early stopping: which figures a run monitors, which direction is better, and when it ends."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from rooftrace.core.config import Config

Rows = Sequence[Mapping[str, float]]
"""Figures of the epochs of a run, in order; each row has the number of its epoch, from 1."""

Mode = Literal["auto", "min", "max"]

_LOWER_IS_BETTER = ("loss", "seconds")
"""Words in the name of a figure whose lowest value is the best."""


def sign_of(monitor: str, mode: Mode = "auto") -> Literal[-1, 1]:
    """Return 1 if a higher value of a figure is better, -1 if a lower one is.

    Args:
        monitor: Name of the figure, such as `val_loss` or `val_iou/FOLDER`. The name of the folder
            does not count.
        mode: `min` or `max` states which is better; `auto` takes `min` for losses and for seconds.
    """
    if mode == "auto":
        name = monitor.partition("/")[0]
        return -1 if any(word in name for word in _LOWER_IS_BETTER) else 1
    return 1 if mode == "max" else -1


class StopConfig(Config):
    """Early stopping.

    Args:
        monitor: A figure of metrics.csv that measures how good an epoch was: `val_iou`, `val_loss`,
            `val_iou/FOLDER`, `train_loss`, …
        mode: Whether `min` or `max` is better; `auto` is `min` for a loss, else `max`.
        patience: Epochs without a better value of `monitor` after which the run stops; 0 never
            stops early.
        min_delta: Smallest improvement that counts as better.
        minutes: Minutes of training and validation after which the run stops, in the middle of an
            epoch if need be; of a resumed run, from then on. Default no limit.
    """

    monitor: str = "val_iou"
    mode: Mode = "auto"
    patience: Annotated[int, Field(ge=0)] = 10
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    minutes: Annotated[float, Field(gt=0)] | None = None

    @property
    def sign(self) -> Literal[-1, 1]:
        """1 if a higher value of `monitor` is better, -1 if a lower one is."""
        return sign_of(self.monitor, self.mode)


def epochs_waited(rows: Rows, stop: StopConfig) -> int:
    """Return the number of epochs since the best one; it is better by more than `stop.min_delta`.

    An epoch without the figure is as one whose figure is not a number.
    """
    epoch, best = 0, math.nan
    for row in rows:
        value = row.get(stop.monitor, math.nan)
        if math.isfinite(value) and (epoch == 0 or stop.sign * (value - best) > stop.min_delta):
            epoch, best = int(row["epoch"]), value
    return int(rows[-1]["epoch"]) - epoch if rows else 0


def has_diverged(rows: Rows, stop: StopConfig) -> bool:
    """Return whether the figure is a loss, and no longer a finite number."""
    is_loss = "loss" in stop.monitor.partition("/")[0]
    return is_loss and not math.isfinite(rows[-1].get(stop.monitor, math.nan))


def describe_end(rows: Rows, epochs: int, stop: StopConfig) -> str:
    """Return a clause that says why a run ended."""
    if len(rows) >= epochs:
        return "all epochs done"
    if has_diverged(rows, stop):
        return f"{stop.monitor} is no longer a finite number"
    if stop.patience and epochs_waited(rows, stop) >= stop.patience:
        return f"no better {stop.monitor} for {stop.patience} epochs"
    return "the time was over"
